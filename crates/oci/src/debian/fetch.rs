//! HTTP to a mirror: small files into memory, large ones into the cache, several at once, resumable.
//!
//! The interface blocks; the asynchronous client runs on a runtime of its own.

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::Path;
use std::time::Duration;

use reqwest::header::{CONTENT_RANGE, IF_MODIFIED_SINCE, LAST_MODIFIED, RANGE};
use reqwest::{Response, StatusCode};
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};
use tokio::task::JoinSet;

use super::apt_conf::AptConf;
use super::cache::{Cache, rename_durably};
use super::error::{Error, Result};
use crate::digest::{Digest, Hasher};
use crate::progress::{Event, Progress};

/// Transfers at one time: enough to hide round trips, few enough for any mirror.
const PARALLEL: usize = 6;
/// Tries per address; the pause between them doubles.
const TRIES: u32 = 4;
const FIRST_PAUSE: Duration = Duration::from_millis(200);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(15);
/// Longest silence within a transfer.
const READ_TIMEOUT: Duration = Duration::from_secs(30);

/// A blocking HTTP client.
#[derive(Debug)]
pub(crate) struct Client {
    runtime: tokio::runtime::Runtime,
    http: reqwest::Client,
}

/// A file to be brought into the cache.
#[derive(Clone, Debug)]
pub(crate) struct Download {
    /// What people call it.
    pub(crate) name: String,
    /// Where it is, to be tried in order.
    pub(crate) urls: Vec<String>,
    pub(crate) digest: Digest,
    pub(crate) size: u64,
}

/// What came of asking for a file that may not have changed.
pub(crate) enum Fetched {
    NotModified,
    File {
        bytes: Vec<u8>,
        last_modified: Option<String>,
    },
}

impl Client {
    /// A client that uses apt's proxies, and otherwise the environment's.
    pub(crate) fn new(conf: &AptConf) -> Result<Client> {
        let failed = |source: Box<dyn std::error::Error + Send + Sync>| Error::Client { source };
        // Fails when another part of the program chose a provider before, which is as good.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let mut builder = reqwest::Client::builder()
            .connect_timeout(CONNECT_TIMEOUT)
            .read_timeout(READ_TIMEOUT)
            .user_agent(concat!("crumblecracker/", env!("CARGO_PKG_VERSION")));
        if conf.has_proxy() {
            let conf = conf.clone();
            builder = builder.proxy(reqwest::Proxy::custom(move |url| {
                conf.proxy(url.scheme(), url.host_str().unwrap_or_default())
                    .map(str::to_owned)
            }));
        }
        let http = builder.build().map_err(|error| failed(error.into()))?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| failed(error.into()))?;
        Ok(Client { runtime, http })
    }

    /// A file of at most `limit` bytes, unless it has not been modified since the given `Last-Modified`.
    pub(crate) fn get(&self, url: &str, limit: u64, since: Option<&str>) -> Result<Fetched> {
        self.runtime
            .block_on(retrying(|| self.try_get(url, limit, since)))
    }

    async fn try_get(&self, url: &str, limit: u64, since: Option<&str>) -> Result<Fetched> {
        let mut request = self.http.get(url);
        if let Some(since) = since {
            request = request.header(IF_MODIFIED_SINCE, since);
        }
        let mut response = request.send().await.map_err(unreachable(url))?;
        if since.is_some() && response.status() == StatusCode::NOT_MODIFIED {
            return Ok(Fetched::NotModified);
        }
        expect(&response, url, &[StatusCode::OK])?;
        let last_modified = header(&response, LAST_MODIFIED.as_str());
        let mut bytes = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(unreachable(url))? {
            bytes.extend_from_slice(&chunk);
            if bytes.len() as u64 > limit {
                let reason = format!("it is larger than {} MiB", limit >> 20);
                return Err(Error::Index {
                    what: url.to_owned(),
                    reason,
                });
            }
        }
        Ok(Fetched::File { bytes, last_modified })
    }

    /// Brings files into the cache that are not there, several at once. The first failure ends all; what
    /// arrived is kept for the next time.
    pub(crate) fn download(&self, cache: &Cache, files: &[Download], progress: &dyn Progress) -> Result<()> {
        self.runtime.block_on(self.download_all(cache, files, progress))
    }

    async fn download_all(&self, cache: &Cache, files: &[Download], progress: &dyn Progress) -> Result<()> {
        let (sender, mut steps) = unbounded_channel();
        let mut waiting = files.iter().enumerate();
        let mut running = JoinSet::new();
        loop {
            while running.len() < PARALLEL {
                let Some((file, download)) = waiting.next() else {
                    break;
                };
                let reporter = Reporter {
                    file,
                    sender: sender.clone(),
                };
                running.spawn(one(self.http.clone(), cache.clone(), download.clone(), reporter));
            }
            tokio::select! {
                biased;
                Some(step) = steps.recv() => report(progress, files, step),
                finished = running.join_next() => match finished {
                    Some(Ok(result)) => result?,
                    Some(Err(panic)) => std::panic::resume_unwind(panic.into_panic()),
                    None => break,
                },
            }
        }
        while let Ok(step) = steps.try_recv() {
            report(progress, files, step);
        }
        Ok(())
    }
}

/// What a transfer tells, passed on from one thread so that `Progress` need not outlive the call.
enum Step {
    Started(u64),
    Advanced(u64),
    Done(bool),
}

struct Reporter {
    file: usize,
    sender: UnboundedSender<(usize, Step)>,
}

impl Reporter {
    fn tell(&self, step: Step) {
        // The receiver only goes away when the whole download has failed.
        let _ = self.sender.send((self.file, step));
    }
}

fn report(progress: &dyn Progress, files: &[Download], (file, step): (usize, Step)) {
    let about = &files[file];
    progress.report(match step {
        Step::Started(resumed) => Event::FileStarted {
            file,
            name: &about.name,
            bytes: about.size,
            resumed,
        },
        Step::Advanced(bytes) => Event::FileAdvanced { file, bytes },
        Step::Done(present) => Event::FileDone { file, present },
    });
}

async fn one(http: reqwest::Client, cache: Cache, download: Download, reporter: Reporter) -> Result<()> {
    let target = cache.object(&download.digest);
    if is_there(&target, download.size) {
        reporter.tell(Step::Done(true));
        return Ok(());
    }
    let path = cache.partial(&download.digest);
    let Some(mut partial) = Partial::open(&path, &target, download.size).await? else {
        reporter.tell(Step::Done(true));
        return Ok(());
    };
    reporter.tell(Step::Started(partial.hasher.length()));
    let mut last = None;
    for url in &download.urls {
        match transfer_with_retries(&http, url, &download, &mut partial, &reporter).await {
            Ok(()) => {
                partial.publish(&target)?;
                reporter.tell(Step::Done(false));
                return Ok(());
            }
            // Another address may have what this one has not.
            Err(error @ (Error::Status { .. } | Error::WrongContent { .. } | Error::Truncated { .. })) => {
                last = last.or(Some(error))
            }
            Err(error) => return Err(error),
        }
    }
    Err(last.unwrap_or_else(|| Error::NotCached {
        what: download.name.clone(),
    }))
}

fn is_there(target: &Path, size: u64) -> bool {
    std::fs::metadata(target).is_ok_and(|about| about.len() == size)
}

async fn transfer_with_retries(
    http: &reqwest::Client,
    url: &str,
    download: &Download,
    partial: &mut Partial,
    reporter: &Reporter,
) -> Result<()> {
    let mut pause = FIRST_PAUSE;
    for attempt in 1.. {
        let resumed = partial.hasher.length() > 0;
        match transfer(http, url, download, partial, reporter).await {
            Ok(()) => return Ok(()),
            // What an earlier run left may be what was wrong: once more from the start.
            Err(Error::WrongContent { .. }) if resumed && attempt < TRIES => {}
            Err(error) if attempt >= TRIES || !is_passing(&error) => return Err(error),
            Err(_) => {
                tokio::time::sleep(pause).await;
                pause *= 2;
            }
        }
    }
    Ok(())
}

/// One request: adds to the partial file what is missing, and checks the whole.
async fn transfer(
    http: &reqwest::Client,
    url: &str,
    download: &Download,
    partial: &mut Partial,
    reporter: &Reporter,
) -> Result<()> {
    let have = partial.hasher.length();
    if have < download.size || download.size == 0 {
        let mut request = http.get(url);
        if have > 0 {
            request = request.header(RANGE, format!("bytes={have}-"));
        }
        let mut response = request.send().await.map_err(unreachable(url))?;
        if have > 0 && response.status() == StatusCode::RANGE_NOT_SATISFIABLE {
            return Err(Error::Truncated {
                url: url.to_owned(),
                length: have,
                size: download.size,
            });
        }
        expect(&response, url, &[StatusCode::OK, StatusCode::PARTIAL_CONTENT])?;
        let continues = response.status() == StatusCode::PARTIAL_CONTENT
            && header(&response, CONTENT_RANGE.as_str())
                .is_some_and(|range| range.starts_with(&format!("bytes {have}-")));
        if !continues {
            partial.restart()?;
        }
        while let Some(chunk) = response.chunk().await.map_err(unreachable(url))? {
            if partial.hasher.length() + chunk.len() as u64 > download.size {
                partial.restart()?;
                return Err(wrong(url, format!("it is longer than {} bytes", download.size)));
            }
            partial.append(&chunk)?;
            reporter.tell(Step::Advanced(chunk.len() as u64));
        }
    }
    let length = partial.hasher.length();
    if length < download.size {
        return Err(Error::Truncated {
            url: url.to_owned(),
            length,
            size: download.size,
        });
    }
    let actual = partial.hasher.clone().finish();
    if actual != download.digest {
        partial.restart()?;
        return Err(wrong(url, format!("{actual} instead of {}", download.digest)));
    }
    Ok(())
}

fn wrong(url: &str, reason: String) -> Error {
    Error::WrongContent {
        url: url.to_owned(),
        reason,
    }
}

/// A download that has begun, locked against other processes.
struct Partial {
    file: File,
    path: std::path::PathBuf,
    hasher: Hasher,
}

impl Partial {
    /// Opens what an earlier attempt left. Where another process is at the same file, waits for it; `None`
    /// if that brought the target.
    async fn open(path: &Path, target: &Path, size: u64) -> Result<Option<Partial>> {
        loop {
            let mut options = OpenOptions::new();
            let file = options
                .read(true)
                .write(true)
                .create(true)
                .truncate(false)
                .open(path)
                .map_err(Error::io("open", path))?;
            let locked = try_lock(&file).map_err(Error::io("lock", path))?;
            if is_there(target, size) {
                if locked {
                    let _ = std::fs::remove_file(path);
                }
                return Ok(None);
            }
            // A file that was renamed away between opening and locking is not the partial file any more.
            if locked && still_named(&file, path) {
                return Partial::resume(file, path, size).map(Some);
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    fn resume(mut file: File, path: &Path, size: u64) -> Result<Partial> {
        let mut hasher = Hasher::default();
        let mut buffer = vec![0; 256 << 10];
        loop {
            let count = file.read(&mut buffer).map_err(Error::io("read", path))?;
            if count == 0 {
                break;
            }
            hasher.update(&buffer[..count]);
        }
        let mut partial = Partial {
            file,
            path: path.to_owned(),
            hasher,
        };
        if partial.hasher.length() > size {
            partial.restart()?;
        }
        Ok(partial)
    }

    fn restart(&mut self) -> Result<()> {
        self.hasher = Hasher::default();
        self.file
            .set_len(0)
            .and_then(|()| self.file.seek(SeekFrom::Start(0)).map(drop))
            .map_err(Error::io("write", &self.path))
    }

    fn append(&mut self, bytes: &[u8]) -> Result<()> {
        self.file
            .write_all(bytes)
            .map_err(Error::io("write", &self.path))?;
        self.hasher.update(bytes);
        Ok(())
    }

    fn publish(self, target: &Path) -> Result<()> {
        self.file.sync_all().map_err(Error::io("write", &self.path))?;
        rename_durably(&self.path, target)
    }
}

/// Takes the lock of an open file unless another has it.
fn try_lock(file: &File) -> std::io::Result<bool> {
    match rustix::fs::flock(file, rustix::fs::FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(true),
        Err(error) if error == rustix::io::Errno::WOULDBLOCK => Ok(false),
        Err(error) => Err(error.into()),
    }
}

fn still_named(file: &File, path: &Path) -> bool {
    let opened = rustix::fs::fstat(file);
    let named = rustix::fs::stat(path);
    matches!((opened, named), (Ok(a), Ok(b)) if (a.st_dev, a.st_ino) == (b.st_dev, b.st_ino))
}

/// Repeats a request while what is wrong with it may pass.
async fn retrying<T, F: Future<Output = Result<T>>>(request: impl Fn() -> F) -> Result<T> {
    let mut pause = FIRST_PAUSE;
    for _ in 1..TRIES {
        match request().await {
            Err(error) if is_passing(&error) => tokio::time::sleep(pause).await,
            result => return result,
        }
        pause *= 2;
    }
    request().await
}

fn is_passing(error: &Error) -> bool {
    match error {
        Error::Unreachable { .. } | Error::Truncated { .. } => true,
        Error::Status { status, .. } => matches!(status, 408 | 429 | 500..),
        _ => false,
    }
}

fn expect(response: &Response, url: &str, good: &[StatusCode]) -> Result<()> {
    if good.contains(&response.status()) {
        return Ok(());
    }
    Err(Error::Status {
        url: url.to_owned(),
        status: response.status().as_u16(),
    })
}

fn header(response: &Response, name: &str) -> Option<String> {
    response.headers().get(name)?.to_str().ok().map(str::to_owned)
}

fn unreachable(url: &str) -> impl FnOnce(reqwest::Error) -> Error {
    let url = url.to_owned();
    // The address is in our own message already.
    move |error| Error::Unreachable {
        url,
        source: Box::new(error.without_url()),
    }
}
