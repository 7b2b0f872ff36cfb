//! Where everything is kept, and what the user configured.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use oci::debian::{Archive, ArchiveOptions, Keyring, MirrorConfig};
use serde::Deserialize;

use crate::{Error, Result};

/// Settings from the configuration file, all optional.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct ConfigFile {
    debian: DebianConfig,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct DebianConfig {
    /// Address of the Debian mirror.
    mirror: Option<String>,
}

/// The folder with images and kernels, and the settings that go with it. The start of everything.
#[derive(Clone, Debug)]
pub struct Library {
    cache: PathBuf,
    mirror: Option<String>,
    /// Opened when it is first needed.
    debian: Arc<OnceLock<Archive>>,
}

impl Library {
    /// Opens the library in `cache`, or in the user's cache folder: `$CC_CACHE_DIR`,
    /// `$XDG_CACHE_HOME/crumblecracker`, `~/.cache/crumblecracker`. Reads `$CC_CONFIG` or
    /// `crumblecracker/config.json` in the user's configuration folder, where there is one:
    /// `{"debian": {"mirror": "ADDRESS"}}`; `$CC_DEBIAN_MIRROR` goes before it.
    ///
    /// # Errors
    /// [`Error::NoCacheFolder`], [`Error::Configuration`].
    pub fn open(cache: Option<&Path>) -> Result<Self> {
        let cache = match cache {
            Some(folder) => folder.to_owned(),
            None => default_cache().ok_or(Error::NoCacheFolder)?,
        };
        let cache = std::path::absolute(&cache).map_err(Error::file("find", &cache))?;
        let configured = read_config()?.debian.mirror;
        let mirror = set_variable("CC_DEBIAN_MIRROR")
            .and_then(|text| text.into_string().ok())
            .or(configured);
        Ok(Self {
            cache,
            mirror,
            debian: Arc::default(),
        })
    }

    /// The folder itself.
    pub fn cache_folder(&self) -> &Path {
        &self.cache
    }

    /// The content store.
    pub(crate) fn store(&self) -> Result<oci::Store> {
        Ok(oci::Store::open(&self.cache.join("images"))?)
    }

    /// Debian's archive.
    pub(crate) fn debian(&self) -> Result<&Archive> {
        if let Some(archive) = self.debian.get() {
            return Ok(archive);
        }
        let archive = Archive::open(ArchiveOptions {
            cache: self.cache.join("debian"),
            mirror: MirrorConfig {
                explicit: self.mirror.clone(),
                ..MirrorConfig::default()
            },
            keyring: Keyring::debian(),
        })?;
        Ok(self.debian.get_or_init(|| archive))
    }
}

fn set_variable(name: &str) -> Option<std::ffi::OsString> {
    env::var_os(name).filter(|value| !value.is_empty())
}

fn default_cache() -> Option<PathBuf> {
    if let Some(folder) = set_variable("CC_CACHE_DIR") {
        return Some(folder.into());
    }
    let base = set_variable("XDG_CACHE_HOME").map(PathBuf::from);
    let base = base.or_else(|| Some(PathBuf::from(set_variable("HOME")?).join(".cache")))?;
    Some(base.join("crumblecracker"))
}

fn read_config() -> Result<ConfigFile> {
    let base = set_variable("XDG_CONFIG_HOME").map(PathBuf::from);
    let base = base.or_else(|| Some(PathBuf::from(set_variable("HOME")?).join(".config")));
    let named = set_variable("CC_CONFIG").map(PathBuf::from);
    let Some(path) = named
        .clone()
        .or_else(|| Some(base?.join("crumblecracker/config.json")))
    else {
        return Ok(ConfigFile::default());
    };
    match fs::read(&path) {
        Ok(bytes) => serde_json::from_slice(&bytes).map_err(|error| Error::Configuration {
            path,
            reason: error.to_string(),
        }),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound && named.is_none() => {
            Ok(ConfigFile::default())
        }
        Err(error) => Err(Error::Configuration {
            path,
            reason: error.to_string(),
        }),
    }
}
