//! The content store: layers, images and their names under one cache folder.

use std::io::Read;
use std::path::Path;
use std::sync::Arc;

use crate::config::ImageConfig;
use crate::digest::Digest;
use crate::error::Result;
use crate::platform::Platform;

/// A content store; clones share it. Any number of processes may use one folder at once.
#[derive(Clone, Debug)]
pub struct Store {
    root: Arc<Path>,
}

/// An image in the store.
#[derive(Clone, Debug)]
pub struct Image {
    name: String,
    id: Digest,
    config: Arc<ImageConfig>,
}

/// Permission to add to the store: while it lives, nothing it added is collected as garbage.
#[derive(Debug)]
pub struct Ingest {
    store: Store,
}

/// A layer in the store, kept from garbage collection by the [`Ingest`] it came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layer {
    /// Digest of the uncompressed archive.
    pub diff_id: Digest,
}

impl Store {
    /// Opens the store in `folder`, which is made if absent.
    pub fn open(folder: &Path) -> Result<Store> {
        Ok(Store { root: folder.into() })
    }

    /// The image called `name` for `platform`.
    pub fn image(&self, _name: &str, _platform: &Platform) -> Result<Option<Image>> {
        unimplemented!()
    }

    /// Begins to add layers and an image.
    pub fn begin(&self) -> Result<Ingest> {
        Ok(Ingest { store: self.clone() })
    }
}

impl Ingest {
    /// Adds the layer in an uncompressed tar archive, read to its end once and in order.
    pub fn layer(&self, _tar: impl Read) -> Result<Layer> {
        let _ = &self.store;
        unimplemented!()
    }

    /// Adds an image of these layers, lowest first, under a name; `config.diff_ids` is filled in from them.
    pub fn image(&self, _name: &str, _config: ImageConfig, _layers: &[Layer]) -> Result<Image> {
        unimplemented!()
    }
}

impl Image {
    /// The name it was looked up or stored by.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Digest of its configuration, which identifies it.
    pub fn id(&self) -> &Digest {
        &self.id
    }

    /// Its configuration.
    pub fn config(&self) -> &ImageConfig {
        &self.config
    }
}
