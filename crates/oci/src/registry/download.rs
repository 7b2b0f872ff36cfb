//! Streams of layers that survive a bad network: what is missing is asked for again.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use reqwest::StatusCode;
use tokio::sync::mpsc::{Receiver, Sender, channel};

use super::client::Client;
use super::keep::Keeper;
use super::session::Session;
use crate::error::{Error, Result};
use crate::store::{BlobSource, Heard, LayerJob, Stream};

/// Chunks under way between the network and the decoder; those of a fast network are 400 KiB each, and more
/// of them would be out of the processor's caches before they are read.
const CHUNKS: usize = 6;
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
        let (keeper, kept) = Keeper::open(partial, size)?;
        let resumed = kept.as_ref().map_or(0, |(_, length)| *length);
        heard.resumed(resumed);
        let (sender, receiver) = channel(CHUNKS);
        let feed = Feed {
            session: self.client.session.clone(),
            digest: digest.to_string(),
            size,
            at: resumed,
            keeper,
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
    session: Arc<Session>,
    digest: String,
    size: u64,
    /// How much was sent, or was there before.
    at: u64,
    keeper: Keeper,
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
        let mut answer = match self.session.blob(&self.digest, self.at).await {
            Ok(Some(answer)) => answer,
            // It has less than was promised.
            Ok(None) => return Err(End::NoMore),
            Err(Error::Unreachable { source, .. }) if self.at > 0 => return Err(self.broke_off(source)),
            Err(error) => return Err(End::Failed(error)),
        };
        // A registry that does not know ranges gives what is here once more.
        let mut skip = match answer.status() {
            StatusCode::PARTIAL_CONTENT => 0,
            _ => self.at,
        };
        while self.at < self.size {
            let chunk = answer.chunk().await;
            let Some(mut chunk) = chunk.map_err(|error| self.broke_off(error.into()))? else {
                return Ok(());
            };
            let known = skip.min(chunk.len() as u64);
            skip -= known;
            // Both fit: they are at most the chunk's length.
            drop(chunk.split_to(known as usize));
            chunk.truncate(usize::try_from(self.size - self.at).unwrap_or(usize::MAX));
            if chunk.is_empty() {
                continue;
            }
            self.keeper.keep(&chunk).map_err(End::Failed)?;
            self.at += chunk.len() as u64;
            self.sender.send(Ok(chunk)).await.map_err(|_| End::Unwanted)?;
        }
        Ok(())
    }

    fn broke_off(&self, source: Box<dyn std::error::Error + Send + Sync>) -> End {
        End::Failed(Error::Interrupted {
            registry: self.session.context.registry.clone(),
            what: format!("layer {}", self.digest),
            arrived: self.at,
            size: self.size,
            kept: self.keeper.is_kept(),
            source,
        })
    }
}
