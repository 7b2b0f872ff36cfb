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

impl Library {
    /// Brings the default kernel into the cache, ready to boot; returns its version.
    ///
    /// # Errors
    /// Those of the archive; a full disk.
    pub fn fetch_kernel(&self, refresh: Refresh, progress: &dyn Progress) -> Result<String> {
        Ok(self.debian_kernel(refresh, progress)?.0)
    }

    /// The ELF file of a kernel, opened.
    pub(crate) fn kernel(
        &self,
        choice: &KernelChoice,
        refresh: Refresh,
        progress: &dyn Progress,
    ) -> Result<File> {
        match choice {
            KernelChoice::Debian => Ok(self.debian_kernel(refresh, progress)?.1),
            KernelChoice::File(path) => {
                let bytes = read(path)?;
                let key = Digest::of(&bytes).to_string();
                self.unpacked(path, &key)
            }
        }
    }

    /// Version and ELF file of the default kernel.
    fn debian_kernel(&self, refresh: Refresh, progress: &dyn Progress) -> Result<(String, File)> {
        let kernel = self
            .debian()?
            .kernel(&Platform::linux("amd64"), refresh, progress)?;
        let file = self.unpacked(&kernel.image, &kernel.digest.to_string())?;
        Ok((kernel.version, file))
    }

    /// The unpacked form of the kernel in `image`, whose content `key` identifies; made where it is missing,
    /// staged and renamed so that it is whole or absent.
    fn unpacked(&self, image: &Path, key: &str) -> Result<File> {
        let folder = self.cache_folder().join("kernels");
        let path = folder.join(format!("{}.elf", key.replace(':', "-")));
        if let Ok(file) = File::open(&path) {
            return Ok(file);
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
        File::open(&path).map_err(Error::file("open", &path))
    }
}

fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).map_err(Error::file("read kernel", path))
}
