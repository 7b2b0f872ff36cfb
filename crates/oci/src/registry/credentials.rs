//! Credentials from Docker's configuration file and the helpers it names.
//!
//! Helpers are programs called `docker-credential-NAME` that read a server's address and answer with JSON
//! (docker-credential-helpers, "Development": the `get` action).

use std::collections::HashMap;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;

use crate::error::{Error, Result};
use crate::reference::DEFAULT_REGISTRY;

/// Docker's own registry goes by this name in configuration files and helpers.
const DOCKER_SERVER: &str = "https://index.docker.io/v1/";
/// User name that says the secret is an identity token.
const TOKEN_USER: &str = "<token>";
/// What helpers say, on standard output, when they have nothing.
const HELPER_HAS_NONE: &str = "credentials not found";

/// What a registry is shown.
#[derive(Clone, PartialEq, Eq)]
pub(super) enum Credentials {
    None,
    Basic { user: String, password: String },
    Bearer(String),
}

impl Credentials {
    /// What errors call them; never the secret.
    pub(super) fn describe(&self) -> &'static str {
        match self {
            Credentials::None => "anonymous access",
            Credentials::Basic { .. } | Credentials::Bearer(_) => "the stored credentials",
        }
    }
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct DockerConfig {
    auths: HashMap<String, AuthEntry>,
    cred_helpers: HashMap<String, String>,
    creds_store: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct AuthEntry {
    auth: Option<String>,
    username: Option<String>,
    password: Option<String>,
    identitytoken: Option<String>,
    registrytoken: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct HelperAnswer {
    username: String,
    secret: String,
}

/// Looks a registry's credentials up: its own helper first, then the store of all, then the file itself.
pub(super) fn find(registry: &str, file: Option<&Path>) -> Result<Credentials> {
    let Some(path) = file.map(Path::to_owned).or_else(default_file) else {
        return Ok(Credentials::None);
    };
    let json = match std::fs::read(&path) {
        Ok(json) => json,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Credentials::None),
        Err(error) => return Err(Error::io("read", &path)(error)),
    };
    let config: DockerConfig = serde_json::from_slice(&json).map_err(|error| Error::BadDocument {
        what: format!("Docker's configuration {}", path.display()),
        reason: error.to_string(),
    })?;
    let refuse = |reason: String| Error::Credentials {
        registry: registry.to_owned(),
        reason,
    };
    let helper = find_key(&config.cred_helpers, registry).or(config.creds_store.as_ref());
    match helper.filter(|helper| !helper.is_empty()) {
        Some(helper) => ask_helper(helper, registry).map_err(refuse),
        None => find_key(&config.auths, registry)
            .map_or(Ok(Credentials::None), |entry| from_entry(entry).map_err(refuse)),
    }
}

fn default_file() -> Option<PathBuf> {
    let set = |name| {
        std::env::var_os(name)
            .filter(|value| !value.is_empty())
            .map(PathBuf::from)
    };
    let folder = set("DOCKER_CONFIG").or_else(|| Some(set("HOME")?.join(".docker")))?;
    Some(folder.join("config.json"))
}

/// Keys are hosts, or addresses of which only the host counts.
fn find_key<'a, T>(map: &'a HashMap<String, T>, registry: &str) -> Option<&'a T> {
    let host = |key: &str| -> String {
        let rest = key
            .strip_prefix("https://")
            .or(key.strip_prefix("http://"))
            .unwrap_or(key);
        let host = rest.split('/').next().unwrap_or_default();
        if matches!(host, "index.docker.io" | "registry-1.docker.io") {
            DEFAULT_REGISTRY.into()
        } else {
            host.into()
        }
    };
    map.get(registry).or_else(|| {
        map.iter()
            .find(|(key, _)| host(key) == registry)
            .map(|(_, value)| value)
    })
}

fn from_entry(entry: &AuthEntry) -> std::result::Result<Credentials, String> {
    let set = |field: &Option<String>| field.clone().filter(|text| !text.is_empty());
    if let Some(token) = set(&entry.registrytoken) {
        return Ok(Credentials::Bearer(token));
    }
    if set(&entry.identitytoken).is_some() {
        return Err(no_identity_tokens());
    }
    if let Some(auth) = set(&entry.auth) {
        let malformed = || "`auth` in Docker's configuration is not base64 of user:password".to_owned();
        let text = STANDARD
            .decode(auth.trim())
            .ok()
            .and_then(|bytes| String::from_utf8(bytes).ok());
        let text = text.ok_or_else(malformed)?;
        let (user, password) = text
            .trim_end_matches('\0')
            .split_once(':')
            .ok_or_else(malformed)?;
        return basic(user.to_owned(), password.to_owned());
    }
    match (set(&entry.username), set(&entry.password)) {
        (Some(user), Some(password)) => basic(user, password),
        _ => Ok(Credentials::None),
    }
}

fn basic(user: String, password: String) -> std::result::Result<Credentials, String> {
    match user.as_str() {
        TOKEN_USER => Err(no_identity_tokens()),
        _ => Ok(Credentials::Basic { user, password }),
    }
}

fn no_identity_tokens() -> String {
    "they are an identity token, which is not supported: log in with a user name and an access token".into()
}

fn ask_helper(helper: &str, registry: &str) -> std::result::Result<Credentials, String> {
    if helper.contains(['/', '\\']) {
        return Err(format!("`{helper}` is not the name of a credential helper"));
    }
    let program = format!("docker-credential-{helper}");
    let server = if registry == DEFAULT_REGISTRY {
        DOCKER_SERVER
    } else {
        registry
    };
    let output = run(&program, server).map_err(|error| format!("{program}: {error}"))?;
    let answer = String::from_utf8_lossy(&output.stdout);
    if !output.status.success() {
        if answer.contains(HELPER_HAS_NONE) {
            return Ok(Credentials::None);
        }
        let errors = String::from_utf8_lossy(&output.stderr);
        let line = answer
            .lines()
            .chain(errors.lines())
            .next()
            .unwrap_or("it says nothing");
        return Err(format!("{program} failed: {line}"));
    }
    let answer: HelperAnswer =
        serde_json::from_str(&answer).map_err(|_| format!("{program} did not answer as a helper does"))?;
    match answer.username.is_empty() && answer.secret.is_empty() {
        true => Ok(Credentials::None),
        false => basic(answer.username, answer.secret),
    }
}

fn run(program: &str, server: &str) -> io::Result<std::process::Output> {
    let piped = Stdio::piped;
    let mut child = Command::new(program)
        .arg("get")
        .stdin(piped())
        .stdout(piped())
        .stderr(piped())
        .spawn()?;
    if let Some(mut stdin) = child.stdin.take() {
        // A helper that does not read its input says so by its status.
        let _ = writeln!(stdin, "{server}");
    }
    child.wait_with_output()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lookup(json: &str, registry: &str) -> Result<Credentials> {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("config.json");
        std::fs::write(&file, json).unwrap();
        find(registry, Some(&file))
    }

    fn is_basic(found: Result<Credentials>, user: &str, password: &str) -> bool {
        found.is_ok_and(|found| {
            found
                == Credentials::Basic {
                    user: user.into(),
                    password: password.into(),
                }
        })
    }

    #[test]
    fn credentials_of_auths_are_found_by_host_in_any_form() {
        // "user:pa:ss"
        let json = r#"{"auths":{"https://h:5000/v1/":{"auth":"dXNlcjpwYTpzcw=="},
            "https://index.docker.io/v1/":{"username":"u","password":"p"}}}"#;
        assert!(is_basic(lookup(json, "h:5000"), "user", "pa:ss"));
        assert!(is_basic(lookup(json, "docker.io"), "u", "p"));
        assert!(lookup(json, "h").is_ok_and(|found| found == Credentials::None));
    }

    #[test]
    fn credentials_without_file_are_none() {
        let found = find("h", Some(Path::new("/nonexistent/config.json")));
        assert!(found.is_ok_and(|found| found == Credentials::None));
    }

    #[test]
    fn credentials_malformed_are_refused_with_the_registry() {
        for json in [
            r#"{"auths":{"h":{"auth":"%%"}}}"#,
            r#"{"auths":{"h":{"auth":"dXNlcg=="}}}"#,
            r#"{"auths":{"h":{"identitytoken":"x"}}}"#,
            r#"{"credHelpers":{"h":"../evil"}}"#,
            r#"{"credsStore":"does-not-exist-anywhere"}"#,
        ] {
            let error = lookup(json, "h")
                .err()
                .map(|error| error.to_string())
                .unwrap_or_default();
            assert!(
                error.starts_with("credentials for h cannot be used"),
                "{json}: {error}"
            );
        }
        assert!(matches!(lookup("[", "h"), Err(Error::BadDocument { .. })));
    }

    #[test]
    fn credentials_registry_token_is_a_bearer() {
        let found = lookup(r#"{"auths":{"h":{"registrytoken":"t"}}}"#, "h");
        assert!(found.is_ok_and(|found| found == Credentials::Bearer("t".into())));
    }
}
