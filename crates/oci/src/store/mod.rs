//! The content store: layers, images and their names under one cache folder.

mod collect;
mod files;
mod image;
mod ingest;
mod install;
mod lock;
mod names;

use std::path::Path;
use std::sync::Arc;

pub use collect::Collected;
use files::Files;
pub use image::Image;
pub(crate) use ingest::NewImage;
pub use ingest::{Ingest, Layer};
pub(crate) use install::{BlobSource, Blueprint, Heard, LayerJob, Stream};
use names::NameRecord;

use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::layer::Limits;
use crate::platform::Platform;

/// A content store; clones share it. Any number of threads and processes may use one folder at once.
#[derive(Clone, Debug)]
pub struct Store {
    files: Arc<Files>,
    limits: Limits,
}

impl Store {
    /// Opens the store in `folder`, which is made if absent.
    ///
    /// # Errors
    /// If the folder cannot be made or written.
    pub fn open(folder: &Path) -> Result<Store> {
        Ok(Store {
            files: Arc::new(Files::open(folder)?),
            limits: Limits::default(),
        })
    }

    /// The same store with other limits for what is added through this value.
    pub fn with_limits(self, limits: Limits) -> Store {
        Store { limits, ..self }
    }

    /// The store's folder.
    pub fn folder(&self) -> &Path {
        &self.files.root
    }

    /// The image `name` means for `platform`, as it was given when the image was added.
    ///
    /// Names are whatever they were added under; a [`crate::Reference`]'s is its full `to_string()`.
    ///
    /// # Errors
    /// If the store cannot be read. A damaged record counts as absent.
    pub fn image(&self, name: &str, platform: &Platform) -> Result<Option<Image>> {
        let path = self.files.name(name, &platform.to_string());
        Ok(NameRecord::read(&path)?.and_then(|record| Image::read(self, record)))
    }

    /// The image whose configuration has this digest, whatever its name means by now; `name` is what it is called then.
    /// `None` if it is not there completely.
    pub fn image_by_id(&self, name: &str, id: &Digest) -> Option<Image> {
        Image::read_by_id(self, name, id)
    }

    /// All images by name, sorted.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub fn images(&self) -> Result<Vec<Image>> {
        let records = self.name_records()?.into_iter();
        let mut images: Vec<Image> = records
            .filter_map(|(_, record)| Image::read(self, record))
            .collect();
        images
            .sort_by(|a, b| (a.name(), a.platform().to_string()).cmp(&(b.name(), b.platform().to_string())));
        Ok(images)
    }

    /// Removes the name, of all platforms, and whatever no other image needs.
    ///
    /// While somebody else adds to the store nothing is freed yet, see [`Collected::deferred`].
    ///
    /// # Errors
    /// [`Error::NoImage`]; [`Error::ImageInUse`] if the last name of an image is to go whose index is open
    /// anywhere.
    pub fn remove(&self, name: &str) -> Result<Collected> {
        let store = lock::shared(&self.files.lock("store"))?;
        let names = lock::exclusive(&self.files.lock("names"))?;
        let (gone, stay): (Vec<_>, Vec<_>) = self
            .name_records()?
            .into_iter()
            .partition(|(_, record)| record.name == name);
        if gone.is_empty() {
            return Err(Error::NoImage(name.to_owned()));
        }
        for (_, record) in &gone {
            let is_last = stay.iter().all(|(_, other)| other.image != record.image);
            if is_last && self.is_in_use(&record.image)? {
                return Err(Error::ImageInUse(name.to_owned()));
            }
        }
        for (path, _) in &gone {
            std::fs::remove_file(path).map_err(Error::io("remove", path))?;
        }
        drop((names, store));
        self.collect_garbage()
    }

    /// Begins to add layers and an image.
    ///
    /// # Errors
    /// If the store cannot be locked.
    pub fn begin(&self) -> Result<Ingest> {
        Ingest::begin(self)
    }

    /// Forces everything that was added to the disk; until then it does not survive a crash of the host.
    ///
    /// # Errors
    /// If the disk refuses.
    pub fn settle(&self) -> Result<()> {
        let _hold = lock::shared(&self.files.lock("store"))?;
        // Whoever waits here finds done what it came for, and on the disk.
        let _turn = lock::exclusive(&self.files.lock("settle"))?;
        self.files.settle("layers-1")?;
        self.files.settle("images")?;
        self.files.settle_names()
    }

    /// All readable name records with their files.
    fn name_records(&self) -> Result<Vec<(std::path::PathBuf, NameRecord)>> {
        let paths = self.files.list("names")?.into_iter();
        paths
            .filter_map(|path| {
                NameRecord::read(&path)
                    .transpose()
                    .map(|record| Ok((path, record?)))
            })
            .collect()
    }

    fn is_in_use(&self, id: &Digest) -> Result<bool> {
        Ok(lock::try_exclusive(&self.files.lock(&format!("image-{}", id.hex())))?.is_none())
    }
}
