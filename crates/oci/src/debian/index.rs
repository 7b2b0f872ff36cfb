//! `Packages` indexes: which packages an archive has (Debian wiki, "RepositoryFormat").
//!
//! Debian's main index is 50 MB of text of which an eighth matters here, so an index is reduced to those
//! fields once and the reduced form is cached. It is searched in place, without a table of objects.

use std::io::{self, BufRead, Read, Write};
use std::ops::Range;

use super::relation::{self, Relation};
use crate::digest::Digest;

/// Fields that are kept.
const FIELDS: [&str; 12] = [
    "Package",
    "Version",
    "Architecture",
    "Priority",
    "Depends",
    "Pre-Depends",
    "Provides",
    "Conflicts",
    "Breaks",
    "Filename",
    "Size",
    "SHA256",
];
/// Longest line: the longest `Provides` are some tens of kilobytes.
const MAX_LINE: u64 = 4 << 20;
/// Largest reduced index. Debian's whole main archive needs 30 MB.
pub(crate) const MAX_INDEX: u64 = 512 << 20;

/// Copies an index without what is not needed, continuation lines joined.
pub(crate) fn reduce(mut from: impl BufRead, mut to: impl Write) -> io::Result<()> {
    let mut line = Vec::new();
    let mut keep = false;
    // The line break of a kept field is written late, when no continuation followed.
    let mut pending = false;
    loop {
        line.clear();
        if from.by_ref().take(MAX_LINE).read_until(b'\n', &mut line)? == 0 {
            break;
        }
        if line.len() as u64 == MAX_LINE {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "a line is longer than 4 MiB",
            ));
        }
        let content = line.trim_ascii_end();
        if content.first().is_some_and(|byte| matches!(byte, b' ' | b'\t')) {
            if keep {
                to.write_all(b" ")?;
                to.write_all(content.trim_ascii_start())?;
            }
            continue;
        }
        if pending {
            to.write_all(b"\n")?;
        }
        keep = content.is_empty() || is_kept(content);
        pending = keep;
        if keep {
            to.write_all(content)?;
        }
    }
    if pending {
        to.write_all(b"\n")?;
    }
    to.flush()
}

fn is_kept(line: &[u8]) -> bool {
    let name = line.split(|&byte| byte == b':').next().unwrap_or_default();
    FIELDS.iter().any(|field| field.as_bytes() == name)
}

/// A reduced index, ready to be searched.
#[derive(Debug)]
pub(crate) struct Index {
    text: String,
    /// Name and paragraph of each package, sorted by name.
    packages: Vec<(Range<usize>, Range<usize>)>,
    /// Name and the place in `packages` of each provider, sorted by name.
    provisions: Vec<(Range<usize>, usize)>,
}

impl Index {
    /// Takes in a reduced index. Paragraphs without name or version are passed over.
    pub(crate) fn new(text: String) -> Index {
        let mut packages = Vec::new();
        let mut at = 0;
        for paragraph in text.split_inclusive("\n\n") {
            let range = at..at + paragraph.len();
            at = range.end;
            let view = Package { text: paragraph };
            if let (Some(name), Some(_)) = (view.field("Package"), view.field("Version")) {
                packages.push((span(&text, name), range));
            }
        }
        packages.sort_by(|(a, _), (b, _)| text[a.clone()].cmp(&text[b.clone()]));
        let mut provisions = Vec::new();
        for (place, (_, body)) in packages.iter().enumerate() {
            let view = Package {
                text: &text[body.clone()],
            };
            provisions.extend(
                view.provides()
                    .map(|provided| (span(&text, provided.name), place)),
            );
        }
        provisions.sort_by(|(a, _), (b, _)| text[a.clone()].cmp(&text[b.clone()]));
        Index {
            text,
            packages,
            provisions,
        }
    }

    /// Every version of a package.
    pub(crate) fn named<'a>(&'a self, name: &str) -> impl Iterator<Item = Package<'a>> {
        let found = equal_run(&self.packages, |(range, _)| self.text[range.clone()].cmp(name));
        self.packages[found].iter().map(|(_, body)| Package {
            text: &self.text[body.clone()],
        })
    }

    /// Packages that provide a name.
    pub(crate) fn providing<'a>(&'a self, name: &str) -> impl Iterator<Item = Package<'a>> {
        let found = equal_run(&self.provisions, |(range, _)| self.text[range.clone()].cmp(name));
        self.provisions[found].iter().map(|&(_, place)| Package {
            text: &self.text[self.packages[place].1.clone()],
        })
    }

    /// All package names, sorted, each as often as it has versions.
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.packages.iter().map(|(name, _)| &self.text[name.clone()])
    }
}

/// Where `part`, a slice of `whole`, lies in it.
fn span(whole: &str, part: &str) -> Range<usize> {
    let start = part.as_ptr() as usize - whole.as_ptr() as usize;
    start..start + part.len()
}

fn equal_run<T>(sorted: &[T], order: impl Fn(&T) -> std::cmp::Ordering) -> Range<usize> {
    let start = sorted.partition_point(|item| order(item).is_lt());
    let length = sorted[start..].partition_point(|item| order(item).is_eq());
    start..start + length
}

/// One package of an index.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Package<'a> {
    text: &'a str,
}

impl<'a> Package<'a> {
    /// A field's value.
    pub(crate) fn field(&self, name: &str) -> Option<&'a str> {
        self.text.lines().find_map(|line| {
            line.strip_prefix(name)
                .and_then(|rest| rest.strip_prefix(':'))
                .map(str::trim)
        })
    }

    /// The name; every package of an [`Index`] has one.
    pub(crate) fn name(&self) -> &'a str {
        self.field("Package").unwrap_or_default()
    }

    /// The version; every package of an [`Index`] has one.
    pub(crate) fn version(&self) -> &'a str {
        self.field("Version").unwrap_or_default()
    }

    /// Names provided, with the version they are provided at. What cannot be read provides nothing.
    pub(crate) fn provides(&self) -> impl Iterator<Item = Relation<'a>> {
        let groups = relation::parse(self.field("Provides").unwrap_or_default()).unwrap_or_default();
        groups.into_iter().flatten()
    }

    /// How much Debian wants it installed: 0 for `required`, growing.
    pub(crate) fn priority(&self) -> usize {
        let order = ["required", "important", "standard", "optional"];
        let priority = self.field("Priority").unwrap_or_default();
        order
            .iter()
            .position(|name| *name == priority)
            .unwrap_or(order.len())
    }

    /// Path under the archive, size in bytes and digest of the package file; what is wrong with them if they
    /// cannot be used.
    pub(crate) fn file(&self) -> Result<(&'a str, u64, Digest), String> {
        let wrong = |field: &str| format!("package `{}` has no usable {field}", self.name());
        let plain = |path: &&str| {
            path.split('/')
                .all(|part| !part.is_empty() && part != "." && part != "..")
                && !path.contains(|c: char| c.is_whitespace() || c.is_control() || "?#%\\".contains(c))
        };
        let path = self
            .field("Filename")
            .filter(plain)
            .ok_or_else(|| wrong("Filename"))?;
        let size = self
            .field("Size")
            .and_then(|size| size.parse().ok())
            .ok_or_else(|| wrong("Size"))?;
        let digest = self
            .field("SHA256")
            .and_then(|hex| format!("sha256:{hex}").parse().ok());
        Ok((path, size, digest.ok_or_else(|| wrong("SHA256"))?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PACKAGES: &str = "Package: b
Version: 1
Description: long
 Package: not
Provides: x (= 3), y
Size: 5
Filename: pool/b.deb
SHA256: e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855

Package: a
Depends: c,
 d
Version: 2
Tag: junk

Package: b
Version: 3
Filename: ../etc/b.deb

Package: nothing
";

    fn index() -> Index {
        let mut reduced = Vec::new();
        reduce(PACKAGES.as_bytes(), &mut reduced).unwrap();
        Index::new(String::from_utf8(reduced).unwrap())
    }

    #[test]
    fn index_reduce_keeps_fields_and_joins_continuations() {
        let index = index();
        assert!(
            !index.text.contains("Description")
                && !index.text.contains("Tag")
                && !index.text.contains("Package: not\n")
        );
        assert_eq!(index.named("a").next().unwrap().field("Depends"), Some("c, d"));
    }

    #[test]
    fn index_named_gives_all_versions_and_providing_follows() {
        let index = index();
        assert_eq!(
            index.named("b").map(|p| p.version()).collect::<Vec<_>>(),
            ["1", "3"]
        );
        assert_eq!(
            index.named("nothing").count() + index.named("").count() + index.named("zz").count(),
            0
        );
        assert_eq!(index.providing("x").map(|p| p.name()).collect::<Vec<_>>(), ["b"]);
        assert_eq!(index.names().collect::<Vec<_>>(), ["a", "b", "b"]);
    }

    #[test]
    fn index_file_out_of_the_archive_is_refused() {
        let index = index();
        let files: Vec<_> = index.named("b").map(|package| package.file()).collect();
        assert_eq!(files[0], Ok(("pool/b.deb", 5, Digest::of(b""))));
        assert_eq!(files[1], Err("package `b` has no usable Filename".into()));
    }

    proptest::proptest! {
        #[test]
        fn index_of_random_text_does_not_panic(text in "(Package|Version|Provides|a|:| |,|\\n){0,40}") {
            let mut reduced = Vec::new();
            reduce(text.as_bytes(), &mut reduced).unwrap();
            let index = Index::new(String::from_utf8(reduced).unwrap());
            index.names().for_each(|name| { index.named(name).for_each(|package| { let _ = package.file(); }) });
        }
    }
}
