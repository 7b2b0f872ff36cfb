//! The Debian archive as a whole: verified indexes, packages to choose from, package files.

use std::collections::HashMap;
use std::io::BufReader;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use super::apt_conf::AptConf;
use super::cache::Cache;
use super::deb;
use super::error::{Error, Result};
use super::fetch::{Client, Download, Fetched};
use super::index::{self, Index};
use super::keyring::{Keyring, MAX_INRELEASE};
use super::release::{DatePolicy, Release, Summary};
use super::resolve::{Chosen, Universe};
use super::sources::{self, Mirror, MirrorConfig};
use crate::digest::{Digest, Hasher};
use crate::progress::{Event, Progress};

/// How long a signed index is used without asking the mirror, in seconds.
const FRESH_SECONDS: i64 = 3600;
/// Longest first line of a record under `lists`.
const MAX_STATE: u64 = 4096;
/// Largest record of a resolved request.
const MAX_RESOLVED: u64 = 16 << 20;
/// Suites that get no updates beside themselves.
const ROLLING: [&str; 4] = ["sid", "unstable", "experimental", "rc-buggy"];

/// When the mirror is asked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Refresh {
    /// Every time (`--pull always`).
    Always,
    /// When the signed index is older than an hour; if the mirror is unreachable then, the old one is used,
    /// with a notice.
    #[default]
    WhenStale,
    /// Never: what is not in the cache is an error (`--pull never`).
    Never,
}

/// What an archive is opened with.
#[derive(Clone, Debug)]
pub struct ArchiveOptions {
    /// Folder for what is fetched; it is made if absent.
    pub cache: PathBuf,
    /// Where to look for the mirror; its apt folder is also where apt's configuration is read.
    pub mirror: MirrorConfig,
    /// Keys that count.
    pub keyring: Keyring,
}

/// Debian's archive on one mirror, behind a cache. Any number of processes may share the cache.
#[derive(Debug)]
pub struct Archive {
    /// Made when it is first needed: reading the machine's certificates takes longer than a cached answer.
    client: OnceLock<Client>,
    conf: AptConf,
    pub(super) cache: Cache,
    mirror: Mirror,
    keyring: Keyring,
    policy: DatePolicy,
    /// Indexes that were read already, by their address, and when the mirror last confirmed them.
    known: Mutex<HashMap<String, (i64, Arc<Release>)>>,
}

/// The verified indexes of a suite and of its updates.
pub(super) struct Releases {
    suite: String,
    /// Address of the archive, name of the suite in it, its index; the suite itself first.
    parts: Vec<(String, String, Arc<Release>)>,
}

/// First line of a record under `lists`.
#[derive(Serialize, Deserialize)]
struct ListState {
    /// When the mirror last confirmed it, in seconds since 1970.
    checked: i64,
    last_modified: Option<String>,
    /// The keys it was verified with before it was written, [`Keyring::digest`]. The cache is the user's own
    /// folder and what it holds is used unchecked once it was checked; dates are checked every time.
    keys: Digest,
    /// What the index says of itself, so that it need not be read where that is enough.
    #[serde(default)]
    summary: Option<Summary>,
}

/// An InRelease file as the cache has it.
struct Listed {
    state: ListState,
    file: Vec<u8>,
    release: Release,
}

impl Archive {
    /// Finds the mirror and opens the cache; nothing is fetched yet.
    pub fn open(options: ArchiveOptions) -> Result<Archive> {
        let conf = AptConf::read(&options.mirror.apt_folder)?;
        let mirror = sources::discover(&options.mirror)?;
        Ok(Archive {
            client: OnceLock::new(),
            cache: Cache::open(options.cache)?,
            policy: DatePolicy::new(&conf, &mirror),
            conf,
            mirror,
            keyring: options.keyring,
            known: Mutex::default(),
        })
    }

    fn client(&self) -> Result<&Client> {
        match self.client.get() {
            Some(client) => Ok(client),
            None => {
                let made = Client::new(&self.conf)?;
                Ok(self.client.get_or_init(|| made))
            }
        }
    }

    /// The mirror in use.
    pub fn mirror(&self) -> &Mirror {
        &self.mirror
    }

    /// The verified indexes of a suite: from the first archive that has it signed, and from its updates and
    /// security archives where the machine's sources name them.
    pub(super) fn releases(
        &self,
        suite: &str,
        refresh: Refresh,
        progress: &dyn Progress,
    ) -> Result<Releases> {
        let mut parts = vec![self.first_release(suite, refresh, progress)?];
        if !ROLLING.contains(&suite) && !suite.contains('-') {
            for (archives, suffix) in [
                (&self.mirror.updates, "updates"),
                (&self.mirror.security, "security"),
            ] {
                let Some(base) = archives.first() else { continue };
                let suite = format!("{suite}-{suffix}");
                let release = self.release(base, &suite, refresh, progress)?;
                parts.push((base.clone(), suite, release));
            }
        }
        Ok(Releases {
            suite: suite.to_owned(),
            parts,
        })
    }

    /// Archives are tried in order: apt's sources may hold another vendor's that looks like Debian's, or a
    /// mirror that is down. The first failure is the one to tell.
    fn first_release(
        &self,
        suite: &str,
        refresh: Refresh,
        progress: &dyn Progress,
    ) -> Result<(String, String, Arc<Release>)> {
        let mut first = None;
        for base in &self.mirror.main {
            match self.release(base, suite, refresh, progress) {
                Ok(release) => return Ok((base.clone(), suite.to_owned(), release)),
                Err(error) => first = first.or(Some(error)),
            }
        }
        Err(first.unwrap_or_else(|| Error::NotCached {
            what: format!("the index of Debian {suite}"),
        }))
    }

    fn release(
        &self,
        base: &str,
        suite: &str,
        refresh: Refresh,
        progress: &dyn Progress,
    ) -> Result<Arc<Release>> {
        let url = format!("{base}/dists/{suite}/InRelease");
        let now = now();
        let fresh = |checked: i64| (0..FRESH_SECONDS).contains(&(now - checked));
        let good =
            |checked: i64| refresh == Refresh::Never || refresh == Refresh::WhenStale && fresh(checked);
        let known = self
            .known()
            .get(&url)
            .filter(|(checked, _)| good(*checked))
            .cloned();
        let (checked, release) = match known {
            Some(known) => known,
            None => {
                let record = self.cache.record("lists", &Digest::of(url.as_bytes()));
                match self.listed_in_brief(&url, &record)? {
                    Some((checked, release)) if good(checked) => (checked, Arc::new(release)),
                    _ => {
                        let listed = match self.listed(&url, &record, now)? {
                            Some(listed) if good(listed.state.checked) => listed,
                            None if refresh == Refresh::Never => return Err(Error::NotCached { what: url }),
                            listed => self.ask_again(&url, &record, suite, listed, refresh, progress)?,
                        };
                        (listed.state.checked, Arc::new(listed.release))
                    }
                }
            }
        };
        release.check(suite, self.policy, now)?;
        self.known().insert(url, (checked, release.clone()));
        Ok(release)
    }

    /// The map is whole at every step, so poisoning does no harm.
    fn known(&self) -> MutexGuard<'_, HashMap<String, (i64, Arc<Release>)>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// When an index was checked and what it says of itself, where the cache has that and the keys are the same.
    fn listed_in_brief(&self, url: &str, record: &Path) -> Result<Option<(i64, Release)>> {
        let bytes = self.cache.read(record, MAX_STATE)?.unwrap_or_default();
        let line = bytes.split(|&byte| byte == b'\n').next().unwrap_or_default();
        let state = serde_json::from_slice::<ListState>(line).ok();
        let state = state.filter(|state| state.keys == self.keyring.digest());
        Ok(state.and_then(|state| Some((state.checked, Release::in_brief(url, state.summary?)))))
    }

    /// The same indexes with all that they list, or newer ones that another process has fetched meanwhile.
    fn whole(&self, releases: &Releases) -> Result<Releases> {
        let mut parts = releases.parts.clone();
        for (_, _, release) in parts.iter_mut().filter(|(_, _, release)| !release.is_whole()) {
            let record = self.cache.record("lists", &Digest::of(release.url.as_bytes()));
            let listed = self.listed(&release.url, &record, now())?;
            let listed = listed.ok_or_else(|| Error::NotCached {
                what: release.url.clone(),
            })?;
            *release = Arc::new(listed.release);
        }
        Ok(Releases {
            suite: releases.suite.clone(),
            parts,
        })
    }

    /// What the cache has of an address; what does not verify counts as absent.
    fn listed(&self, url: &str, record: &Path, now: i64) -> Result<Option<Listed>> {
        let Some(bytes) = self.cache.read(record, MAX_INRELEASE + 4096)? else {
            return Ok(None);
        };
        let Some(split) = bytes.iter().position(|&byte| byte == b'\n') else {
            return Ok(None);
        };
        let file = bytes[split + 1..].to_vec();
        let Ok(state) = serde_json::from_slice::<ListState>(&bytes[..split]) else {
            return Ok(None);
        };
        let release = match state.keys == self.keyring.digest() {
            true => Release::reopen(url, &file),
            false => Release::open(url, &file, &self.keyring, now).ok(),
        };
        Ok(release.map(|release| Listed { state, file, release }))
    }

    fn ask_again(
        &self,
        url: &str,
        record: &Path,
        suite: &str,
        old: Option<Listed>,
        refresh: Refresh,
        progress: &dyn Progress,
    ) -> Result<Listed> {
        let now = now();
        let since = old.as_ref().and_then(|old| old.state.last_modified.as_deref());
        let mut listed = match (self.client()?.get(url, MAX_INRELEASE, since), old) {
            (Ok(Fetched::NotModified), Some(mut old)) => {
                old.state.checked = now;
                old.state.keys = self.keyring.digest();
                old
            }
            (Ok(Fetched::NotModified), None) => {
                return Err(Error::Status {
                    url: url.to_owned(),
                    status: 304,
                });
            }
            (Ok(Fetched::File { bytes, last_modified }), old) => {
                let release = Release::open(url, &bytes, &self.keyring, now)?;
                release.check(suite, self.policy, now)?;
                let state = ListState {
                    checked: now,
                    last_modified,
                    keys: self.keyring.digest(),
                    summary: None,
                };
                match old {
                    // Someone between here and the archive plays back an old state, or the mirror lags.
                    Some(old) if release.date() < old.release.date() => {
                        progress.report(Event::Notice(&format!(
                            "{url} is older than what is known; keeping that"
                        )));
                        old
                    }
                    _ => Listed {
                        state,
                        file: bytes,
                        release,
                    },
                }
            }
            (Err(error @ Error::Unreachable { .. }), Some(old)) if refresh == Refresh::WhenStale => {
                progress.report(Event::Notice(&format!(
                    "{error}; using the packages known from earlier"
                )));
                return Ok(old);
            }
            (Err(error), _) => return Err(error),
        };
        listed.state.summary = Some(listed.release.summary.clone());
        self.cache.publish(record, |out| {
            serde_json::to_writer(&mut *out, &listed.state)?;
            out.write_all(b"\n")?;
            out.write_all(&listed.file)
        })?;
        Ok(listed)
    }

    /// What `request` came to on these indexes: from the cache, or by asking `resolve` with all packages.
    pub(super) fn resolved(
        &self,
        releases: &Releases,
        request: &str,
        architecture: &str,
        refresh: Refresh,
        progress: &dyn Progress,
        resolve: impl FnOnce(&Universe) -> Result<Vec<Chosen>>,
    ) -> Result<Vec<Chosen>> {
        let record = self
            .cache
            .record("resolved", &releases.key(request, architecture));
        if let Some(bytes) = self.cache.read(&record, MAX_RESOLVED)?
            && let Ok(chosen) = serde_json::from_slice(&bytes)
        {
            return Ok(chosen);
        }
        let releases = self.whole(releases)?;
        let record = self
            .cache
            .record("resolved", &releases.key(request, architecture));
        let universe = self.universe(&releases, architecture, refresh, progress)?;
        let chosen = resolve(&universe)?;
        self.cache
            .publish(&record, |out| Ok(serde_json::to_writer(out, &chosen)?))?;
        Ok(chosen)
    }

    fn universe(
        &self,
        releases: &Releases,
        architecture: &str,
        refresh: Refresh,
        progress: &dyn Progress,
    ) -> Result<Universe> {
        let mut wanted = Vec::new();
        for (base, suite, release) in &releases.parts {
            wanted.push(packages_file(base, suite, release, architecture)?);
        }
        let missing: Vec<Download> = wanted
            .iter()
            .map(|(download, _)| download.clone())
            .filter(|download| !self.cache.record("reduced", &download.digest).is_file())
            .collect();
        self.bring(&missing, refresh, progress)?;
        let mut indexes = Vec::new();
        for ((download, suffix), (base, ..)) in wanted.iter().zip(&releases.parts) {
            indexes.push((base.clone(), self.index(download, suffix)?));
        }
        Ok(Universe {
            indexes,
            suite: releases.suite.clone(),
            architecture: architecture.to_owned(),
        })
    }

    /// An index that is in the cache, reduced now if it was not before.
    fn index(&self, download: &Download, suffix: &str) -> Result<Index> {
        let reduced = self.cache.record("reduced", &download.digest);
        let unusable = |reason: &str| Error::Index {
            what: download.urls[0].clone(),
            reason: reason.to_owned(),
        };
        if !reduced.is_file() {
            let path = self.cache.object(&download.digest);
            let file = std::fs::File::open(&path).map_err(Error::io("open", &path))?;
            let text = deb::decompress(suffix, file).ok_or_else(|| unusable("its compression is unknown"))?;
            let text = BufReader::with_capacity(256 << 10, text.map_err(Error::io("read", &path))?);
            self.cache.publish(&reduced, |out| index::reduce(text, out))?;
        }
        let bytes = self.cache.read(&reduced, index::MAX_INDEX)?.unwrap_or_default();
        Ok(Index::new(
            String::from_utf8(bytes).map_err(|_| unusable("it is not text"))?,
        ))
    }

    /// Package files, fetched as needed, in the order of `packages`.
    pub(super) fn packages(
        &self,
        packages: &[Chosen],
        refresh: Refresh,
        progress: &dyn Progress,
    ) -> Result<Vec<PathBuf>> {
        let files: Vec<Download> = packages
            .iter()
            .map(|package| Download {
                name: package.name.clone(),
                urls: vec![package.url.clone()],
                digest: package.digest,
                size: package.size,
            })
            .collect();
        self.bring(&files, refresh, progress)?;
        Ok(files.iter().map(|file| self.cache.object(&file.digest)).collect())
    }

    fn bring(&self, files: &[Download], refresh: Refresh, progress: &dyn Progress) -> Result<()> {
        if refresh == Refresh::Never
            && let Some(absent) = files
                .iter()
                .find(|file| !self.cache.object(&file.digest).is_file())
        {
            return Err(Error::NotCached {
                what: absent.name.clone(),
            });
        }
        if files.is_empty() {
            return Ok(());
        }
        let bytes = files.iter().map(|file| file.size).sum();
        progress.report(Event::FilesResolved {
            files: files.len(),
            bytes,
        });
        self.client()?.download(&self.cache, files, progress)
    }
}

impl Releases {
    /// Identifies a request on exactly these indexes.
    fn key(&self, request: &str, architecture: &str) -> Digest {
        let mut hasher = Hasher::default();
        for (base, _, release) in &self.parts {
            hasher.update(format!("{base}\n{}\n", release.summary.digest).as_bytes());
        }
        hasher.update(format!("{architecture}\n{request}").as_bytes());
        hasher.finish()
    }
}

/// The Packages index of the component `main`, and how it is compressed.
fn packages_file(base: &str, suite: &str, release: &Release, arch: &str) -> Result<(Download, &'static str)> {
    let folder = format!("main/binary-{arch}");
    for suffix in [".xz", ".gz", ""] {
        let path = format!("{folder}/Packages{suffix}");
        let Some((digest, size)) = release.file(&path) else {
            continue;
        };
        let mut urls = vec![format!("{base}/dists/{suite}/{path}")];
        if release.summary.by_hash {
            urls.insert(
                0,
                format!("{base}/dists/{suite}/{folder}/by-hash/SHA256/{}", digest.hex()),
            );
        }
        let name = format!("package index of {suite}");
        return Ok((
            Download {
                name,
                urls,
                digest,
                size,
            },
            suffix,
        ));
    }
    let reason = format!("it lists no packages for {arch}: choose another platform");
    Err(Error::Index {
        what: release.url.clone(),
        reason,
    })
}

fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}
