//! The lab's initramfs: a cpio archive in the "newc" form that Linux unpacks at boot
//! (Linux, Documentation/driver-api/early-userspace/buffer-format.rst).

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};

/// Modules of Debian's cloud kernels in dependency order; those a kernel has built in are passed over.
const MODULES: &[&str] = &[
    "virtio_ring",
    "virtio",
    "virtio_pci_legacy_dev",
    "virtio_pci_modern_dev",
    "virtio_pci",
    "virtio_console",
    "fuse",
    "virtiofs",
    "overlay",
    "irqbypass",
    "kvm",
    "kvm-amd",
];

/// What the init script finds under `/lab`.
pub(super) struct Contents<'a> {
    /// A root that a kernel package was unpacked in.
    pub(super) kernel: &'a Path,
    /// Shell script that becomes the command.
    pub(super) command: String,
    /// The command's standard input.
    pub(super) stdin: &'a [u8],
    /// Absolute folders of the host that the command may write to.
    pub(super) shares: &'a [PathBuf],
}

/// Builds the archive.
///
/// # Errors
/// Where busybox or a module cannot be read.
pub(super) fn build(contents: &Contents) -> Result<Vec<u8>> {
    let mut archive = Archive::default();
    archive.file("bin/busybox", 0o755, &read(Path::new("/bin/busybox"))?);
    archive.file("init", 0o755, include_bytes!("init.sh"));
    archive.file("lab/run.sh", 0o644, include_bytes!("run.sh"));
    archive.file("lab/command", 0o644, contents.command.as_bytes());
    archive.file("lab/stdin", 0o644, contents.stdin);
    let shares: String = contents
        .shares
        .iter()
        .map(|share| format!("{}\n", share.display()))
        .collect();
    archive.file("lab/shares", 0o644, shares.as_bytes());
    archive.file("lab/modules/order", 0o644, (MODULES.join("\n") + "\n").as_bytes());
    for (name, bytes) in modules(contents.kernel)? {
        archive.file(&format!("lab/modules/{name}.ko"), 0o644, &bytes);
    }
    Ok(archive.finish())
}

/// Reads the modules of `MODULES` that the kernel package has as files, unpacked.
fn modules(kernel: &Path) -> Result<Vec<(&'static str, Vec<u8>)>> {
    let mut pending = vec![kernel.join("lib/modules")];
    let mut found = Vec::new();
    while let Some(folder) = pending.pop() {
        for entry in fs::read_dir(&folder).with_context(|| format!("reading {}", folder.display()))? {
            let path = entry?.path();
            if path.is_dir() {
                pending.push(path);
                continue;
            }
            let file = path
                .file_name()
                .unwrap_or_default()
                .to_string_lossy()
                .into_owned();
            let stem = file.strip_suffix(".xz").unwrap_or(&file).strip_suffix(".ko");
            if let Some(name) = MODULES.iter().find(|name| stem == Some(**name)) {
                found.push((
                    *name,
                    if file.ends_with(".xz") {
                        unxz(&path)?
                    } else {
                        read(&path)?
                    },
                ));
            }
        }
    }
    Ok(found)
}

fn unxz(path: &Path) -> Result<Vec<u8>> {
    let output = Command::new("xz")
        .args(["--decompress", "--stdout"])
        .arg(path)
        .stdin(Stdio::null())
        .output();
    let output = output.context("xz could not be started")?;
    ensure!(output.status.success(), "xz could not unpack {}", path.display());
    Ok(output.stdout)
}

fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).with_context(|| format!("reading {}", path.display()))
}

/// A cpio archive being written.
#[derive(Default)]
pub(crate) struct Archive {
    bytes: Vec<u8>,
    folders: BTreeSet<String>,
    inode: u32,
}

const FOLDER: u32 = 0o040_000;
const REGULAR: u32 = 0o100_000;

impl Archive {
    /// Adds a file with its permission bits, and the folders above it.
    pub(crate) fn file(&mut self, path: &str, permissions: u32, bytes: &[u8]) {
        for (end, _) in path.match_indices('/') {
            if self.folders.insert(path[..end].to_owned()) {
                self.entry(&path[..end], FOLDER | 0o755, &[]);
            }
        }
        self.entry(path, REGULAR | permissions, bytes);
    }

    /// Ends the archive.
    pub(crate) fn finish(mut self) -> Vec<u8> {
        self.entry("TRAILER!!!", 0, &[]);
        self.bytes
    }

    fn entry(&mut self, name: &str, mode: u32, bytes: &[u8]) {
        self.inode += 1;
        let links = if mode & FOLDER != 0 { 2 } else { 1 };
        let name_size = name.len() + 1;
        // Magic, then 13 fields of 8 hexadecimal digits: inode, mode, uid, gid, links, mtime, file size,
        // device and special device (major, minor each), name size with its NUL, checksum (unused).
        let header = format!(
            "070701{:08x}{mode:08x}{:08x}{:08x}{links:08x}{:08x}{:08x}{:08x}{:08x}{:08x}{:08x}{name_size:08x}{:08x}",
            self.inode,
            0,
            0,
            0,
            bytes.len(),
            0,
            0,
            0,
            0,
            0,
        );
        self.bytes.extend_from_slice(header.as_bytes());
        self.bytes.extend_from_slice(name.as_bytes());
        self.bytes.push(0);
        self.align();
        self.bytes.extend_from_slice(bytes);
        self.align();
    }

    fn align(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn archive_nested_file_lists_its_folders_first() {
        let mut archive = Archive::default();
        archive.file("a/b/c", 0o644, b"hello");
        archive.file("a/b/d", 0o755, b"");

        let names = names(&archive.finish());

        assert_eq!(names, ["a", "a/b", "a/b/c", "a/b/d", "TRAILER!!!"]);
    }

    #[test]
    fn archive_any_entry_starts_aligned_with_a_110_byte_header() {
        let mut archive = Archive::default();
        archive.file("x", 0o644, b"1");

        let bytes = archive.finish();

        assert_eq!(&bytes[..6], b"070701");
        assert_eq!(&bytes[110..113], b"x\x001");
        assert_eq!(&bytes[116..122], b"070701");
    }

    /// Walks the archive as a reader does, by the sizes in the headers.
    fn names(bytes: &[u8]) -> Vec<String> {
        let field = |at: usize, index: usize| {
            let digits = &bytes[at + 6 + 8 * index..at + 14 + 8 * index];
            usize::from_str_radix(std::str::from_utf8(digits).unwrap(), 16).unwrap()
        };
        let mut names = Vec::new();
        let mut at = 0;
        while at < bytes.len() {
            let (file_size, name_size) = (field(at, 6), field(at, 11));
            names.push(String::from_utf8(bytes[at + 110..at + 110 + name_size - 1].to_vec()).unwrap());
            at = (at + 110 + name_size).next_multiple_of(4);
            at = (at + file_size).next_multiple_of(4);
        }
        names
    }
}
