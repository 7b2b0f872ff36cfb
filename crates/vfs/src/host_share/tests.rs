//! Confinement against a host that changes while the guest looks.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::{CWD, RenameFlags, renameat_with};
use rustix::io::Errno;
use zerocopy::IntoBytes;

use super::{HostShare, HostShareOptions};
use crate::protocol::{OpenIn, OpenOut, ROOT_ID, opcode};
use crate::server::Server;
use crate::testing::{Client, take};

/// `shared/dir/name` and, outside, `out/name` and `link -> out`.
fn host() -> tempfile::TempDir {
    let host = tempfile::tempdir().expect("a temporary directory");
    std::fs::create_dir_all(host.path().join("shared/dir")).expect("made");
    std::fs::create_dir(host.path().join("out")).expect("made");
    std::fs::write(host.path().join("shared/dir/name"), "inside").expect("written");
    std::fs::write(host.path().join("out/name"), "secret").expect("written");
    std::os::unix::fs::symlink(host.path().join("out"), host.path().join("link")).expect("linked");
    host
}

fn share(host: &tempfile::TempDir) -> Server {
    let options = HostShareOptions::default();
    Server::new(Arc::new(
        HostShare::new(&host.path().join("shared"), options).expect("a share"),
    ))
}

fn swap(a: &Path, b: &Path) {
    renameat_with(CWD, a, CWD, b, RenameFlags::EXCHANGE).expect("an exchange");
}

/// Reads `dir/name` as a kernel that caches nothing.
fn read_inside(client: &Client<'_>) -> Result<Vec<u8>, Errno> {
    let dir = client.lookup(ROOT_ID, "dir")?.nodeid;
    let read = || {
        let name = client.lookup(dir, "name")?.nodeid;
        let opened = client.call(opcode::OPEN, name, &[OpenIn::default().as_bytes()]);
        let contents = opened.and_then(|opened| {
            let fh = take::<OpenOut>(&opened).fh;
            let contents = client.read(name, fh, 0, 100);
            client.call(
                opcode::RELEASE,
                name,
                &[crate::protocol::ReleaseIn {
                    fh,
                    ..Default::default()
                }
                .as_bytes()],
            )?;
            contents
        });
        client.forget(name, 1);
        contents
    };
    let contents = read();
    client.forget(dir, 1);
    contents
}

#[test]
fn directory_swapped_for_a_symbolic_link_never_shows_the_outside() {
    let host = host();
    let server = share(&host);
    let client = Client {
        capacity: 4096,
        ..Client::connected(&server)
    };
    let stop = AtomicBool::new(false);

    let (mut inside, mut refused) = (0, 0);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                swap(&host.path().join("shared/dir"), &host.path().join("link"));
            }
        });
        while inside < 300 || refused < 300 {
            match read_inside(&client) {
                Ok(contents) => {
                    assert_eq!(contents, b"inside");
                    inside += 1;
                }
                Err(_) => refused += 1,
            }
        }
        stop.store(true, Ordering::Relaxed);
    });
}

#[test]
fn directory_moved_out_of_the_share_is_not_found_again_once_forgotten() {
    let host = host();
    let server = share(&host);
    let client = Client::connected(&server);
    let dir = client.lookup(ROOT_ID, "dir").expect("found").nodeid;

    std::fs::rename(host.path().join("shared/dir"), host.path().join("moved")).expect("moved");

    // The guest still holds the directory itself, but not what is above it.
    assert!(client.lookup(dir, "name").is_ok());
    assert_eq!(client.lookup(dir, ".."), Err(Errno::INVAL));
    client.forget(dir, 1);
    assert_eq!(client.lookup(ROOT_ID, "dir"), Err(Errno::NOENT));
    assert_eq!(client.lookup(dir, "name"), Err(Errno::NOENT));
}

#[test]
fn file_replaced_on_the_host_is_another_node() {
    let host = host();
    let server = share(&host);
    let client = Client::connected(&server);
    let dir = client.lookup(ROOT_ID, "dir").expect("found").nodeid;
    let first = client.lookup(dir, "name").expect("found").nodeid;

    std::fs::write(host.path().join("shared/dir/next"), "replaced").expect("written");
    std::fs::rename(
        host.path().join("shared/dir/next"),
        host.path().join("shared/dir/name"),
    )
    .expect("moved");

    let second = client.lookup(dir, "name").expect("found");
    assert_ne!(second.nodeid, first);
    assert_eq!(second.attr.size, 8);
    assert_eq!(
        client.getattr(first).map(|out| (out.attr.size, out.attr.nlink)),
        Ok((6, 0))
    );
}

#[test]
fn share_of_what_is_no_directory_names_it() {
    let host = host();

    let error = HostShare::new(&host.path().join("out/name"), HostShareOptions::default())
        .err()
        .expect("an error");

    assert_eq!(
        error.to_string(),
        format!("cannot share {}", host.path().join("out/name").display())
    );
}
