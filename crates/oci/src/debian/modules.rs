//! Kernel modules: which need which, and their unpacked bytes.
//!
//! Debian runs depmod when a kernel is installed, so its package has no `modules.dep`. The same facts are in
//! each module's `.modinfo` section: `depends=` and `softdep=` (Linux, include/linux/module.h).

use std::collections::{BTreeSet, HashMap, HashSet};
use std::io::{self, Cursor, Read, Seek, SeekFrom};

use super::deb;

/// Largest module, unpacked.
const MAX_MODULE: u64 = 64 << 20;
/// Most modules of a kernel.
const MAX_MODULES: usize = 65536;

/// A module ready to be loaded.
#[derive(Clone, PartialEq, Eq)]
pub struct Module {
    /// Its name as the kernel has it, with `_`.
    pub name: String,
    /// The relocatable ELF file.
    pub bytes: Vec<u8>,
}

impl std::fmt::Debug for Module {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Module({}, {} bytes)", self.name, self.bytes.len())
    }
}

/// The kernel's name of a module file, `None` for other files.
pub(crate) fn module_name(file: &str) -> Option<String> {
    split_module(file).map(|(stem, _)| stem.replace('-', "_"))
}

/// A module file's name without endings, and the ending of its compression.
fn split_module(file: &str) -> Option<(&str, &str)> {
    let (stem, suffix) = file.rsplit_once(".ko")?;
    (!stem.is_empty() && matches!(suffix, "" | ".xz" | ".zst" | ".gz")).then_some((stem, suffix))
}

/// The names in a `modules.builtin` file: one path a line.
pub(crate) fn builtin_names(list: &str) -> HashSet<String> {
    list.lines()
        .filter_map(|line| module_name(line.rsplit('/').next()?))
        .collect()
}

/// A plain tar archive of module files.
pub(crate) struct ModuleArchive<R> {
    file: R,
    /// Offset and length of each, and the ending of its compression.
    places: HashMap<String, (u64, u64, String)>,
}

impl<R: Read + Seek> ModuleArchive<R> {
    pub(crate) fn open(mut file: R) -> io::Result<ModuleArchive<R>> {
        let mut places = HashMap::new();
        let mut archive = tar::Archive::new(&mut file);
        for entry in archive.entries_with_seek()? {
            let entry = entry?;
            let path = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
            if let Some((stem, suffix)) = split_module(&path) {
                let place = (entry.raw_file_position(), entry.size(), suffix.to_owned());
                places.insert(stem.replace('-', "_"), place);
            }
            if places.len() > MAX_MODULES {
                return Err(io::Error::new(
                    io::ErrorKind::InvalidData,
                    "it has too many modules",
                ));
            }
        }
        Ok(ModuleArchive { file, places })
    }

    /// A module's unpacked bytes; `None` if there is no such module.
    fn load(&mut self, name: &str) -> Option<io::Result<Vec<u8>>> {
        let (offset, length, suffix) = self.places.get(name)?.clone();
        Some(self.load_at(offset, length, &suffix))
    }

    fn load_at(&mut self, offset: u64, length: u64, suffix: &str) -> io::Result<Vec<u8>> {
        let invalid = |reason: &str| io::Error::new(io::ErrorKind::InvalidData, reason.to_owned());
        if length > MAX_MODULE {
            return Err(invalid("it is too large"));
        }
        self.file.seek(SeekFrom::Start(offset))?;
        let mut packed = Vec::new();
        self.file.by_ref().take(length).read_to_end(&mut packed)?;
        let unpacked =
            deb::decompress(suffix, Cursor::new(packed)).ok_or_else(|| invalid("unknown compression"))??;
        let mut bytes = Vec::new();
        unpacked.take(MAX_MODULE + 1).read_to_end(&mut bytes)?;
        if bytes.len() as u64 > MAX_MODULE {
            return Err(invalid("it is too large"));
        }
        Ok(bytes)
    }
}

/// The modules named and what they need, each after what it needs; what is wrong otherwise.
pub(crate) fn closure<R: Read + Seek>(
    archive: &mut ModuleArchive<R>,
    builtin: &HashSet<String>,
    names: &[&str],
) -> Result<Vec<Module>, String> {
    let mut loaded = Vec::new();
    let mut done = BTreeSet::new();
    // A module is on the stack twice: first to load it and put what it needs above it, then to be given out.
    let mut stack: Vec<Visit> = names
        .iter()
        .rev()
        .map(|name| Visit::Wanted(name.replace('-', "_"), None))
        .collect();
    while let Some(visit) = stack.pop() {
        match visit {
            Visit::Ready(module) => loaded.push(module),
            Visit::Wanted(name, _) if builtin.contains(&name) || done.contains(&name) => {}
            Visit::Wanted(name, by) => {
                let bytes = match archive.load(&name) {
                    Some(result) => {
                        result.map_err(|error| format!("module `{name}` cannot be read: {error}"))?
                    }
                    None => return Err(missing(&name, by.as_deref())),
                };
                let needs = needs(&bytes).ok_or_else(|| format!("module `{name}` is not an ELF module"))?;
                done.insert(name.clone());
                stack.push(Visit::Ready(Module {
                    name: name.clone(),
                    bytes,
                }));
                let soft = needs
                    .soft
                    .into_iter()
                    .filter(|soft| archive.places.contains_key(soft));
                let wanted: Vec<String> = soft.chain(needs.hard).collect();
                stack.extend(
                    wanted
                        .into_iter()
                        .rev()
                        .map(|need| Visit::Wanted(need, Some(name.clone()))),
                );
            }
        }
    }
    Ok(loaded)
}

enum Visit {
    /// A module, and the one that needs it.
    Wanted(String, Option<String>),
    Ready(Module),
}

fn missing(name: &str, by: Option<&str>) -> String {
    match by {
        Some(by) => format!("it has no module `{name}`, which its module `{by}` needs"),
        None => format!("it has no module `{name}`"),
    }
}

#[derive(Debug, Default, PartialEq, Eq)]
struct Needs {
    /// `depends=`
    hard: Vec<String>,
    /// `softdep=pre:`
    soft: Vec<String>,
}

/// What a module says it needs; `None` if it is not an ELF module.
fn needs(module: &[u8]) -> Option<Needs> {
    let mut needs = Needs::default();
    for item in section(module, b".modinfo")?.split(|&byte| byte == 0) {
        let Some((key, value)) = std::str::from_utf8(item)
            .ok()
            .and_then(|item| item.split_once('='))
        else {
            continue;
        };
        let name = |name: &str| name.replace('-', "_");
        match key {
            "depends" => needs
                .hard
                .extend(value.split(',').filter(|need| !need.is_empty()).map(name)),
            "softdep" => {
                let words = value.split_ascii_whitespace();
                let before = words.skip_while(|word| *word != "pre:").skip(1);
                needs
                    .soft
                    .extend(before.take_while(|word| *word != "post:").map(name));
            }
            _ => {}
        }
    }
    Some(needs)
}

/// The contents of a section of a little-endian 64-bit ELF file (System V ABI, "Sections").
fn section<'a>(elf: &'a [u8], wanted: &[u8]) -> Option<&'a [u8]> {
    if elf.get(..6)? != b"\x7fELF\x02\x01" {
        return None;
    }
    let table = usize::try_from(u64_at(elf, 40)?).ok()?;
    let (entry, count, names) = (u16_at(elf, 58)?, u16_at(elf, 60)?, u16_at(elf, 62)?);
    if entry < 64 {
        return None;
    }
    let header = |index: usize| elf.get(table.checked_add(index * entry)?..)?.get(..64);
    let contents = |header: &[u8]| {
        let offset = usize::try_from(u64_at(header, 24)?).ok()?;
        let size = usize::try_from(u64_at(header, 32)?).ok()?;
        elf.get(offset..offset.checked_add(size)?)
    };
    let names = contents(header(names)?)?;
    let found = (0..count).filter_map(header).find(|header| {
        let name = u32_at(header, 0).and_then(|at| names.get(at..));
        name.and_then(|name| name.split(|&byte| byte == 0).next()) == Some(wanted)
    })?;
    contents(found)
}

fn u16_at(bytes: &[u8], at: usize) -> Option<usize> {
    Some(usize::from(u16::from_le_bytes(
        bytes.get(at..at + 2)?.try_into().ok()?,
    )))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<usize> {
    usize::try_from(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?)).ok()
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(bytes.get(at..at + 8)?.try_into().ok()?))
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// An ELF file with a `.modinfo` section and nothing else.
    pub(crate) fn elf(modinfo: &str) -> Vec<u8> {
        let names = b"\0.modinfo\0.shstrtab\0";
        let mut file = b"\x7fELF\x02\x01\x01".to_vec();
        file.resize(64, 0);
        let (info_at, names_at) = (64, 64 + modinfo.len());
        let table = names_at + names.len();
        file[40..48].copy_from_slice(&(table as u64).to_le_bytes());
        file[58..64].copy_from_slice(&[64, 0, 3, 0, 2, 0]);
        file.extend_from_slice(modinfo.as_bytes());
        file.extend_from_slice(names);
        for (name, at, size) in [
            (0u32, 0, 0),
            (1, info_at, modinfo.len()),
            (10, names_at, names.len()),
        ] {
            let mut header = [0; 64];
            header[..4].copy_from_slice(&name.to_le_bytes());
            header[24..32].copy_from_slice(&(at as u64).to_le_bytes());
            header[32..40].copy_from_slice(&(size as u64).to_le_bytes());
            file.extend_from_slice(&header);
        }
        file
    }

    fn archive(modules: &[(&str, Vec<u8>)]) -> ModuleArchive<Cursor<Vec<u8>>> {
        let mut tar = tar::Builder::new(Vec::new());
        for (name, bytes) in modules {
            let mut header = tar::Header::new_gnu();
            header.set_size(bytes.len() as u64);
            tar.append_data(&mut header, name, bytes.as_slice()).unwrap();
        }
        ModuleArchive::open(Cursor::new(tar.into_inner().unwrap())).unwrap()
    }

    fn names(modules: &[Module]) -> Vec<&str> {
        modules.iter().map(|module| module.name.as_str()).collect()
    }

    #[test]
    fn modules_closure_is_in_loading_order_without_builtins() {
        let mut archive = archive(&[
            (
                "virtio-net.ko",
                elf("license=GPL\0depends=net-failover,virtio\0softdep=pre: crc gone post: x\0"),
            ),
            (
                "net_failover.ko.zst",
                zstd::encode_all(&elf("depends=failover\0")[..], 1).unwrap(),
            ),
            ("failover.ko", elf("depends=\0")),
            ("crc.ko", elf("name=crc\0")),
        ]);
        let builtin = builtin_names("kernel/drivers/virtio/virtio.ko\n");
        let loaded = closure(&mut archive, &builtin, &["virtio_net", "virtio", "failover"]).unwrap();
        assert_eq!(names(&loaded), ["crc", "failover", "net_failover", "virtio_net"]);
        assert_eq!(loaded[1].bytes, elf("depends=\0"));
    }

    #[test]
    fn modules_closure_missing_module_is_named() {
        let mut archive = archive(&[("a.ko", elf("depends=b\0")), ("c.ko", b"junk".to_vec())]);
        let mut failure = |name: &str| closure(&mut archive, &HashSet::new(), &[name]).unwrap_err();
        assert_eq!(failure("x-y"), "it has no module `x_y`");
        assert_eq!(failure("a"), "it has no module `b`, which its module `a` needs");
        assert_eq!(failure("c"), "module `c` is not an ELF module");
    }

    #[test]
    fn modules_closure_of_a_cycle_ends() {
        let mut archive = archive(&[("a.ko", elf("depends=b\0")), ("b.ko", elf("depends=a\0"))]);
        assert_eq!(
            names(&closure(&mut archive, &HashSet::new(), &["a"]).unwrap()),
            ["b", "a"]
        );
    }

    proptest::proptest! {
        #[test]
        fn modules_needs_of_damaged_elf_does_not_panic(at in 0usize..300, byte in 0u8..) {
            let mut file = elf("depends=a\0");
            let at = at % file.len();
            file[at] = byte;
            needs(&file);
            needs(&file[..at]);
        }
    }
}
