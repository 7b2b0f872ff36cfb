//! What a registry is shown, and how that is got: the registry's challenge names a token service, which gives
//! a token for the stored credentials or for none (distribution, "Token Authentication Specification").

use std::sync::{Mutex, PoisonError};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http_auth::{ChallengeRef, parse_challenges};
use reqwest::header::{AUTHORIZATION, HeaderValue, WWW_AUTHENTICATE};
use reqwest::{Response, Url};
use serde::Deserialize;

use super::context::Context;
use super::credentials::Credentials;
use super::session::read_up_to;
use crate::error::Result;

/// Longest answer of a token service, in bytes; tokens have to fit into a header.
const MAX_TOKEN_ANSWER: u64 = 64 << 10;

/// The value of the `Authorization` header, once it is known.
pub(super) struct Authorization {
    credentials: Credentials,
    value: Mutex<Option<HeaderValue>>,
}

/// The token service a challenge names.
#[derive(Debug, PartialEq, Eq)]
struct TokenService {
    realm: Url,
    service: Option<String>,
}

/// What a token service answers; both names are in use.
#[derive(Deserialize)]
struct TokenAnswer {
    token: Option<String>,
    access_token: Option<String>,
}

impl Authorization {
    pub(super) fn new(credentials: Credentials) -> Authorization {
        let value = match &credentials {
            Credentials::Bearer(token) => secret(format!("Bearer {token}")),
            // Shown to nobody who does not ask.
            Credentials::Basic { .. } | Credentials::None => None,
        };
        Authorization {
            credentials,
            value: Mutex::new(value),
        }
    }

    /// What is shown now.
    pub(super) fn shown(&self) -> Option<HeaderValue> {
        self.value.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Gets what `refusal`, an answer of the registry, asks for; `None` if there is no such thing.
    pub(super) async fn renew(
        &self,
        http: &reqwest::Client,
        refusal: &Response,
        context: &Context,
    ) -> Result<Option<HeaderValue>> {
        let headers = refusal.headers().get_all(WWW_AUTHENTICATE).into_iter();
        let texts: Vec<&str> = headers.filter_map(|header| header.to_str().ok()).collect();
        let value = match (&self.credentials, find_service(&texts)) {
            (Credentials::Bearer(_), _) => None,
            (_, Some(service)) => self.ask(http, service, context).await?,
            (credentials, None) => basic(credentials),
        };
        if value.is_some() {
            *self.value.lock().unwrap_or_else(PoisonError::into_inner) = value.clone();
        }
        Ok(value)
    }

    /// Asks a token service for a token.
    async fn ask(
        &self,
        http: &reqwest::Client,
        TokenService { mut realm, service }: TokenService,
        context: &Context,
    ) -> Result<Option<HeaderValue>> {
        if realm.scheme() != "https" && !context.insecure {
            return Err(context.bad_answer("its token service does not speak HTTPS"));
        }
        realm
            .query_pairs_mut()
            .append_pair("scope", &format!("repository:{}:pull", context.repository))
            .extend_pairs(service.map(|service| ("service", service)));
        let mut request = http.get(realm);
        if let Some(value) = basic(&self.credentials) {
            request = request.header(AUTHORIZATION, value);
        }
        let unreachable = |error| context.unreachable(error);
        let mut response = request.send().await.map_err(unreachable)?;
        let status = response.status();
        if status.is_client_error() {
            return Err(context.unauthorized());
        }
        let mut answer = Vec::new();
        let whole = read_up_to(&mut response, MAX_TOKEN_ANSWER, &mut answer)
            .await
            .map_err(unreachable)?;
        if !status.is_success() {
            let reason = format!("its token service answered with HTTP status {}", status.as_u16());
            return Err(context.bad_answer(&reason));
        }
        if !whole {
            return Err(context.bad_answer("its token service's answer is longer than 64 KiB"));
        }
        let token = serde_json::from_slice(&answer)
            .ok()
            .and_then(|TokenAnswer { token, access_token }| token.or(access_token))
            .and_then(|token| secret(format!("Bearer {token}")));
        token
            .map(Some)
            .ok_or_else(|| context.bad_answer("its token service gave no token"))
    }
}

/// A value that nobody prints, if a header can have it.
fn secret(text: String) -> Option<HeaderValue> {
    let mut value = HeaderValue::from_str(&text).ok()?;
    value.set_sensitive(true);
    Some(value)
}

/// RFC 7617 section 2.
fn basic(credentials: &Credentials) -> Option<HeaderValue> {
    match credentials {
        Credentials::Basic { user, password } => {
            secret(format!("Basic {}", STANDARD.encode(format!("{user}:{password}"))))
        }
        Credentials::Bearer(_) | Credentials::None => None,
    }
}

/// The first token service in the values of `WWW-Authenticate` headers (RFC 9110 section 11.6.1).
fn find_service(headers: &[&str]) -> Option<TokenService> {
    headers
        .iter()
        .filter_map(|text| parse_challenges(text).ok())
        .flatten()
        .filter(|challenge| challenge.scheme.eq_ignore_ascii_case("bearer"))
        .find_map(|challenge| {
            Some(TokenService {
                realm: Url::parse(&parameter(&challenge, "realm")?).ok()?,
                service: parameter(&challenge, "service"),
            })
        })
}

fn parameter(challenge: &ChallengeRef, name: &str) -> Option<String> {
    let mut parameters = challenge.params.iter();
    let (_, value) = parameters.find(|(key, _)| key.eq_ignore_ascii_case(name))?;
    Some(value.to_unescaped())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn service(realm: &str, service: Option<&str>) -> Option<TokenService> {
        Some(TokenService {
            realm: realm.parse().unwrap(),
            service: service.map(str::to_owned),
        })
    }

    #[test]
    fn find_service_takes_the_bearer_challenge_among_others() {
        let full = r#"Bearer realm="https://auth.example/token",service="a \"b\"",scope="repository:x:pull""#;
        let second = r#"Basic realm="x", BEARER Realm="https://auth.example/token""#;

        assert_eq!(
            find_service(&[full]),
            service("https://auth.example/token", Some("a \"b\""))
        );
        assert_eq!(
            find_service(&[second]),
            service("https://auth.example/token", None)
        );
        assert_eq!(
            find_service(&["Basic realm=\"x\"", full]),
            service("https://auth.example/token", Some("a \"b\""))
        );
    }

    #[test]
    fn find_service_of_malformed_challenges_finds_none() {
        for text in [
            "",
            "Bearer",
            "Bearer realm=",
            "Bearer realm=\"/token\"",
            "\u{1}",
            "Basic realm=\"x\"",
        ] {
            assert_eq!(find_service(&[text]), None, "{text}");
        }
    }

    #[test]
    fn basic_is_the_example_of_the_specification() {
        let credentials = Credentials::Basic {
            user: "Aladdin".into(),
            password: "open sesame".into(),
        };

        let value = basic(&credentials).unwrap();

        assert_eq!(value, "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==");
        assert!(value.is_sensitive());
    }
}
