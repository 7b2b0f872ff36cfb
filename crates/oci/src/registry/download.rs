//! Streams of layers that survive a bad network and a kill: what came is kept, the rest is asked for.

use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use oci_client::client::BlobResponse;
use oci_client::errors::OciDistributionError;
use tokio::sync::mpsc::{Receiver, Sender, channel};

use super::client::{Client, Context};
use crate::error::{Error, Result};
use crate::store::{BlobSource, Heard, LayerJob, Stream};

/// Layers smaller than this are not kept while they come: asking again costs as little.
const MIN_KEPT: u64 = 4 << 20;
/// Chunks under way between the network and the decoder.
const CHUNKS: usize = 64;
/// Attempts without a byte of progress, and the pause before the second, which doubles.
const ATTEMPTS: u32 = 5;
const FIRST_PAUSE: Duration = Duration::from_millis(200);

/// The layers of an image in a registry.
pub(super) struct Downloads<'a> {
    pub(super) client: &'a Client,
}

impl BlobSource for Downloads<'_> {
    fn open<'a>(&'a self, job: &LayerJob, partial: &Path, mut heard: Heard<'a>) -> Result<Stream<'a>> {
        // Registries promise both for every layer.
        let (digest, size) = job.blob.unwrap_or((job.diff_id, 0));
        let Partial { kept, keep } = match size >= MIN_KEPT {
            true => Partial::open(partial, size)?,
            false => Partial::default(),
        };
        let resumed = kept.as_ref().map_or(0, |(_, length)| *length);
        heard.resumed(resumed);
        let (sender, receiver) = channel(CHUNKS);
        let feed = Feed {
            oci: self.client.oci.clone(),
            reference: self.client.reference.clone(),
            context: self.client.context.clone(),
            digest: digest.to_string(),
            size,
            at: resumed,
            keep: keep.map(|file| (file, partial.to_owned())),
            sender,
        };
        self.client.handle().spawn(feed.run());
        let kept = kept.map(|(file, length)| BufReader::with_capacity(256 << 10, file.take(length)));
        Ok(Box::new(Download {
            kept,
            receiver,
            chunk: Bytes::new(),
            heard,
        }))
    }
}

/// What is kept of a layer that was not fetched completely.
#[derive(Default)]
struct Partial {
    /// The beginning for reading, and its length, if there is any.
    kept: Option<(File, u64)>,
    /// The same file for appending.
    keep: Option<File>,
}

impl Partial {
    fn open(path: &Path, size: u64) -> Result<Partial> {
        let keep = OpenOptions::new()
            .append(true)
            .create(true)
            .open(path)
            .map_err(Error::io("open", path))?;
        let length = keep.metadata().map_err(Error::io("look at", path))?.len();
        if length > size {
            keep.set_len(0).map_err(Error::io("truncate", path))?;
            return Ok(Partial {
                kept: None,
                keep: Some(keep),
            });
        }
        let kept = File::open(path).map_err(Error::io("open", path))?;
        Ok(Partial {
            kept: (length > 0).then_some((kept, length)),
            keep: Some(keep),
        })
    }
}

/// A layer as it comes: first what was kept, then what the task sends.
struct Download<'a> {
    kept: Option<BufReader<io::Take<File>>>,
    receiver: Receiver<Result<Bytes>>,
    chunk: Bytes,
    heard: Heard<'a>,
}

impl BufRead for Download<'_> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if let Some(kept) = &mut self.kept
            && kept.fill_buf()?.is_empty()
        {
            self.kept = None;
        }
        if let Some(kept) = &mut self.kept {
            return kept.fill_buf();
        }
        if self.chunk.is_empty()
            && let Some(chunk) = self.receiver.blocking_recv()
        {
            self.chunk = chunk.map_err(io::Error::other)?;
            self.heard.advanced(self.chunk.len() as u64);
        }
        Ok(&self.chunk)
    }

    fn consume(&mut self, count: usize) {
        match &mut self.kept {
            Some(kept) => kept.consume(count),
            None => drop(self.chunk.split_to(count)),
        }
    }
}

impl Read for Download<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let count = self.fill_buf()?.read(into)?;
        self.consume(count);
        Ok(count)
    }
}

/// The task that fetches one layer.
struct Feed {
    oci: oci_client::Client,
    reference: oci_client::Reference,
    context: Context,
    digest: String,
    size: u64,
    /// How much was sent, or was there before.
    at: u64,
    /// Where what comes is kept.
    keep: Option<(File, PathBuf)>,
    sender: Sender<Result<Bytes>>,
}

/// Why a layer's task ends.
enum End {
    /// The registry has no more, whether that is all or not: the reader will see.
    NoMore,
    /// Nobody reads any more.
    Unwanted,
    Failed(Error),
}

impl Feed {
    async fn run(mut self) {
        let (mut attempt, mut pause) = (1, FIRST_PAUSE);
        while self.at < self.size {
            let before = self.at;
            let failure = match self.attempt().await {
                Ok(()) if self.at > before => continue,
                Ok(()) => return,
                Err(failure) => failure,
            };
            if self.at > before {
                (attempt, pause) = (1, FIRST_PAUSE);
            }
            match failure {
                End::Failed(Error::Unreachable { .. } | Error::Interrupted { .. }) if attempt < ATTEMPTS => {
                    tracing::debug!(
                        digest = self.digest,
                        at = self.at,
                        attempt,
                        "the transfer broke off"
                    );
                    tokio::time::sleep(pause).await;
                    (attempt, pause) = (attempt + 1, pause * 2);
                }
                End::Failed(error) => {
                    // Nobody may be listening any more.
                    let _ = self.sender.send(Err(error)).await;
                    return;
                }
                End::NoMore | End::Unwanted => return,
            }
        }
    }

    /// Asks for what is missing and passes it on until the answer ends.
    async fn attempt(&mut self) -> std::result::Result<(), End> {
        let answer = self
            .oci
            .pull_blob_stream_partial(&self.reference, self.digest.as_str(), self.at, None)
            .await;
        let (mut stream, mut skip) = match answer {
            Ok(BlobResponse::Partial(stream)) => (stream.stream, 0),
            // The registry does not know ranges: what is here comes once more.
            Ok(BlobResponse::Full(stream)) => (stream.stream, self.at),
            // Range not satisfiable: it has less than was promised.
            Err(OciDistributionError::ServerError { code: 416, .. }) => return Err(End::NoMore),
            Err(OciDistributionError::RequestError(error)) if self.at > 0 => {
                return Err(self.broke_off(io::Error::other(error)));
            }
            Err(error) => return Err(End::Failed(self.context.error(error))),
        };
        while self.at < self.size {
            let Some(chunk) = stream.next().await else {
                return Ok(());
            };
            let mut chunk = chunk.map_err(|error| {
                End::Failed(self.context.interrupted(&self.digest, self.at, self.size, error))
            })?;
            let known = skip.min(chunk.len() as u64);
            skip -= known;
            // Both fit: they are at most the chunk's length.
            drop(chunk.split_to(known as usize));
            chunk.truncate(usize::try_from(self.size - self.at).unwrap_or(usize::MAX));
            if chunk.is_empty() {
                continue;
            }
            if let Some((file, path)) = &mut self.keep {
                file.write_all(&chunk)
                    .map_err(|error| End::Failed(Error::io("write", path)(error)))?;
            }
            self.at += chunk.len() as u64;
            self.sender.send(Ok(chunk)).await.map_err(|_| End::Unwanted)?;
        }
        Ok(())
    }

    fn broke_off(&self, error: io::Error) -> End {
        End::Failed(self.context.interrupted(&self.digest, self.at, self.size, error))
    }
}
