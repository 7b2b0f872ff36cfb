//! A small archive, its signature, and a server for it.
//!
//! The two secret keys beside this file were made for these tests and protect nothing.

use std::collections::HashMap;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::Command;
use std::sync::{Arc, Mutex};

use oci::debian::{Archive, ArchiveOptions, Keyring, MirrorConfig};
use pgp::composed::{ArmorOptions, CleartextSignedMessage, Deserializable, SignedSecretKey};
use pgp::crypto::hash::HashAlgorithm;
use pgp::packet::{SignatureConfig, SignatureType, Subpacket, SubpacketData};
use pgp::types::{KeyDetails, Password, Timestamp};

const LAST_MODIFIED: &str = "Sat, 12 Sep 2020 07:55:41 GMT";

/// How a file is served.
#[derive(Clone)]
pub(crate) enum Served {
    File(Vec<u8>),
    /// Promised whole, but the connection breaks after so many bytes the first time.
    BreaksOnce(Vec<u8>, usize),
    Status(u16),
}

#[derive(Default)]
struct State {
    files: HashMap<String, Served>,
    requests: Vec<String>,
    ranges: Vec<String>,
    not_modified: usize,
    stopped: bool,
}

/// An archive on loopback with the packages `hello` and `dependency`, and an apt folder that names it.
pub(crate) struct Fake {
    folder: tempfile::TempDir,
    address: std::net::SocketAddr,
    state: Arc<Mutex<State>>,
    text: String,
}

impl Fake {
    pub(crate) fn new() -> Fake {
        let hello = package("hello");
        let dependency = package("dependency");
        let entry = |name: &str, deb: &[u8], extra: &str| {
            let (hex, size) = (hex(deb), deb.len());
            format!(
                "Package: {name}\nVersion: 1\n{extra}Filename: pool/{name}.deb\nSize: {size}\nSHA256: {hex}\n\n"
            )
        };
        let packages =
            entry("hello", &hello, "Depends: dependency\n") + &entry("dependency", &dependency, "");
        let mut gz = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gz.write_all(packages.as_bytes()).unwrap();
        let packages = gz.finish().unwrap();
        let index = "main/binary-amd64/Packages.gz";
        let text = format!(
            "Origin: Test\nSuite: stable\nCodename: trixie\nDate: Sat, 12 Sep 2020 07:55:41 UTC\nSHA256:\n {} {} {index}\n",
            hex(&packages),
            packages.len()
        );
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let fake = Fake {
            folder: tempfile::tempdir().unwrap(),
            address: listener.local_addr().unwrap(),
            state: Arc::default(),
            text,
        };
        fake.serve("pool/hello.deb", Served::File(hello));
        fake.serve("pool/dependency.deb", Served::File(dependency));
        fake.serve(&format!("dists/stable/{index}"), Served::File(packages));
        fake.sign_with("signing", "");
        fs::create_dir(fake.folder.path().join("apt")).unwrap();
        let sources = format!("deb http://{}/debian stable main\n", fake.address);
        fs::write(fake.folder.path().join("apt/sources.list"), sources).unwrap();
        let state = Arc::clone(&fake.state);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                if state.lock().unwrap().stopped {
                    return;
                }
                let state = Arc::clone(&state);
                std::thread::spawn(move || answer_all(&state, stream.unwrap()));
            }
        });
        fake
    }

    pub(crate) fn cache(&self) -> PathBuf {
        self.folder.path().join("cache")
    }

    /// Makes the cache a file system of this size, which may be one already; it goes with the value.
    pub(crate) fn limit_cache(&self, size: &str) {
        let cache = self.cache();
        let options = if cache.exists() { "remount,size=" } else { "size=" };
        fs::create_dir_all(&cache).unwrap();
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", &format!("{options}{size}"), "none"]);
        assert!(mount.arg(&cache).status().unwrap().success(), "root can mount");
    }

    /// The archive, with the key it is signed with.
    pub(crate) fn archive(&self) -> Archive {
        let public = secret_key("signing")
            .to_public_key()
            .to_armored_bytes(ArmorOptions::default())
            .unwrap();
        self.archive_with(Keyring::from_bytes(&public).unwrap())
    }

    pub(crate) fn archive_with(&self, keyring: Keyring) -> Archive {
        let mirror = MirrorConfig {
            explicit: None,
            apt_folder: self.folder.path().join("apt"),
        };
        Archive::open(ArchiveOptions {
            cache: self.cache(),
            mirror,
            keyring,
        })
        .unwrap()
    }

    pub(crate) fn configure_apt(&self, conf: &str) {
        fs::write(self.folder.path().join("apt/apt.conf"), conf).unwrap();
    }

    /// The text of the index before signing.
    pub(crate) fn text(&self) -> String {
        self.text.clone()
    }

    pub(crate) fn sign_with(&self, key: &str, extra: &str) {
        self.sign_text(key, &self.text.replace("SHA256:", &format!("{extra}SHA256:")));
    }

    pub(crate) fn sign_text(&self, key: &str, text: &str) {
        let key = secret_key(key);
        let mut config = SignatureConfig::v4(
            SignatureType::Text,
            key.primary_key.algorithm(),
            HashAlgorithm::Sha256,
        );
        let subpackets = [
            SubpacketData::SignatureCreationTime(Timestamp::now()),
            SubpacketData::IssuerFingerprint(key.primary_key.fingerprint()),
        ];
        config.hashed_subpackets = subpackets.map(|data| Subpacket::regular(data).unwrap()).into();
        let message =
            CleartextSignedMessage::new(text, config, &key.primary_key, &Password::empty()).unwrap();
        let signed = message.to_armored_bytes(ArmorOptions::default()).unwrap();
        self.serve("dists/stable/InRelease", Served::File(signed));
    }

    pub(crate) fn serve(&self, path: &str, served: Served) {
        self.state
            .lock()
            .unwrap()
            .files
            .insert(format!("/debian/{path}"), served);
    }

    /// A file's bytes as served.
    pub(crate) fn file(&self, path: &str) -> Vec<u8> {
        match &self.state.lock().unwrap().files[&format!("/debian/{path}")] {
            Served::File(bytes) | Served::BreaksOnce(bytes, _) => bytes.clone(),
            Served::Status(_) => Vec::new(),
        }
    }

    /// How often files were asked for whose path has `part` in it.
    pub(crate) fn requests(&self, part: &str) -> usize {
        self.state
            .lock()
            .unwrap()
            .requests
            .iter()
            .filter(|path| path.contains(part))
            .count()
    }

    pub(crate) fn ranges(&self) -> Vec<String> {
        self.state.lock().unwrap().ranges.clone()
    }

    pub(crate) fn not_modified(&self) -> usize {
        self.state.lock().unwrap().not_modified
    }

    /// From now on nobody listens.
    pub(crate) fn stop(&self) {
        self.state.lock().unwrap().stopped = true;
        // Wakes the listener, which then goes away.
        drop(TcpStream::connect(self.address));
        while TcpStream::connect(self.address).is_ok() {
            std::thread::yield_now();
        }
    }
}

impl Drop for Fake {
    fn drop(&mut self) {
        // Most caches are no file systems of their own.
        let _ = Command::new("umount").arg("--quiet").arg(self.cache()).output();
    }
}

fn secret_key(name: &str) -> SignedSecretKey {
    let text = match name {
        "signing" => include_str!("key_signing.asc"),
        _ => include_str!("key_other.asc"),
    };
    SignedSecretKey::from_string(text).unwrap().0
}

fn hex(bytes: &[u8]) -> String {
    oci::Digest::of(bytes).hex()
}

/// A package with one program and some bulk that does not compress away, for nothing is compressed.
fn package(name: &str) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    for (path, content) in [
        (format!("./bin/{name}"), b"#!".to_vec()),
        (format!("./opt/{name}"), vec![7; 50_000]),
    ] {
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(0o755);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        tar.append_data(&mut header, path, content.as_slice()).unwrap();
    }
    let data = tar.into_inner().unwrap();
    let mut ar = b"!<arch>\n".to_vec();
    for (name, content) in [
        ("debian-binary", &b"2.0\n"[..]),
        ("control.tar", b""),
        ("data.tar", &data),
    ] {
        let header = format!(
            "{name:<16}{:<12}{:<6}{:<6}{:<8}{:<10}`\n",
            0,
            0,
            0,
            100_644,
            content.len()
        );
        ar.extend_from_slice(header.as_bytes());
        ar.extend_from_slice(content);
    }
    ar
}

/// Answers the requests of one connection (RFC 9112), until it breaks or the server is stopped.
fn answer_all(state: &Mutex<State>, stream: TcpStream) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    loop {
        let mut head = Vec::new();
        loop {
            let mut line = String::new();
            if reader.read_line(&mut line).unwrap_or(0) == 0 {
                return;
            }
            if line == "\r\n" {
                break;
            }
            head.push(line.trim_end().to_owned());
        }
        let (answer, body, whole) = answer(&mut state.lock().unwrap(), &head);
        let mut stream = &stream;
        let sent = stream
            .write_all(answer.as_bytes())
            .and_then(|()| stream.write_all(&body));
        if sent.is_err() || !whole || state.lock().unwrap().stopped {
            let _ = stream.shutdown(Shutdown::Both);
            return;
        }
    }
}

/// Head and body of the answer to a request, and whether the body is whole.
fn answer(state: &mut State, head: &[String]) -> (String, Vec<u8>, bool) {
    let path = head[0].split(' ').nth(1).unwrap().to_owned();
    let field = |name: &str| {
        let fields = head.iter().filter_map(|line| line.split_once(": "));
        fields
            .filter(|(field, _)| field.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.to_owned())
            .next()
    };
    state.requests.push(path.clone());
    let empty = |status: &str| {
        (
            format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n"),
            Vec::new(),
            true,
        )
    };
    let served = state.files.get(&path).cloned();
    let (bytes, breaks) = match served {
        None => return empty("404 Not Found"),
        Some(Served::Status(status)) => return empty(&format!("{status} Sorry")),
        Some(Served::File(bytes)) => (bytes, None),
        Some(Served::BreaksOnce(bytes, at)) => {
            state.files.insert(path, Served::File(bytes.clone()));
            (bytes, Some(at))
        }
    };
    if field("If-Modified-Since").as_deref() == Some(LAST_MODIFIED) {
        state.not_modified += 1;
        return empty("304 Not Modified");
    }
    let mut start = 0;
    let mut status = "200 OK".to_owned();
    if let Some(range) = field("Range") {
        state.ranges.push(range.clone());
        start = range
            .trim_start_matches("bytes=")
            .trim_end_matches('-')
            .parse()
            .unwrap();
        if start >= bytes.len() {
            return empty("416 Range Not Satisfiable");
        }
        status = format!(
            "206 Partial Content\r\nContent-Range: bytes {start}-{}/{}",
            bytes.len() - 1,
            bytes.len()
        );
    }
    let length = bytes.len() - start;
    let head =
        format!("HTTP/1.1 {status}\r\nLast-Modified: {LAST_MODIFIED}\r\nContent-Length: {length}\r\n\r\n");
    let end = breaks.unwrap_or(bytes.len());
    (head, bytes[start..end].to_vec(), breaks.is_none())
}
