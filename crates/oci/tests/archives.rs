//! Layouts, archives and layers from elsewhere: what other tools wrote is read, what nobody should write is
//! refused.

mod support;

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

use oci::{Error, Image, ImageConfig, Limits, Platform, Source, Store};
use support::compare::{assert_same, tree_of_index};
use support::{Disk, Layout, run, shell};

const POSIX: &[&str] = &["--format=posix"];

fn store(folder: &Path) -> Store {
    Store::open(&folder.join("store")).unwrap()
}

fn import(folder: &Path, source: &str) -> Result<Image, Error> {
    let source: Source = source.parse().unwrap();
    store(folder).import(&source, &Platform::host(), &())
}

fn two_layers(layout: &Layout, tag: &str) {
    layout.create(tag);
    layout.add_layer(
        tag,
        POSIX,
        "mkdir a; echo one > a/one; ln a/one two; chmod 0601 two",
    );
    layout.add_layer(tag, POSIX, "mkdir a; : > a/.wh.one; ln -s two three");
}

#[test]
fn import_of_every_form_is_the_same_image() {
    let (layout, folder) = (Layout::new(), tempfile::tempdir().unwrap());
    two_layers(&layout, "t");
    let path = |name: &str| folder.path().join(name).display().to_string();
    let forms = [
        layout.source("t"),
        layout.path().display().to_string(),
        format!("oci-archive:{}", path("oci.tar")),
        format!("docker-archive:{}", path("docker.tar")),
        path("oci.tar"),
        path("docker.tar"),
    ];
    run("skopeo", &["copy", "-q", &forms[0], &format!("{}:t", forms[2])]);
    run(
        "skopeo",
        &["copy", "-q", &forms[0], &format!("{}:name/image:t", forms[3])],
    );
    let root = layout.unpack("t");
    for form in &forms {
        let fresh = tempfile::tempdir().unwrap();
        let image = import(fresh.path(), form).unwrap();
        assert_eq!(image.name(), form);
        assert_same(&image.open_index().unwrap(), &root);
    }
}

#[test]
fn import_of_named_image_among_several_needs_the_name() {
    let (layout, folder) = (Layout::new(), tempfile::tempdir().unwrap());
    two_layers(&layout, "one");
    layout.create("two");
    let whole = layout.path().display().to_string();
    let error = import(folder.path(), &whole).unwrap_err();
    assert!(error.to_string().contains("one, two"), "{error}");
    let error = import(folder.path(), &layout.source("three")).unwrap_err();
    assert!(error.to_string().contains("no image `three`"), "{error}");
    assert!(
        import(folder.path(), &layout.source("two"))
            .unwrap()
            .config()
            .diff_ids
            .is_empty()
    );
}

#[test]
fn import_for_another_platform_lists_what_there_is() {
    let (layout, folder) = (Layout::new(), tempfile::tempdir().unwrap());
    two_layers(&layout, "t");
    let source: Source = layout.source("t").parse().unwrap();
    let wanted: Platform = "linux/s390x".parse().unwrap();
    let error = store(folder.path()).import(&source, &wanted, &()).unwrap_err();
    assert!(
        matches!(&error, Error::NoPlatform { available, .. } if available == &Platform::host().to_string())
    );
}

#[test]
fn import_of_damaged_layer_is_refused_and_leaves_nothing() {
    let (layout, folder) = (Layout::new(), tempfile::tempdir().unwrap());
    two_layers(&layout, "t");
    let digest = layout.layer_digest("t", 1);
    let file = layout
        .path()
        .join("blobs/sha256")
        .join(digest.strip_prefix("sha256:").unwrap());
    let mut bytes = fs::read(&file).unwrap();
    let last = bytes.len() - 1;
    bytes[last / 2] ^= 1;
    fs::write(&file, &bytes).unwrap();
    let error = import(folder.path(), &layout.source("t")).unwrap_err();
    assert!(
        matches!(&error, Error::DigestMismatch { what, .. } if what.contains(&digest)),
        "{error}"
    );
    fs::write(&file, &bytes[..last / 2]).unwrap();
    let error = import(folder.path(), &layout.source("t")).unwrap_err();
    assert!(matches!(&error, Error::SizeMismatch { .. }), "{error}");
    assert!(store(folder.path()).images().unwrap().is_empty());
    assert!(
        fs::read_dir(folder.path().join("store/staging"))
            .unwrap()
            .next()
            .is_none()
    );
}

/// Takes an archive in as an image of one layer.
fn ingest(folder: &Path, archive: &Path) -> Result<Image, Error> {
    let ingest = store(folder).begin()?;
    let layer = ingest.layer(File::open(archive).unwrap())?;
    ingest.image("test", ImageConfig::new(Platform::host()), &[layer])
}

#[test]
fn layer_of_every_sparse_format_is_what_tar_unpacks() {
    support::need_tools();
    let formats = [
        &["--format=gnu"][..],
        &["--sparse-version=0.0"],
        &["--sparse-version=0.1"],
        &["--sparse-version=1.0"],
    ];
    for format in formats {
        let folder = tempfile::tempdir().unwrap();
        let script = "
            mkdir in out
            for i in $(seq 1 2 59); do dd if=/dev/urandom of=in/many bs=4096 count=1 seek=$i conv=notrunc; done 2>/dev/null
            truncate -s 5000001 in/many; truncate -s 900K in/hole; echo end > in/behind
            dd if=/dev/urandom of=in/last bs=4096 count=3 seek=200 2>/dev/null";
        shell(folder.path(), script);
        let archive = folder.path().join("sparse.tar");
        let root = folder.path().display().to_string();
        let file = archive.display().to_string();
        let format = if format[0].starts_with("--sparse") {
            &["--format=posix", format[0]][..]
        } else {
            format
        };
        run(
            "tar",
            &[
                &["-C", &root, "--sparse", "-cf", &file][..],
                format,
                &["-C", "in", "."],
            ]
            .concat(),
        );
        run("tar", &["-C", &format!("{root}/out"), "-xpf", &file]);
        // Without PAX times have no fractions: what tar unpacked has the archive's.
        let image = ingest(folder.path(), &archive).unwrap();
        assert_same(&image.open_index().unwrap(), &folder.path().join("out"));
    }
}

/// Type, name and link of an entry.
type Made<'a> = (tar::EntryType, &'a str, &'a str);

/// An archive of hand-made headers.
fn archive_of(folder: &Path, entries: &[Made]) -> PathBuf {
    let path = folder.join("made.tar");
    let mut file = File::create(&path).unwrap();
    for (kind, name, link) in entries {
        let mut header = tar::Header::new_gnu();
        // Through the raw fields: the library would refuse some of these names.
        header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
        header.as_old_mut().linkname[..link.len()].copy_from_slice(link.as_bytes());
        header.set_entry_type(*kind);
        header.set_mode(0o644);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        header.set_size(0);
        header.set_cksum();
        file.write_all(header.as_bytes()).unwrap();
    }
    file.write_all(&[0; 1024]).unwrap();
    path
}

#[test]
fn layer_with_malicious_names_is_refused_by_name() {
    use tar::EntryType as T;
    let cases: [(&[Made], &str); 7] = [
        (&[(T::Regular, "../outside", "")], "../outside"),
        (&[(T::Regular, "a/../../outside", "")], "a/../../outside"),
        (&[(T::Link, "x", "../../etc/shadow")], "hard link out of the root"),
        (&[(T::Link, "x", "missing")], "not there"),
        (
            &[(T::Symlink, "loop", "loop"), (T::Regular, "loop/x", "")],
            "loop/x",
        ),
        (
            &[(T::Regular, "file", ""), (T::Regular, "file/x", "")],
            "through a file",
        ),
        (&[(T::Regular, "dir/.wh.", "")], "whiteout of nothing"),
    ];
    for (entries, expected) in cases {
        let folder = tempfile::tempdir().unwrap();
        let error = ingest(folder.path(), &archive_of(folder.path(), entries)).unwrap_err();
        assert!(matches!(&error, Error::BadLayer { .. }), "{error}");
        assert!(error.to_string().contains(expected), "{error}");
        assert!(store(folder.path()).images().unwrap().is_empty());
    }
}

#[test]
fn layer_with_absolute_names_and_links_stays_inside() {
    use tar::EntryType as T;
    let folder = tempfile::tempdir().unwrap();
    let entries = [
        (T::Regular, "/etc/passwd", ""),
        (T::Symlink, "out", "/../../tmp"),
        (T::Regular, "out/file", ""),
    ];
    let image = ingest(folder.path(), &archive_of(folder.path(), &entries)).unwrap();
    let paths: Vec<_> = tree_of_index(&image.open_index().unwrap()).into_keys().collect();
    let expected: [&[u8]; 6] = [b"", b"etc", b"etc/passwd", b"out", b"tmp", b"tmp/file"];
    assert_eq!(paths, expected);
}

#[test]
fn layer_beyond_limits_is_refused() {
    use tar::EntryType as T;
    let folder = tempfile::tempdir().unwrap();
    let limits = Limits {
        entries: 3,
        layer_bytes: 1 << 20,
        ..Limits::default()
    };
    let ingest = store(folder.path()).with_limits(limits).begin().unwrap();
    let many = archive_of(folder.path(), &[(T::Regular, "a", ""); 4]);
    let error = ingest.layer(File::open(many).unwrap()).unwrap_err();
    assert!(error.to_string().contains("more than 3 entries"), "{error}");
    shell(
        folder.path(),
        "truncate -s 2M zeros; tar -cf zeros.tar zeros; gzip -k zeros.tar; zstd -q zeros.tar",
    );
    for name in ["zeros.tar", "zeros.tar.gz", "zeros.tar.zst"] {
        let error = ingest
            .layer(File::open(folder.path().join(name)).unwrap())
            .unwrap_err();
        assert!(matches!(&error, Error::BadLayer { .. }), "{name}: {error}");
    }
    // Sparse files are short in the archive.
    shell(
        folder.path(),
        "truncate -s 2M holes; tar --sparse -cf holes.tar holes",
    );
    let error = ingest
        .layer(File::open(folder.path().join("holes.tar")).unwrap())
        .unwrap_err();
    assert!(error.to_string().contains("limit"), "{error}");
}

#[test]
fn image_beyond_limits_is_refused_though_its_layers_are_not() {
    let folder = tempfile::tempdir().unwrap();
    let limits = Limits {
        metadata_bytes: 300,
        ..Limits::default()
    };
    let ingest = store(folder.path()).with_limits(limits).begin().unwrap();
    let layer = |name: &str| {
        let archive = archive_of(folder.path(), &[(tar::EntryType::Regular, name, ""); 2]);
        ingest.layer(File::open(archive).unwrap())
    };
    let layers = [layer(&"a".repeat(60)).unwrap(), layer(&"b".repeat(60)).unwrap()];
    let error = layer(&"c".repeat(99)).unwrap_err();
    assert!(error.to_string().contains("more than 300 bytes"), "{error}");

    let error = ingest
        .image("test", ImageConfig::new(Platform::host()), &layers)
        .unwrap_err();

    assert!(
        error.to_string().contains("`test`") && error.to_string().contains("more than 300 bytes"),
        "{error}"
    );
    assert!(store(folder.path()).images().unwrap().is_empty());
}

#[test]
fn files_with_holes_beyond_the_limit_together_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let limits = Limits {
        layer_bytes: 3 << 20,
        ..Limits::default()
    };
    let ingest = store(folder.path()).with_limits(limits).begin().unwrap();
    shell(
        folder.path(),
        "truncate -s 2M a b; tar --sparse -cf holes.tar a b",
    );
    let error = ingest
        .layer(File::open(folder.path().join("holes.tar")).unwrap())
        .unwrap_err();
    assert!(
        error.to_string().contains("`b`") && error.to_string().contains("together"),
        "{error}"
    );
}

#[test]
fn layer_that_is_a_bomb_is_refused() {
    support::need_tools();
    let folder = tempfile::tempdir().unwrap();
    shell(
        folder.path(),
        "truncate -s 1200M zeros; tar -cf - zeros | zstd -q -o bomb",
    );
    let ingest = store(folder.path()).begin().unwrap();
    let error = ingest
        .layer(File::open(folder.path().join("bomb")).unwrap())
        .unwrap_err();
    assert!(error.to_string().contains("bombs"), "{error}");
}

#[test]
fn layer_truncated_anywhere_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    shell(
        folder.path(),
        "echo hello > a; head -c 3000 /dev/urandom > b; tar -cf whole.tar a b; gzip -k whole.tar",
    );
    let ingest = store(folder.path()).begin().unwrap();
    for (name, cuts) in [
        ("whole.tar", vec![100, 700, 1500, 2500]),
        ("whole.tar.gz", vec![5, 50, 1000, 3100]),
    ] {
        let whole = fs::read(folder.path().join(name)).unwrap();
        for cut in cuts {
            let result = ingest.layer(&whole[..cut]);
            assert!(
                matches!(result, Err(Error::BadLayer { .. })),
                "{name} cut at {cut}: {result:?}"
            );
        }
    }
}

#[test]
fn remove_keeps_what_others_need() {
    let (layout, folder) = (Layout::new(), tempfile::tempdir().unwrap());
    layout.create("base");
    layout.add_layer("base", POSIX, "echo base > base");
    run(
        "umoci",
        &[
            "tag",
            "--image",
            &format!("{}:base", layout.path().display()),
            "more",
        ],
    );
    layout.add_layer("more", POSIX, "echo more > more");
    let (base, more) = (layout.source("base"), layout.source("more"));
    import(folder.path(), &base).unwrap();
    let image = import(folder.path(), &more).unwrap();
    let store = store(folder.path());
    let removed = store.remove(&base).unwrap();
    assert_eq!((removed.images, removed.layers, removed.deferred), (1, 0, false));
    assert_eq!(tree_of_index(&image.open_index().unwrap()).len(), 3);
    let removed = store.remove(&more).unwrap();
    assert_eq!((removed.images, removed.layers), (1, 2));
    assert!(matches!(store.remove(&more), Err(Error::NoImage(_))));
    assert!(matches!(image.open_index(), Err(Error::NoImage(_))));
}

#[test]
fn remove_of_open_image_is_refused_until_closed() {
    let (layout, folder) = (Layout::new(), tempfile::tempdir().unwrap());
    two_layers(&layout, "t");
    let image = import(folder.path(), &layout.source("t")).unwrap();
    let index = image.open_index().unwrap();
    let store = store(folder.path());
    assert!(matches!(store.remove(image.name()), Err(Error::ImageInUse(_))));
    drop(index);
    assert_eq!(store.remove(image.name()).unwrap().images, 1);
}

#[test]
fn remove_during_ingest_is_deferred() {
    let (layout, folder) = (Layout::new(), tempfile::tempdir().unwrap());
    two_layers(&layout, "t");
    let image = import(folder.path(), &layout.source("t")).unwrap();
    let store = store(folder.path());
    let ingest = store.begin().unwrap();
    let layer = ingest.layer(&[0; 1024][..]).unwrap();
    assert!(store.remove(image.name()).unwrap().deferred);
    ingest
        .image("other", ImageConfig::new(Platform::host()), &[layer])
        .unwrap();
    drop(ingest);
    let collected = store.collect_garbage().unwrap();
    assert_eq!((collected.images, collected.layers), (1, 2));
    assert_eq!(store.images().unwrap().len(), 1);
}

#[test]
fn settled_store_does_not_depend_on_this_boot() {
    let (layout, folder) = (Layout::new(), tempfile::tempdir().unwrap());
    two_layers(&layout, "t");
    let image = import(folder.path(), &layout.source("t")).unwrap();
    let store = store(folder.path());
    let find = || store.image(image.name(), &Platform::host()).unwrap();
    let layers = folder.path().join("store/layers-1");
    let layer = fs::read_dir(&layers).unwrap().next().unwrap().unwrap().path();
    fs::write(layer.join("unsettled"), "another boot").unwrap();
    assert!(find().is_none());
    // It is taken in anew, and settled.
    import(folder.path(), &layout.source("t")).unwrap();
    store.settle().unwrap();
    assert!(!layer.join("unsettled").exists());
    assert!(find().is_some());
}

#[test]
fn import_to_any_file_system_is_what_umoci_unpacks() {
    let (layout, folder) = (Layout::new(), tempfile::tempdir().unwrap());
    two_layers(&layout, "t");
    layout.add_layer("t", POSIX, "head -c 3000000 /dev/urandom > random");
    let root = layout.unpack("t");
    let place = |name: &str| folder.path().join(name);
    let (ext4, ramfs) = (Disk::ext4(&place("ext4"), "64m"), Disk::ramfs(&place("ramfs")));
    let _others = [
        Disk::tmpfs(&place("tmpfs"), "64m"),
        ext4.overlay(&place("over-ext4")),
        ramfs.overlay(&place("over-ramfs")),
    ];

    for name in ["ext4", "ramfs", "tmpfs", "over-ext4", "over-ramfs"] {
        let image = import(&place(name), &layout.source("t")).unwrap();

        assert_same(&image.open_index().unwrap(), &root);
        store(&place(name)).settle().unwrap();
    }
}

#[test]
fn settle_by_many_at_once_is_done_when_any_returns() {
    let (layout, folder) = (Layout::new(), tempfile::tempdir().unwrap());
    two_layers(&layout, "t");
    let image = import(folder.path(), &layout.source("t")).unwrap();
    let marks: Vec<PathBuf> = ["layers-1", "images"]
        .iter()
        .flat_map(|name| fs::read_dir(folder.path().join("store").join(name)).unwrap())
        .map(|entry| entry.unwrap().path().join("unsettled"))
        .collect();
    let boot = fs::read(&marks[0]).unwrap();

    for _ in 0..20 {
        marks.iter().for_each(|mark| fs::write(mark, &boot).unwrap());
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    store(folder.path()).settle().unwrap();
                    assert!(marks.iter().all(|mark| !mark.exists()));
                });
            }
        });
    }

    assert!(image.open_index().is_ok());
}
