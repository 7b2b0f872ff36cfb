//! One layer out of many packages.
//!
//! The packages' archives are streamed one after the other into one tar archive, which is the same for the
//! same packages. Every path is first led through the symbolic links written so far. The root starts with
//! `/bin -> usr/bin` and its like, so that whatever a package calls a file it lands in `/usr` (merged /usr,
//! UsrMerge), and so that no file is ever written under a name that is a link.

use std::collections::{BTreeMap, HashMap};
use std::io::{self, Read, Write};
use std::path::Path;

use super::base_files;
use super::deb;
use super::error::{Error, Result};

/// Most files of an image, and most of one package.
const MAX_FILES: usize = 4 << 20;
/// Longest chain of symbolic links on a path (Linux has the same limit).
const MAX_LINKS: usize = 40;
/// Largest certificate that goes into the bundle.
const MAX_CERTIFICATE: u64 = 1 << 20;
/// Folders of the root that only some architectures have; they appear when a package uses them.
const RARE_LIBRARIES: [&str; 4] = ["lib32", "lib64", "libx32", "libo32"];
const CERTIFICATES: &str = "usr/share/ca-certificates/";
const CERTIFICATE_BUNDLE: &str = "etc/ssl/certs/ca-certificates.crt";

/// What a path of the layer is.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Node {
    Folder,
    File,
    Link(String),
}

/// Writes a layer's archive.
pub(crate) struct LayerWriter<W: Write> {
    tar: tar::Builder<W>,
    nodes: HashMap<String, Node>,
    certificates: BTreeMap<String, Vec<u8>>,
    /// Paths that a second package brought too.
    repeated: Vec<String>,
}

/// What the layer turned out to have.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LayerFacts {
    /// Absolute path of the best shell, if there is one.
    pub shell: Option<&'static str>,
    /// Paths several packages bring, of which the first counts.
    pub repeated: Vec<String>,
}

/// Owner, mode and time of an entry.
#[derive(Clone, Copy)]
struct Attributes {
    mode: u32,
    uid: u64,
    gid: u64,
    mtime: u64,
}

const FOLDER: Attributes = Attributes {
    mode: 0o755,
    uid: 0,
    gid: 0,
    mtime: 0,
};
const FILE: Attributes = Attributes {
    mode: 0o644,
    uid: 0,
    gid: 0,
    mtime: 0,
};
const LINK: Attributes = Attributes {
    mode: 0o777,
    uid: 0,
    gid: 0,
    mtime: 0,
};

/// Why an entry cannot be taken over.
enum Refusal {
    /// The package is at fault.
    Entry(String),
    /// Reading or writing failed.
    Io(io::Error),
}

impl From<io::Error> for Refusal {
    fn from(error: io::Error) -> Refusal {
        Refusal::Io(error)
    }
}

impl<W: Write> LayerWriter<W> {
    /// Begins with the folders and links every system has.
    pub(crate) fn new(out: W) -> io::Result<LayerWriter<W>> {
        let mut layer = LayerWriter {
            tar: tar::Builder::new(out),
            nodes: HashMap::new(),
            certificates: BTreeMap::new(),
            repeated: Vec::new(),
        };
        for (path, mode) in base_files::FOLDERS {
            layer.folder(path, Attributes { mode, ..FOLDER })?;
        }
        for (path, target) in base_files::LINKS {
            layer.link(path, target, LINK)?;
        }
        Ok(layer)
    }

    /// Adds everything a package file holds.
    pub(crate) fn package(&mut self, path: &Path) -> Result<()> {
        let mut archive = tar::Archive::new(deb::data_tar(path)?);
        let entries = archive.entries().map_err(Error::io("read", path))?;
        for entry in entries {
            let mut entry = entry.map_err(|error| broken(path, error))?;
            match self.entry(&mut entry) {
                Ok(()) => {}
                Err(Refusal::Entry(reason)) => return Err(Error::bad_package(path, reason)),
                Err(Refusal::Io(error)) => return Err(broken(path, error)),
            }
        }
        Ok(())
    }

    fn entry(&mut self, entry: &mut tar::Entry<'_, impl Read>) -> std::result::Result<(), Refusal> {
        let written = entry.path_bytes().into_owned();
        let written =
            String::from_utf8(written).map_err(|_| Refusal::Entry("a file's name is not UTF-8".into()))?;
        let refuse = |reason: &str| Refusal::Entry(format!("`{written}` {reason}"));
        if self.nodes.len() >= MAX_FILES {
            return Err(Refusal::Entry(format!(
                "the image has more than {MAX_FILES} files"
            )));
        }
        let header = entry.header();
        let kind = header.entry_type();
        let attributes = Attributes {
            mode: header.mode()? & 0o7777,
            uid: header.uid()?,
            gid: header.gid()?,
            mtime: header.mtime()?,
        };
        let name = plain_path(&written).ok_or_else(|| refuse("leads out of the package"))?;
        let place = self
            .resolve(&name, kind.is_dir())
            .map_err(|reason| refuse(&reason))?;
        if place.is_empty() {
            return Ok(());
        }
        self.parents(&place).map_err(|error| match error {
            Refusal::Entry(reason) => refuse(&reason),
            io => io,
        })?;
        match kind {
            tar::EntryType::Directory => match self.nodes.get(&place) {
                Some(Node::Folder) => Ok(()),
                Some(_) => {
                    self.repeat(&place);
                    Ok(())
                }
                None => Ok(self.folder(&place, attributes)?),
            },
            _ if self.nodes.contains_key(&place) => {
                self.repeat(&place);
                Ok(())
            }
            tar::EntryType::Regular | tar::EntryType::Continuous => self.regular(&place, attributes, entry),
            tar::EntryType::Symlink => {
                let target = link_target(entry).ok_or_else(|| refuse("has no usable target"))?;
                Ok(self.link(&place, &target, attributes)?)
            }
            tar::EntryType::Link => {
                let target = link_target(entry).and_then(|target| plain_path(&target));
                let target = target.ok_or_else(|| refuse("links to something outside the package"))?;
                let target = self.resolve(&target, false).map_err(|reason| refuse(&reason))?;
                if self.nodes.get(&target) != Some(&Node::File) {
                    return Err(refuse(&format!(
                        "links to `{target}`, which is not a file before it"
                    )));
                }
                let mut header = header_for(tar::EntryType::Link, attributes, 0);
                self.tar.append_link(&mut header, &place, &target)?;
                self.nodes.insert(place, Node::File);
                Ok(())
            }
            _ => Err(refuse("is neither a file nor a folder nor a link")),
        }
    }

    fn regular(
        &mut self,
        place: &str,
        attributes: Attributes,
        entry: &mut tar::Entry<'_, impl Read>,
    ) -> std::result::Result<(), Refusal> {
        let size = entry.size();
        if place.starts_with(CERTIFICATES) && place.ends_with(".crt") && size <= MAX_CERTIFICATE {
            let mut bytes = Vec::new();
            entry.read_to_end(&mut bytes)?;
            self.file(place, attributes, &bytes)?;
            self.certificates.insert(place.to_owned(), bytes);
            return Ok(());
        }
        let mut header = header_for(tar::EntryType::Regular, attributes, size);
        self.tar.append_data(&mut header, place, entry)?;
        self.nodes.insert(place.to_owned(), Node::File);
        Ok(())
    }

    /// Notes a path that is there already, unless both are folders; `/lib` and its like, which packages
    /// bring as links too, are as they should be.
    fn repeat(&mut self, place: &str) {
        let expected = base_files::LINKS.iter().any(|(path, _)| *path == place);
        if !expected && !RARE_LIBRARIES.contains(&place) && self.nodes.get(place) != Some(&Node::Folder) {
            self.repeated.push(place.to_owned());
        }
    }

    /// Completes the layer with what maintainer scripts would have made, and gives back the writer.
    pub(crate) fn finish(mut self) -> io::Result<(W, LayerFacts)> {
        for name in RARE_LIBRARIES {
            if self.nodes.contains_key(&format!("usr/{name}")) && !self.nodes.contains_key(name) {
                self.link(name, &format!("usr/{name}"), LINK)?;
            }
        }
        let shells = ["bash", "dash", "busybox"];
        let has = |layer: &Self, program: &str| layer.nodes.contains_key(&format!("usr/bin/{program}"));
        if !has(&self, "sh")
            && let Some(shell) = shells.iter().find(|shell| has(&self, shell))
        {
            self.link("usr/bin/sh", shell, LINK)?;
        }
        let shell = match (has(&self, "bash"), has(&self, "sh")) {
            (true, _) => Some("/bin/bash"),
            (false, true) => Some("/bin/sh"),
            (false, false) => None,
        };
        for (path, content) in base_files::files(shell) {
            if !self.nodes.contains_key(path) {
                self.parents(path).map_err(into_io)?;
                self.file(path, FILE, content.as_bytes())?;
            }
        }
        self.certificate_bundle()?;
        let facts = LayerFacts {
            shell,
            repeated: self.repeated,
        };
        Ok((self.tar.into_inner()?, facts))
    }

    /// All trusted certificates in one file, as `update-ca-certificates` makes it.
    fn certificate_bundle(&mut self) -> io::Result<()> {
        if self.certificates.is_empty() || self.nodes.contains_key(CERTIFICATE_BUNDLE) {
            return Ok(());
        }
        let mut bundle = Vec::new();
        for certificate in std::mem::take(&mut self.certificates).values() {
            bundle.extend_from_slice(certificate);
            if !certificate.ends_with(b"\n") {
                bundle.push(b'\n');
            }
        }
        self.parents(CERTIFICATE_BUNDLE).map_err(into_io)?;
        self.file(CERTIFICATE_BUNDLE, FILE, &bundle)
    }

    /// Where a path leads through the links written so far; through its last part too if `follow`.
    fn resolve(&self, path: &str, follow: bool) -> std::result::Result<String, String> {
        let mut rest: Vec<String> = path.split('/').rev().map(str::to_owned).collect();
        let mut place = String::new();
        let mut links = 0;
        while let Some(part) = rest.pop() {
            match part.as_str() {
                "" | "." => continue,
                ".." => {
                    place.truncate(place.rfind('/').unwrap_or(0));
                    continue;
                }
                _ => {}
            }
            let parent = place.len();
            if !place.is_empty() {
                place.push('/');
            }
            place.push_str(&part);
            if rest.is_empty() && !follow {
                break;
            }
            let node = self.nodes.get(&place);
            let rare = format!("usr/{place}");
            let target = match node {
                Some(Node::Link(target)) => target.as_str(),
                // The link itself is written at the end, when it is known to be needed.
                None if RARE_LIBRARIES.contains(&place.as_str()) => &rare,
                _ => continue,
            };
            links += 1;
            if links > MAX_LINKS {
                return Err("goes through too many symbolic links".into());
            }
            place.truncate(if target.starts_with('/') { 0 } else { parent });
            rest.extend(target.split('/').rev().map(str::to_owned));
        }
        Ok(place)
    }

    /// Makes the folders above a resolved path that no package has made.
    fn parents(&mut self, place: &str) -> std::result::Result<(), Refusal> {
        for (end, _) in place.match_indices('/') {
            match self.nodes.get(&place[..end]) {
                Some(Node::Folder) => {}
                Some(_) => return Err(Refusal::Entry(format!("lies under the file `{}`", &place[..end]))),
                None => self.folder(&place[..end], FOLDER)?,
            }
        }
        Ok(())
    }

    fn folder(&mut self, path: &str, attributes: Attributes) -> io::Result<()> {
        let mut header = header_for(tar::EntryType::Directory, attributes, 0);
        self.tar
            .append_data(&mut header, format!("{path}/"), io::empty())?;
        self.nodes.insert(path.to_owned(), Node::Folder);
        Ok(())
    }

    fn link(&mut self, path: &str, target: &str, attributes: Attributes) -> io::Result<()> {
        let mut header = header_for(tar::EntryType::Symlink, attributes, 0);
        self.tar.append_link(&mut header, path, target)?;
        self.nodes.insert(path.to_owned(), Node::Link(target.to_owned()));
        Ok(())
    }

    fn file(&mut self, path: &str, attributes: Attributes, content: &[u8]) -> io::Result<()> {
        let mut header = header_for(tar::EntryType::Regular, attributes, content.len() as u64);
        self.tar.append_data(&mut header, path, content)?;
        self.nodes.insert(path.to_owned(), Node::File);
        Ok(())
    }
}

fn header_for(kind: tar::EntryType, attributes: Attributes, size: u64) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(attributes.mode);
    header.set_uid(attributes.uid);
    header.set_gid(attributes.gid);
    header.set_mtime(attributes.mtime);
    header.set_size(size);
    header
}

/// A package's path without `./` and empty parts; `None` if it is absolute, empties out or climbs.
fn plain_path(path: &str) -> Option<String> {
    if path.starts_with('/') || path.contains('\0') || path.split('/').any(|part| part == "..") {
        return None;
    }
    let parts: Vec<&str> = path
        .split('/')
        .filter(|part| !part.is_empty() && *part != ".")
        .collect();
    Some(parts.join("/"))
}

fn link_target(entry: &tar::Entry<'_, impl Read>) -> Option<String> {
    let target = String::from_utf8(entry.link_name_bytes()?.into_owned()).ok()?;
    (!target.is_empty() && !target.contains('\0')).then_some(target)
}

fn broken(path: &Path, error: io::Error) -> Error {
    match error.kind() {
        io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof | io::ErrorKind::Other => {
            Error::bad_package(path, error.to_string())
        }
        _ => Error::io("read", path)(error),
    }
}

fn into_io(refusal: Refusal) -> io::Error {
    match refusal {
        Refusal::Entry(reason) => io::Error::new(io::ErrorKind::InvalidData, reason),
        Refusal::Io(error) => error,
    }
}

#[cfg(test)]
#[path = "layer_tests.rs"]
mod tests;
