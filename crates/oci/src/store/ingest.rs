//! Adding layers and images to the store.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read};
use std::time::SystemTime;

use super::files::{Stage, write};
use super::image::{Image, ImageRecord};
use super::names::NameRecord;
use super::{Store, lock};
use crate::config::ImageConfig;
use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::index::flatten;
use crate::layer::Unpacked;
use crate::layer::decompress::Caps;
use crate::layer::ingest::{Promise, Taken, ingest};
use crate::platform::Platform;

/// Permission to add to the store: while it lives, nothing it added is collected as garbage.
#[derive(Debug)]
pub struct Ingest {
    pub(super) store: Store,
    /// What its layers have unpacked to.
    unpacked: Unpacked,
    _hold: lock::Held,
}

/// A layer in the store. Only as long as the [`Ingest`] it came from, or an image of it, does it stay there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layer {
    /// Digest of the uncompressed archive.
    pub diff_id: Digest,
}

/// An image about to be named.
pub(crate) struct NewImage<'a> {
    pub(crate) name: &'a str,
    /// The platform that was asked for.
    pub(crate) platform: &'a Platform,
    /// The configuration, byte for byte; its digest identifies the image.
    pub(crate) config: &'a [u8],
    pub(crate) manifest: Option<Digest>,
    pub(crate) compressed: u64,
}

impl Ingest {
    pub(super) fn begin(store: &Store) -> Result<Ingest> {
        store.sweep()?;
        Ok(Ingest {
            store: store.clone(),
            unpacked: Unpacked::default(),
            _hold: lock::shared(&store.files.lock("store"))?,
        })
    }

    /// Adds the layer in a tar archive, plain or compressed with gzip or zstd, read to its end once.
    ///
    /// # Errors
    /// [`Error::BadLayer`] if the archive is refused; an error of the reader itself; a full disk.
    pub fn layer(&self, tar: impl Read + Send) -> Result<Layer> {
        let promise = Promise {
            name: "being made".into(),
            ..Promise::default()
        };
        let (stage, taken) = self.take_in(BufReader::with_capacity(256 << 10, tar), &promise)?;
        let diff_id = taken.diff_id;
        let _lock = self.lock_layer(&diff_id)?;
        if !self.has_layer(&diff_id) {
            self.publish_layer(stage, &diff_id)?;
        }
        Ok(Layer { diff_id })
    }

    /// Adds an image of these layers, lowest first, under a name, for its own platform. `config.diff_ids` is
    /// filled in from the layers.
    ///
    /// # Errors
    /// [`Error::BadLayer`] if the layers do not fit together; a full disk.
    pub fn image(&self, name: &str, mut config: ImageConfig, layers: &[Layer]) -> Result<Image> {
        config.diff_ids = layers.iter().map(|layer| layer.diff_id).collect();
        let platform = config.platform.clone();
        let json = config.to_json();
        self.put(&NewImage {
            name,
            platform: &platform,
            config: &json,
            manifest: None,
            compressed: 0,
        })
    }

    /// Flattens and names an image whose layers are all there.
    pub(crate) fn put(&self, new: &NewImage) -> Result<Image> {
        let files = &self.store.files;
        let config = ImageConfig::parse(&format!("configuration of `{}`", new.name), new.config)?;
        let id = Digest::of(new.config);
        let folder = files.image(&id);
        let names = lock::exclusive(&files.lock("names"))?;
        if !files.is_present(&folder) {
            let stage = self.stage_image(new, &config)?;
            files.publish(stage, &folder)?;
        }
        let stored_at = SystemTime::now()
            .duration_since(SystemTime::UNIX_EPOCH)
            .map_or(0, |age| age.as_secs());
        let record = NameRecord {
            name: new.name.to_owned(),
            platform: new.platform.clone(),
            image: id,
            manifest: new.manifest,
            stored_at,
        };
        files.replace(
            &files.name(new.name, &new.platform.to_string()),
            &record.to_json(),
        )?;
        drop(names);
        Image::read(&self.store, record).ok_or_else(|| Error::NoImage(new.name.to_owned()))
    }

    fn stage_image(&self, new: &NewImage, config: &ImageConfig) -> Result<Stage> {
        let files = &self.store.files;
        let (mut lists, mut metadata, mut contents) = (Vec::new(), 0, 0);
        for diff_id in &config.diff_ids {
            let folder = files.layer(diff_id);
            let entries = folder.join("entries");
            metadata += fs::metadata(&entries)
                .map_err(Error::io("look at", &entries))?
                .len();
            self.check_metadata(new.name, metadata)?;
            lists.push((*diff_id, fs::read(&entries).map_err(Error::io("read", &entries))?));
            let path = folder.join("contents");
            contents += fs::metadata(&path).map_err(Error::io("look at", &path))?.len();
        }
        let stage = files.stage()?;
        let record = ImageRecord {
            compressed: new.compressed,
            contents,
        };
        write(&stage.path.join("index"), &flatten(&lists, &self.store.limits)?)?;
        write(&stage.path.join("config"), new.config)?;
        // Two numbers always have a JSON form.
        write(
            &stage.path.join("record"),
            &serde_json::to_vec(&record).unwrap_or_default(),
        )?;
        Ok(stage)
    }

    /// Layers that are small enough by themselves can be too much together.
    fn check_metadata(&self, image: &str, bytes: u64) -> Result<()> {
        let limit = self.store.limits.metadata_bytes;
        if bytes > limit {
            return Err(Error::BadDocument {
                what: format!("image `{image}`"),
                reason: format!("the names and attributes of its layers take more than {limit} bytes"),
            });
        }
        Ok(())
    }

    /// Waits for whoever else is adding the layer.
    pub(super) fn lock_layer(&self, diff_id: &Digest) -> Result<lock::Held> {
        lock::exclusive(&self.store.files.lock(&format!("layer-{}", diff_id.hex())))
    }

    pub(super) fn has_layer(&self, diff_id: &Digest) -> bool {
        self.store.files.is_present(&self.store.files.layer(diff_id))
    }

    /// Reads a layer's stream into a staged folder.
    pub(super) fn take_in(&self, input: impl BufRead + Send, promise: &Promise) -> Result<(Stage, Taken)> {
        let stage = self.store.files.stage()?;
        let path = stage.path.join("contents");
        let contents = File::create(&path).map_err(Error::io("create", &path))?;
        let caps = Caps {
            limits: &self.store.limits,
            image: &self.unpacked,
        };
        let taken = ingest(input, promise, caps, contents, &path)?;
        write(&stage.path.join("entries"), &taken.entries)?;
        Ok((stage, taken))
    }

    pub(super) fn publish_layer(&self, stage: Stage, diff_id: &Digest) -> Result<()> {
        self.store.files.publish(stage, &self.store.files.layer(diff_id))
    }

    /// Where the beginning of an interrupted download is kept.
    pub(super) fn partial(&self, diff_id: &Digest, blob: &Digest) -> std::path::PathBuf {
        self.store.files.partial(diff_id, blob)
    }
}
