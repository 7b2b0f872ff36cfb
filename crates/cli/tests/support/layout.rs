//! Image layouts (OCI image specification, "Image Layout") of layers that nobody's tools would make.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::Command;

use flate2::Compression;
use flate2::write::GzEncoder;
use sha2::{Digest, Sha256};
use tempfile::TempDir;

/// A layout of one image.
pub struct Layout {
    folder: TempDir,
    layers: Vec<Layer>,
}

struct Layer {
    digest: String,
    size: u64,
    diff_id: String,
}

impl Layout {
    /// An image of no layers, not yet written.
    pub fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir_all(folder.path().join("layout/blobs/sha256")).unwrap();
        Self {
            folder,
            layers: Vec::new(),
        }
    }

    /// Adds a layer: the archive that `write` writes, compressed with gzip as it comes.
    pub fn layer(mut self, write: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> Self {
        let staged = self.path().join("staged");
        let packed = Hashed::new(BufWriter::new(File::create(&staged).unwrap()));
        let mut plain = Hashed::new(GzEncoder::new(packed, Compression::default()));
        write(&mut plain).unwrap();
        let (packed, diff_id) = plain.finish();
        let (mut file, digest) = packed.finish().unwrap().finish();
        file.flush().unwrap();
        let size = fs::metadata(&staged).unwrap().len();
        fs::rename(&staged, self.blob(&digest)).unwrap();
        self.layers.push(Layer {
            digest,
            size,
            diff_id,
        });
        self
    }

    /// Adds a layer with one file of bytes that no compression makes fewer.
    pub fn random_layer(self, name: &str, length: usize) -> Self {
        self.layer(|tar| {
            let mut bytes = vec![0; length];
            io::Read::read_exact(&mut File::open("/dev/urandom")?, &mut bytes)?;
            entry(tar, tar::EntryType::Regular, name, "", length as u64)?;
            tar.write_all(&bytes)?;
            end(tar, length as u64)
        })
    }

    /// Writes what the layers are named in.
    pub fn finish(self) -> Self {
        let diff_ids: Vec<_> = self
            .layers
            .iter()
            .map(|layer| format!("\"sha256:{}\"", layer.diff_id))
            .collect();
        let config = self.document(&format!(
            r#"{{"os":"linux","architecture":"amd64","rootfs":{{"type":"layers","diff_ids":[{}]}}}}"#,
            diff_ids.join(",")
        ));
        let layers = self
            .layers
            .iter()
            .map(|layer| descriptor(&layer.digest, layer.size));
        let layers = layers.collect::<Vec<_>>().join(",");
        let manifest = self.document(&format!(
            r#"{{"schemaVersion":2,"config":{config},"layers":[{layers}]}}"#
        ));
        let index = format!(r#"{{"schemaVersion":2,"manifests":[{manifest}]}}"#);
        fs::write(self.path().join("index.json"), index).unwrap();
        fs::write(
            self.path().join("oci-layout"),
            r#"{"imageLayoutVersion":"1.0.0"}"#,
        )
        .unwrap();
        self
    }

    pub fn path(&self) -> PathBuf {
        self.folder.path().join("layout")
    }

    /// The image as a folder.
    pub fn source(&self) -> String {
        format!("oci:{}", self.path().display())
    }

    /// The image as an archive, which is made.
    pub fn archive(&self) -> String {
        let file = self.folder.path().join("archive.tar");
        let mut tar = Command::new("tar");
        tar.arg("-C").arg(self.path()).arg("-cf").arg(&file).arg(".");
        assert!(tar.status().unwrap().success());
        format!("oci-archive:{}", file.display())
    }

    /// The digest of a layer, and the file it is in.
    pub fn layer_file(&self, layer: usize) -> (String, PathBuf) {
        let digest = &self.layers[layer].digest;
        (digest.clone(), self.blob(digest))
    }

    fn blob(&self, digest: &str) -> PathBuf {
        self.path().join("blobs/sha256").join(digest)
    }

    /// Stores a document and gives its descriptor.
    fn document(&self, json: &str) -> String {
        let digest = hex(Sha256::digest(json));
        fs::write(self.blob(&digest), json).unwrap();
        descriptor(&digest, json.len() as u64)
    }
}

fn descriptor(digest: &str, size: u64) -> String {
    format!(r#"{{"mediaType":"application/octet-stream","digest":"sha256:{digest}","size":{size}}}"#)
}

/// Writes the header of an entry, whatever its name is.
pub fn entry(tar: &mut dyn Write, kind: tar::EntryType, name: &str, link: &str, size: u64) -> io::Result<()> {
    let mut header = tar::Header::new_ustar();
    // Through the raw fields: the library would refuse some of these names.
    header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
    header.as_old_mut().linkname[..link.len()].copy_from_slice(link.as_bytes());
    header.set_entry_type(kind);
    header.set_mode(0o755);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_size(size);
    header.set_cksum();
    tar.write_all(header.as_bytes())
}

/// Ends an archive whose last entry has `size` bytes of content.
pub fn end(tar: &mut dyn Write, size: u64) -> io::Result<()> {
    let padding = size.next_multiple_of(512) - size;
    tar.write_all(&vec![0; padding as usize + 1024])
}

/// Hashes what passes.
struct Hashed<W> {
    inner: W,
    hasher: Sha256,
}

impl<W: Write> Hashed<W> {
    fn new(inner: W) -> Self {
        Self {
            inner,
            hasher: Sha256::new(),
        }
    }

    fn finish(self) -> (W, String) {
        (self.inner, hex(self.hasher.finalize()))
    }
}

impl<W: Write> Write for Hashed<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.inner.write(bytes)?;
        self.hasher.update(&bytes[..count]);
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

fn hex(bytes: impl AsRef<[u8]>) -> String {
    bytes.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Whether there is nothing in a folder, or no such folder.
pub fn is_empty(folder: &Path) -> bool {
    fs::read_dir(folder).map_or(true, |mut entries| entries.next().is_none())
}
