//! The default guest kernel: Debian's current stable cloud kernel.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use super::archive::{Archive, Refresh};
use super::cache::Cache;
use super::deb;
use super::error::{Error, Result};
use super::image::debian_architecture;
use super::modules::{self, Module, ModuleArchive};
use super::relation;
use super::resolve::{Chosen, Universe};
use crate::digest::Digest;
use crate::platform::Platform;
use crate::progress::Progress;

const SUITE: &str = "stable";
/// Largest kernel image and module that are taken.
const MAX_FILE: u64 = 256 << 20;
/// Names inside an unpacked kernel's folder.
const VERSION: &str = "version";
const IMAGE: &str = "vmlinuz";
const CONFIG: &str = "config";
const BUILTIN: &str = "modules.builtin";
const MODULES: &str = "modules.tar";

/// A kernel in the cache.
#[derive(Clone, Debug)]
pub struct Kernel {
    /// Its release as `uname -r` says it.
    pub version: String,
    /// Digest of the package it came in, which identifies it.
    pub digest: Digest,
    /// The bootable image as Debian ships it: a bzImage for amd64, a PE/EFI-stub Image for arm64.
    pub image: PathBuf,
    /// Its build configuration (`CONFIG_...=` lines).
    pub config: PathBuf,
    /// All its modules as shipped, in one plain tar archive; use [`Kernel::modules_closure`].
    pub modules: PathBuf,
    builtin: PathBuf,
}

impl Archive {
    /// The current stable cloud kernel for a platform, fetched and unpacked if it is not in the cache.
    pub fn kernel(&self, platform: &Platform, refresh: Refresh, progress: &dyn Progress) -> Result<Kernel> {
        let architecture = debian_architecture(platform).filter(|name| matches!(*name, "amd64" | "arm64"));
        let architecture = architecture.ok_or_else(|| Error::Kernel {
            version: format!("Debian's cloud kernel for {platform}"),
            reason: "there is none: choose a kernel with --kernel".into(),
        })?;
        let releases = self.releases(SUITE, refresh, progress)?;
        let meta = format!("linux-image-cloud-{architecture}");
        let chosen = self.resolved(&releases, &meta, architecture, refresh, progress, |universe| {
            kernel_package(universe, &meta).map(|package| vec![package])
        })?;
        let [package] = chosen.as_slice() else {
            return Err(Error::Kernel {
                version: meta,
                reason: "it is not one package".into(),
            });
        };
        let folder = self.cache.record("kernels", &package.digest);
        if !folder.is_dir() {
            let files = self.packages(&chosen, refresh, progress)?;
            unpack(&self.cache, &files[0], &folder)?;
        }
        Kernel::open(&folder, package.digest)
    }
}

/// The package with the image that a metapackage depends on.
fn kernel_package(universe: &Universe, meta: &str) -> Result<Chosen> {
    let unusable = |reason: String| Error::Kernel {
        version: meta.to_owned(),
        reason,
    };
    let missing = || unusable(format!("Debian {} has no such package", universe.suite));
    let (_, package) = universe.newest(meta).ok_or_else(missing)?;
    let groups = relation::parse(package.field("Depends").unwrap_or_default()).map_err(unusable)?;
    let image = groups
        .iter()
        .flatten()
        .find(|relation| relation.name.starts_with("linux-image-"));
    let image = image.ok_or_else(|| unusable("it depends on no linux-image package".into()))?;
    let absent = || unusable(format!("`{image}` is not in Debian {}", universe.suite));
    let (place, package) = universe.satisfying(image).ok_or_else(absent)?;
    universe.located(place, package)
}

impl Kernel {
    fn open(folder: &Path, digest: Digest) -> Result<Kernel> {
        let path = folder.join(VERSION);
        let version = fs::read_to_string(&path).map_err(Error::io("read", &path))?;
        Ok(Kernel {
            version,
            digest,
            image: folder.join(IMAGE),
            config: folder.join(CONFIG),
            modules: folder.join(MODULES),
            builtin: folder.join(BUILTIN),
        })
    }

    /// The modules named and all they need, unpacked, in the order in which they can be loaded. What is
    /// built into the kernel is left out; names may be written with `-` or `_`.
    pub fn modules_closure(&self, names: &[&str]) -> Result<Vec<Module>> {
        let builtin = fs::read_to_string(&self.builtin).map_err(Error::io("read", &self.builtin))?;
        let file = File::open(&self.modules).map_err(Error::io("open", &self.modules))?;
        let mut archive = ModuleArchive::open(file).map_err(Error::io("read", &self.modules))?;
        modules::closure(&mut archive, &modules::builtin_names(&builtin), names).map_err(|reason| {
            Error::Kernel {
                version: self.version.clone(),
                reason,
            }
        })
    }
}

/// Takes the image and the modules out of a kernel package.
fn unpack(cache: &Cache, package: &Path, folder: &Path) -> Result<()> {
    cache.publish_folder(folder, |staged| {
        let modules_path = staged.join(MODULES);
        let modules = File::create_new(&modules_path).map_err(Error::io("write", &modules_path))?;
        let mut unpacking = Unpacking {
            staged,
            modules: tar::Builder::new(io::BufWriter::with_capacity(256 << 10, modules)),
            version: None,
            count: 0,
        };
        let mut archive = tar::Archive::new(deb::data_tar(package)?);
        for entry in archive.entries().map_err(Error::io("read", package))? {
            let mut entry = entry.map_err(|error| Error::bad_package(package, error.to_string()))?;
            unpacking.take(package, &mut entry)?;
        }
        let version = unpacking.finish(package)?;
        write_file(&staged.join(VERSION), version.as_bytes())?;
        File::open(staged)
            .and_then(|folder| folder.sync_all())
            .map_err(Error::io("sync", staged))
    })
}

struct Unpacking<'a> {
    staged: &'a Path,
    modules: tar::Builder<io::BufWriter<File>>,
    version: Option<String>,
    count: usize,
}

impl Unpacking<'_> {
    fn take(&mut self, package: &Path, entry: &mut tar::Entry<'_, impl Read>) -> Result<()> {
        let bad = |reason: String| Error::bad_package(package, reason);
        let path = String::from_utf8_lossy(&entry.path_bytes())
            .trim_start_matches("./")
            .to_owned();
        if !entry.header().entry_type().is_file() {
            return Ok(());
        }
        let name = path.rsplit('/').next().unwrap_or_default().to_owned();
        let target = if let Some(version) = path
            .strip_prefix("boot/vmlinu")
            .and_then(|rest| rest.split_once('-'))
        {
            self.version = Some(version.1.to_owned());
            IMAGE
        } else if path.starts_with("boot/config-") {
            CONFIG
        } else if name == BUILTIN {
            BUILTIN
        } else if modules::module_name(&name).is_some() {
            MODULES
        } else {
            return Ok(());
        };
        let size = entry.size();
        if size > MAX_FILE {
            return Err(bad(format!("`{path}` is larger than {} MiB", MAX_FILE >> 20)));
        }
        let mut bytes = Vec::new();
        entry
            .read_to_end(&mut bytes)
            .map_err(|error| bad(error.to_string()))?;
        if target != MODULES {
            return write_file(&self.staged.join(target), &bytes);
        }
        self.count += 1;
        let mut header = tar::Header::new_gnu();
        header.set_mode(0o644);
        header.set_size(size);
        let appended = self.modules.append_data(&mut header, &name, bytes.as_slice());
        appended.map_err(Error::io("write", &self.staged.join(MODULES)))
    }

    /// The version, when everything a kernel needs was there.
    fn finish(self, package: &Path) -> Result<String> {
        let modules_path = self.staged.join(MODULES);
        let sync = |file: io::BufWriter<File>| {
            file.into_inner()
                .map_err(io::IntoInnerError::into_error)?
                .sync_all()
        };
        self.modules
            .into_inner()
            .and_then(sync)
            .map_err(Error::io("write", &modules_path))?;
        let complete = [IMAGE, CONFIG, BUILTIN]
            .iter()
            .all(|name| self.staged.join(name).is_file());
        match self.version {
            Some(version) if complete && self.count > 0 => Ok(version),
            _ => Err(Error::bad_package(
                package,
                "it lacks a kernel image, its configuration or its modules",
            )),
        }
    }
}

fn write_file(path: &Path, bytes: &[u8]) -> Result<()> {
    let write = || {
        let mut file = File::create_new(path)?;
        file.write_all(bytes)?;
        file.sync_all()
    };
    write().map_err(Error::io("write", path))
}
