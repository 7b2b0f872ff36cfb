//! An overlay in a busy state, moved to another server over the same image.

use std::sync::Arc;

use proptest::prelude::*;
use rustix::io::Errno;
use zerocopy::IntoBytes;

use super::*;
use crate::overlay::OverlayOptions;
use crate::protocol::*;
use crate::server::Server;
use crate::testing::{Client, take, text};
use crate::{FileKind, MemoryTree, MemoryTreeBuilder};

/// Inodes: `/dir` 2, `/dir/file` 3, `/dir/gone` 4, `/dir/open` 5, `/away` 6, `/away/deep` 7, `/link` 8.
fn image() -> MemoryTree {
    let mut tree = MemoryTreeBuilder::new().expect("a memfd");
    let dir = tree.add(1, b"dir", FileKind::Directory, 0o755);
    let file = tree
        .add_file(dir, b"file", 0o644, &[b'i'; 10_000])
        .expect("stored");
    tree.set_xattr(file, b"user.image", b"old");
    tree.add_file(dir, b"gone", 0o644, b"gone").expect("stored");
    tree.add_file(dir, b"open", 0o600, b"still open").expect("stored");
    let away = tree.add(1, b"away", FileKind::Directory, 0o755);
    tree.add_file(away, b"deep", 0o644, b"deep").expect("stored");
    tree.add_symlink(1, b"link", b"dir/file");
    tree.build()
}

fn server_over(image: MemoryTree, max_bytes: u64) -> Server {
    let options = OverlayOptions {
        max_bytes,
        ..OverlayOptions::default()
    };
    Server::new(Arc::new(
        Overlay::new(Arc::new(image), &options).expect("an overlay"),
    ))
}

fn server() -> Server {
    server_over(image(), 2 << 30)
}

/// What the guest still knows of the busy overlay.
struct Known {
    dir: u64,
    file: u64,
    open: u64,
    unlinked: u64,
    nameless: u64,
    sparse: u64,
    reserved: u64,
    made: u64,
}

fn named(client: &Client<'_>, opcode: u32, parent: u64, arguments: &[&[u8]]) -> u64 {
    let entry = client.call(opcode, parent, arguments).expect("made");
    take::<EntryOut>(&entry).nodeid
}

/// A changed, a punched, a cut, a sparse and a reserved file; removed files with and without uses; a file without a
/// name; a directory that moved into a new one; hard links, special files, extended attributes, a listing begun.
fn busy(server: &Server) -> Known {
    let client = Client::connected(server);
    let dir = client.lookup(ROOT_ID, "dir").expect("found").nodeid;
    let file = client.lookup(dir, "file").expect("found").nodeid;
    client.write(file, 0, 5000, b"changed").expect("written");
    let punch = FallocateIn {
        length: 4096,
        mode: fallocate_flag::KEEP_SIZE | fallocate_flag::PUNCH_HOLE,
        ..FallocateIn::default()
    };
    client
        .call(opcode::FALLOCATE, file, &[punch.as_bytes()])
        .expect("punched");
    let set = SetxattrIn { size: 3, flags: 0 };
    client
        .call(
            opcode::SETXATTR,
            file,
            &[set.as_bytes(), &text("user.guest"), b"new"],
        )
        .expect("set");
    let open = client.lookup(dir, "open").expect("found").nodeid;
    client.unlink(dir, "open").expect("removed");
    client.unlink(dir, "gone").expect("removed");

    let made = client.mkdir(ROOT_ID, "made").expect("made").nodeid;
    let renamed = RenameIn { newdir: made };
    client
        .call(
            opcode::RENAME,
            ROOT_ID,
            &[renamed.as_bytes(), &text("away"), &text("moved")],
        )
        .expect("moved");
    let link = LinkIn { oldnodeid: file };
    named(&client, opcode::LINK, made, &[link.as_bytes(), &text("hard")]);
    named(
        &client,
        opcode::SYMLINK,
        made,
        &[&text("symbolic"), &text("../dir")],
    );
    let device = MknodIn {
        mode: 0o020600,
        rdev: 0x103,
        ..MknodIn::default()
    };
    named(&client, opcode::MKNOD, made, &[device.as_bytes(), &text("null")]);

    let unlinked = client.mknod(ROOT_ID, "unlinked").expect("made").nodeid;
    client
        .write(unlinked, 0, 0, b"only the guest has it")
        .expect("written");
    client.unlink(ROOT_ID, "unlinked").expect("removed");
    let create = CreateIn {
        flags: open_flag::RDWR,
        mode: 0o100600,
        ..CreateIn::default()
    };
    let nameless = named(&client, opcode::TMPFILE, ROOT_ID, &[create.as_bytes()]);
    client.write(nameless, 0, 0, b"nameless").expect("written");
    let sparse = client.mknod(made, "sparse").expect("made").nodeid;
    client.write(sparse, 0, 0, b"first").expect("written");
    client.write(sparse, 0, 1 << 40, b"last").expect("written");
    let reserved = client.mknod(made, "reserved").expect("made").nodeid;
    let reserve = FallocateIn {
        length: 1 << 30,
        ..FallocateIn::default()
    };
    client
        .call(opcode::FALLOCATE, reserved, &[reserve.as_bytes()])
        .expect("reserved");
    Known {
        dir,
        file,
        open,
        unlinked,
        nameless,
        sparse,
        reserved,
        made,
    }
}

fn save(server: &Server) -> (Unit, Vec<u8>) {
    let mut contents = Vec::new();
    let unit = server.save(&mut contents).expect("saved");
    (unit, contents)
}

/// A new server over the same image that goes on with a state, and has that very state.
fn moved(unit: &Unit, contents: &[u8]) -> Server {
    let server = server();
    let mut rest = contents;
    server.restore(unit, &mut rest).expect("restored");
    assert!(rest.is_empty());
    let (again, contents_again) = save(&server);
    assert!(again == *unit && contents_again == contents);
    server
}

fn names(client: &Client<'_>, dir: u64, offset: u64) -> Vec<String> {
    let entries = client.readdir(dir, offset, 4096);
    entries.into_iter().map(|(name, _)| name).collect()
}

#[test]
fn busy_overlay_goes_on_where_it_was() {
    let old = server();
    let known = busy(&old);
    let before = Client::new(&old).statfs();
    let (unit, contents) = save(&old);
    drop(old);

    let server = moved(&unit, &contents);
    let client = Client::new(&server);

    assert_eq!(client.statfs(), before);
    // No INIT: the connection goes on, and a second one is still refused.
    assert_eq!(client.init(7, 41), Err(Errno::IO));
    let mut changed = vec![b'i'; 10_000];
    changed[..4096].fill(0);
    changed[5000..5007].copy_from_slice(b"changed");
    assert_eq!(client.read(known.file, 0, 0, 20_000), Ok(changed));
    assert_eq!(client.read(known.open, 0, 6, 100), Ok(b"open".to_vec()));
    assert_eq!(
        client.read(known.unlinked, 0, 0, 100),
        Ok(b"only the guest has it".to_vec())
    );
    assert_eq!(client.write(known.nameless, 0, 4, b"FULL"), Ok(4));
    assert_eq!(client.read(known.nameless, 0, 0, 100), Ok(b"nameFULL".to_vec()));
    assert_eq!(client.read(known.sparse, 0, 1 << 40, 10), Ok(b"last".to_vec()));
    assert_eq!(
        client.getattr(known.reserved).expect("there").attr.blocks,
        (1 << 30) / 512
    );
    assert_eq!(client.lookup(known.dir, "gone").err(), Some(Errno::NOENT));
    assert_eq!(client.getattr(4).err(), Some(Errno::NOENT));
    assert_eq!(client.lookup(ROOT_ID, "away").err(), Some(Errno::NOENT));
    let hard = client.lookup(known.made, "hard").expect("found");
    assert_eq!((hard.nodeid, hard.attr.nlink), (known.file, 2));
    let target = client.lookup(known.made, "symbolic").expect("found").nodeid;
    assert_eq!(client.call(opcode::READLINK, target, &[]), Ok(b"../dir".to_vec()));
    assert_eq!(client.lookup(known.made, "null").expect("found").attr.rdev, 0x103);
    let list = GetxattrIn {
        size: 100,
        padding: 0,
    };
    assert_eq!(
        client.call(opcode::LISTXATTR, known.file, &[list.as_bytes()]),
        Ok(b"user.guest\0user.image\0".to_vec())
    );
}

#[test]
fn restored_overlay_gives_space_and_numbers_as_the_old_one_would() {
    let old = server();
    let known = busy(&old);
    let (unit, contents) = save(&old);
    let server = moved(&unit, &contents);

    let ends = [&old, &server].map(|server| {
        let client = Client::new(server);
        let made = client.mknod(ROOT_ID, "next").expect("made").nodeid;
        for node in [known.unlinked, known.open, known.nameless] {
            client.forget(node, 1);
        }
        let missing = [known.unlinked, known.open, known.nameless].map(|node| client.getattr(node).err());
        (made, missing, client.statfs(), names(&client, known.made, 0))
    });

    assert_eq!(ends[0], ends[1]);
    assert_eq!(ends[0].1, [Some(Errno::NOENT); 3]);
}

#[test]
fn listing_goes_on_in_the_middle() {
    let old = server();
    let known = busy(&old);
    let client = Client::new(&old);
    let (all, image) = (client.readdir(known.made, 0, 4096), names(&client, 6, 0));
    let (unit, contents) = save(&old);

    let server = moved(&unit, &contents);

    let client = Client::new(&server);
    let rest: Vec<String> = all.iter().skip(4).map(|(name, _)| name.clone()).collect();
    assert_eq!(names(&client, known.made, all[3].1), rest);
    assert_eq!(names(&client, 6, 0), image);
}

#[test]
fn contents_are_saved_without_holes_and_reserved_space() {
    let server = server();
    busy(&server);

    let (unit, contents) = save(&server);

    // One block of the image's file, one of the unlinked, one of the nameless, two of the sparse.
    assert_eq!(contents.len(), 5 * 4096);
    assert!(unit.bytes.len() < 8192);
}

#[test]
fn new_overlay_and_one_without_connection_are_restored() {
    let (unit, contents) = save(&server());
    assert!(contents.is_empty());
    let server = moved(&unit, &contents);
    assert_eq!(Client::new(&server).getattr(ROOT_ID), Err(Errno::IO));
    assert!(Client::new(&server).init(7, 41).is_ok());
}

#[test]
fn restore_takes_the_place_of_what_was_there() {
    let old = server();
    let known = busy(&old);
    let (unit, contents) = save(&old);
    let other = server();
    let client = Client::connected(&other);
    let made = client.mknod(ROOT_ID, "other").expect("made").nodeid;
    client.write(made, 0, 0, &[1; 100_000]).expect("written");

    other.restore(&unit, &mut &contents[..]).expect("restored");

    assert_eq!(client.lookup(ROOT_ID, "other").err(), Some(Errno::NOENT));
    assert_eq!(client.lookup(ROOT_ID, "made").expect("found").nodeid, known.made);
    client.forget(known.made, 1);
    assert!(save(&other) == (unit, contents));
}

#[test]
fn restore_over_another_image_is_refused() {
    let old = server();
    busy(&old);
    let (unit, contents) = save(&old);
    let restored = |change: fn(&mut MemoryTreeBuilder)| {
        let mut tree = MemoryTreeBuilder::new().expect("a memfd");
        change(&mut tree);
        server_over(tree.build(), 2 << 30).restore(&unit, &mut &contents[..])
    };

    assert!(matches!(restored(|_| {}), Err(Error::OtherImage)));
    // As many inodes, of other types.
    let other = restored(|tree| {
        for name in [&b"a"[..], b"b", b"c", b"d", b"e", b"f", b"g"] {
            tree.add(1, name, FileKind::Fifo, 0o644);
        }
    });
    assert!(matches!(other, Err(Error::NotInImage { ino: 2 })));
}

#[test]
fn restore_without_all_contents_or_space_is_refused_and_gives_everything_back() {
    let old = server();
    busy(&old);
    let (unit, contents) = save(&old);

    let server = server();
    let short = server.restore(&unit, &mut &contents[..contents.len() - 1]);
    assert!(matches!(short, Err(Error::ReadContents(_))));
    let client = Client::connected(&server);
    let free = client.statfs();
    assert_eq!((free.bfree, free.ffree), (free.blocks, free.files));

    let small = server_over(image(), 1 << 20).restore(&unit, &mut &contents[..]);
    assert!(matches!(small, Err(Error::Scratch(Errno::NOSPC))));
}

#[test]
fn overlay_filled_beyond_its_budget_is_restored_with_the_same_options() {
    let options = OverlayOptions {
        max_bytes: 1 << 20,
        ..OverlayOptions::default()
    };
    let full = || Arc::new(Overlay::new(Arc::new(image()), &options).expect("an overlay"));
    let (old, new) = (full(), full());
    let server = Server::new(old.clone());
    let client = Client::connected(&server);
    let made = client.mknod(ROOT_ID, "full").expect("made").nodeid;
    assert!(client.write(made, 0, 0, &vec![1; 1 << 20]).expect("written") < 1 << 20);
    let left = usize::try_from(old.store.bytes.left()).expect("few") - 100;
    let value = vec![b'v'; left];
    let set = SetxattrIn {
        size: left as u32,
        flags: 0,
    };
    client
        .call(
            opcode::SETXATTR,
            made,
            &[set.as_bytes(), &text("user.rest"), &value],
        )
        .expect("set");
    let dir = client.lookup(ROOT_ID, "dir").expect("found").nodeid;
    // A full disk does not keep names from being removed, which costs more than there is.
    client.unlink(dir, "gone").expect("removed");
    assert!(old.store.bytes.charge(0).is_err());
    let (unit, contents) = save(&server);

    let restored = Server::new(new.clone());
    restored.restore(&unit, &mut &contents[..]).expect("restored");

    assert!(save(&restored) == (unit, contents));
    assert!(new.store.bytes.charge(0).is_err());
}

#[test]
fn state_of_the_first_layout_restores() {
    let golden = Unit {
        schema: 1,
        bytes: include_bytes!("../saved-1.bin").to_vec(),
    };

    let server = moved(&golden, include_bytes!("../saved-1.contents"));

    let client = Client::new(&server);
    let made = client.lookup(ROOT_ID, "made").expect("found").nodeid;
    let hard = client.lookup(made, "hard").expect("found");
    assert_eq!((hard.attr.nlink, hard.attr.size), (2, 10_000));
    assert_eq!(client.read(hard.nodeid, 0, 4998, 10), Ok(b"iichangedi".to_vec()));
    let sparse = client.lookup(made, "sparse").expect("found").nodeid;
    assert_eq!(client.read(sparse, 0, 1 << 40, 10), Ok(b"last".to_vec()));
}

fn overlay() -> Overlay {
    let options = OverlayOptions {
        max_bytes: 2 << 30,
        ..OverlayOptions::default()
    };
    Overlay::new(Arc::new(image()), &options).expect("an overlay")
}

/// The state of the busy overlay alone.
fn busy_tree() -> (Unit, Vec<u8>) {
    let overlay = Arc::new(overlay());
    busy(&Server::new(overlay.clone()));
    let mut contents = Vec::new();
    (overlay.save_state(&mut contents).expect("saved"), contents)
}

/// What a new overlay saves that has been restored.
fn restored(unit: &Unit, contents: &[u8]) -> Result<(Unit, Vec<u8>), Error> {
    let overlay = overlay();
    overlay.restore_state(unit, &mut &contents[..])?;
    let mut again = Vec::new();
    Ok((overlay.save_state(&mut again)?, again))
}

fn changed(unit: &Unit, change: impl FnOnce(&mut SavedOverlay)) -> Unit {
    let mut saved: SavedOverlay = unit.decode(1).expect("an overlay");
    change(&mut saved);
    Unit::new(1, &saved)
}

#[test]
fn restore_what_no_guest_can_bring_about_is_refused() {
    let (own, stream) = busy_tree();
    let refused: [fn(&mut SavedOverlay); 22] = [
        |saved| saved.max_inode += 1,
        |saved| saved.next_ino = u64::MAX,
        |saved| saved.next_ino = 9,
        |saved| saved.inodes.own.swap(0, 1),
        |saved| saved.inodes.own[0].mode = 0o10000,
        |saved| saved.inodes.own[0].nlink = 0,
        |saved| saved.inodes.own[0].kind = FileKind::Fifo,
        |saved| saved.inodes.own[0].target = Some(crate::saved::Bytes(Vec::new())),
        |saved| saved.inodes.own[2].contents = None,
        |saved| saved.inodes.own[0].ino = 0,
        |saved| saved.inodes.gone = vec![1],
        |saved| saved.inodes.gone = vec![3],
        |saved| saved.inodes.gone = vec![9],
        |saved| {
            saved.inodes.uses.insert(1 << 50, 1);
        },
        |saved| {
            saved.inodes.uses.insert(ROOT_ID, 0);
        },
        |saved| saved.names.directories.swap(0, 1),
        |saved| saved.names.directories[0].next_cookie = 1 << 63,
        |saved| saved.names.directories[0].next_cookie = 3,
        |saved| saved.names.directories[0].entries[0].name.0 = b"..".to_vec(),
        |saved| {
            saved.names.directories[0].entries[1].name = saved.names.directories[0].entries[0].name.clone()
        },
        |saved| saved.names.directories[0].entries[0].ino = 3,
        |saved| {
            saved.names.parents.insert(6, 6);
        },
    ];

    assert!(restored(&changed(&own, |_| {}), &stream).is_ok());
    for (number, change) in refused.into_iter().enumerate() {
        let restored = restored(&changed(&own, change), &stream);
        assert!(restored.is_err(), "change {number}");
    }
}

#[test]
fn restore_contents_that_no_file_has_are_refused() {
    let (unit, contents) = busy_tree();
    let mut empty = contents.clone();
    empty[..4096].fill(0);
    let mut behind = contents.clone();
    // The unlinked file is shorter than its block.
    behind[2 * 4096 - 1] = 1;

    assert!(matches!(restored(&unit, &empty), Err(Error::Saved(_))));
    assert!(matches!(restored(&unit, &behind), Err(Error::Saved(_))));
}

/// Where restored bytes are taken, they are the state: nothing of them is forgotten or made up.
fn is_refused_or_kept(unit: &Unit, contents: &[u8]) -> bool {
    match restored(unit, contents) {
        Ok((again, contents_again)) => again == *unit && contents.starts_with(&contents_again),
        Err(_) => true,
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn changed_bytes_are_refused_or_kept(at: prop::sample::Index, value: u8, cut: Option<prop::sample::Index>) {
        let (mut unit, contents) = golden_tree();
        let at = at.index(unit.bytes.len());
        unit.bytes[at] = value;
        let end = cut.map_or(unit.bytes.len(), |cut| cut.index(unit.bytes.len()));
        unit.bytes.truncate(end);
        prop_assert!(is_refused_or_kept(&unit, &contents));
    }

    #[test]
    fn changed_contents_are_refused_or_kept(at: prop::sample::Index, value: u8) {
        let (unit, mut contents) = golden_tree();
        let at = at.index(contents.len());
        contents[at] = value;
        prop_assert!(is_refused_or_kept(&unit, &contents));
    }

    #[test]
    fn foreign_bytes_are_refused(bytes: Vec<u8>) {
        let unit = Unit { schema: 1, bytes };
        prop_assert!(server().restore(&unit, &mut &[][..]).is_err());
        prop_assert!(restored(&unit, &[]).is_err());
    }
}

/// The tree's state in the golden bytes: it lies at their end.
fn golden_tree() -> (Unit, Vec<u8>) {
    let bytes = include_bytes!("../saved-1.bin");
    // The record's header, two fields with theirs, the header of the third and its count of bytes.
    let start = 2 + (6 + 8) + (6 + 2) + 6 + 8;
    let unit = Unit {
        schema: 1,
        bytes: bytes[start..].to_vec(),
    };
    (unit, include_bytes!("../saved-1.contents").to_vec())
}

#[test]
fn every_flipped_byte_is_refused_or_kept_and_the_guest_goes_on() {
    let (unit, contents) = golden_tree();
    for at in 0..unit.bytes.len() {
        let mut flipped = unit.clone();
        flipped.bytes[at] ^= 1 << (at % 8);
        assert!(is_refused_or_kept(&flipped, &contents), "byte {at}");
        let overlay = Arc::new(overlay());
        // What a failed restore leaves is whole too.
        let _ = overlay.restore_state(&flipped, &mut &contents[..]);
        use_everything(&Server::new(overlay));
    }
}

/// Reads, changes and removes all there is, whatever it answers.
fn use_everything(server: &Server) {
    let client = Client {
        capacity: 1 << 14,
        ..Client::connected(server)
    };
    for dir in [ROOT_ID, 2, 6, 9] {
        let entries = client.readdir_open(dir, 0, 0, 4096).unwrap_or_default();
        for (name, _) in &entries {
            let Ok(found) = client.lookup(dir, name) else {
                continue;
            };
            let _ = client.read(found.nodeid, 0, 0, 8192);
            let _ = client.write(found.nodeid, 0, 4000, &[7; 200]);
            let link = LinkIn {
                oldnodeid: found.nodeid,
            };
            let _ = client.call(opcode::LINK, dir, &[link.as_bytes(), &text("one more")]);
            let rename = RenameIn { newdir: ROOT_ID };
            let _ = client.call(
                opcode::RENAME,
                dir,
                &[rename.as_bytes(), &text(name), &text("moved")],
            );
            let _ = client.unlink(ROOT_ID, "moved");
            client.forget(found.nodeid, u64::MAX);
        }
        let _ = client.mkdir(dir, "another");
    }
    client.call(opcode::DESTROY, 0, &[]).expect("destroyed");
}
