//! The archive format the kernel unpacks as its initramfs: cpio "newc"
//! (Documentation/driver-api/early-userspace/buffer-format.rst).

use crate::Error;

const DIRECTORY: u32 = 0o040000;
const REGULAR: u32 = 0o100000;
const CHARACTER_DEVICE: u32 = 0o020000;

/// Writes entries one after the other. The same entries give the same bytes: owners and times are zero and
/// inode numbers count up.
#[derive(Debug, Default)]
pub(crate) struct Writer {
    out: Vec<u8>,
    inode: u32,
}

impl Writer {
    /// A directory with mode 0755.
    pub(crate) fn directory(&mut self, name: &str) -> Result<(), Error> {
        self.entry(name, DIRECTORY | 0o755, (0, 0), &[])
    }

    /// A regular file with the given permission bits.
    pub(crate) fn file(&mut self, name: &str, permissions: u32, data: &[u8]) -> Result<(), Error> {
        self.entry(name, REGULAR | permissions, (0, 0), data)
    }

    /// A character device with mode 0600.
    pub(crate) fn character_device(&mut self, name: &str, major: u32, minor: u32) -> Result<(), Error> {
        self.entry(name, CHARACTER_DEVICE | 0o600, (major, minor), &[])
    }

    /// The whole archive.
    pub(crate) fn finish(mut self) -> Result<Vec<u8>, Error> {
        self.inode = 0;
        self.entry("TRAILER!!!", 0, (0, 0), &[])?;
        Ok(self.out)
    }

    fn entry(&mut self, name: &str, mode: u32, device: (u32, u32), data: &[u8]) -> Result<(), Error> {
        let too_long = || Error::FileTooLong {
            name: name.to_owned(),
            len: data.len(),
        };
        let size = u32::try_from(data.len()).map_err(|_| too_long())?;
        let name_size = u32::try_from(name.len() + 1).map_err(|_| too_long())?;
        let links = if mode & 0o170000 == DIRECTORY { 2 } else { 1 };
        let (major, minor) = device;
        // inode, mode, uid, gid, links, mtime, size, device, device of the node, name length, checksum.
        let fields = [
            self.inode, mode, 0, 0, links, 0, size, 0, 0, major, minor, name_size, 0,
        ];
        self.inode += 1;
        self.out.extend_from_slice(b"070701");
        for field in fields {
            self.out.extend_from_slice(format!("{field:08x}").as_bytes());
        }
        self.out.extend_from_slice(name.as_bytes());
        self.out.push(0);
        self.pad();
        self.out.extend_from_slice(data);
        self.pad();
        Ok(())
    }

    fn pad(&mut self) {
        self.out.resize(self.out.len().next_multiple_of(4), 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entry_of_odd_sizes_is_padded_to_four_bytes() {
        let mut writer = Writer::default();

        writer.file("ab", 0o644, b"12345").unwrap();

        let header = concat!(
            "070701", "00000000", "000081a4", "00000000", "00000000", "00000001", "00000000", "00000005",
            "00000000", "00000000", "00000000", "00000000", "00000003", "00000000",
        );
        // 110 bytes of header and 3 of name make 113, so the data starts at 116 and ends at 121.
        assert_eq!(
            writer.out,
            [header.as_bytes(), b"ab\0\0\0\0", b"12345\0\0\0"].concat()
        );
    }

    #[test]
    fn finish_ends_with_trailer() {
        let archive = Writer::default().finish().unwrap();

        assert_eq!(&archive[110..120], b"TRAILER!!!");
        assert_eq!(archive.len() % 4, 0);
    }
}
