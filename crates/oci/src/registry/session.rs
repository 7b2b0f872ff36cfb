//! Requests to one repository (OCI distribution specification, "Pull").
//!
//! A registry's answers are foreign bytes: whatever is not passed on piece by piece is read up to a limit only.

use std::time::Duration;

use reqwest::header::{ACCEPT, AUTHORIZATION, HeaderMap, HeaderValue, RANGE};
use reqwest::{Response, StatusCode, Url};

use super::authorization::Authorization;
use super::context::Context;
use super::credentials::Credentials;
use crate::error::Result;
use crate::manifest::{MAX_MANIFEST_BYTES, MEDIA_TYPES};
use crate::reference::DEFAULT_REGISTRY;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(15);
/// Longest silence while something is read.
const READ_TIMEOUT: Duration = Duration::from_secs(30);
/// Where Docker's own registry is.
const DEFAULT_HOST: &str = "registry-1.docker.io";
/// Bytes that are read of an answer that only says what is wrong.
const MAX_REFUSAL: u64 = 64 << 10;

/// A client of one repository.
pub(super) struct Session {
    http: reqwest::Client,
    /// Address of the repository, without a slash at its end.
    repository: String,
    authorization: Authorization,
    pub(super) context: Context,
}

impl Session {
    pub(super) fn new(credentials: Credentials, context: Context) -> Result<Session> {
        // There is one provider per process; somebody may have installed another, which does as well.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let http = reqwest::Client::builder()
            // Such a registry is not authenticated anyway, nor is what it redirects to: digests are.
            .tls_danger_accept_invalid_certs(context.insecure)
            .connect_timeout(CONNECT_TIMEOUT)
            .read_timeout(READ_TIMEOUT)
            .user_agent(concat!("crumblecracker/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(|error| context.unreachable(error))?;
        let scheme = if context.insecure { "http" } else { "https" };
        let host = match context.registry.as_str() {
            DEFAULT_REGISTRY => DEFAULT_HOST,
            host => host,
        };
        Ok(Session {
            http,
            repository: format!("{scheme}://{host}/v2/{}", context.repository),
            authorization: Authorization::new(credentials),
            context,
        })
    }

    /// A manifest or index by its tag or digest.
    pub(super) async fn manifest(&self, name: &str) -> Result<Vec<u8>> {
        // Media types have only characters that headers may have.
        let accept = HeaderValue::from_str(&MEDIA_TYPES.join(", ")).ok();
        let headers = accept.map(|accept| (ACCEPT, accept)).into_iter().collect();
        let response = self.get(&format!("manifests/{name}"), headers).await?;
        let bytes = self
            .read(self.expect(response).await?, MAX_MANIFEST_BYTES)
            .await?;
        bytes.ok_or_else(|| self.context.bad_answer("its manifest is longer than 4 MiB"))
    }

    /// A blob that fits into memory, of at most `limit` bytes.
    pub(super) async fn small_blob(&self, digest: &str, limit: u64) -> Result<Vec<u8>> {
        let response = self.get(&format!("blobs/{digest}"), HeaderMap::new()).await?;
        let bytes = self.read(self.expect(response).await?, limit).await?;
        bytes.ok_or_else(|| {
            self.context
                .bad_answer(&format!("blob {digest} is longer than its manifest says"))
        })
    }

    /// A blob from one of its bytes on, if it is so long. Registries that do not know ranges give all of it,
    /// which the status tells.
    pub(super) async fn blob(&self, digest: &str, from: u64) -> Result<Option<Response>> {
        let mut headers = HeaderMap::new();
        if from > 0 {
            let range = HeaderValue::from_str(&format!("bytes={from}-")).ok();
            headers.extend(range.map(|range| (RANGE, range)));
        }
        let response = self.get(&format!("blobs/{digest}"), headers).await?;
        match response.status() {
            StatusCode::RANGE_NOT_SATISFIABLE => Ok(None),
            _ => self.expect(response).await.map(Some),
        }
    }

    /// Asks, and once more with whatever the registry wants to be shown.
    async fn get(&self, path: &str, headers: HeaderMap) -> Result<Response> {
        let shown = self.authorization.shown();
        let response = self.send(path, headers.clone(), shown.clone()).await?;
        if response.status() != StatusCode::UNAUTHORIZED || !self.is_own(&response) {
            return Ok(response);
        }
        match self
            .authorization
            .renew(&self.http, &response, &self.context)
            .await?
        {
            Some(value) if Some(&value) != shown.as_ref() => self.send(path, headers, Some(value)).await,
            _ => Ok(response),
        }
    }

    /// Whether the registry itself has answered, not somebody it points to: nobody else is to say where the
    /// credentials go.
    fn is_own(&self, response: &Response) -> bool {
        Url::parse(&self.repository).is_ok_and(|own| own.origin() == response.url().origin())
    }

    async fn send(
        &self,
        path: &str,
        headers: HeaderMap,
        authorization: Option<HeaderValue>,
    ) -> Result<Response> {
        let mut request = self
            .http
            .get(format!("{}/{path}", self.repository))
            .headers(headers);
        if let Some(value) = authorization {
            request = request.header(AUTHORIZATION, value);
        }
        request
            .send()
            .await
            .map_err(|error| self.context.unreachable(error))
    }

    /// An answer that is what was asked for, or what the registry has against that.
    async fn expect(&self, mut response: Response) -> Result<Response> {
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        // What broke off says as much as what is too long: its beginning.
        let mut text = Vec::new();
        let _ = read_up_to(&mut response, MAX_REFUSAL, &mut text).await;
        Err(self.context.refusal(status, &text))
    }

    /// An answer as a whole, unless it is longer than `limit` bytes.
    async fn read(&self, mut response: Response, limit: u64) -> Result<Option<Vec<u8>>> {
        let mut bytes = Vec::new();
        let whole = read_up_to(&mut response, limit, &mut bytes).await;
        let whole = whole.map_err(|error| self.context.unreachable(error))?;
        Ok(whole.then_some(bytes))
    }
}

/// Appends an answer's bytes, but not more than `limit`; tells whether that is all of it.
pub(super) async fn read_up_to(
    response: &mut Response,
    limit: u64,
    into: &mut Vec<u8>,
) -> reqwest::Result<bool> {
    let mut left = limit;
    while let Some(chunk) = response.chunk().await? {
        let fits = usize::try_from(left).map_or(chunk.len(), |left| chunk.len().min(left));
        into.extend_from_slice(&chunk[..fits]);
        if fits < chunk.len() {
            return Ok(false);
        }
        left -= fits as u64;
    }
    Ok(true)
}
