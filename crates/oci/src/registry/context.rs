//! What goes wrong with a registry, in this crate's words.

use reqwest::StatusCode;
use serde::Deserialize;

use crate::error::Error;
use crate::reference::Reference;

/// Characters of an answer that errors quote.
const MAX_QUOTED: usize = 200;

/// What errors name.
#[derive(Clone, Debug)]
pub(super) struct Context {
    pub(super) registry: String,
    pub(super) repository: String,
    image: String,
    credentials: &'static str,
    /// Whether the registry is spoken to by plain HTTP.
    pub(super) insecure: bool,
}

/// What registries say when they refuse (OCI distribution specification, "Error Codes").
#[derive(Default, Deserialize)]
struct Refusal {
    #[serde(default)]
    errors: Vec<Reason>,
}

#[derive(Deserialize)]
struct Reason {
    code: String,
    #[serde(default)]
    message: Option<String>,
}

impl Context {
    pub(super) fn new(reference: &Reference, credentials: &'static str, insecure: &[String]) -> Context {
        Context {
            registry: reference.registry().to_owned(),
            repository: reference.repository().to_owned(),
            image: reference.to_string(),
            credentials,
            insecure: insecure.iter().any(|host| host == reference.registry()),
        }
    }

    /// What the image is called.
    pub(super) fn image(&self) -> &str {
        &self.image
    }

    /// An answer that is not what was asked for: its status and the beginning of its text.
    pub(super) fn refusal(&self, status: StatusCode, text: &[u8]) -> Error {
        let refusal: Refusal = serde_json::from_slice(text).unwrap_or_default();
        let reason = refusal.errors.first();
        match (status, reason.map(|reason| reason.code.as_str())) {
            (StatusCode::UNAUTHORIZED, _) | (_, Some("UNAUTHORIZED" | "DENIED")) => self.unauthorized(),
            (_, Some("MANIFEST_UNKNOWN" | "NAME_UNKNOWN" | "NOT_FOUND")) => {
                Error::NotFound(self.image.clone())
            }
            (StatusCode::TOO_MANY_REQUESTS, _) | (_, Some("TOOMANYREQUESTS")) => {
                self.bad_answer("it has had too many requests: log in or wait")
            }
            (_, Some(code)) => {
                let message = reason
                    .and_then(|reason| reason.message.as_deref())
                    .unwrap_or(code);
                self.bad_answer(&format!(
                    "HTTP status {} {}",
                    status.as_u16(),
                    first_line(message)
                ))
            }
            (StatusCode::FORBIDDEN, None) => self.unauthorized(),
            (StatusCode::NOT_FOUND, None) => Error::NotFound(self.image.clone()),
            (_, None) => {
                let text = String::from_utf8_lossy(text);
                self.bad_answer(&format!("HTTP status {} {}", status.as_u16(), first_line(&text)))
            }
        }
    }

    pub(super) fn unreachable(&self, source: reqwest::Error) -> Error {
        let hint = match (self.insecure, is_not_tls(&source)) {
            (false, true) => ": it does not speak HTTPS (--insecure-registry allows plain HTTP)",
            _ => "",
        };
        Error::Unreachable {
            registry: self.registry.clone(),
            hint,
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

    pub(super) fn unauthorized(&self) -> Error {
        Error::Unauthorized {
            registry: self.registry.clone(),
            repository: self.repository.clone(),
            credentials: self.credentials,
        }
    }
}

/// What fits into a message of one line.
fn first_line(text: &str) -> String {
    text.lines()
        .next()
        .unwrap_or_default()
        .chars()
        .take(MAX_QUOTED)
        .collect()
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
