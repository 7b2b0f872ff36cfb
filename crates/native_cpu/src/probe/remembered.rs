//! What the probe found, kept for as long as it holds.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use tracing::debug;

use super::Verdict;

/// First line of the file: what it is, and the version of its format.
const HEADER: &str = "crumblecracker-probe 1";
/// Last line: without it the file is torn.
const FOOTER: &str = "end";
/// A longer file is none of ours.
const MAX_LEN: u64 = 4096;

/// Where a verdict is kept, and what it holds for.
pub(super) struct Memory {
    path: PathBuf,
    /// Boot and device; `None` where they cannot be told, and then nothing is kept.
    identity: Option<String>,
}

impl Memory {
    /// The memory of this boot of the host and of the device with this identity.
    pub(super) fn of_this_boot(cache_dir: &Path, device: Option<String>) -> Self {
        let runtime_dir = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from);
        let dir = match runtime_dir.filter(|dir| dir.is_absolute() && dir.is_dir()) {
            Some(dir) => dir.join("crumblecracker"),
            None => cache_dir.to_owned(),
        };
        let identity = host_os::boot_id()
            .ok()
            .zip(device)
            .map(|(boot, device)| format!("{boot} {device}"));
        Self {
            path: dir.join("kvm-probe"),
            identity,
        }
    }

    /// The verdict, where a whole one of this boot and device is there.
    pub(super) fn recall(&self) -> Option<Verdict> {
        let identity = self.identity.as_deref()?;
        let text = self
            .read()
            .inspect_err(|error| debug!(%error, "no probe is remembered"))
            .ok()?;
        parse(&text, identity)
    }

    /// Reads the file if it is this user's and nobody else can write to it.
    fn read(&self) -> io::Result<String> {
        let file = OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK)
            .open(&self.path)?;
        let metadata = file.metadata()?;
        let mine = metadata.uid() == effective_user() && metadata.mode() & 0o022 == 0;
        if !mine || !metadata.is_file() || metadata.len() > MAX_LEN {
            return Err(io::Error::other(
                "the file is not one that this user's probe wrote",
            ));
        }
        let mut text = String::new();
        file.take(MAX_LEN).read_to_string(&mut text)?;
        Ok(text)
    }

    /// Keeps a verdict. Where that fails the next process measures again.
    pub(super) fn remember(&self, verdict: Verdict) {
        let Some(identity) = self.identity.as_deref() else {
            return;
        };
        if let Err(error) = self.write(&format_verdict(verdict, identity)) {
            debug!(%error, path = %self.path.display(), "the probe is not remembered");
        }
    }

    /// Writes beside the file and renames, so that a reader sees a whole file or none.
    fn write(&self, text: &str) -> io::Result<()> {
        let dir = self.path.parent().unwrap_or(Path::new("."));
        fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
        let staged = dir.join(format!(".kvm-probe.{}", std::process::id()));
        // Left by a process of the same number that was killed.
        let _ = fs::remove_file(&staged);
        let mut file: File = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&staged)?;
        let written = file
            .write_all(text.as_bytes())
            .and_then(|()| fs::rename(&staged, &self.path));
        if written.is_err() {
            let _ = fs::remove_file(&staged);
        }
        written
    }
}

fn effective_user() -> u32 {
    // SAFETY: always succeeds.
    unsafe { libc::geteuid() }
}

fn format_verdict(verdict: Verdict, identity: &str) -> String {
    let verdict = match verdict {
        Verdict::Fast(micros) => format!("fast {micros}"),
        Verdict::Interpreted => "interpreted".to_owned(),
    };
    format!("{HEADER}\n{identity}\n{verdict}\n{FOOTER}\n")
}

fn parse(text: &str, identity: &str) -> Option<Verdict> {
    let body = text.strip_prefix(HEADER)?.strip_prefix('\n')?;
    let body = body.strip_prefix(identity)?.strip_prefix('\n')?;
    let verdict = body
        .strip_suffix('\n')?
        .strip_suffix(FOOTER)?
        .strip_suffix('\n')?;
    if verdict == "interpreted" {
        return Some(Verdict::Interpreted);
    }
    verdict.strip_prefix("fast ")?.parse().ok().map(Verdict::Fast)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn memory(dir: &Path) -> Memory {
        Memory {
            path: dir.join("below/kvm-probe"),
            identity: Some("boot-1 device-1".to_owned()),
        }
    }

    #[test]
    fn recall_after_remember_gives_the_verdict() {
        let dir = tempfile::tempdir().unwrap();

        for verdict in [Verdict::Fast(97), Verdict::Interpreted] {
            memory(dir.path()).remember(verdict);
            assert_eq!(memory(dir.path()).recall(), Some(verdict));
        }
    }

    #[test]
    fn recall_of_another_boot_or_device_is_none() {
        let dir = tempfile::tempdir().unwrap();
        memory(dir.path()).remember(Verdict::Fast(97));

        for identity in ["boot-2 device-1", "boot-1 device-2", "boot-1 device-10", "boot-1"] {
            let other = Memory {
                identity: Some(identity.to_owned()),
                ..memory(dir.path())
            };
            assert_eq!(other.recall(), None);
        }
        assert_eq!(
            Memory {
                identity: None,
                ..memory(dir.path())
            }
            .recall(),
            None
        );
    }

    #[test]
    fn recall_of_a_file_others_can_write_is_none() {
        let dir = tempfile::tempdir().unwrap();
        let memory = memory(dir.path());
        memory.remember(Verdict::Fast(97));

        fs::set_permissions(&memory.path, fs::Permissions::from_mode(0o666)).unwrap();

        assert_eq!(memory.recall(), None);
    }

    #[test]
    fn recall_through_a_link_is_none() {
        let dir = tempfile::tempdir().unwrap();
        let memory = memory(dir.path());
        memory.remember(Verdict::Fast(97));
        let elsewhere = dir.path().join("elsewhere");
        fs::rename(&memory.path, &elsewhere).unwrap();
        std::os::unix::fs::symlink(&elsewhere, &memory.path).unwrap();

        assert_eq!(memory.recall(), None);
    }

    #[test]
    fn parse_every_torn_prefix_is_none() {
        let whole = format_verdict(Verdict::Fast(12_345), "boot-1 device-1");

        assert_eq!(parse(&whole, "boot-1 device-1"), Some(Verdict::Fast(12_345)));
        for end in 0..whole.len() {
            assert_eq!(parse(&whole[..end], "boot-1 device-1"), None);
        }
    }

    #[test]
    fn remember_where_nothing_can_be_written_is_silent() {
        let memory = Memory {
            path: PathBuf::from("/proc/nothing/kvm-probe"),
            identity: Some("boot-1 device-1".to_owned()),
        };

        memory.remember(Verdict::Interpreted);

        assert_eq!(memory.recall(), None);
    }
}
