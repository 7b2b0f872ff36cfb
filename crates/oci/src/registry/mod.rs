//! Pulling images from registries (OCI distribution specification).

mod authorization;
mod client;
mod context;
mod credentials;
mod download;
mod keep;
mod runtime;
mod session;

use std::path::PathBuf;
use std::sync::Arc;

use client::Client;
use download::Downloads;

use crate::error::Result;
use crate::manifest::{Document, check_config_size, find_manifest, read_config, verify};
use crate::platform::Platform;
use crate::progress::Progress;
use crate::reference::Reference;
use crate::store::{Blueprint, Image, LayerJob, NewImage, Store};

/// Pulls images into a store.
///
/// Registries are spoken to by HTTPS. Only those named as insecure, by host and port as in the reference, are
/// spoken to by plain HTTP, loopback ones included; where such a registry points to by HTTPS, certificates
/// are not checked, as with Docker. Credentials are those of Docker's configuration file.
#[derive(Clone)]
pub struct Puller {
    store: Store,
    platform: Platform,
    insecure: Vec<String>,
    docker_config: Option<PathBuf>,
    progress: Arc<dyn Progress>,
}

impl Puller {
    /// A puller for this host's platform, without insecure registries and with nobody watching.
    pub fn new(store: Store) -> Puller {
        Puller {
            store,
            platform: Platform::host(),
            insecure: Vec::new(),
            docker_config: None,
            progress: Arc::new(()),
        }
    }

    /// Pulls for another platform.
    pub fn platform(self, platform: Platform) -> Puller {
        Puller { platform, ..self }
    }

    /// Registries to be spoken to by plain HTTP, as `host` or `host:port`.
    pub fn insecure_registries(self, insecure: Vec<String>) -> Puller {
        Puller { insecure, ..self }
    }

    /// Docker's configuration file, instead of the one in `$DOCKER_CONFIG` or `~/.docker`.
    pub fn docker_config(self, file: PathBuf) -> Puller {
        Puller {
            docker_config: Some(file),
            ..self
        }
    }

    /// Somebody who watches.
    pub fn progress(self, progress: Arc<dyn Progress>) -> Puller {
        Puller { progress, ..self }
    }

    /// Fetches what the store does not have of an image and gives it the reference's name.
    ///
    /// The registry is asked what the reference means now, whether the store knows it or not.
    ///
    /// # Errors
    /// A registry that cannot be reached, does not know the image or refuses the credentials; content that is
    /// not what its digest says; a layer that is refused; a full disk. Nothing half-made has a name then;
    /// what was fetched completely stays for the next attempt.
    pub fn pull(&self, reference: &Reference) -> Result<Image> {
        let name = reference.to_string();
        let auth = credentials::find(reference.registry(), self.docker_config.as_deref())?;
        let client = Client::new(reference, auth, &self.insecure)?;
        let (json, digest) = client.manifest(reference.digest())?;
        let document = Document::parse(&format!("manifest {digest} of `{name}`"), &json)?;
        let mut fetch = |descriptor: &_| client.document("manifest", descriptor);
        let manifest = find_manifest(&name, digest, document, &self.platform, &mut fetch)?;
        check_config_size(&manifest)?;
        let json = client.small_blob(&manifest.config)?;
        verify("configuration", &manifest.config, &json)?;
        let config = read_config(&name, &manifest, &json, &self.platform)?;
        let job =
            |(place, (layer, diff_id)): (usize, (&crate::manifest::Descriptor, &crate::digest::Digest))| {
                LayerJob {
                    diff_id: *diff_id,
                    blob: Some((layer.digest, layer.size)),
                    place,
                }
            };
        let blueprint = Blueprint {
            image: NewImage {
                name: &name,
                platform: &self.platform,
                config: &json,
                manifest: Some(digest),
                compressed: 0,
            },
            layers: manifest
                .layers
                .iter()
                .zip(&config.diff_ids)
                .enumerate()
                .map(job)
                .collect(),
        };
        self.store
            .take_over(blueprint, &Downloads { client: &client }, &*self.progress)
    }
}
