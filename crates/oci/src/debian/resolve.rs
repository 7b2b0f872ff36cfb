//! The closure of packages over their dependencies.
//!
//! The choice follows apt where it matters: the newest version, alternatives in the order they are written,
//! what is already chosen before anything new, and among providers of a virtual package the one of higher
//! priority, then the first by name. The same archive and request always give the same closure. Essential
//! packages are not added: an image holds what was asked for and what that needs.

use std::collections::{BTreeMap, VecDeque};

use serde::{Deserialize, Serialize};

use super::error::{Error, Result};
use super::index::{Index, Package};
use super::relation::{self, Relation};
use super::version;
use crate::digest::Digest;

/// Names that are offered for an unknown one.
const MAX_NEAR: usize = 5;

/// Everything packages can be chosen from.
#[derive(Debug)]
pub(crate) struct Universe {
    /// Address of each archive and one of its indexes.
    pub(crate) indexes: Vec<(String, Index)>,
    /// For messages.
    pub(crate) suite: String,
    /// Debian's name of the architecture.
    pub(crate) architecture: String,
}

/// A package that was chosen, and where its file is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Chosen {
    /// Package name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// Address of the package file.
    pub url: String,
    /// Length of the package file in bytes.
    pub size: u64,
    /// Digest of the package file.
    pub digest: Digest,
}

impl Universe {
    /// The closure of `names`, sorted by name.
    pub(crate) fn resolve(&self, names: &[&str]) -> Result<Vec<Chosen>> {
        let mut resolver = Resolver {
            universe: self,
            chosen: BTreeMap::new(),
            queue: VecDeque::new(),
        };
        for name in names {
            let (place, package) = resolver.requested(name)?;
            resolver.choose(place, package)?;
        }
        resolver.run()?;
        resolver
            .chosen
            .values()
            .map(|&(place, package)| self.located(place, package))
            .collect()
    }

    /// The newest version of a package.
    pub(crate) fn newest(&self, name: &str) -> Option<(usize, Package<'_>)> {
        newest_first(self.versions(name)).into_iter().next()
    }

    /// The newest version of the package a relation names that satisfies it.
    pub(crate) fn satisfying(&self, relation: &Relation<'_>) -> Option<(usize, Package<'_>)> {
        newest_first(self.versions(relation.name))
            .into_iter()
            .find(|(_, package)| relation.admits(package.version()))
    }

    fn versions(&self, name: &str) -> Vec<(usize, Package<'_>)> {
        let indexes = self.indexes.iter().enumerate();
        indexes
            .flat_map(|(place, (_, index))| index.named(name).map(move |package| (place, package)))
            .collect()
    }

    /// Providers of a name that satisfy the relation, the best first.
    fn providers(&self, relation: &Relation<'_>) -> Vec<(usize, Package<'_>)> {
        let indexes = self.indexes.iter().enumerate();
        let mut found: Vec<_> = indexes
            .flat_map(|(place, (_, index))| {
                index
                    .providing(relation.name)
                    .map(move |package| (place, package))
            })
            .filter(|(_, package)| provides(package, relation))
            .collect();
        // Only the newest version of a package counts: an older one may have provided what that no longer does.
        found.retain(|(_, package)| {
            self.newest(package.name())
                .is_some_and(|(_, newest)| newest.version() == package.version())
        });
        found.sort_by_key(|(_, package)| (package.priority(), package.name()));
        found
    }

    /// Where a package's file is, and what it must be.
    pub(crate) fn located(&self, place: usize, package: Package<'_>) -> Result<Chosen> {
        let base = &self.indexes[place].0;
        let unusable = |reason| Error::Index {
            what: format!("the index of {base}"),
            reason,
        };
        let (path, size, digest) = package.file().map_err(unusable)?;
        Ok(Chosen {
            name: package.name().to_owned(),
            version: package.version().to_owned(),
            url: format!("{base}/{path}"),
            size,
            digest,
        })
    }

    /// "; did you mean …?" for a name nobody has.
    fn near(&self, name: &str) -> String {
        let mut near: Vec<(usize, &str)> = self
            .indexes
            .iter()
            .flat_map(|(_, index)| index.names())
            .filter_map(|known| Some((distance(name, known)?, known)))
            .collect();
        near.sort();
        near.dedup();
        near.truncate(MAX_NEAR);
        match near.as_slice() {
            [] => String::new(),
            some => {
                let names: Vec<String> = some.iter().map(|(_, known)| format!("`{known}`")).collect();
                format!("; did you mean {}?", names.join(", "))
            }
        }
    }
}

fn newest_first(mut versions: Vec<(usize, Package<'_>)>) -> Vec<(usize, Package<'_>)> {
    versions.sort_by(|(_, a), (_, b)| version::compare(b.version(), a.version()));
    versions
}

fn provides(package: &Package<'_>, relation: &Relation<'_>) -> bool {
    package.provides().any(|provided| {
        provided.name == relation.name && relation.admits_provided(provided.bound.map(|(_, version)| version))
    })
}

fn satisfies(package: &Package<'_>, relation: &Relation<'_>) -> bool {
    (package.name() == relation.name && relation.admits(package.version())) || provides(package, relation)
}

struct Resolver<'a> {
    universe: &'a Universe,
    chosen: BTreeMap<&'a str, (usize, Package<'a>)>,
    /// Packages whose dependencies are still to be looked at.
    queue: VecDeque<Package<'a>>,
}

impl<'a> Resolver<'a> {
    /// A package asked for by name; a virtual one is taken if only one package provides it.
    fn requested(&self, name: &str) -> Result<(usize, Package<'a>)> {
        if let Some(found) = self.universe.newest(name) {
            return Ok(found);
        }
        let groups = relation::parse(name).unwrap_or_default();
        let providers = groups
            .iter()
            .flatten()
            .next()
            .map(|relation| self.universe.providers(relation));
        let near = match providers.unwrap_or_default().as_slice() {
            [only] => return Ok(*only),
            [] => self.universe.near(name),
            many => {
                let names: Vec<String> = many
                    .iter()
                    .take(MAX_NEAR)
                    .map(|(_, package)| format!("`{}`", package.name()))
                    .collect();
                format!("; it is provided by {}: choose one", names.join(", "))
            }
        };
        Err(Error::UnknownPackage {
            name: name.to_owned(),
            suite: self.universe.suite.clone(),
            architecture: self.universe.architecture.clone(),
            near,
        })
    }

    fn choose(&mut self, place: usize, package: Package<'a>) -> Result<()> {
        if self.chosen.contains_key(package.name()) {
            return Ok(());
        }
        if let Some(other) = self.conflict_with_chosen(&package) {
            return Err(Error::Conflict {
                one: package.name().to_owned(),
                other: other.to_owned(),
            });
        }
        self.chosen.insert(package.name(), (place, package));
        self.queue.push_back(package);
        Ok(())
    }

    fn run(&mut self) -> Result<()> {
        while let Some(package) = self.queue.pop_front() {
            for field in ["Pre-Depends", "Depends"] {
                let groups = relation::parse(package.field(field).unwrap_or_default()).map_err(|reason| {
                    Error::Index {
                        what: format!("{field} of package `{}`", package.name()),
                        reason,
                    }
                })?;
                for group in groups {
                    self.satisfy(&package, &group)?;
                }
            }
        }
        Ok(())
    }

    fn satisfy(&mut self, package: &Package<'a>, group: &[Relation<'a>]) -> Result<()> {
        let usable = |relation: &&Relation<'a>| relation.for_architecture(&self.universe.architecture);
        let group: Vec<&Relation<'a>> = group.iter().filter(usable).collect();
        let met = |relation: &&Relation<'a>| {
            self.chosen
                .values()
                .any(|(_, chosen)| satisfies(chosen, relation))
        };
        if group.iter().any(met) {
            return Ok(());
        }
        let mut conflict = None;
        for relation in &group {
            for (place, candidate) in self.candidates(relation) {
                match self.conflict_with_chosen(&candidate) {
                    None => return self.choose(place, candidate),
                    Some(other) => conflict = conflict.or(Some((candidate.name(), other))),
                }
            }
        }
        if let Some((one, other)) = conflict {
            return Err(Error::Conflict {
                one: one.to_owned(),
                other: other.to_owned(),
            });
        }
        let relation = group
            .iter()
            .map(|relation| relation.to_string())
            .collect::<Vec<_>>()
            .join(" | ");
        let reason = format!("no package of {} satisfies", self.universe.suite);
        Err(Error::Unsatisfied {
            package: package.name().to_owned(),
            relation,
            reason,
        })
    }

    /// Packages that would satisfy the relation, the best first. A name that is already chosen at a version
    /// that does not satisfy it cannot be chosen again.
    fn candidates(&self, relation: &Relation<'a>) -> Vec<(usize, Package<'a>)> {
        let mut candidates = newest_first(self.universe.versions(relation.name));
        candidates.retain(|(_, package)| relation.admits(package.version()));
        candidates.extend(self.universe.providers(relation));
        candidates.retain(|(_, package)| !self.chosen.contains_key(package.name()));
        candidates
    }

    /// A chosen package that excludes the candidate, or that it excludes (Policy 7.3, 7.4).
    fn conflict_with_chosen(&self, candidate: &Package<'a>) -> Option<&'a str> {
        let mut others = self
            .chosen
            .values()
            .filter(|(_, other)| other.name() != candidate.name());
        others
            .find(|(_, other)| excludes(candidate, other) || excludes(other, candidate))
            .map(|(_, p)| p.name())
    }
}

/// Whether `one` declares `Conflicts` or `Breaks` that `other` meets.
fn excludes(one: &Package<'_>, other: &Package<'_>) -> bool {
    ["Conflicts", "Breaks"].iter().any(|field| {
        let groups = relation::parse(one.field(field).unwrap_or_default()).unwrap_or_default();
        groups.iter().flatten().any(|relation| satisfies(other, relation))
    })
}

/// How far a known name is from the one asked for: edits, or 3 for one that continues it; `None` is far.
fn distance(asked: &str, known: &str) -> Option<usize> {
    let allowed = if asked.len() < 5 { 1 } else { 2 };
    if asked.len().abs_diff(known.len()) <= allowed {
        let edits = edit_distance(asked.as_bytes(), known.as_bytes());
        if edits <= allowed {
            return Some(edits);
        }
    }
    (asked.len() >= 3 && known.len() < asked.len() + 12 && known.starts_with(asked)).then_some(3)
}

fn edit_distance(a: &[u8], b: &[u8]) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, byte_a) in a.iter().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, byte_b) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(byte_a != byte_b);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
#[path = "resolve_tests.rs"]
mod tests;
