//! An image in the store.

use std::fs::{self, File};
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};

use super::names::NameRecord;
use super::{Store, lock};
use crate::config::ImageConfig;
use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::index::{ImageIndex, blob_digests};
use crate::platform::Platform;

/// The configuration of an image that is there.
fn stored_config(store: &Store, id: &Digest) -> Option<ImageConfig> {
    let folder = store.files.image(id);
    if !store.files.is_present(&folder) {
        return None;
    }
    ImageConfig::parse("stored configuration", &fs::read(folder.join("config")).ok()?).ok()
}

/// What is stored about an image besides its configuration.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct ImageRecord {
    /// Sum of the sizes of all layers as they travel, 0 if they never did.
    pub(super) compressed: u64,
    /// Sum of the sizes of all layers' contents files.
    pub(super) contents: u64,
}

/// An image in the store. Holding one does not keep it there; holding its [`ImageIndex`] does.
#[derive(Clone, Debug)]
pub struct Image {
    store: Store,
    name: NameRecord,
    config: Arc<ImageConfig>,
    record: ImageRecord,
}

impl Image {
    /// Reads what a name means; `None` if it is not there completely.
    pub(super) fn read(store: &Store, name: NameRecord) -> Option<Image> {
        let config = stored_config(store, &name.image)?;
        Self::with_config(store, name, config)
    }

    /// Reads the image with that configuration as if it had the name.
    pub(super) fn read_by_id(store: &Store, name: &str, id: &Digest) -> Option<Image> {
        let config = stored_config(store, id)?;
        let name = NameRecord {
            name: name.to_owned(),
            platform: config.platform.clone(),
            image: *id,
            manifest: None,
            stored_at: 0,
        };
        Self::with_config(store, name, config)
    }

    fn with_config(store: &Store, name: NameRecord, config: ImageConfig) -> Option<Image> {
        let folder = store.files.image(&name.image);
        let record = serde_json::from_slice(&fs::read(folder.join("record")).ok()?).ok()?;
        let present = |diff_id| store.files.is_present(&store.files.layer(diff_id));
        config.diff_ids.iter().all(present).then(|| Image {
            store: store.clone(),
            name,
            config: config.into(),
            record,
        })
    }

    /// The name it was looked up or stored by.
    pub fn name(&self) -> &str {
        &self.name.name
    }

    /// The platform it was asked for; its own is in its configuration.
    pub fn platform(&self) -> &Platform {
        &self.name.platform
    }

    /// Digest of its configuration, which identifies it.
    pub fn id(&self) -> &Digest {
        &self.name.image
    }

    /// Digest of the manifest it came with, if it did.
    pub fn manifest_digest(&self) -> Option<&Digest> {
        self.name.manifest.as_ref()
    }

    /// Its configuration.
    pub fn config(&self) -> &ImageConfig {
        &self.config
    }

    /// When the name was given to it.
    pub fn stored_at(&self) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(self.name.stored_at)
    }

    /// Bytes of its layers as they travelled; 0 if they never did.
    pub fn compressed_size(&self) -> u64 {
        self.record.compressed
    }

    /// Bytes of its layers' contents, holes included.
    pub fn contents_size(&self) -> u64 {
        self.record.contents
    }

    /// Opens the index of its files. While it is open the image cannot be removed.
    ///
    /// # Errors
    /// [`Error::NoImage`] if it was removed meanwhile; [`Error::BadIndex`] if it is damaged.
    pub fn open_index(&self) -> Result<ImageIndex> {
        let files = &self.store.files;
        let _store = lock::shared(&files.lock("store"))?;
        let hold = lock::shared(&files.lock(&format!("image-{}", self.id().hex())))?;
        let path = files.image(self.id()).join("index");
        let gone = |error: io::Error, path: &Path| match error.kind() {
            io::ErrorKind::NotFound => Error::NoImage(self.name().to_owned()),
            _ => Error::io("read", path)(error),
        };
        let bytes = fs::read(&path).map_err(|error| gone(error, &path))?;
        let damaged = |reason| Error::BadIndex {
            path: path.clone(),
            reason,
        };
        let mut blobs = Vec::new();
        for digest in blob_digests(&bytes).map_err(damaged)? {
            let path = files.layer(&digest).join("contents");
            blobs.push(Arc::new(File::open(&path).map_err(|error| gone(error, &path))?));
        }
        ImageIndex::load(bytes, blobs, Some(hold)).map_err(|error| match error.kind() {
            io::ErrorKind::InvalidData => damaged("a record is out of bounds"),
            _ => Error::io("read", &path)(error),
        })
    }
}
