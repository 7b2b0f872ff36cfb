//! A share in a busy state, moved to another server of the same directory, on a host that changes.

use std::path::PathBuf;
use std::sync::Arc;

use proptest::prelude::*;
use zerocopy::IntoBytes;

use super::*;
use crate::protocol::*;
use crate::server::Server;
use crate::testing::{Client, take, text};
use crate::{FileKind, HostShareOptions, Tree};

/// `shared/{read,both,replaced,removed,moved,dir/{a,b,c,deep}}`, and `secret` beside it.
struct Host(tempfile::TempDir);

impl Host {
    fn new() -> Self {
        let host = Self(tempfile::tempdir().expect("a temporary directory"));
        std::fs::create_dir_all(host.at("dir")).expect("made");
        for name in [
            "read", "both", "replaced", "removed", "moved", "dir/a", "dir/b", "dir/c", "dir/deep",
        ] {
            std::fs::write(host.at(name), name).expect("written");
        }
        std::fs::write(host.0.path().join("secret"), "secret").expect("written");
        host
    }

    fn at(&self, name: &str) -> PathBuf {
        self.0.path().join("shared").join(name)
    }

    fn share(&self, read_only: bool) -> HostShare {
        HostShare::new(&self.at(""), HostShareOptions { read_only }).expect("a share")
    }

    fn server(&self) -> Server {
        Server::new(Arc::new(self.share(false)))
    }
}

/// An open file: its node and its handle.
type Open = (u64, u64);

/// What the guest has open.
struct Known {
    read: Open,
    both: Open,
    replaced: Open,
    removed: Open,
    moved: Open,
    dir: Open,
    deep: Open,
    nameless: Open,
}

fn open(client: &Client<'_>, parent: u64, name: &str, flags: u32) -> Open {
    let node = client.lookup(parent, name).expect("found").nodeid;
    let asked = OpenIn {
        flags,
        ..OpenIn::default()
    };
    let opened = client.call(opcode::OPEN, node, &[asked.as_bytes()]);
    (node, take::<OpenOut>(&opened.expect("opened")).fh)
}

fn busy(server: &Server) -> Known {
    let client = Client::connected(server);
    let dir = client.lookup(ROOT_ID, "dir").expect("found").nodeid;
    let opened = client.call(opcode::OPENDIR, dir, &[OpenIn::default().as_bytes()]);
    let dir = (dir, take::<OpenOut>(&opened.expect("opened")).fh);
    let create = CreateIn {
        flags: open_flag::RDWR,
        mode: 0o100600,
        ..CreateIn::default()
    };
    let made = client.call(opcode::TMPFILE, ROOT_ID, &[create.as_bytes()]);
    let (entry, opened): (EntryOut, OpenOut) = split(&made.expect("made"));
    let known = Known {
        read: open(&client, ROOT_ID, "read", 0),
        both: open(&client, ROOT_ID, "both", open_flag::RDWR),
        replaced: open(&client, ROOT_ID, "replaced", open_flag::RDWR),
        removed: open(&client, ROOT_ID, "removed", open_flag::RDWR),
        moved: open(&client, ROOT_ID, "moved", open_flag::WRONLY),
        dir,
        deep: open(&client, dir.0, "deep", open_flag::RDWR),
        nameless: (entry.nodeid, opened.fh),
    };
    let rename = RenameIn { newdir: dir.0 };
    client
        .call(
            opcode::RENAME,
            ROOT_ID,
            &[rename.as_bytes(), &text("moved"), &text("here")],
        )
        .expect("moved");
    client.unlink(ROOT_ID, "removed").expect("removed");
    known
}

fn split(bytes: &[u8]) -> (EntryOut, OpenOut) {
    (take(bytes), take(&bytes[size_of::<EntryOut>()..]))
}

fn save(server: &Server) -> Unit {
    let mut contents = Vec::new();
    let unit = server.save(&mut contents).expect("saved");
    assert!(contents.is_empty());
    unit
}

/// Another server of the same directory that goes on with a state, and has that very state.
fn moved(host: &Host, unit: &Unit) -> Server {
    let server = host.server();
    server.restore(unit, &mut &[][..]).expect("restored");
    assert!(save(&server) == *unit);
    server
}

#[test]
fn busy_share_goes_on_where_it_was() {
    let host = Host::new();
    let old = host.server();
    let known = busy(&old);
    let all = Client::new(&old)
        .readdir_open(known.dir.0, known.dir.1, 0, 4096)
        .expect("listed");
    let unit = save(&old);
    drop(old);

    let server = moved(&host, &unit);
    let client = Client::new(&server);

    assert_eq!(client.init(7, 41), Err(Errno::IO));
    assert_eq!(
        client.read(known.read.0, known.read.1, 0, 100),
        Ok(b"read".to_vec())
    );
    assert_eq!(
        client.write(known.read.0, known.read.1, 0, b"x"),
        Err(Errno::BADF)
    );
    assert_eq!(client.write(known.both.0, known.both.1, 4, b" ways"), Ok(5));
    assert_eq!(std::fs::read(host.at("both")).expect("read"), b"both ways");
    assert_eq!(client.write(known.moved.0, known.moved.1, 0, b"M"), Ok(1));
    assert_eq!(std::fs::read(host.at("dir/here")).expect("read"), b"Moved");
    assert_eq!(
        client.read(known.deep.0, known.deep.1, 0, 100),
        Ok(b"dir/deep".to_vec())
    );
    let rest = client
        .readdir_open(known.dir.0, known.dir.1, all[2].1, 4096)
        .expect("listed");
    assert_eq!(rest, all[3..]);
    // Numbers go on: no old handle or node means something else.
    let next = open(&client, ROOT_ID, "replaced", 0);
    assert_eq!(next.0, known.replaced.0);
    let used = [known.deep.1, known.moved.1, known.nameless.1];
    assert!(used.iter().all(|handle| *handle < next.1));
}

#[test]
fn what_has_no_name_any_more_answers_estale() {
    let host = Host::new();
    let old = host.server();
    let known = busy(&old);
    let server = moved(&host, &save(&old));
    let client = Client::new(&server);

    for (node, handle) in [known.removed, known.nameless] {
        assert_eq!(client.read(node, handle, 0, 10), Err(Errno::STALE));
        assert_eq!(client.write(node, handle, 0, b"x"), Err(Errno::STALE));
        assert_eq!(client.getattr(node).err(), Some(Errno::STALE));
        let fh = GetattrIn {
            getattr_flags: GETATTR_FH,
            fh: handle,
            ..GetattrIn::default()
        };
        assert_eq!(
            client.call(opcode::GETATTR, node, &[fh.as_bytes()]),
            Err(Errno::STALE)
        );
        let flush = FlushIn {
            fh: handle,
            ..FlushIn::default()
        };
        assert_eq!(
            client.call(opcode::FLUSH, node, &[flush.as_bytes()]),
            Err(Errno::STALE)
        );
        let sync = FsyncIn {
            fh: handle,
            ..FsyncIn::default()
        };
        assert_eq!(
            client.call(opcode::FSYNC, node, &[sync.as_bytes()]),
            Err(Errno::STALE)
        );
        let release = ReleaseIn {
            fh: handle,
            ..ReleaseIn::default()
        };
        assert_eq!(
            client.call(opcode::RELEASE, node, &[release.as_bytes()]),
            Ok(vec![])
        );
        assert_eq!(client.read(node, handle, 0, 10), Err(Errno::BADF));
    }
}

#[test]
fn what_the_host_has_changed_meanwhile_is_never_another_file() {
    let host = Host::new();
    let old = host.server();
    let known = busy(&old);
    let unit = save(&old);
    drop(old);
    std::fs::write(host.at("new"), "another").expect("written");
    std::fs::rename(host.at("new"), host.at("replaced")).expect("replaced");
    // The directory is now outside, and what has its name leads there.
    std::fs::rename(host.at("dir"), host.0.path().join("outside")).expect("moved");
    std::os::unix::fs::symlink(host.0.path().join("outside"), host.at("dir")).expect("linked");

    let server = moved(&host, &unit);
    let client = Client::new(&server);

    for (node, handle) in [known.replaced, known.deep] {
        assert_eq!(client.read(node, handle, 0, 10), Err(Errno::STALE));
        assert_eq!(client.write(node, handle, 0, b"x"), Err(Errno::STALE));
        assert_eq!(client.getattr(node).err(), Some(Errno::STALE));
    }
    assert_eq!(
        client.readdir_open(known.dir.0, known.dir.1, 0, 4096),
        Err(Errno::STALE)
    );
    let found = client.lookup(ROOT_ID, "replaced").expect("found");
    assert_ne!(found.nodeid, known.replaced.0);
    assert_eq!(
        client.read(known.read.0, known.read.1, 0, 10),
        Ok(b"read".to_vec())
    );
    // When the files are back, a later restore finds them.
    std::fs::remove_file(host.at("dir")).expect("removed");
    std::fs::rename(host.0.path().join("outside"), host.at("dir")).expect("moved");
    let server = moved(&host, &unit);
    assert_eq!(
        Client::new(&server).read(known.deep.0, known.deep.1, 0, 10),
        Ok(b"dir/deep".to_vec())
    );
}

#[test]
fn share_that_became_read_only_gives_no_way_to_write() {
    let host = Host::new();
    let old = host.server();
    let known = busy(&old);
    let unit = save(&old);
    let server = Server::new(Arc::new(host.share(true)));

    server.restore(&unit, &mut &[][..]).expect("restored");

    let client = Client::new(&server);
    assert_eq!(
        client.write(known.both.0, known.both.1, 0, b"x"),
        Err(Errno::ROFS)
    );
    assert_eq!(client.read(known.both.0, known.both.1, 0, 10), Err(Errno::STALE));
    assert_eq!(
        client.read(known.read.0, known.read.1, 0, 10),
        Ok(b"read".to_vec())
    );
}

#[test]
fn restore_takes_the_place_of_what_was_there_and_an_error_leaves_nothing() {
    let host = Host::new();
    let old = host.server();
    busy(&old);
    let unit = save(&old);
    let unused = save(&host.server());
    let other = host.server();
    let open = open(&Client::connected(&other), ROOT_ID, "read", 0);
    let client = Client::new(&other);

    other.restore(&unit, &mut &[][..]).expect("restored");
    assert!(save(&other) == unit);
    other.restore(&unused, &mut &[][..]).expect("restored");
    assert_eq!(client.init(7, 41).map(|out| out.minor), Ok(39));
    assert_eq!(client.getattr(open.0).err(), Some(Errno::NOENT));
    assert_eq!(client.read(open.0, open.1, 0, 10), Err(Errno::BADF));
    let cut = Unit {
        schema: 1,
        bytes: unit.bytes[..unit.bytes.len() / 2].to_vec(),
    };
    assert!(other.restore(&cut, &mut &[][..]).is_err());
}

/// The state of the share alone, with its host.
fn busy_share() -> (Host, Unit) {
    let host = Host::new();
    let share = Arc::new(host.share(false));
    busy(&Server::new(share.clone()));
    let unit = share.save_state().expect("saved");
    (host, unit)
}

#[test]
fn restore_what_no_guest_can_bring_about_is_refused_and_names_the_share() {
    let (host, unit) = busy_share();
    let refused: [fn(&mut SavedShare); 13] = [
        |saved| saved.nodes.next = 1,
        |saved| saved.nodes.next = u64::MAX,
        |saved| saved.nodes.next = 3,
        |saved| saved.nodes.nodes.swap(0, 1),
        |saved| saved.nodes.nodes[0].id = ROOT_ID,
        |saved| saved.nodes.nodes[0].uses = 0,
        |saved| saved.nodes.nodes[0].identity = saved.nodes.nodes[1].identity,
        |saved| saved.nodes.nodes[0].name.0 = b"../secret".to_vec(),
        // The file that was made without a name, as only a regular one can be.
        |saved| saved.nodes.nodes[1].kind = FileKind::Directory,
        |saved| saved.handles.next = u64::MAX,
        |saved| saved.handles.handles.swap(0, 1),
        |saved| saved.handles.handles[0].id = 0,
        |saved| saved.handles.next = 2,
    ];

    for (number, change) in refused.into_iter().enumerate() {
        let mut saved: SavedShare = unit.decode(1).expect("a share");
        change(&mut saved);
        let error = host.share(false).restore_state(&Unit::new(1, &saved));
        let message = error.err().map(|error| error.to_string());
        let named = message.is_some_and(|message| message.contains(host.at("").to_str().expect("a text")));
        assert!(named, "change {number}");
    }
}

#[test]
fn more_handles_than_may_be_open_are_refused() {
    let (host, unit) = busy_share();
    let mut saved: SavedShare = unit.decode(1).expect("a share");
    saved.handles.next = 1 << 20;
    saved.handles.handles = (1..1 << 16)
        .map(|id| crate::host_share::handles::SavedHandle {
            id,
            node: 99,
            access: Access::Read,
        })
        .collect();

    let error = host.share(false).restore_state(&Unit::new(1, &saved));

    assert!(matches!(
        error,
        Err(Error::ShareState { source, .. }) if matches!(*source, Error::Open(Errno::NFILE))
    ));
}

#[test]
fn state_of_the_first_layout_restores() {
    let host = Host::new();
    let golden = Unit {
        schema: 1,
        bytes: include_bytes!("../saved-1.bin").to_vec(),
    };

    let server = moved(&host, &golden);

    // The files of that time are gone, and files of the same names are not taken for them.
    let client = Client::new(&server);
    assert_eq!(client.getattr(2).err(), Some(Errno::STALE));
    assert_eq!(client.read(2, 1, 0, 10), Err(Errno::STALE));
    assert_eq!(client.read(2, 99, 0, 10), Err(Errno::BADF));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn changed_bytes_are_refused_or_kept(at: prop::sample::Index, value: u8, cut: Option<prop::sample::Index>) {
        let (host, mut unit) = busy_share();
        let at = at.index(unit.bytes.len());
        unit.bytes[at] = value;
        let end = cut.map_or(unit.bytes.len(), |cut| cut.index(unit.bytes.len()));
        unit.bytes.truncate(end);
        let share = host.share(false);
        let kept = match share.restore_state(&unit) {
            Ok(()) => share.save_state().expect("saved") == unit,
            Err(_) => true,
        };
        prop_assert!(kept);
        // Whatever it is now, nothing in it leads out.
        for node in 2..12 {
            let _ = share.opendir(node);
            if let Ok((handle, _)) = share.open_node(node, 0, false) {
                share.release(handle);
            }
        }
    }

    #[test]
    fn foreign_bytes_are_refused(bytes: Vec<u8>) {
        let host = Host::new();
        let unit = Unit { schema: 1, bytes };
        prop_assert!(host.share(false).restore_state(&unit).is_err());
    }
}
