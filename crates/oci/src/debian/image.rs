//! `deb:` images: packages and what they need, as an image of one layer.

use std::fmt;
use std::io::{self, BufWriter, Read, Write};
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use super::archive::{Archive, Refresh};
use super::error::{Error, Result};
use super::layer::{LayerFacts, LayerWriter};
use super::relation::is_package_name;
use super::resolve::Chosen;
use crate::config::ImageConfig;
use crate::digest::{Digest, Hasher};
use crate::platform::Platform;
use crate::progress::{Event, Progress};
use crate::store::{Image, Store};

/// Changes whenever the same packages would give another image.
const BUILDER_VERSION: u32 = 1;
/// Label of an image with what it was made from.
const LABEL: &str = "org.crumblecracker.debian.packages";
const DEFAULT_SUITE: &str = "stable";
const PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// Packages that may be asked for at once.
const MAX_PACKAGES: usize = 256;
/// Pieces of the archive between the thread that makes it and the one that stores it.
const PIPE_PIECES: usize = 16;
const PIECE_BYTES: usize = 128 << 10;

/// `deb:[suite/]package[,package...]`: package names are sorted and each is there once.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct DebReference {
    suite: String,
    packages: Vec<String>,
}

impl DebReference {
    /// Whether a text is meant to be one: it begins with `deb:`.
    pub fn is_meant(text: &str) -> bool {
        text.starts_with("deb:")
    }

    /// The suite, `stable` when none was written.
    pub fn suite(&self) -> &str {
        &self.suite
    }

    /// The packages asked for.
    pub fn packages(&self) -> &[String] {
        &self.packages
    }
}

impl fmt::Display for DebReference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "deb:{}/{}", self.suite, self.packages.join(","))
    }
}

impl FromStr for DebReference {
    type Err = Error;

    fn from_str(text: &str) -> Result<DebReference> {
        let malformed = |reason: String| Error::Reference {
            text: text.chars().take(300).collect(),
            reason,
        };
        let rest = text
            .strip_prefix("deb:")
            .ok_or_else(|| malformed("it does not begin with `deb:`".into()))?;
        let (suite, list) = rest.split_once('/').unwrap_or((DEFAULT_SUITE, rest));
        if !is_package_name(suite) || suite.contains("..") {
            return Err(malformed(format!("`{suite}` is not the name of a suite")));
        }
        let mut packages: Vec<String> = list.split(',').map(|name| name.trim().to_owned()).collect();
        if let Some(wrong) = packages.iter().find(|name| !is_package_name(name)) {
            return Err(malformed(format!("`{wrong}` is not the name of a package")));
        }
        packages.sort();
        packages.dedup();
        if packages.len() > MAX_PACKAGES {
            return Err(malformed(format!("it names more than {MAX_PACKAGES} packages")));
        }
        Ok(DebReference {
            suite: suite.to_owned(),
            packages,
        })
    }
}

/// Debian's name of an architecture, by its OCI name.
pub(super) fn debian_architecture(platform: &Platform) -> Option<&'static str> {
    if platform.os != "linux" {
        return None;
    }
    Some(
        match (platform.architecture.as_str(), platform.variant.as_deref()) {
            ("amd64", _) => "amd64",
            ("arm64", _) => "arm64",
            ("arm", Some("v5" | "v6")) => "armel",
            ("arm", _) => "armhf",
            ("386", _) => "i386",
            ("riscv64", _) => "riscv64",
            ("ppc64le", _) => "ppc64el",
            ("s390x", _) => "s390x",
            _ => return None,
        },
    )
}

impl Archive {
    /// The image of a `deb:` reference: from the store if it was made of the very same packages, otherwise
    /// made now.
    pub fn image(
        &self,
        store: &Store,
        reference: &DebReference,
        platform: &Platform,
        refresh: Refresh,
        progress: &dyn Progress,
    ) -> Result<Image> {
        let packages = self.closure(reference, platform, refresh, progress)?;
        let name = reference.to_string();
        let stored = |source: crate::Error| Error::Store {
            name: name.clone(),
            source: Box::new(source),
        };
        let key = key(platform, &packages).to_string();
        if let Some(image) = store.image(&name, platform).map_err(stored)?
            && image.config().labels.get(LABEL) == Some(&key)
        {
            return Ok(image);
        }
        let files = self.packages(&packages, refresh, progress)?;
        progress.report(Event::Notice(
            "the packages' maintainer scripts do not run: services, alternatives and caches they set up are missing",
        ));
        let ingest = store.begin().map_err(stored)?;
        let (layer, facts) = piped(
            |out| write_layer(&files, out),
            |tar| ingest.layer(tar).map_err(stored),
        )?;
        if let [first, ..] = facts.repeated.as_slice() {
            let count = facts.repeated.len();
            progress.report(Event::Notice(&format!(
                "{count} files are in several packages, such as /{first}"
            )));
        }
        let mut config = ImageConfig::new(platform.clone());
        config.env.push(PATH.to_owned());
        config.cmd.extend(facts.shell.map(str::to_owned));
        config.labels.insert(LABEL.to_owned(), key);
        let image = ingest.image(&name, config, &[layer]).map_err(stored);
        if image.is_err() {
            drop(ingest);
            // A layer without an image only fills the disk. What failed before this is what is told.
            let _ = store.collect_garbage();
        }
        image
    }

    /// Everything a reference comes to, sorted by name.
    pub fn closure(
        &self,
        reference: &DebReference,
        platform: &Platform,
        refresh: Refresh,
        progress: &dyn Progress,
    ) -> Result<Vec<Chosen>> {
        let architecture = debian_architecture(platform).ok_or_else(|| Error::Reference {
            text: reference.to_string(),
            reason: format!("Debian has nothing for {platform}"),
        })?;
        let releases = self.releases(&reference.suite, refresh, progress)?;
        let names: Vec<&str> = reference.packages.iter().map(String::as_str).collect();
        self.resolved(
            &releases,
            &reference.to_string(),
            architecture,
            refresh,
            progress,
            |universe| universe.resolve(&names),
        )
    }

    /// The layer of packages as a tar archive, byte for byte the same for the same packages.
    pub fn write_layer(
        &self,
        packages: &[Chosen],
        out: impl Write,
        refresh: Refresh,
        progress: &dyn Progress,
    ) -> Result<LayerFacts> {
        write_layer(&self.packages(packages, refresh, progress)?, out)
    }
}

/// Identifies the image that is made of packages.
fn key(platform: &Platform, packages: &[Chosen]) -> Digest {
    let mut hasher = Hasher::default();
    hasher.update(format!("{BUILDER_VERSION}\n{platform}\n").as_bytes());
    for package in packages {
        hasher.update(format!("{}\n", package.digest).as_bytes());
    }
    hasher.finish()
}

fn write_layer(packages: &[PathBuf], out: impl Write) -> Result<LayerFacts> {
    let written = Error::io("write", "the image's layer".as_ref());
    let mut layer = LayerWriter::new(out).map_err(Error::io("write", "the image's layer".as_ref()))?;
    for package in packages {
        layer.package(package)?;
    }
    let finish = || {
        let (mut out, facts) = layer.finish()?;
        out.flush()?;
        Ok(facts)
    };
    finish().map_err(written)
}

/// Runs a writer of a stream and its reader side by side; the writer's failure reaches the reader as one.
fn piped<A: Send, B>(
    write: impl FnOnce(BufWriter<PipeWriter>) -> Result<A> + Send,
    read: impl FnOnce(PipeReader) -> Result<B>,
) -> Result<(B, A)> {
    let (sender, receiver) = sync_channel(PIPE_PIECES);
    std::thread::scope(|scope| {
        let end = sender.clone();
        let writer = scope.spawn(move || {
            let result = write(BufWriter::with_capacity(PIECE_BYTES, PipeWriter { sender }));
            if result.is_ok() {
                // An empty piece is the end; without it the stream counts as broken.
                let _ = end.send(Vec::new());
            }
            result
        });
        let result = read(PipeReader {
            receiver,
            piece: Vec::new(),
            at: 0,
            ended: false,
        });
        let written = writer
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        match (result, written) {
            // When the reader gives up first, the writer only notices that nobody listens.
            (Err(error), Err(Error::Io { source, .. })) if source.kind() == io::ErrorKind::BrokenPipe => {
                Err(error)
            }
            (_, Err(error)) => Err(error),
            (result, Ok(facts)) => Ok((result?, facts)),
        }
    })
}

struct PipeWriter {
    sender: SyncSender<Vec<u8>>,
}

impl Write for PipeWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if !bytes.is_empty() {
            self.sender
                .send(bytes.to_vec())
                .map_err(|_| io::ErrorKind::BrokenPipe)?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

struct PipeReader {
    receiver: Receiver<Vec<u8>>,
    piece: Vec<u8>,
    at: usize,
    ended: bool,
}

impl Read for PipeReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.at == self.piece.len() && !self.ended {
            self.piece = self.receiver.recv().map_err(|_| io::ErrorKind::UnexpectedEof)?;
            self.at = 0;
            self.ended = self.piece.is_empty();
        }
        let count = buffer.len().min(self.piece.len() - self.at);
        buffer[..count].copy_from_slice(&self.piece[self.at..self.at + count]);
        self.at += count;
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deb_reference_forms_are_canonical() {
        let full = |text: &str| text.parse::<DebReference>().unwrap().to_string();
        assert_eq!(full("deb:coreutils,bash,bash"), "deb:stable/bash,coreutils");
        assert_eq!(full("deb:bookworm/g++"), "deb:bookworm/g++");
        assert_eq!(full(&full("deb:a, b")), "deb:stable/a,b");
    }

    #[test]
    fn deb_reference_malformed_is_refused_with_reason() {
        for text in [
            "",
            "bash",
            "deb:",
            "deb:a,,b",
            "deb:/a",
            "deb:x/",
            "deb:../a",
            "deb:a/b/c",
            "deb:a b",
            "deb:-a",
        ] {
            assert!(
                matches!(text.parse::<DebReference>(), Err(Error::Reference { .. })),
                "{text}"
            );
        }
    }

    #[test]
    fn piped_bytes_arrive_whole() {
        let content: Vec<u8> = (0..1_000_000u32).map(|n| n as u8).collect();
        let (read, ()) = piped(
            |mut out| {
                out.write_all(&content)
                    .and_then(|()| out.flush())
                    .map_err(Error::io("write", "pipe".as_ref()))
            },
            |mut tar| {
                let mut bytes = Vec::new();
                tar.read_to_end(&mut bytes)
                    .map_err(Error::io("read", "pipe".as_ref()))?;
                Ok(bytes)
            },
        )
        .unwrap();
        assert_eq!(read, content);
    }

    #[test]
    fn piped_failure_of_the_writer_is_the_one_told() {
        let failed: Result<((), ())> = piped(
            |_| Err(Error::NotCached { what: "w".into() }),
            |mut tar| {
                io::copy(&mut tar, &mut io::sink())
                    .map(drop)
                    .map_err(Error::io("read", "pipe".as_ref()))
            },
        );
        assert!(matches!(failed, Err(Error::NotCached { .. })));
    }

    #[test]
    fn piped_failure_of_the_reader_is_the_one_told() {
        let failed: Result<((), ())> = piped(
            |mut out| {
                io::copy(&mut io::repeat(1), &mut out)
                    .map(drop)
                    .map_err(Error::io("write", "pipe".as_ref()))
            },
            |_| Err(Error::NotCached { what: "r".into() }),
        );
        assert!(matches!(failed, Err(Error::NotCached { .. })));
    }
}
