//! The blocking face of `oci-client`, and its errors in this crate's words.

use std::future::Future;
use std::thread::JoinHandle;
use std::time::Duration;

use futures_util::StreamExt;
use oci_client::RegistryOperation;
use oci_client::client::{ClientConfig, ClientProtocol};
use oci_client::errors::{OciDistributionError, OciErrorCode};
use oci_client::secrets::RegistryAuth;
use tokio::runtime::{Builder, Handle};
use tokio::sync::oneshot;

use super::credentials::Credentials;
use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::manifest::{Descriptor, MAX_MANIFEST_BYTES, MEDIA_TYPES, check_size, verify};
use crate::reference::Reference;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(15);
/// Longest silence while something is read.
const READ_TIMEOUT: Duration = Duration::from_secs(30);

/// A connection to one repository, with a thread of its own for the asynchronous client.
pub(super) struct Client {
    pub(super) oci: oci_client::Client,
    pub(super) reference: oci_client::Reference,
    /// The way of a reference in words, for errors.
    pub(super) context: Context,
    runtime: Runtime,
}

/// What errors name.
#[derive(Clone, Debug)]
pub(super) struct Context {
    registry: String,
    repository: String,
    image: String,
    credentials: &'static str,
    insecure: bool,
}

impl Client {
    /// Connects and logs in.
    pub(super) fn new(
        reference: &Reference,
        credentials: Credentials,
        insecure: &[String],
    ) -> Result<Client> {
        // There is one provider per process; somebody may have installed another, which does as well.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let context = Context {
            registry: reference.registry().to_owned(),
            repository: reference.repository().to_owned(),
            image: reference.to_string(),
            credentials: credentials.describe(),
            insecure: insecure.iter().any(|host| host == reference.registry()),
        };
        let config = ClientConfig {
            protocol: ClientProtocol::HttpsExcept(insecure.to_vec()),
            // Such a registry is not authenticated anyway, nor is what it redirects to: digests are.
            accept_invalid_certificates: context.insecure,
            connect_timeout: Some(CONNECT_TIMEOUT),
            read_timeout: Some(READ_TIMEOUT),
            user_agent: concat!("crumblecracker/", env!("CARGO_PKG_VERSION")),
            ..ClientConfig::default()
        };
        let oci = oci_client::Client::try_from(config).map_err(|error| context.error(error))?;
        let (registry, repository) = (context.registry.clone(), context.repository.clone());
        let reference = match (reference.digest(), reference.tag()) {
            (Some(digest), _) => oci_client::Reference::with_digest(registry, repository, digest.to_string()),
            (None, tag) => {
                oci_client::Reference::with_tag(registry, repository, tag.unwrap_or("latest").to_owned())
            }
        };
        let client = Client {
            oci,
            reference,
            context,
            runtime: Runtime::start()?,
        };
        let auth = match credentials {
            Credentials::None => RegistryAuth::Anonymous,
            Credentials::Basic { user, password } => RegistryAuth::Basic(user, password),
            Credentials::Bearer(token) => RegistryAuth::Bearer(token),
        };
        let login = client.oci.auth(&client.reference, &auth, RegistryOperation::Pull);
        client
            .runtime
            .wait(login)
            .map_err(|error| client.context.error(error))?;
        Ok(client)
    }

    /// The document the reference means, and its digest, which must be `expected` if that is known.
    pub(super) fn manifest(&self, expected: Option<&Digest>) -> Result<(Vec<u8>, Digest)> {
        let bytes = self.raw_manifest(&self.reference)?;
        let actual = Digest::of(&bytes);
        match expected {
            Some(&expected) if expected != actual => {
                let what = format!("manifest of `{}`", self.context.image);
                Err(Error::DigestMismatch {
                    what,
                    expected,
                    actual,
                })
            }
            _ => Ok((bytes, actual)),
        }
    }

    /// A manifest or index by its descriptor.
    pub(super) fn document(&self, what: &str, descriptor: &Descriptor) -> Result<Vec<u8>> {
        check_size(what, descriptor, MAX_MANIFEST_BYTES)?;
        let bytes = self.raw_manifest(&self.reference.clone_with_digest(descriptor.digest.to_string()))?;
        verify(what, descriptor, &bytes)?;
        Ok(bytes)
    }

    fn raw_manifest(&self, reference: &oci_client::Reference) -> Result<Vec<u8>> {
        let pull = self
            .oci
            .pull_manifest_raw(reference, &RegistryAuth::Anonymous, &MEDIA_TYPES);
        let (bytes, _) = self
            .runtime
            .wait(pull)
            .map_err(|error| self.context.error(error))?;
        if bytes.len() as u64 > MAX_MANIFEST_BYTES {
            return Err(self.context.bad_answer("its manifest is longer than 4 MiB"));
        }
        Ok(bytes.to_vec())
    }

    /// A blob that fits into memory; its size must have been checked.
    pub(super) fn small_blob(&self, descriptor: &Descriptor) -> Result<Vec<u8>> {
        let digest = descriptor.digest.to_string();
        let read = async {
            let mut stream = self
                .oci
                .pull_blob_stream(&self.reference, digest.as_str())
                .await?;
            let mut bytes = Vec::new();
            while let Some(chunk) = stream.stream.next().await {
                bytes.extend_from_slice(&chunk?);
                if bytes.len() as u64 > descriptor.size {
                    break;
                }
            }
            Ok(bytes)
        };
        self.runtime.wait(read).map_err(|error| self.context.error(error))
    }

    /// Where tasks can be started.
    pub(super) fn handle(&self) -> &Handle {
        &self.runtime.handle
    }
}

impl Context {
    /// An error of the client in this crate's words.
    pub(super) fn error(&self, error: OciDistributionError) -> Error {
        use OciDistributionError as E;
        match error {
            E::UnauthorizedError { .. } | E::AuthenticationFailure(_) => self.unauthorized(),
            E::RegistryError { ref envelope, .. } => match envelope.errors.first().map(|error| &error.code) {
                Some(OciErrorCode::ManifestUnknown | OciErrorCode::NameUnknown | OciErrorCode::NotFound) => {
                    Error::NotFound(self.image.clone())
                }
                Some(OciErrorCode::Unauthorized | OciErrorCode::Denied) => self.unauthorized(),
                Some(OciErrorCode::Toomanyrequests) => {
                    self.bad_answer("it has had too many requests: log in or wait")
                }
                _ => self.bad_answer(&error.to_string()),
            },
            E::ServerError { code: 401 | 403, .. } => self.unauthorized(),
            E::ServerError { code: 404, .. } => Error::NotFound(self.image.clone()),
            E::ServerError { code, message, .. } => {
                let line = message.lines().next().unwrap_or_default();
                let line: String = line.chars().take(200).collect();
                self.bad_answer(&format!("HTTP status {code} {line}"))
            }
            E::RequestError(error) => self.unreachable(Box::new(error)),
            E::IoError(error) => self.unreachable(Box::new(error)),
            other => self.bad_answer(&other.to_string()),
        }
    }

    pub(super) fn unreachable(&self, source: Box<dyn std::error::Error + Send + Sync>) -> Error {
        let hint = match (self.insecure, is_not_tls(&*source)) {
            (false, true) => ": it does not speak HTTPS (--insecure-registry allows plain HTTP)",
            _ => "",
        };
        Error::Unreachable {
            registry: self.registry.clone(),
            hint,
            source,
        }
    }

    /// A transfer that broke off for good.
    pub(super) fn interrupted(&self, digest: &str, arrived: u64, size: u64, source: std::io::Error) -> Error {
        let what = format!("layer {digest}");
        Error::Interrupted {
            registry: self.registry.clone(),
            what,
            arrived,
            size,
            source: Box::new(source),
        }
    }

    pub(super) fn bad_answer(&self, reason: &str) -> Error {
        Error::Registry {
            registry: self.registry.clone(),
            what: self.image.clone(),
            reason: reason.to_owned(),
        }
    }

    fn unauthorized(&self) -> Error {
        Error::Unauthorized {
            registry: self.registry.clone(),
            repository: self.repository.clone(),
            credentials: self.credentials,
        }
    }
}

/// Whether the other side answered a TLS greeting with something else.
fn is_not_tls(error: &(dyn std::error::Error + 'static)) -> bool {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(rustls::Error::InvalidMessage(_)) = error.downcast_ref() {
            return true;
        }
        // The source of an I/O error is that of what it wraps, which is thus passed over.
        let wrapped = error
            .downcast_ref::<std::io::Error>()
            .and_then(std::io::Error::get_ref);
        next = wrapped.map(|wrapped| wrapped as _).or_else(|| error.source());
    }
    false
}

/// A thread that turns the asynchronous client's wheels until this is dropped.
struct Runtime {
    handle: Handle,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Runtime {
    fn start() -> Result<Runtime> {
        let failed = |source| Error::Io {
            action: "start",
            path: "the network client".into(),
            source,
        };
        let runtime = Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(failed)?;
        let handle = runtime.handle().clone();
        let (stop, stopped) = oneshot::channel();
        let run = move || {
            // Told to stop, or whoever could tell is gone: the same.
            let _ = runtime.block_on(stopped);
            runtime.shutdown_background();
        };
        let thread = std::thread::Builder::new()
            .name("registry".into())
            .spawn(run)
            .map_err(failed)?;
        Ok(Runtime {
            handle,
            stop: Some(stop),
            thread: Some(thread),
        })
    }

    fn wait<T>(&self, future: impl Future<Output = T>) -> T {
        self.handle.block_on(future)
    }
}

impl Drop for Runtime {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // It has nothing to say.
            let _ = thread.join();
        }
    }
}
