//! The kernel a guest boots: Debian's or the user's, unpacked once and kept.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

use oci::debian::Refresh;
use oci::{Digest, Platform, Progress};

use crate::error::one_line;
use crate::{Error, Library, Result};

/// Which kernel.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum KernelChoice {
    /// The current stable cloud kernel of Debian's archive.
    #[default]
    Debian,
    /// A bzImage or an ELF kernel.
    File(PathBuf),
}

/// A kernel that can be booted.
pub(crate) struct Kernel {
    /// As an ELF file.
    pub(crate) elf: File,
    /// Digest of the image it came in.
    pub(crate) digest: String,
}

impl Library {
    /// Brings the default kernel into the cache, ready to boot; returns its version.
    ///
    /// # Errors
    /// Those of the archive; a full disk.
    pub fn fetch_kernel(&self, refresh: Refresh, progress: &dyn Progress) -> Result<String> {
        Ok(self.debian_kernel(refresh, progress)?.0)
    }

    /// A kernel, its file opened.
    pub(crate) fn kernel(
        &self,
        choice: &KernelChoice,
        refresh: Refresh,
        progress: &dyn Progress,
    ) -> Result<Kernel> {
        match choice {
            KernelChoice::Debian => Ok(self.debian_kernel(refresh, progress)?.1),
            KernelChoice::File(path) => {
                let bytes = read(path)?;
                self.unpacked(path, Digest::of(&bytes).to_string())
            }
        }
    }

    /// The default kernel and its version.
    fn debian_kernel(&self, refresh: Refresh, progress: &dyn Progress) -> Result<(String, Kernel)> {
        let kernel = self
            .debian()?
            .kernel(&Platform::linux("amd64"), refresh, progress)?;
        let unpacked = self.unpacked(&kernel.image, kernel.digest.to_string())?;
        Ok((kernel.version, unpacked))
    }

    /// The unpacked form of the kernel in `image`, whose content `digest` identifies; made where it is missing,
    /// staged and renamed so that it is whole or absent.
    fn unpacked(&self, image: &Path, digest: String) -> Result<Kernel> {
        let folder = self.cache_folder().join("kernels");
        let path = folder.join(format!("{}.elf", digest.replace(':', "-")));
        if let Ok(elf) = File::open(&path) {
            return Ok(Kernel { elf, digest });
        }
        let refused = |reason: String| Error::Kernel {
            path: image.to_owned(),
            reason,
        };
        let elf = machine::unpack_kernel(&read(image)?).map_err(|error| refused(one_line(&error)))?;
        let failed = Error::file("write", &path);
        fs::create_dir_all(&folder).map_err(failed.clone())?;
        let mut staged = tempfile::NamedTempFile::new_in(&folder).map_err(failed.clone())?;
        staged.write_all(&elf).map_err(failed.clone())?;
        staged.as_file().sync_all().map_err(failed.clone())?;
        staged.persist(&path).map_err(|error| failed(error.error))?;
        let elf = File::open(&path).map_err(Error::file("open", &path))?;
        Ok(Kernel { elf, digest })
    }
}

fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).map_err(Error::file("read kernel", path))
}
