//! Image references as Docker resolves them (`distribution/reference`): `[host[:port]/]path[:tag][@digest]`.

use std::fmt;
use std::str::FromStr;

use crate::digest::Digest;
use crate::error::{Error, Result};

/// Registry that names without a host belong to.
pub const DEFAULT_REGISTRY: &str = "docker.io";
const DEFAULT_TAG: &str = "latest";
/// Longest repository name, host included (distribution/reference, `NameTotalLengthMax`).
const MAX_NAME: usize = 255;
const MAX_TAG: usize = 128;

/// A fully resolved reference: registry, repository, and a tag, a digest or both.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Reference {
    registry: String,
    repository: String,
    tag: Option<String>,
    digest: Option<Digest>,
}

impl Reference {
    /// Host and port as written, `docker.io` when none was.
    pub fn registry(&self) -> &str {
        &self.registry
    }

    /// Path inside the registry, `library/` added for Docker's official images.
    pub fn repository(&self) -> &str {
        &self.repository
    }

    /// The tag; `latest` when neither tag nor digest was written.
    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    /// The digest, when written.
    pub fn digest(&self) -> Option<&Digest> {
        self.digest.as_ref()
    }

    /// The short form people write: `alpine:3.20` for `docker.io/library/alpine:3.20`.
    pub fn familiar(&self) -> String {
        let full = self.to_string();
        let familiar = full
            .strip_prefix("docker.io/")
            .map(|rest| rest.strip_prefix("library/").unwrap_or(rest));
        familiar.unwrap_or(&full).to_owned()
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.registry, self.repository)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        if let Some(digest) = &self.digest {
            write!(f, "@{digest}")?;
        }
        Ok(())
    }
}

impl FromStr for Reference {
    type Err = Error;

    fn from_str(text: &str) -> Result<Reference> {
        parse(text).map_err(|reason| Error::Reference {
            text: text.chars().take(300).collect(),
            reason,
        })
    }
}

fn parse(text: &str) -> std::result::Result<Reference, &'static str> {
    if text.is_empty() {
        return Err("it is empty");
    }
    let (name, digest) = match text.split_once('@') {
        Some((name, digest)) => {
            let digest = digest
                .parse()
                .map_err(|_| "after `@` comes sha256: and 64 lower-case hex digits")?;
            (name, Some(digest))
        }
        None => (text, None),
    };
    let (registry, rest) = split_registry(name);
    if let Some(registry) = registry {
        check_host(registry)?;
    }
    // A colon in what follows the host can only begin a tag: paths have none.
    let (path, tag) = match rest.split_once(':') {
        Some((path, tag)) => (path, Some(tag)),
        None => (rest, None),
    };
    if let Some(tag) = tag {
        check_tag(tag)?;
    }
    path.split('/').try_for_each(check_component)?;
    if registry.is_none() && path.len() == 64 && path.bytes().all(|b| b.is_ascii_hexdigit()) {
        return Err("64 hexadecimal digits are an image id, not a name");
    }
    let registry = match registry {
        None | Some("index.docker.io") => DEFAULT_REGISTRY,
        Some(host) => host,
    };
    let official = registry == DEFAULT_REGISTRY && !path.contains('/');
    let repository = if official {
        format!("library/{path}")
    } else {
        path.to_owned()
    };
    if registry.len() + 1 + repository.len() > MAX_NAME {
        return Err("its name is longer than 255 characters");
    }
    let tag = match (tag, digest) {
        (None, None) => Some(DEFAULT_TAG.to_owned()),
        (tag, _) => tag.map(str::to_owned),
    };
    Ok(Reference {
        registry: registry.to_owned(),
        repository,
        tag,
        digest,
    })
}

/// The part before the first slash is a host when it could not be a path component: it has a dot or a
/// colon, is `localhost`, or has upper-case letters (distribution/reference, `splitDockerDomain`).
fn split_registry(name: &str) -> (Option<&str>, &str) {
    match name.split_once('/') {
        Some((host, rest))
            if host.contains(['.', ':'])
                || host == "localhost"
                || host.bytes().any(|byte| byte.is_ascii_uppercase()) =>
        {
            (Some(host), rest)
        }
        _ => (None, name),
    }
}

fn check_host(host: &str) -> std::result::Result<(), &'static str> {
    let (name, port) = match host.strip_prefix('[') {
        Some(rest) => {
            let (address, port) = rest
                .split_once(']')
                .ok_or("its IPv6 host lacks the closing bracket")?;
            if address.parse::<std::net::Ipv6Addr>().is_err() {
                return Err("its host is not an IPv6 address");
            }
            let port = match port.strip_prefix(':') {
                Some(port) => Some(port),
                None if port.is_empty() => None,
                None => return Err("after the bracketed host comes only a port"),
            };
            (None, port)
        }
        None => match host.split_once(':') {
            Some((name, port)) => (Some(name), Some(port)),
            None => (Some(host), None),
        },
    };
    let label_ok = |label: &str| {
        !label.is_empty()
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    if !name.is_none_or(|name| name.split('.').all(label_ok)) {
        return Err("its registry is not a host name");
    }
    match port {
        Some(port) if port.parse::<u16>().is_err() || port.starts_with('+') => {
            Err("the port of its registry is not a number below 65536")
        }
        _ => Ok(()),
    }
}

fn check_tag(tag: &str) -> std::result::Result<(), &'static str> {
    let word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    let first_ok = tag.bytes().next().is_some_and(word);
    if !first_ok || tag.len() > MAX_TAG || !tag.bytes().all(|b| word(b) || b == b'.' || b == b'-') {
        return Err(
            "a tag is 1 to 128 of letters, digits, `_`, `.`, `-`, beginning with a letter, digit or `_`",
        );
    }
    Ok(())
}

/// A path component: lower-case words joined by `.`, `_`, `__` or any number of dashes.
fn check_component(component: &str) -> std::result::Result<(), &'static str> {
    let word = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let bytes = component.as_bytes();
    if bytes.iter().any(u8::is_ascii_uppercase) {
        return Err("a repository name is lower case");
    }
    let ends_ok = bytes.first().is_some_and(|&b| word(b)) && bytes.last().is_some_and(|&b| word(b));
    let joints_ok = component
        .split(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit())
        .all(|joint| matches!(joint, "" | "." | "_" | "__") || joint.bytes().all(|b| b == b'-'));
    if ends_ok && joints_ok {
        return Ok(());
    }
    Err("a repository name is words of letters and digits joined by `.`, `_`, `__`, `-` or `/`")
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEX: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    fn full(text: &str) -> String {
        text.parse::<Reference>().unwrap().to_string()
    }

    #[test]
    fn reference_short_names_resolve_as_docker_does() {
        assert_eq!(full("alpine"), "docker.io/library/alpine:latest");
        assert_eq!(full("alpine:3.20"), "docker.io/library/alpine:3.20");
        assert_eq!(full("grafana/grafana"), "docker.io/grafana/grafana:latest");
        assert_eq!(full("docker.io/alpine"), "docker.io/library/alpine:latest");
        assert_eq!(
            full("index.docker.io/library/alpine"),
            "docker.io/library/alpine:latest"
        );
        assert_eq!(full("localhost/x"), "localhost/x:latest");
        assert_eq!(full("localhost:5000/a/b:t"), "localhost:5000/a/b:t");
        assert_eq!(full("127.0.0.1:5000/x"), "127.0.0.1:5000/x:latest");
        assert_eq!(full("[::1]:5000/x"), "[::1]:5000/x:latest");
        assert_eq!(
            full("registry.example/a/b__c/d--e.f"),
            "registry.example/a/b__c/d--e.f:latest"
        );
        assert_eq!(full("Host/x"), "Host/x:latest");
    }

    #[test]
    fn reference_with_digest_has_no_default_tag() {
        assert_eq!(
            full(&format!("alpine@sha256:{HEX}")),
            format!("docker.io/library/alpine@sha256:{HEX}")
        );
        assert_eq!(
            full(&format!("a:t@sha256:{HEX}")),
            format!("docker.io/library/a:t@sha256:{HEX}")
        );
    }

    #[test]
    fn reference_familiar_drops_defaults() {
        assert_eq!("alpine".parse::<Reference>().unwrap().familiar(), "alpine:latest");
        assert_eq!(
            "registry.example/a/b:1".parse::<Reference>().unwrap().familiar(),
            "registry.example/a/b:1"
        );
    }

    #[test]
    fn reference_malformed_is_refused_with_reason() {
        let long = "a".repeat(256);
        let long_tag = format!("a:{}", "t".repeat(129));
        for text in [
            "",
            "Alpine",
            "a:",
            "a:-x",
            "a:b:c",
            "a@",
            "a@sha256:12",
            "/a",
            "a/",
            "a//b",
            "-a",
            "a-",
            "a___b",
            "a..b",
            "a b",
            "a/../b",
            "host:port/a",
            "host:99999/a",
            "-h.x/a",
            "[::1/a",
            "[zz]:1/a",
            HEX,
            "a\0b",
            "ä",
            "x@y@z",
            &long,
            &long_tag,
        ] {
            assert!(
                matches!(text.parse::<Reference>(), Err(Error::Reference { .. })),
                "{text}"
            );
        }
    }

    proptest::proptest! {
        #[test]
        fn reference_parse_of_random_text_round_trips_or_fails(text in "[a-zA-Z0-9.:/@_\\[\\]-]{0,40}") {
            if let Ok(reference) = text.parse::<Reference>() {
                proptest::prop_assert_eq!(reference.to_string().parse::<Reference>().unwrap(), reference);
            }
        }
    }
}
