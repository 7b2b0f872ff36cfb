//! Garbage collection: what no name leads to goes away, unless somebody is using or adding it.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::fs;
use std::path::Path;
use std::time::Duration;

use super::files::remove_folder;
use super::{Store, lock};
use crate::config::ImageConfig;
use crate::error::{Error, Result};

/// Age after which the beginning of a download is given up.
const PARTIAL_AGE: Duration = Duration::from_secs(7 * 24 * 3600);

/// What a collection freed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Collected {
    /// Images removed.
    pub images: usize,
    /// Layers removed.
    pub layers: usize,
    /// Bytes of layer contents removed, holes included.
    pub bytes: u64,
    /// Nothing was looked at because somebody is adding to the store; a later collection will.
    pub deferred: bool,
}

impl Store {
    /// Removes images without a name, layers without an image, and what killed processes left behind.
    ///
    /// # Errors
    /// If something cannot be removed.
    pub fn collect_garbage(&self) -> Result<Collected> {
        let Some(_store) = lock::try_exclusive(&self.files.lock("store"))? else {
            return Ok(Collected {
                deferred: true,
                ..Collected::default()
            });
        };
        self.remove_staged()?;
        let mut collected = Collected::default();
        let layers = self.collect_images(&mut collected)?;
        self.collect_layers(&layers, &mut collected)?;
        self.collect_partials()?;
        self.collect_locks()?;
        Ok(collected)
    }

    /// Removes what killed processes were making, unless somebody is making something right now.
    pub(super) fn sweep(&self) -> Result<()> {
        match lock::try_exclusive(&self.files.lock("store"))? {
            Some(_store) => self.remove_staged(),
            None => Ok(()),
        }
    }

    /// The caller holds the exclusive `store` lock: what is staged belongs to nobody.
    fn remove_staged(&self) -> Result<()> {
        self.files
            .list("staging")?
            .iter()
            .try_for_each(|path| remove_folder(path))
    }

    /// Removes images nobody names or uses; tells the layers of those that stay.
    fn collect_images(&self, collected: &mut Collected) -> Result<HashSet<String>> {
        let named: HashSet<String> = self
            .name_records()?
            .into_iter()
            .map(|(_, record)| record.image.hex())
            .collect();
        let mut layers = HashSet::new();
        for path in self.files.list("images")? {
            let id = file_name(&path);
            let lock = self.files.lock(&format!("image-{id}"));
            let unused = !named.contains(id) || !self.files.is_present(&path);
            if unused && lock::try_exclusive(&lock)?.is_some() {
                remove_folder(&path)?;
                collected.images += 1;
                continue;
            }
            let config = fs::read(path.join("config")).map_err(Error::io("read", &path))?;
            let config = ImageConfig::parse("stored configuration", &config)?;
            layers.extend(config.diff_ids.iter().map(|diff_id| diff_id.hex()));
        }
        Ok(layers)
    }

    fn collect_layers(&self, needed: &HashSet<String>, collected: &mut Collected) -> Result<()> {
        for path in self.files.list("layers-1")? {
            if needed.contains(file_name(&path)) {
                continue;
            }
            collected.layers += 1;
            collected.bytes += fs::metadata(path.join("contents")).map_or(0, |contents| contents.len());
            remove_folder(&path)?;
        }
        Ok(())
    }

    fn collect_partials(&self) -> Result<()> {
        for path in self.files.list("partial")? {
            let modified = fs::metadata(&path).and_then(|metadata| metadata.modified());
            if modified.is_ok_and(|time| time.elapsed().is_ok_and(|age| age > PARTIAL_AGE)) {
                fs::remove_file(&path).map_err(Error::io("remove", &path))?;
            }
        }
        Ok(())
    }

    /// Removes the files of locks nobody holds.
    fn collect_locks(&self) -> Result<()> {
        for path in self.files.list("locks")? {
            let name = file_name(&path);
            let ours = name.starts_with("layer-") || name.starts_with("image-");
            if ours && let Some(_held) = lock::try_exclusive(&path)? {
                fs::remove_file(&path).map_err(Error::io("remove", &path))?;
            }
        }
        Ok(())
    }
}

fn file_name(path: &Path) -> &str {
    path.file_name().and_then(OsStr::to_str).unwrap_or_default()
}
