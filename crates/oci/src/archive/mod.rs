//! Images that are files: image layouts, OCI archives and what `docker save` writes.

mod container;

use std::fmt;
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use container::{Container, Part};
use serde::Deserialize;

use crate::config::{ImageConfig, MAX_CONFIG_BYTES};
use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::manifest::{
    Descriptor, Document, MAX_MANIFEST_BYTES, check_config_size, check_platform, check_size, find_manifest,
    read_config, verify,
};
use crate::platform::Platform;
use crate::progress::Progress;
use crate::store::{BlobSource, Blueprint, Heard, Image, LayerJob, NewImage, Store, Stream};

/// Annotation that names an image in a layout (OCI image specification, "Pre-Defined Annotation Keys").
const REF_NAME: &str = "org.opencontainers.image.ref.name";

/// Where an image is on this machine.
///
/// As text: `oci:FOLDER[:NAME]`, `oci-archive:FILE[:NAME]`, `docker-archive:FILE[:NAME]`, or a path that
/// begins with `/`, `./` or `../` and is looked at to tell. The name chooses one of several images.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    form: Form,
    path: PathBuf,
    name: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    Layout,
    OciArchive,
    DockerArchive,
    /// To be found out.
    Any,
}

const PREFIXES: [(&str, Form); 3] = [
    ("oci:", Form::Layout),
    ("oci-archive:", Form::OciArchive),
    ("docker-archive:", Form::DockerArchive),
];

impl Source {
    /// Whether a text is meant to be a source rather than a reference.
    pub fn is_meant(text: &str) -> bool {
        let path =
            ["/", "./", "../"].iter().any(|start| text.starts_with(start)) || matches!(text, "." | "..");
        path || PREFIXES.iter().any(|(prefix, _)| text.starts_with(prefix))
    }

    /// The file or folder.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl FromStr for Source {
    type Err = Error;

    fn from_str(text: &str) -> Result<Source> {
        let refuse = |reason: &str| Error::BadSource {
            text: text.to_owned(),
            reason: reason.to_owned(),
        };
        let found = PREFIXES
            .iter()
            .find_map(|(prefix, form)| Some((*form, text.strip_prefix(prefix)?)));
        let (form, rest) = match found {
            Some(found) => found,
            None if Source::is_meant(text) => (Form::Any, text),
            None => {
                return Err(refuse(
                    "it begins with none of oci:, oci-archive:, docker-archive:, /, ./ and ../",
                ));
            }
        };
        // A path may have a colon itself; the whole text wins if that is there.
        let (path, name) = match rest.split_once(':') {
            Some((path, name)) if form != Form::Any && !Path::new(rest).exists() => (path, Some(name)),
            _ => (rest, None),
        };
        if path.is_empty() || name == Some("") {
            return Err(refuse("it lacks a path or a name"));
        }
        Ok(Source {
            form,
            path: path.into(),
            name: name.map(str::to_owned),
        })
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let prefix = PREFIXES
            .iter()
            .find(|(_, form)| *form == self.form)
            .map_or("", |(prefix, _)| prefix);
        write!(f, "{prefix}{}", self.path.display())?;
        self.name.iter().try_for_each(|name| write!(f, ":{name}"))
    }
}

impl Store {
    /// Takes an image in from a file or folder; it goes by the source's text afterwards.
    ///
    /// # Errors
    /// As [`crate::Puller::pull`], but for the network; [`Error::BadSource`] if there is no image, or several
    /// and none was chosen.
    pub fn import(&self, source: &Source, platform: &Platform, progress: &dyn Progress) -> Result<Image> {
        let name = source.to_string();
        let container = Container::open(&source.path)?;
        let import = Import {
            store: self,
            source,
            name: &name,
            platform,
            progress,
            container: &container,
        };
        let docker = match source.form {
            Form::DockerArchive => true,
            Form::Layout | Form::OciArchive => false,
            Form::Any => !container.has("oci-layout"),
        };
        if docker { import.docker() } else { import.layout() }
    }
}

struct Import<'a> {
    store: &'a Store,
    source: &'a Source,
    name: &'a str,
    platform: &'a Platform,
    progress: &'a dyn Progress,
    container: &'a Container,
}

/// An entry of the `manifest.json` that `docker save` writes.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct DockerManifest {
    config: String,
    #[serde(default)]
    repo_tags: Option<Vec<String>>,
    layers: Vec<String>,
}

impl Import<'_> {
    fn refuse(&self, reason: impl Into<String>) -> Error {
        Error::BadSource {
            text: self.name.to_owned(),
            reason: reason.into(),
        }
    }

    fn layout(&self) -> Result<Image> {
        self.container
            .read("oci-layout", 4096)?
            .ok_or_else(|| self.refuse("it has no file `oci-layout`"))?;
        let json = self.container.read("index.json", MAX_MANIFEST_BYTES)?;
        let json = json.ok_or_else(|| self.refuse("it has no file `index.json`"))?;
        let document = Document::parse(&format!("index of `{}`", self.name), &json)?;
        let document = Document::index(self.choose(document.manifests.unwrap_or_default())?);
        let mut fetch = |descriptor: &Descriptor| {
            check_size("manifest", descriptor, MAX_MANIFEST_BYTES)?;
            self.blob("manifest", descriptor)
        };
        let manifest = find_manifest(self.name, Digest::of(&json), document, self.platform, &mut fetch)?;
        check_config_size(&manifest)?;
        let json = self.blob("configuration", &manifest.config)?;
        let config = read_config(self.name, &manifest, &json, self.platform)?;
        let jobs = manifest.layers.iter().zip(&config.diff_ids).enumerate();
        let layers = jobs.map(|(place, (layer, diff_id))| LayerJob {
            diff_id: *diff_id,
            blob: Some((layer.digest, layer.size)),
            place,
        });
        let paths = manifest
            .layers
            .iter()
            .map(|layer| blob_path(&layer.digest))
            .collect();
        self.install(&json, Some(manifest.digest), layers.collect(), paths)
    }

    /// The entries of a layout's index that go by the chosen name, or all if there is but one image.
    fn choose(&self, manifests: Vec<Descriptor>) -> Result<Vec<Descriptor>> {
        let name_of = |entry: &Descriptor| entry.annotations.as_ref()?.get(REF_NAME).cloned();
        let mut names: Vec<String> = manifests.iter().filter_map(name_of).collect();
        names.sort();
        names.dedup();
        if let Some(wanted) = &self.source.name {
            let chosen: Vec<_> = manifests
                .into_iter()
                .filter(|entry| name_of(entry).as_ref() == Some(wanted))
                .collect();
            return match chosen.is_empty() {
                true => Err(self.refuse(format!(
                    "it has no image `{wanted}`; it has: {}",
                    names.join(", ")
                ))),
                false => Ok(chosen),
            };
        }
        match names.len() {
            0 | 1 => Ok(manifests),
            _ => Err(self.refuse(format!(
                "it has several images, choose with :NAME: {}",
                names.join(", ")
            ))),
        }
    }

    fn blob(&self, what: &str, descriptor: &Descriptor) -> Result<Vec<u8>> {
        let bytes = self
            .container
            .read(&blob_path(&descriptor.digest), descriptor.size)?;
        let bytes = bytes.ok_or_else(|| self.refuse(format!("it lacks {what} {}", descriptor.digest)))?;
        verify(what, descriptor, &bytes)?;
        Ok(bytes)
    }

    fn docker(&self) -> Result<Image> {
        let json = self.container.read("manifest.json", MAX_MANIFEST_BYTES)?;
        let json = json.ok_or_else(|| self.refuse("it has neither `oci-layout` nor `manifest.json`"))?;
        let what = format!("manifest.json of `{}`", self.name);
        let manifests: Vec<DockerManifest> =
            serde_json::from_slice(&json).map_err(|error| Error::BadDocument {
                what: what.clone(),
                reason: error.to_string(),
            })?;
        let manifest = self.choose_docker(manifests)?;
        let json = self.container.read(&manifest.config, MAX_CONFIG_BYTES)?;
        let json =
            json.ok_or_else(|| self.refuse(format!("it lacks its configuration `{}`", manifest.config)))?;
        let config = ImageConfig::parse(&format!("configuration of `{}`", self.name), &json)?;
        check_platform(self.name, &config, self.platform)?;
        if config.diff_ids.len() != manifest.layers.len() {
            let reason = "its layers are not those of its configuration".into();
            return Err(Error::BadDocument { what, reason });
        }
        let jobs = config.diff_ids.iter().enumerate();
        let layers = jobs.map(|(place, diff_id)| LayerJob {
            diff_id: *diff_id,
            blob: None,
            place,
        });
        self.install(&json, None, layers.collect(), manifest.layers)
    }

    fn choose_docker(&self, mut manifests: Vec<DockerManifest>) -> Result<DockerManifest> {
        let tags = |manifest: &DockerManifest| manifest.repo_tags.clone().unwrap_or_default();
        let all = manifests.iter().flat_map(tags).collect::<Vec<_>>().join(", ");
        if let Some(wanted) = &self.source.name {
            let found = manifests
                .into_iter()
                .find(|manifest| tags(manifest).contains(wanted));
            return found.ok_or_else(|| self.refuse(format!("it has no image `{wanted}`; it has: {all}")));
        }
        match (manifests.pop(), manifests.is_empty()) {
            (Some(only), true) => Ok(only),
            (None, _) => Err(self.refuse("it has no image")),
            _ => Err(self.refuse(format!("it has several images, choose with :NAME: {all}"))),
        }
    }

    fn install(
        &self,
        config: &[u8],
        manifest: Option<Digest>,
        layers: Vec<LayerJob>,
        paths: Vec<String>,
    ) -> Result<Image> {
        let (name, platform) = (self.name, self.platform);
        let image = NewImage {
            name,
            platform,
            config,
            manifest,
            compressed: 0,
        };
        let files = Files { import: self, paths };
        self.store
            .take_over(Blueprint { image, layers }, &files, self.progress)
    }
}

fn blob_path(digest: &Digest) -> String {
    format!("blobs/sha256/{}", digest.hex())
}

/// The layers of an image in a container.
struct Files<'a> {
    import: &'a Import<'a>,
    paths: Vec<String>,
}

impl BlobSource for Files<'_> {
    fn open<'a>(&'a self, job: &LayerJob, _partial: &Path, mut heard: Heard<'a>) -> Result<Stream<'a>> {
        let path = &self.paths[job.place];
        let part = self.import.container.part(path)?;
        let part = part.ok_or_else(|| self.import.refuse(format!("it lacks layer `{path}`")))?;
        heard.resumed(0);
        Ok(Box::new(LayerFile {
            inner: BufReader::with_capacity(256 << 10, part),
            heard,
        }))
    }
}

/// A layer's file; tells how much of it was read.
struct LayerFile<'a> {
    inner: BufReader<Part>,
    heard: Heard<'a>,
}

impl BufRead for LayerFile<'_> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        self.inner.fill_buf()
    }

    fn consume(&mut self, count: usize) {
        self.inner.consume(count);
        self.heard.advanced(count as u64);
    }
}

impl Read for LayerFile<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let count = self.fill_buf()?.read(into)?;
        self.consume(count);
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn source_parse_forms_round_trip() {
        for text in [
            "oci:dir",
            "oci:/a/dir:v1",
            "oci-archive:x.tar",
            "docker-archive:x.tar:a:b",
            "./x",
            "/x:y",
        ] {
            assert_eq!(text.parse::<Source>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn source_is_meant_tells_from_references() {
        assert!(Source::is_meant("./alpine") && Source::is_meant("oci:alpine") && Source::is_meant("/a"));
        assert!(
            !Source::is_meant("alpine") && !Source::is_meant("localhost:5000/a") && !Source::is_meant("a/b")
        );
    }

    #[test]
    fn source_parse_incomplete_is_refused() {
        for text in ["oci:", "oci::x", "oci:x:", "alpine"] {
            assert!(
                matches!(text.parse::<Source>(), Err(Error::BadSource { .. })),
                "{text}"
            );
        }
    }

    #[test]
    fn import_of_nothing_names_the_path() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&folder.path().join("store")).unwrap();
        let import = |text: &str| {
            store
                .import(&text.parse().unwrap(), &Platform::linux("amd64"), &())
                .unwrap_err()
        };
        assert!(
            import("oci:/nonexistent/x")
                .to_string()
                .contains("/nonexistent/x")
        );
        let file = folder.path().join("file");
        std::fs::write(&file, b"no archive at all").unwrap();
        assert!(
            import(&format!("{}", file.display()))
                .to_string()
                .contains("file")
        );
        std::fs::write(&file, [0x1f, 0x8b, 8, 0]).unwrap();
        assert!(
            import(&format!("oci-archive:{}", file.display()))
                .to_string()
                .contains("compressed")
        );
    }
}
