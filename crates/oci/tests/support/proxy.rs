//! A TCP proxy in front of a registry that counts, slows down and breaks what passes.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// What passed, and what is to happen to it.
#[derive(Default)]
pub struct Traffic {
    /// Bytes from the registry.
    pub received: AtomicU64,
    /// Requests for blobs.
    pub blob_requests: AtomicU64,
    /// Requests with a `Range` that does not begin at 0.
    pub resumptions: AtomicU64,
    /// After so many bytes from the registry one connection is cut; 0 for never.
    pub cut_after: AtomicU64,
    /// After so many bytes from the registry nothing more passes while this stands; 0 for never.
    pub hold_after: AtomicU64,
    /// Pause in milliseconds after every piece of at most 64 KiB.
    pub pause_ms: AtomicU64,
}

pub struct Proxy {
    /// `127.0.0.1:PORT`.
    pub host: String,
    pub traffic: Arc<Traffic>,
}

impl Proxy {
    /// Passes connections on to `target` as long as the test lives.
    pub fn start(target: &str) -> Proxy {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let host = listener.local_addr().unwrap().to_string();
        let traffic = Arc::new(Traffic::default());
        let (target, shared) = (target.to_owned(), traffic.clone());
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let Ok(server) = TcpStream::connect(&target) else {
                    continue;
                };
                let (client2, server2) = (client.try_clone().unwrap(), server.try_clone().unwrap());
                let (up, down) = (shared.clone(), shared.clone());
                std::thread::spawn(move || pass_up(client, server, &up));
                std::thread::spawn(move || pass_down(server2, client2, &down));
            }
        });
        Proxy { host, traffic }
    }
}

/// From the client to the registry; requests come whole, for they are small.
fn pass_up(mut client: TcpStream, mut server: TcpStream, traffic: &Traffic) {
    let mut buffer = [0; 64 << 10];
    while let Ok(count) = client.read(&mut buffer) {
        let text = String::from_utf8_lossy(&buffer[..count]).to_ascii_lowercase();
        if text.contains("/blobs/sha256:") {
            traffic.blob_requests.fetch_add(1, Ordering::SeqCst);
        }
        if text.contains("range: bytes=") && !text.contains("range: bytes=0-") {
            traffic.resumptions.fetch_add(1, Ordering::SeqCst);
        }
        if count == 0 || server.write_all(&buffer[..count]).is_err() {
            break;
        }
    }
    let _ = server.shutdown(Shutdown::Both);
}

fn pass_down(mut server: TcpStream, mut client: TcpStream, traffic: &Traffic) {
    let mut buffer = [0; 64 << 10];
    while let Ok(count) = server.read(&mut buffer) {
        let received = traffic.received.fetch_add(count as u64, Ordering::SeqCst) + count as u64;
        while is_held(traffic, received) {
            std::thread::sleep(Duration::from_millis(5));
        }
        let cut = traffic.cut_after.load(Ordering::SeqCst);
        if cut > 0 && received > cut {
            traffic.cut_after.store(0, Ordering::SeqCst);
            break;
        }
        if count == 0 || client.write_all(&buffer[..count]).is_err() {
            break;
        }
        std::thread::sleep(Duration::from_millis(traffic.pause_ms.load(Ordering::SeqCst)));
    }
    let _ = client.shutdown(Shutdown::Both);
    let _ = server.shutdown(Shutdown::Both);
}

fn is_held(traffic: &Traffic, received: u64) -> bool {
    let hold = traffic.hold_after.load(Ordering::SeqCst);
    hold > 0 && received > hold
}
