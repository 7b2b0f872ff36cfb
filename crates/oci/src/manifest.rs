//! Manifests and indexes (OCI image specification; Docker's manifest version 2 schema 2 has the same shape),
//! and the way from an index to the manifest for a platform.

use serde::Deserialize;

use crate::config::{ImageConfig, MAX_CONFIG_BYTES};
use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::platform::Platform;

/// Largest manifest or index that is read; registries refuse larger ones than 4 MiB, too.
pub(crate) const MAX_MANIFEST_BYTES: u64 = 4 << 20;
/// Indexes inside indexes that are looked into.
const MAX_DEPTH: u32 = 4;
/// Documents that are read to find one manifest.
const MAX_DOCUMENTS: u32 = 64;
/// Layers of one image; Docker stops at 127.
const MAX_LAYERS: usize = 4096;

/// Media types of manifests and indexes, for the `Accept` header.
pub(crate) const MEDIA_TYPES: [&str; 4] = [
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.docker.distribution.manifest.v2+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
];

/// Content by digest, and what it is.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Descriptor {
    pub(crate) digest: Digest,
    pub(crate) size: u64,
    pub(crate) platform: Option<Platform>,
    #[serde(default)]
    pub(crate) annotations: Option<std::collections::BTreeMap<String, String>>,
}

impl Descriptor {
    /// How errors call it.
    pub(crate) fn name(&self) -> String {
        self.digest.to_string()
    }
}

/// A manifest or an index: which, its members tell.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Document {
    schema_version: u32,
    config: Option<Descriptor>,
    #[serde(default)]
    layers: Option<Vec<Descriptor>>,
    pub(crate) manifests: Option<Vec<Descriptor>>,
}

impl Document {
    /// An index of these manifests.
    pub(crate) fn index(manifests: Vec<Descriptor>) -> Document {
        Document {
            schema_version: 2,
            config: None,
            layers: None,
            manifests: Some(manifests),
        }
    }

    pub(crate) fn parse(what: &str, json: &[u8]) -> Result<Document> {
        let refuse = |reason: String| Error::BadDocument {
            what: what.to_owned(),
            reason,
        };
        let document: Document = serde_json::from_slice(json).map_err(|error| refuse(error.to_string()))?;
        if document.schema_version != 2 {
            let version = document.schema_version;
            return Err(refuse(format!(
                "schema version {version} is not supported, only 2 is"
            )));
        }
        Ok(document)
    }
}

/// The manifest of one image.
#[derive(Clone, Debug)]
pub(crate) struct Manifest {
    pub(crate) digest: Digest,
    pub(crate) config: Descriptor,
    pub(crate) layers: Vec<Descriptor>,
}

/// Reads a document by its descriptor, checked against its digest and size.
pub(crate) type Fetch<'a> = dyn FnMut(&Descriptor) -> Result<Vec<u8>> + 'a;

/// Finds the manifest for a platform, beginning with a document at hand.
pub(crate) fn find_manifest(
    image: &str,
    digest: Digest,
    document: Document,
    platform: &Platform,
    fetch: &mut Fetch,
) -> Result<Manifest> {
    let mut search = Search {
        image,
        platform,
        fetch,
        documents: 0,
        best: None,
        available: Vec::new(),
    };
    search.look_into(digest, document, 3, 0)?;
    match search.best {
        Some((_, manifest)) => Ok(manifest),
        None => Err(Error::NoPlatform {
            image: image.to_owned(),
            platform: platform.to_string(),
            available: match search.available.is_empty() {
                true => "none".into(),
                false => search.available.join(", "),
            },
        }),
    }
}

struct Search<'a, 'f> {
    image: &'a str,
    platform: &'a Platform,
    fetch: &'a mut Fetch<'f>,
    documents: u32,
    /// The best manifest so far and how well it fits, smaller being better.
    best: Option<(u8, Manifest)>,
    /// Platforms that did not fit.
    available: Vec<String>,
}

impl Search<'_, '_> {
    /// `rank` is how well whoever pointed here said it would fit.
    fn look_into(&mut self, digest: Digest, document: Document, rank: u8, depth: u32) -> Result<()> {
        let refuse = |reason: &str| Error::BadDocument {
            what: format!("manifest {digest} of `{}`", self.image),
            reason: reason.into(),
        };
        let Some(manifests) = document.manifests else {
            let config = document
                .config
                .ok_or_else(|| refuse("it has neither a configuration nor manifests"))?;
            let layers = document.layers.unwrap_or_default();
            if layers.len() > MAX_LAYERS {
                return Err(refuse("it has more than 4096 layers"));
            }
            if self.best.as_ref().is_none_or(|(best, _)| rank < *best) {
                self.best = Some((
                    rank,
                    Manifest {
                        digest,
                        config,
                        layers,
                    },
                ));
            }
            return Ok(());
        };
        if depth == MAX_DEPTH {
            return Err(refuse("its indexes are nested more than four deep"));
        }
        for descriptor in &manifests {
            let rank = match &descriptor.platform {
                None => Some(rank),
                Some(offered) => self.platform.rank(offered),
            };
            let better = |rank: u8| self.best.as_ref().is_none_or(|(best, _)| rank < *best);
            match rank {
                Some(rank) if better(rank) => self.follow(descriptor, rank, depth)?,
                Some(_) => {}
                None => self
                    .available
                    .extend(descriptor.platform.as_ref().map(Platform::to_string)),
            }
        }
        Ok(())
    }

    fn follow(&mut self, descriptor: &Descriptor, rank: u8, depth: u32) -> Result<()> {
        self.documents += 1;
        if self.documents > MAX_DOCUMENTS {
            return Err(Error::BadDocument {
                what: format!("index of `{}`", self.image),
                reason: "too many documents have to be read to find a manifest".into(),
            });
        }
        let json = (self.fetch)(descriptor)?;
        let document = Document::parse(&format!("manifest {}", descriptor.name()), &json)?;
        self.look_into(descriptor.digest, document, rank, depth + 1)
    }
}

/// Checks bytes against the descriptor they were asked for by.
pub(crate) fn verify(what: &str, descriptor: &Descriptor, bytes: &[u8]) -> Result<()> {
    let actual = Digest::of(bytes);
    if bytes.len() as u64 != descriptor.size {
        return Err(Error::SizeMismatch {
            what: format!("{what} {}", descriptor.digest),
            expected: descriptor.size,
            actual: bytes.len() as u64,
        });
    }
    if actual != descriptor.digest {
        let expected = descriptor.digest;
        return Err(Error::DigestMismatch {
            what: format!("{what} {expected}"),
            expected,
            actual,
        });
    }
    Ok(())
}

/// Refuses a document that is larger than it may be, before it is read.
pub(crate) fn check_size(what: &str, descriptor: &Descriptor, limit: u64) -> Result<()> {
    if descriptor.size > limit {
        return Err(Error::BadDocument {
            what: format!("{what} {}", descriptor.digest),
            reason: format!("it is {} bytes long, more than {limit}", descriptor.size),
        });
    }
    Ok(())
}

/// Checks that a manifest's configuration is one of a container image and fits its layers and the platform.
pub(crate) fn read_config(
    image: &str,
    manifest: &Manifest,
    json: &[u8],
    platform: &Platform,
) -> Result<ImageConfig> {
    let what = format!(
        "configuration {} in manifest {} of `{image}`",
        manifest.config.digest, manifest.digest
    );
    let config = ImageConfig::parse(&what, json)?;
    check_platform(image, &config, platform)?;
    if config.diff_ids.len() != manifest.layers.len() {
        let (names, layers) = (config.diff_ids.len(), manifest.layers.len());
        return Err(Error::BadDocument {
            what,
            reason: format!("it names {names} layers and there are {layers}"),
        });
    }
    Ok(config)
}

/// Checks that an image is for a platform.
pub(crate) fn check_platform(image: &str, config: &ImageConfig, platform: &Platform) -> Result<()> {
    match platform.rank(&config.platform) {
        Some(_) => Ok(()),
        None => Err(Error::NoPlatform {
            image: image.to_owned(),
            platform: platform.to_string(),
            available: config.platform.to_string(),
        }),
    }
}

/// Largest configuration a manifest may name.
pub(crate) fn check_config_size(manifest: &Manifest) -> Result<()> {
    check_size("configuration", &manifest.config, MAX_CONFIG_BYTES)
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    fn manifest(seed: &str) -> String {
        let digest = Digest::of(seed.as_bytes());
        format!(r#"{{"schemaVersion":2,"config":{{"digest":"{digest}","size":1}},"layers":[]}}"#)
    }

    fn index(entries: &[(&str, Option<&str>)]) -> String {
        let entry = |(document, platform): &(&str, Option<&str>)| {
            let platform: Option<Platform> = platform.map(|text| text.parse().unwrap());
            let platform = serde_json::to_string(&platform).unwrap();
            let digest = Digest::of(document.as_bytes());
            format!(
                r#"{{"digest":"{digest}","size":{},"platform":{platform}}}"#,
                document.len()
            )
        };
        let entries: Vec<String> = entries.iter().map(entry).collect();
        format!(r#"{{"schemaVersion":2,"manifests":[{}]}}"#, entries.join(","))
    }

    fn find(start: &str, others: &[&str], platform: &str) -> Result<Manifest> {
        let all: HashMap<Digest, &str> = others
            .iter()
            .map(|json| (Digest::of(json.as_bytes()), *json))
            .collect();
        let mut fetch = |descriptor: &Descriptor| Ok(all[&descriptor.digest].as_bytes().to_vec());
        let document = Document::parse("start", start.as_bytes())?;
        find_manifest(
            "x",
            Digest::of(start.as_bytes()),
            document,
            &platform.parse().unwrap(),
            &mut fetch,
        )
    }

    #[test]
    fn find_manifest_in_index_takes_the_platform() {
        let (a, b) = (manifest("a"), manifest("b"));
        let start = index(&[(&a, Some("linux/amd64")), (&b, Some("linux/arm64/v8"))]);
        assert_eq!(
            find(&start, &[&a, &b], "linux/arm64").unwrap().digest,
            Digest::of(b.as_bytes())
        );
    }

    #[test]
    fn find_manifest_of_missing_platform_lists_what_there_is() {
        let a = manifest("a");
        let error = find(&index(&[(&a, Some("linux/s390x"))]), &[&a], "linux/amd64").unwrap_err();
        assert!(error.to_string().contains("it has: linux/s390x"), "{error}");
    }

    #[test]
    fn find_manifest_in_nested_index_is_found_and_bounded() {
        let a = manifest("a");
        let mut nest = vec![a.clone()];
        for _ in 0..5 {
            let inner = nest.last().unwrap().clone();
            nest.push(index(&[(&inner, None)]));
        }
        let all: Vec<&str> = nest.iter().map(String::as_str).collect();
        assert_eq!(
            find(&nest[4], &all, "linux/amd64").unwrap().digest,
            Digest::of(a.as_bytes())
        );
        let error = find(&nest[5], &all, "linux/amd64").unwrap_err();
        assert!(
            error.to_string().contains("nested more than four deep"),
            "{error}"
        );
    }

    #[test]
    fn document_of_schema_1_is_refused() {
        let error = Document::parse("manifest x", br#"{"schemaVersion":1}"#).unwrap_err();
        assert!(error.to_string().contains("schema version 1"), "{error}");
    }
}
