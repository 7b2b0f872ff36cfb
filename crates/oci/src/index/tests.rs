use std::io::Write;

use super::*;
use crate::layer::Limits;
use crate::layer::entries::{Change, EntriesWriter};
use crate::layer::tar::{Entry, EntryType};

fn entry(kind: EntryType, path: &str, link: &str) -> Entry {
    Entry {
        path: path.into(),
        kind,
        mode: 0o644,
        uid: 7,
        gid: 8,
        mtime: (9, 10),
        size: if kind == EntryType::Regular { 5 } else { 0 },
        link: link.into(),
        device: (0, 0),
        xattrs: if kind == EntryType::Regular {
            vec![(b"user.z".to_vec(), b"1".to_vec())]
        } else {
            vec![]
        },
        sparse: None,
    }
}

/// Layers written as lines: `f path`, `d path`, `l path target`, `h path target`, `w path`, `o path`.
fn layers(scripts: &[&[&str]]) -> Vec<(Digest, Vec<u8>)> {
    let list = |script: &&[&str]| {
        let mut writer = EntriesWriter::new();
        for line in *script {
            let words: Vec<&str> = line.split(' ').collect();
            let link = words.get(2).copied().unwrap_or("");
            let (change, kind) = match words[0] {
                "d" => (Change::Add(EntryType::Directory), EntryType::Directory),
                "l" => (Change::Add(EntryType::Symlink), EntryType::Symlink),
                "h" => (Change::Add(EntryType::HardLink), EntryType::HardLink),
                "w" => (Change::Whiteout, EntryType::Regular),
                "o" => (Change::Opaque, EntryType::Regular),
                _ => (Change::Add(EntryType::Regular), EntryType::Regular),
            };
            writer.push(
                change,
                &entry(kind, words.get(1).copied().unwrap_or(""), link),
                0,
                0,
            );
        }
        writer.finish(4096)
    };
    scripts
        .iter()
        .map(|script| (Digest::of(b""), list(script)))
        .collect()
}

fn load(bytes: Vec<u8>) -> io::Result<ImageIndex> {
    let blobs = blob_digests(&bytes)
        .map_err(io::Error::other)?
        .into_iter()
        .map(|_| {
            let mut file = tempfile::tempfile()?;
            file.write_all(&[0; 4096])?;
            Ok(Arc::new(file))
        });
    let blobs = blobs.collect::<io::Result<_>>()?;
    ImageIndex::load(bytes, blobs, None)
}

fn flatten(scripts: &[&[&str]]) -> crate::Result<Vec<u8>> {
    super::flatten(&layers(scripts), &Limits::default())
}

fn index(scripts: &[&[&str]]) -> ImageIndex {
    load(flatten(scripts).unwrap()).unwrap()
}

fn names(index: &ImageIndex, path: &str) -> Vec<String> {
    let dir = index.resolve(path.as_bytes()).unwrap();
    index
        .children(dir)
        .map(|(name, _)| String::from_utf8(name.to_vec()).unwrap())
        .collect()
}

#[test]
fn index_one_layer_is_looked_up() {
    let index = index(&[&["d etc", "f etc/passwd", "l link etc/passwd", "h hard etc/passwd"]]);
    assert_eq!(names(&index, ""), ["etc", "hard", "link"]);
    let file = index.resolve(b"etc/passwd").unwrap();
    assert_eq!(index.resolve(b"link"), Some(file));
    assert_eq!(index.lookup(1, b"hard"), Some(file));
    assert_eq!(index.lookup(1, b"nothing"), None);
    let node = index.node(file).unwrap();
    assert_eq!(
        (node.nlink, node.uid, node.gid, node.size, node.mtime_ns),
        (2, 7, 8, 5, 10)
    );
    assert_eq!(index.node(1).unwrap().nlink, 3);
    assert_eq!(
        index.content(file),
        Some(Extent {
            blob: 0,
            offset: 0,
            len: 5
        })
    );
    assert_eq!(
        index.symlink_target(index.lookup(1, b"link").unwrap()),
        Some(&b"etc/passwd"[..])
    );
    assert_eq!(
        index.xattrs(file).collect::<Vec<_>>(),
        [(&b"user.z"[..], &b"1"[..])]
    );
    assert_eq!(index.parent(index.resolve(b"etc").unwrap()), Some(1));
}

#[test]
fn index_unknown_inodes_have_nothing() {
    let index = index(&[&["f a"]]);
    for ino in [0, 3, u64::MAX] {
        assert_eq!(index.node(ino), None);
        assert_eq!(index.children(ino).len(), 0);
        assert_eq!(index.xattrs(ino).count(), 0);
        assert_eq!(index.content(ino), None);
    }
}

#[test]
fn index_whiteouts_hide_lower_layers_only() {
    let lower: &[&str] = &[
        "d a",
        "f a/old",
        "f a/both",
        "d b",
        "f b/x",
        "d b/deep",
        "f b/deep/y",
    ];
    let upper: &[&str] = &[
        "f a/new",
        "w a/new",
        "w a/old",
        "w a/both",
        "f a/both",
        "f b/deep/z",
        "o b",
        "w none/x",
    ];
    let index = index(&[lower, upper]);
    assert_eq!(names(&index, "a"), ["both", "new"]);
    assert_eq!(names(&index, "b"), ["deep"]);
    assert_eq!(names(&index, "b/deep"), ["z"]);
    assert_eq!(index.resolve(b"none"), None);
    let both = index.resolve(b"a/both").unwrap();
    assert_eq!(index.content(both).unwrap().blob, 1);
}

#[test]
fn index_entries_replace_across_types() {
    let index = index(&[&["d a", "f a/x", "f b", "h c b"], &["f a", "d b", "f b/y", "f c"]]);
    assert_eq!(
        index.node(index.resolve(b"a").unwrap()).unwrap().kind,
        NodeKind::Regular
    );
    assert_eq!(names(&index, "b"), ["y"]);
    assert_eq!(index.node(index.resolve(b"c").unwrap()).unwrap().nlink, 1);
}

#[test]
fn index_directory_again_keeps_children() {
    assert_eq!(names(&index(&[&["d a", "f a/x"], &["d a"]]), "a"), ["x"]);
}

#[test]
fn index_parents_through_links_stay_inside() {
    let index = index(&[
        &["d usr/lib", "l lib usr/lib", "l up ../../..", "l abs /usr"],
        &["f lib/x", "f up/y", "f abs/z"],
    ]);
    assert_eq!(names(&index, "usr/lib"), ["x"]);
    assert_eq!(names(&index, "usr"), ["lib", "z"]);
    assert!(index.lookup(1, b"y").is_some());
}

#[test]
fn flatten_impossible_entries_are_refused() {
    for script in [
        &["l a a", "f a/x"][..],
        &["f a", "f a/x"],
        &["h a missing"],
        &["d a", "h b a"],
        &["f "],
    ] {
        assert!(
            matches!(flatten(&[script]), Err(crate::Error::BadLayer { .. })),
            "{script:?}"
        );
    }
}

#[test]
fn flatten_deep_chain_of_links_is_refused() {
    let step = "d/".repeat(1000);
    let deep = step.trim_end_matches('/');
    let lines: Vec<String> = vec![
        format!("d {deep}"),
        format!("l s /{deep}"),
        format!("d s/{deep}"),
        format!("l t /{deep}/{deep}"),
        format!("d t/{deep}"),
    ];
    let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
    let error = flatten(&[&lines]).unwrap_err();
    assert!(error.to_string().contains("nested too deeply"), "{error}");
}

#[test]
fn flatten_links_in_links_and_whiteouts_that_multiply_are_refused() {
    let limits = Limits {
        steps: 10_000,
        ..Limits::default()
    };
    let far = "d/".repeat(30);
    let through_links = (0..200).map(|number| format!("f l/{number}/x"));
    let links = [format!("l l /{far}l2"), format!("l {far}l2 /{far}l3")].into_iter();
    let in_one_folder = (0..200).map(|number| format!("f a/{number}"));
    let whiteouts = (0..200).map(|_| "w a".to_owned());
    let opaque = (0..200).map(|_| "o a".to_owned());
    for lines in [
        links.chain(through_links).collect::<Vec<_>>(),
        in_one_folder.clone().chain(whiteouts).collect(),
        in_one_folder.chain(opaque).collect(),
    ] {
        let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
        let error = super::flatten(&layers(&[&lines]), &limits).unwrap_err();
        assert!(error.to_string().contains("too many steps"), "{error}");
    }
}

#[test]
fn flatten_too_many_entries_in_all_layers_together_are_refused() {
    let limits = Limits {
        entries: 3,
        ..Limits::default()
    };
    let error = super::flatten(&layers(&[&["f a", "f b"], &["f c", "f d"]]), &limits).unwrap_err();
    assert!(error.to_string().contains("more than 3 entries"), "{error}");
}

#[test]
fn load_truncated_or_other_version_is_refused() {
    let bytes = flatten(&[&["f a"]]).unwrap();
    for cut in [0, 7, 63, bytes.len() - 1] {
        assert!(load(bytes[..cut].to_vec()).is_err());
    }
    let mut other = bytes;
    other[7] = b'2';
    assert!(load(other).is_err());
}

proptest::proptest! {
    #[test]
    fn load_random_damage_never_panics(
        damage in proptest::collection::vec((0usize..4096, 0u8..), 1..6),
    ) {
        let mut bytes = flatten(&[&["d a", "f a/x", "l l a", "f z"], &["w a/x", "f a/y"]]).unwrap();
        for (at, byte) in damage {
            let at = at % bytes.len();
            bytes[at] = byte;
        }
        if let Ok(index) = load(bytes) {
            for ino in 0..index.max_ino() + 2 {
                let _ = (index.node(ino), index.lookup(ino, b"x"), index.symlink_target(ino), index.content(ino));
                let _ = (index.children(ino).count(), index.xattrs(ino).count(), index.parent(ino));
            }
            let _ = index.resolve(b"a/../l/y");
        }
    }
}
