//! The blocking face of a session with a registry.

use std::sync::Arc;

use tokio::runtime::Handle;

use super::context::Context;
use super::credentials::Credentials;
use super::runtime::Runtime;
use super::session::Session;
use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::manifest::{Descriptor, MAX_MANIFEST_BYTES, check_size, verify};
use crate::reference::Reference;

/// A client of one repository, with a thread of its own for the asynchronous session.
pub(super) struct Client {
    pub(super) session: Arc<Session>,
    /// The tag or digest of the reference.
    name: String,
    runtime: Runtime,
}

impl Client {
    /// A client that has not asked anything yet.
    pub(super) fn new(
        reference: &Reference,
        credentials: Credentials,
        insecure: &[String],
    ) -> Result<Client> {
        let context = Context::new(reference, credentials.describe(), insecure);
        let name = match (reference.digest(), reference.tag()) {
            (Some(digest), _) => digest.to_string(),
            (None, tag) => tag.unwrap_or("latest").to_owned(),
        };
        Ok(Client {
            session: Arc::new(Session::new(credentials, context)?),
            name,
            runtime: Runtime::start()?,
        })
    }

    /// The document the reference means, and its digest, which must be `expected` if that is known.
    pub(super) fn manifest(&self, expected: Option<&Digest>) -> Result<(Vec<u8>, Digest)> {
        let bytes = self.runtime.wait(self.session.manifest(&self.name))?;
        let actual = Digest::of(&bytes);
        match expected {
            Some(&expected) if expected != actual => Err(Error::DigestMismatch {
                what: format!("manifest of `{}`", self.session.context.image()),
                expected,
                actual,
            }),
            _ => Ok((bytes, actual)),
        }
    }

    /// A manifest or index by its descriptor.
    pub(super) fn document(&self, what: &str, descriptor: &Descriptor) -> Result<Vec<u8>> {
        check_size(what, descriptor, MAX_MANIFEST_BYTES)?;
        let digest = descriptor.digest.to_string();
        let bytes = self.runtime.wait(self.session.manifest(&digest))?;
        verify(what, descriptor, &bytes)?;
        Ok(bytes)
    }

    /// A blob that fits into memory; its size must have been checked.
    pub(super) fn small_blob(&self, descriptor: &Descriptor) -> Result<Vec<u8>> {
        let digest = descriptor.digest.to_string();
        self.runtime
            .wait(self.session.small_blob(&digest, descriptor.size))
    }

    /// Where tasks can be started.
    pub(super) fn handle(&self) -> &Handle {
        &self.runtime.handle
    }
}
