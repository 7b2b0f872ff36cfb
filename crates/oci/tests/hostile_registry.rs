//! Pulls from registries that send what nobody asked for, and that want to be shown a token.

#[path = "support/server.rs"]
mod server;

use std::fs;
use std::path::Path;
use std::sync::atomic::Ordering;

use oci::{Digest, Error, Image, Puller, Store};
use server::{Answer, Request, Server};

/// What may be under way, besides what is read, when a client hangs up.
const SLACK: u64 = 24 << 20;

/// An image of one layer, as a registry has it.
struct Fixture {
    manifest: Vec<u8>,
    config: Vec<u8>,
    layer: Vec<u8>,
}

impl Fixture {
    fn new() -> Fixture {
        let mut tar = tar::Builder::new(Vec::new());
        let mut header = tar::Header::new_gnu();
        header.set_size(5);
        header.set_mode(0o644);
        tar.append_data(&mut header, "file", &b"hello"[..]).unwrap();
        let layer = tar.into_inner().unwrap();
        let digest = |bytes: &[u8]| Digest::of(bytes).to_string();
        let config = serde_json::json!({
            "os": "linux",
            "architecture": if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" },
            "rootfs": { "type": "layers", "diff_ids": [digest(&layer)] },
        });
        let config = config.to_string().into_bytes();
        let manifest = serde_json::json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": {
                "mediaType": "application/vnd.oci.image.config.v1+json",
                "digest": digest(&config),
                "size": config.len(),
            },
            "layers": [{
                "mediaType": "application/vnd.oci.image.layer.v1.tar",
                "digest": digest(&layer),
                "size": layer.len(),
            }],
        });
        Fixture {
            manifest: manifest.to_string().into_bytes(),
            config,
            layer,
        }
    }

    /// What an honest registry answers.
    fn answer(&self, request: &Request) -> Answer {
        let has = |bytes: &[u8]| request.path.ends_with(&Digest::of(bytes).to_string());
        match &request.path {
            path if path.ends_with("/manifests/latest") => Answer::ok(&self.manifest),
            _ if has(&self.config) => Answer::ok(&self.config),
            _ if has(&self.layer) => Answer::ok(&self.layer),
            _ => Answer::status("404 Not Found", b"{}"),
        }
    }
}

fn pull(folder: &Path, server: &Server) -> Result<Image, Error> {
    pull_as(folder, server, "{}")
}

/// Pulls with this text as Docker's configuration.
fn pull_as(folder: &Path, server: &Server, docker: &str) -> Result<Image, Error> {
    let configuration = folder.join("docker.json");
    fs::write(&configuration, docker).unwrap();
    let store = Store::open(&folder.join("store")).unwrap();
    Puller::new(store)
        .insecure_registries(vec![server.host.clone()])
        .docker_config(configuration)
        .pull(&format!("{}/some/thing:latest", server.host).parse().unwrap())
}

/// Pulls from a server that answers requests whose path contains `part` without an end.
fn pull_with_endless(part: &'static str, status: &'static str) -> (Error, u64) {
    let (fixture, folder) = (Fixture::new(), tempfile::tempdir().unwrap());
    let layer = Digest::of(&fixture.layer).to_string();
    let config = Digest::of(&fixture.config).to_string();
    let part = part.replace("LAYER", &layer).replace("CONFIG", &config);
    let server = Server::start(move |request| match request.path.contains(&part) {
        true => Answer::endless(status),
        false => fixture.answer(request),
    });
    let error = pull(folder.path(), &server).unwrap_err();
    for name in ["names", "images", "staging", "layers-1", "partial"] {
        let left = fs::read_dir(folder.path().join("store").join(name))
            .unwrap()
            .count();
        assert_eq!(left, 0, "{name} is not empty");
    }
    (error, server.sent.load(Ordering::SeqCst))
}

#[test]
fn pull_of_endless_manifest_is_refused_after_its_limit() {
    let (error, sent) = pull_with_endless("/manifests/", "200 OK");

    assert!(error.to_string().contains("longer than 4 MiB"), "{error}");
    assert!(sent < (4 << 20) + SLACK, "{sent} bytes were taken");
}

#[test]
fn pull_of_endless_configuration_is_refused_after_its_limit() {
    let (error, sent) = pull_with_endless("CONFIG", "200 OK");

    assert!(
        error.to_string().contains("longer than its manifest says"),
        "{error}"
    );
    assert!(sent < SLACK, "{sent} bytes were taken");
}

#[test]
fn pull_of_endless_layer_is_refused_after_its_length() {
    let (error, sent) = pull_with_endless("LAYER", "200 OK");

    assert!(matches!(error, Error::DigestMismatch { .. }), "{error}");
    assert!(sent < SLACK, "{sent} bytes were taken");
}

#[test]
fn pull_with_endless_refusals_quotes_their_beginning() {
    for part in ["/manifests/", "CONFIG", "LAYER"] {
        let (error, sent) = pull_with_endless(part, "500 Oops");

        assert!(error.to_string().contains("HTTP status 500 xxxx"), "{error}");
        assert!(error.to_string().len() < 1000, "{error}");
        assert!(sent < SLACK, "{sent} bytes were taken");
    }
}

#[test]
fn pull_of_layer_that_always_breaks_off_tells_how_far_it_came() {
    let (fixture, folder) = (Fixture::new(), tempfile::tempdir().unwrap());
    let (length, layer) = (fixture.layer.len(), Digest::of(&fixture.layer).to_string());
    let path = format!("/v2/some/thing/blobs/{layer}");
    let server = Server::start({
        let path = path.clone();
        move |request| match request.path == path {
            true => Answer::broken(&fixture.layer),
            false => fixture.answer(request),
        }
    });

    let error = pull(folder.path(), &server).unwrap_err();

    let told = format!(
        "broke off after {} of {length} bytes of layer {layer}",
        length / 2
    );
    assert!(error.to_string().contains(&told), "{error}");
    // It is too small to be kept, so nobody says that it was.
    assert!(error.to_string().ends_with("try again"), "{error}");
    let asked = server.paths().iter().filter(|&asked| *asked == path).count();
    assert_eq!(asked, 5);
}

/// A registry that wants to be shown a token of its own service, which answers as told.
fn with_token(service: impl Fn(&Request) -> Answer + Send + Sync + 'static, good: &'static str) -> Server {
    let fixture = Fixture::new();
    Server::start(move |request| match &request.path {
        path if path.starts_with("/token") => service(request),
        _ if request.authorization.as_deref() == Some(good) => fixture.answer(request),
        _ => Answer::challenge(&format!(
            "Bearer realm=\"http://{}/token\",service=\"here\"",
            request.host
        )),
    })
}

#[test]
fn pull_with_endless_token_is_refused_after_its_limit() {
    let folder = tempfile::tempdir().unwrap();
    let server = with_token(|_| Answer::endless("200 OK"), "Bearer t");

    let error = pull(folder.path(), &server).unwrap_err();

    assert!(error.to_string().contains("longer than 64 KiB"), "{error}");
    let sent = server.sent.load(Ordering::SeqCst);
    assert!(sent < SLACK, "{sent} bytes were taken");
}

#[test]
fn pull_with_token_asks_its_service_once_for_the_repository() {
    for (answer, folder) in [
        (r#"{"token":"t"}"#, tempfile::tempdir().unwrap()),
        (r#"{"access_token":"t"}"#, tempfile::tempdir().unwrap()),
    ] {
        let server = with_token(|_| Answer::ok(answer.as_bytes()), "Bearer t");

        pull(folder.path(), &server).unwrap();

        let paths = server.paths();
        let asked: Vec<_> = paths.iter().filter(|path| path.starts_with("/token")).collect();
        assert_eq!(
            asked,
            ["/token?scope=repository%3Asome%2Fthing%3Apull&service=here"]
        );
    }
}

#[test]
fn pull_with_token_shows_its_service_the_stored_credentials() {
    // user:secret
    let service = |request: &Request| match request.authorization.as_deref() {
        Some("Basic dXNlcjpzZWNyZXQ=") => Answer::ok(br#"{"token":"t"}"#),
        _ => Answer::status("401 Unauthorized", b"{}"),
    };
    let folder = tempfile::tempdir().unwrap();
    let server = with_token(service, "Bearer t");
    let docker = format!(
        r#"{{"auths":{{"{}":{{"auth":"dXNlcjpzZWNyZXQ="}}}}}}"#,
        server.host
    );

    let without = pull(folder.path(), &server);
    let with = pull_as(folder.path(), &server, &docker);

    assert!(matches!(without, Err(Error::Unauthorized { .. })));
    assert!(with.is_ok());
}

#[test]
fn pull_whose_token_expires_gets_another() {
    let (fixture, folder) = (Fixture::new(), tempfile::tempdir().unwrap());
    let layer = Digest::of(&fixture.layer).to_string();
    let number = std::sync::atomic::AtomicU32::new(0);
    let server = Server::start(move |request| {
        // The layer is given for the second token only.
        let good = match request.path.contains(&layer) {
            true => "Bearer token-2",
            false => "Bearer token-1",
        };
        match &request.path {
            path if path.starts_with("/token") => {
                let number = number.fetch_add(1, Ordering::SeqCst) + 1;
                Answer::ok(format!(r#"{{"token":"token-{number}"}}"#).as_bytes())
            }
            _ if request.authorization.as_deref() == Some(good) => fixture.answer(request),
            _ => Answer::challenge(&format!("Bearer realm=\"http://{}/token\"", request.host)),
        }
    });

    pull(folder.path(), &server).unwrap();
}

#[test]
fn pull_refused_in_spite_of_its_token_ends() {
    let folder = tempfile::tempdir().unwrap();
    let server = with_token(|_| Answer::ok(br#"{"token":"bad"}"#), "Bearer t");

    let error = pull(folder.path(), &server).unwrap_err();

    assert!(matches!(error, Error::Unauthorized { .. }), "{error}");
    assert_eq!(server.paths().len(), 3);
}

#[test]
fn pull_redirected_to_who_wants_a_token_asks_no_service_of_theirs() {
    let (fixture, folder) = (Fixture::new(), tempfile::tempdir().unwrap());
    let layer = Digest::of(&fixture.layer).to_string();
    let other = Server::start(|request| {
        Answer::challenge(&format!("Bearer realm=\"http://{}/token\"", request.host))
    });
    let place = format!("http://{}/layer", other.host);
    let server = Server::start(move |request| match request.path.contains(&layer) {
        true => Answer::redirect(&place),
        false => fixture.answer(request),
    });

    let error = pull(folder.path(), &server).unwrap_err();

    assert!(matches!(error, Error::Unauthorized { .. }), "{error}");
    assert_eq!(other.paths(), ["/layer"]);
}

#[test]
fn pull_with_useless_token_services_says_what_they_did() {
    for (status, text, part) in [
        ("200 OK", "{}", "gave no token"),
        ("200 OK", "<html>", "gave no token"),
        ("200 OK", r#"{"token":"a\nb"}"#, "gave no token"),
        ("503 Busy", "x", "HTTP status 503"),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let server = with_token(move |_| Answer::status(status, text.as_bytes()), "Bearer t");

        let error = pull(folder.path(), &server).unwrap_err();

        assert!(error.to_string().contains(part), "{error}");
    }
}
