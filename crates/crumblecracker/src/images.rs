//! Images by the names people give them.

use std::sync::Arc;

use oci::debian::{DebReference, Refresh};
use oci::{ImageConfig, ImageIndex, Platform, Progress, Puller, Reference, Source};

use crate::{Error, Library, Result};

/// When the network is asked for an image.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PullPolicy {
    /// Every time.
    Always,
    /// When the image is not in the cache.
    #[default]
    Missing,
    /// Never.
    Never,
}

impl PullPolicy {
    /// The same for Debian's archive.
    pub fn refresh(self) -> Refresh {
        match self {
            Self::Always => Refresh::Always,
            Self::Missing => Refresh::WhenStale,
            Self::Never => Refresh::Never,
        }
    }
}

/// How images are found.
#[derive(Clone, Debug)]
pub struct PullOptions {
    /// When the network is asked.
    pub policy: PullPolicy,
    /// The platform of the image.
    pub platform: Platform,
    /// Registries, `host` or `host:port`, that are spoken to in plain HTTP.
    pub insecure_registries: Vec<String>,
}

impl Default for PullOptions {
    fn default() -> Self {
        Self {
            policy: PullPolicy::Missing,
            platform: Platform::linux("amd64"),
            insecure_registries: Vec::new(),
        }
    }
}

/// An image in the cache. While an instance runs from it, its contents stay.
#[derive(Clone, Debug)]
pub struct Image {
    inner: oci::Image,
}

/// One line of the list of images.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageRecord {
    /// Name and tag.
    pub name: String,
    /// Digest of its configuration.
    pub id: String,
    /// `os/architecture[/variant]`.
    pub platform: String,
    /// Bytes of its files.
    pub bytes: u64,
    /// When it was made, as it says itself in RFC 3339.
    pub created: Option<String>,
}

impl Image {
    /// The name it was asked by.
    pub fn name(&self) -> &str {
        self.inner.name()
    }

    /// Its digest.
    pub fn id(&self) -> String {
        self.inner.id().to_string()
    }

    /// Its configuration.
    pub fn config(&self) -> &ImageConfig {
        self.inner.config()
    }

    pub(crate) fn index(&self) -> Result<Arc<ImageIndex>> {
        Ok(Arc::new(self.inner.open_index()?))
    }
}

impl Library {
    /// The image called `name`: `deb:[suite/]package[,package…]` is made of Debian packages; a path,
    /// `oci:FOLDER`, `oci-archive:FILE` or `docker-archive:FILE` is taken in; anything else comes from a
    /// registry.
    ///
    /// # Errors
    /// A malformed name; an image that is not there; [`Error::NotPulled`] where the network was forbidden.
    pub fn image(&self, name: &str, options: &PullOptions, progress: &Arc<dyn Progress>) -> Result<Image> {
        let inner = if DebReference::is_meant(name) {
            let reference = name.parse().map_err(Error::Debian)?;
            let (platform, refresh) = (&options.platform, options.policy.refresh());
            self.debian()?
                .image(&self.store()?, &reference, platform, refresh, &**progress)?
        } else if Source::is_meant(name) {
            self.archived_image(&name.parse()?, options, &**progress)?
        } else {
            self.registry_image(&name.parse()?, options, progress)?
        };
        check_platform(&inner)?;
        Ok(Image { inner })
    }

    /// The image with that digest, under the name it had.
    pub(crate) fn image_by_id(&self, name: &str, id: &oci::Digest) -> Result<Option<Image>> {
        let found = self.store()?.image_by_id(name, id);
        Ok(found.map(|inner| Image { inner }))
    }

    /// A file can have changed since it was taken in, so it is taken in anew unless that was forbidden; what
    /// the store has of it already is not unpacked again.
    fn archived_image(
        &self,
        source: &Source,
        options: &PullOptions,
        progress: &dyn Progress,
    ) -> Result<oci::Image> {
        let store = self.store()?;
        if options.policy == PullPolicy::Never {
            let name = source.to_string();
            return store
                .image(&name, &options.platform)?
                .ok_or(Error::NotPulled(name));
        }
        Ok(store.import(source, &options.platform, progress)?)
    }

    fn registry_image(
        &self,
        reference: &Reference,
        options: &PullOptions,
        progress: &Arc<dyn Progress>,
    ) -> Result<oci::Image> {
        let store = self.store()?;
        let name = reference.to_string();
        let present = match options.policy {
            PullPolicy::Always => None,
            PullPolicy::Missing | PullPolicy::Never => store.image(&name, &options.platform)?,
        };
        match present {
            Some(image) => Ok(image),
            None if options.policy == PullPolicy::Never => Err(Error::NotPulled(name)),
            None => Ok(Puller::new(store)
                .platform(options.platform.clone())
                .insecure_registries(options.insecure_registries.clone())
                .progress(progress.clone())
                .pull(reference)?),
        }
    }

    /// All images in the cache, by name.
    ///
    /// # Errors
    /// A cache that cannot be read.
    pub fn images(&self) -> Result<Vec<ImageRecord>> {
        let record = |image: oci::Image| ImageRecord {
            name: image.name().to_owned(),
            id: image.id().to_string(),
            platform: image.config().platform.to_string(),
            bytes: image.contents_size(),
            created: image.config().created.clone(),
        };
        Ok(self.store()?.images()?.into_iter().map(record).collect())
    }

    /// Forces all images that were added to the disk: until then they survive a kill, but not a crash of the
    /// host, after which they count as absent. Cheap where nothing was added.
    ///
    /// # Errors
    /// A disk that refuses.
    pub fn settle(&self) -> Result<()> {
        Ok(self.store()?.settle()?)
    }

    /// Takes a name off the list, and the contents that no other image needs.
    ///
    /// # Errors
    /// An unknown name; an image that is in use.
    pub fn remove_image(&self, name: &str) -> Result<()> {
        self.store()?.remove(&canonical(name)?)?;
        Ok(())
    }
}

/// The name under which the store has an image.
fn canonical(name: &str) -> Result<String> {
    if DebReference::is_meant(name) {
        return Ok(name.parse::<DebReference>().map_err(Error::Debian)?.to_string());
    }
    if Source::is_meant(name) {
        return Ok(name.parse::<Source>()?.to_string());
    }
    Ok(name.parse::<Reference>()?.to_string())
}

/// The one guest architecture there is so far.
fn check_platform(image: &oci::Image) -> Result<()> {
    let platform = &image.config().platform;
    if platform.os == "linux" && platform.architecture == "amd64" {
        return Ok(());
    }
    Err(Error::Platform {
        image: image.name().to_owned(),
        platform: platform.to_string(),
    })
}
