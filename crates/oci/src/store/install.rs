//! Taking a whole image in from a registry or an archive: its missing layers in parallel, then its index.

use std::io::BufRead;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::Store;
use super::image::Image;
use super::ingest::{Ingest, NewImage};
use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::layer::ingest::Promise;
use crate::progress::{Event, Progress};

/// Layers taken in at once.
const PARALLEL: usize = 3;

/// A stream of a layer's bytes.
pub(crate) type Stream<'a> = Box<dyn BufRead + Send + 'a>;

/// Where layers come from.
pub(crate) trait BlobSource: Sync {
    /// Opens a layer. A source that is slow keeps its beginning in `partial` and continues from there;
    /// the callback is told how many bytes were there and then how many more came.
    fn open<'a>(&'a self, job: &LayerJob, partial: &std::path::Path, heard: Heard<'a>) -> Result<Stream<'a>>;
}

/// Told how a stream gets on.
pub(crate) trait Hear: Send {
    /// The stream begins with so many bytes that were there already.
    fn resumed(&mut self, bytes: u64);
    /// So many more came.
    fn advanced(&mut self, bytes: u64);
}

/// Whoever is told.
pub(crate) type Heard<'a> = Box<dyn Hear + 'a>;

/// One layer of an image that is being taken in.
#[derive(Clone, Debug)]
pub(crate) struct LayerJob {
    /// Digest of the archive in it.
    pub(crate) diff_id: Digest,
    /// Digest and length of the stream, if its source has promised any.
    pub(crate) blob: Option<(Digest, u64)>,
    /// Where the source finds it, if not by its digest.
    pub(crate) place: usize,
}

/// An image that is being taken in.
pub(crate) struct Blueprint<'a> {
    pub(crate) image: NewImage<'a>,
    pub(crate) layers: Vec<LayerJob>,
}

impl Store {
    /// Takes a whole image in; if its name meant another one, that one goes unless it is needed otherwise.
    /// Nothing of an image that is refused, or for which the disk is too small, stays.
    pub(crate) fn take_over(
        &self,
        blueprint: Blueprint,
        source: &dyn BlobSource,
        progress: &dyn Progress,
    ) -> Result<Image> {
        let before = self.image(blueprint.image.name, blueprint.image.platform)?;
        let image = self.begin()?.install(blueprint, source, progress);
        if let Err(error) = &image
            && !is_resumable(error)
        {
            // Layers without an image only fill the disk. What failed before this is what is told.
            let _ = self.collect_garbage();
        }
        let image = image?;
        if before.is_some_and(|before| before.id() != image.id()) {
            self.collect_garbage()?;
        }
        Ok(image)
    }
}

impl Ingest {
    /// Takes in the layers that are missing, then the image.
    fn install(
        &self,
        mut blueprint: Blueprint,
        source: &dyn BlobSource,
        progress: &dyn Progress,
    ) -> Result<Image> {
        let layers = &blueprint.layers;
        let bytes = layers
            .iter()
            .filter_map(|job| job.blob)
            .map(|(_, length)| length)
            .sum();
        blueprint.image.compressed = bytes;
        progress.report(Event::Resolved {
            layers: layers.len(),
            bytes,
        });
        let (next, failure) = (AtomicUsize::new(0), Mutex::new(None));
        let work = || {
            while let Some((number, job)) = next_job(&next, layers) {
                if let Err(error) = self.install_layer(number, job, source, progress) {
                    // The first error is the one that counts; nobody begins another layer after it.
                    next.store(layers.len(), Ordering::Relaxed);
                    let mut failure = failure.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
                    failure.get_or_insert(error);
                }
            }
        };
        std::thread::scope(|scope| {
            for _ in 1..layers.len().min(PARALLEL) {
                scope.spawn(work);
            }
            work();
        });
        if let Some(error) = failure
            .into_inner()
            .unwrap_or_else(|poisoned| poisoned.into_inner())
        {
            return Err(error);
        }
        progress.report(Event::Indexing);
        self.put(&blueprint.image)
    }

    fn install_layer(
        &self,
        number: usize,
        job: &LayerJob,
        source: &dyn BlobSource,
        progress: &dyn Progress,
    ) -> Result<()> {
        let _lock = self.lock_layer(&job.diff_id)?;
        if self.has_layer(&job.diff_id) {
            progress.report(Event::LayerDone {
                layer: number,
                present: true,
            });
            return Ok(());
        }
        let name = job.blob.map_or(job.diff_id, |(digest, _)| digest);
        let partial = self.partial(&job.diff_id, &name);
        let resumed = partial.exists();
        let mut result = self.take_layer(number, job, source, progress, &partial);
        if resumed
            && matches!(
                result,
                Err(Error::DigestMismatch { .. } | Error::SizeMismatch { .. })
            )
        {
            // The kept beginning may be what is damaged: a crash of the host can do that. Once more, afresh.
            discard(&partial)?;
            result = self.take_layer(number, job, source, progress, &partial);
        }
        match result {
            Err(error) if is_resumable(&error) => Err(error),
            other => {
                discard(&partial)?;
                other?;
                progress.report(Event::LayerDone {
                    layer: number,
                    present: false,
                });
                Ok(())
            }
        }
    }

    fn take_layer(
        &self,
        number: usize,
        job: &LayerJob,
        source: &dyn BlobSource,
        progress: &dyn Progress,
        partial: &std::path::Path,
    ) -> Result<()> {
        let name = job.blob.map_or(job.diff_id, |(digest, _)| digest);
        let bytes = job.blob.map_or(0, |(_, length)| length);
        let heard = LayerProgress {
            layer: number,
            digest: name,
            bytes,
            progress,
        };
        let stream = source.open(job, partial, Box::new(heard))?;
        let promise = Promise {
            name: name.to_string(),
            blob: job.blob,
            diff_id: Some(job.diff_id),
        };
        let (stage, _) = self.take_in(stream, &promise)?;
        self.publish_layer(stage, &job.diff_id)
    }
}

/// Whether what was fetched is worth keeping: only the way it came failed.
fn is_resumable(error: &Error) -> bool {
    matches!(
        error,
        Error::Unreachable { .. } | Error::Interrupted { .. } | Error::Io { .. } | Error::Unauthorized { .. }
    )
}

fn next_job<'a>(next: &AtomicUsize, layers: &'a [LayerJob]) -> Option<(usize, &'a LayerJob)> {
    let number = next.fetch_add(1, Ordering::Relaxed);
    layers.get(number).map(|job| (number, job))
}

fn discard(partial: &std::path::Path) -> Result<()> {
    match std::fs::remove_file(partial) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(Error::io("remove", partial)(error))
        }
        _ => Ok(()),
    }
}

/// Passes one layer's news on.
struct LayerProgress<'a> {
    layer: usize,
    digest: Digest,
    bytes: u64,
    progress: &'a dyn Progress,
}

impl Hear for LayerProgress<'_> {
    fn resumed(&mut self, resumed: u64) {
        let (layer, digest, bytes) = (self.layer, &self.digest, self.bytes);
        self.progress.report(Event::LayerStarted {
            layer,
            digest,
            bytes,
            resumed,
        });
    }

    fn advanced(&mut self, bytes: u64) {
        self.progress.report(Event::LayerAdvanced {
            layer: self.layer,
            bytes,
        });
    }
}
