//! Binary package files (deb(5)): an `ar` archive of `debian-binary`, `control.tar` and `data.tar`.

use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom};
use std::path::Path;

use super::error::{Error, Result};

const AR_MAGIC: &[u8; 8] = b"!<arch>\n";
/// `ar` member header: name 16, date 12, user 6, group 6, mode 8, size 10, magic 2.
const AR_HEADER: usize = 60;
/// deb(5) has three members; a few more may follow.
const MAX_MEMBERS: usize = 32;
/// Memory the xz decoder may take: the largest preset needs 65 MiB.
const XZ_MEMORY: u64 = 256 << 20;

/// The files of a package, as a plain tar stream.
pub(crate) fn data_tar(path: &Path) -> Result<Box<dyn Read + Send>> {
    let file = File::open(path).map_err(Error::io("open", path))?;
    let (name, data) = find_data(file).map_err(|error| refuse(path, error))?;
    let suffix = name.strip_prefix("data.tar").unwrap_or_default();
    let unknown = || Error::bad_package(path, format!("its `{name}` has an unsupported compression"));
    decompress(suffix, data)
        .ok_or_else(unknown)?
        .map_err(Error::io("read", path))
}

fn refuse(path: &Path, error: io::Error) -> Error {
    match error.kind() {
        io::ErrorKind::InvalidData => Error::bad_package(path, error.to_string()),
        io::ErrorKind::UnexpectedEof => Error::bad_package(path, "it is truncated"),
        _ => Error::io("read", path)(error),
    }
}

/// A decoder chosen by the suffix of the file's name; `None` if there is none for it.
pub(crate) fn decompress<R: Read + Send + 'static>(
    suffix: &str,
    from: R,
) -> Option<io::Result<Box<dyn Read + Send>>> {
    Some(match suffix {
        "" => Ok(Box::new(from)),
        ".gz" => Ok(Box::new(flate2::read::MultiGzDecoder::new(from))),
        ".xz" => liblzma::stream::Stream::new_stream_decoder(XZ_MEMORY, liblzma::stream::CONCATENATED)
            .map(|stream| {
                Box::new(liblzma::read::XzDecoder::new_stream(from, stream)) as Box<dyn Read + Send>
            })
            .map_err(io::Error::from),
        ".zst" => zstd::Decoder::new(from).map(|decoder| Box::new(decoder) as Box<dyn Read + Send>),
        _ => return None,
    })
}

/// Finds the member `data.tar*`.
fn find_data<R: Read + Seek>(mut file: R) -> io::Result<(String, io::Take<BufReader<R>>)> {
    let invalid = |reason: &str| io::Error::new(io::ErrorKind::InvalidData, reason.to_owned());
    let mut magic = [0; AR_MAGIC.len()];
    file.read_exact(&mut magic)?;
    if magic != *AR_MAGIC {
        return Err(invalid("it is not an ar archive"));
    }
    for place in 0..MAX_MEMBERS {
        let mut header = [0; AR_HEADER];
        file.read_exact(&mut header)?;
        let (name, size) = member(&header).ok_or_else(|| invalid("a member's header is malformed"))?;
        if place == 0 {
            check_format(&name, size, &mut file)?;
        } else if name.starts_with("data.tar") {
            return Ok((name, BufReader::with_capacity(256 << 10, file).take(size)));
        } else {
            file.seek(SeekFrom::Current(size as i64))?;
        }
        // Members begin at even offsets.
        file.seek(SeekFrom::Current((size % 2) as i64))?;
    }
    Err(invalid("it has no data.tar"))
}

/// The first member says the version of the format, `2.` and a minor version that is compatible.
fn check_format(name: &str, size: u64, file: &mut impl Read) -> io::Result<()> {
    let mut version = Vec::new();
    if name == "debian-binary" && size <= 64 {
        file.take(size).read_to_end(&mut version)?;
    }
    if version.starts_with(b"2.") {
        return Ok(());
    }
    Err(io::Error::new(
        io::ErrorKind::InvalidData,
        "it is not a Debian package of format 2",
    ))
}

/// Name and size of a member; the size has at most ten digits.
fn member(header: &[u8; AR_HEADER]) -> Option<(String, u64)> {
    if header[58..] != *b"`\n" {
        return None;
    }
    let text = std::str::from_utf8(header).ok()?;
    let size = text.get(48..58)?.trim_end();
    let name = text.get(..16)?.trim_end().trim_end_matches('/');
    (!size.is_empty() && size.bytes().all(|byte| byte.is_ascii_digit()))
        .then(|| Some((name.to_owned(), size.parse().ok()?)))?
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// An `ar` archive of the given members.
    pub(crate) fn ar(members: &[(&str, &[u8])]) -> Vec<u8> {
        let mut archive = AR_MAGIC.to_vec();
        for (name, content) in members {
            let header = format!(
                "{name:<16}{:<12}{:<6}{:<6}{:<8}{:<10}`\n",
                0,
                0,
                0,
                100644,
                content.len()
            );
            archive.extend_from_slice(header.as_bytes());
            archive.extend_from_slice(content);
            archive.resize(archive.len().next_multiple_of(2), b'\n');
        }
        archive
    }

    fn written(bytes: &[u8]) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), bytes).unwrap();
        file
    }

    fn data(name: &str, content: &[u8]) -> Result<Vec<u8>> {
        let file = written(&ar(&[
            ("debian-binary", b"2.0\n"),
            ("control.tar.xz", b"odd"),
            (name, content),
        ]));
        let mut bytes = Vec::new();
        data_tar(file.path())?
            .read_to_end(&mut bytes)
            .map_err(Error::io("read", file.path()))?;
        Ok(bytes)
    }

    #[test]
    fn deb_data_tar_every_compression_is_read() {
        let content = b"some tar".repeat(1000);
        let mut gz = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        io::Write::write_all(&mut gz, &content).unwrap();
        let mut xz = liblzma::write::XzEncoder::new(Vec::new(), 1);
        io::Write::write_all(&mut xz, &content).unwrap();
        let zst = zstd::encode_all(&content[..], 1).unwrap();
        assert_eq!(data("data.tar", &content).unwrap(), content);
        assert_eq!(data("data.tar.gz", &gz.finish().unwrap()).unwrap(), content);
        assert_eq!(data("data.tar.xz", &xz.finish().unwrap()).unwrap(), content);
        assert_eq!(data("data.tar.zst/", &zst).unwrap(), content);
    }

    #[test]
    fn deb_data_tar_unknown_compression_and_formats_are_refused() {
        let refused = |bytes: &[u8]| data_tar(written(bytes).path()).map(drop).unwrap_err().to_string();
        assert!(
            data("data.tar.bz2", b"")
                .unwrap_err()
                .to_string()
                .contains("`data.tar.bz2`")
        );
        assert!(refused(b"junk and more").contains("not an ar archive"));
        assert!(refused(b"!<arch>\n").contains("truncated"));
        assert!(refused(&ar(&[("debian-binary", b"3.0\n")])).contains("format 2"));
        assert!(refused(&ar(&[("debian-binary", b"2.0\n"), ("x", b"")])).contains("truncated"));
    }

    proptest::proptest! {
        #[test]
        fn deb_find_data_of_random_bytes_does_not_panic(tail in proptest::collection::vec(0u8.., 0..200)) {
            let mut bytes = ar(&[("debian-binary", b"2.0\n")]);
            bytes.extend_from_slice(&tail);
            let _ = find_data(io::Cursor::new(bytes));
        }
    }
}
