//! The initramfs: the program as `/init`, and the modules it loads before anything else.

use std::collections::HashSet;

use crate::cpio::Writer;
use crate::{Arch, Error, program};

/// What goes into an initramfs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InitramfsSpec {
    /// The guest's architecture.
    pub arch: Arch,
    /// Kernel modules in the order they are loaded; none for a kernel that has the virtio drivers built in.
    pub modules: Vec<Module>,
}

/// A kernel module.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Module {
    /// File name, such as `virtio_console.ko`.
    pub name: String,
    /// The module itself, an uncompressed ELF object.
    pub bytes: Vec<u8>,
}

/// Builds the archive, uncompressed. The same specification always gives the same bytes.
///
/// # Errors
/// [`Error::NoProgram`], [`Error::ModuleName`] or [`Error::FileTooLong`].
pub fn initramfs(spec: &InitramfsSpec) -> Result<Vec<u8>, Error> {
    let mut archive = Writer::default();
    for directory in ["dev", "proc", "sys", "newroot"] {
        archive.directory(directory)?;
    }
    // The kernel opens it for the first process before anything mounts /dev.
    archive.character_device("dev/console", 5, 1)?;
    archive.file("init", 0o755, program(spec.arch)?)?;
    if !spec.modules.is_empty() {
        add_modules(&mut archive, &spec.modules)?;
    }
    archive.finish()
}

fn add_modules(archive: &mut Writer, modules: &[Module]) -> Result<(), Error> {
    let mut seen = HashSet::new();
    let mut order = String::new();
    archive.directory("modules")?;
    for Module { name, bytes } in modules {
        let is_file_name =
            !name.is_empty() && name != "." && name != ".." && !name.contains(['/', '\n', '\0']);
        // The other file of that directory is the order itself.
        if !is_file_name || name == "order" || !seen.insert(name) {
            return Err(Error::ModuleName(name.clone()));
        }
        archive.file(&format!("modules/{name}"), 0o644, bytes)?;
        order.push_str(name);
        order.push('\n');
    }
    archive.file("modules/order", 0o644, order.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(names: &[&str]) -> InitramfsSpec {
        let modules = names
            .iter()
            .map(|name| Module {
                name: (*name).to_owned(),
                bytes: b"ELF".to_vec(),
            })
            .collect();
        InitramfsSpec {
            arch: Arch::Amd64,
            modules,
        }
    }

    #[test]
    fn initramfs_built_twice_has_the_same_bytes() {
        let first = initramfs(&spec(&["a.ko", "b.ko"])).unwrap();

        assert_eq!(initramfs(&spec(&["a.ko", "b.ko"])).unwrap(), first);
    }

    #[test]
    fn initramfs_module_name_with_slash_is_refused() {
        assert_eq!(
            initramfs(&spec(&["../x.ko"])),
            Err(Error::ModuleName("../x.ko".to_owned()))
        );
    }

    #[test]
    fn initramfs_module_named_twice_is_refused() {
        assert_eq!(
            initramfs(&spec(&["a.ko", "a.ko"])),
            Err(Error::ModuleName("a.ko".to_owned()))
        );
    }

    #[test]
    fn initramfs_for_riscv64_names_the_missing_program() {
        let riscv = InitramfsSpec {
            arch: Arch::Riscv64,
            modules: Vec::new(),
        };

        assert_eq!(initramfs(&riscv), Err(Error::NoProgram(Arch::Riscv64)));
    }
}
