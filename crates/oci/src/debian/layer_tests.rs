use std::collections::BTreeMap;

use super::super::deb::tests::ar;
use super::*;

enum Item {
    Folder(&'static str),
    File(&'static str, &'static [u8]),
    Link(&'static str, &'static str),
    Hard(&'static str, &'static str),
}

/// A package file; names go in as they are, however wrong.
fn package(items: &[Item]) -> tempfile::NamedTempFile {
    let mut tar = tar::Builder::new(Vec::new());
    for item in items {
        let (name, kind, content, target) = match item {
            Item::Folder(name) => (name, tar::EntryType::Directory, &b""[..], None),
            Item::File(name, content) => (name, tar::EntryType::Regular, *content, None),
            Item::Link(name, target) => (name, tar::EntryType::Symlink, &b""[..], Some(target)),
            Item::Hard(name, target) => (name, tar::EntryType::Link, &b""[..], Some(target)),
        };
        let mut header = header_for(
            kind,
            Attributes {
                mode: 0o755,
                uid: 1,
                gid: 2,
                mtime: 3,
            },
            content.len() as u64,
        );
        header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
        if let Some(target) = target {
            header.as_old_mut().linkname[..target.len()].copy_from_slice(target.as_bytes());
        }
        header.set_cksum();
        tar.append(&header, content).unwrap();
    }
    let data = tar.into_inner().unwrap();
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(
        file.path(),
        ar(&[("debian-binary", b"2.0\n"), ("data.tar", &data)]),
    )
    .unwrap();
    file
}

fn layer(packages: &[&[Item]]) -> Result<(Vec<u8>, LayerFacts)> {
    let mut layer = LayerWriter::new(Vec::new()).unwrap();
    for items in packages {
        layer.package(package(items).path())?;
    }
    Ok(layer.finish().unwrap())
}

/// Each path of an archive with what it is: `d`, `l TARGET`, `h TARGET` or the content.
fn listing(archive: &[u8]) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    for entry in tar::Archive::new(archive).entries().unwrap() {
        let mut entry = entry.unwrap();
        let name = entry
            .path()
            .unwrap()
            .to_str()
            .unwrap()
            .trim_end_matches('/')
            .to_owned();
        let target = entry
            .link_name()
            .unwrap()
            .map(|target| target.to_str().unwrap().to_owned());
        let what = match (entry.header().entry_type(), target) {
            (tar::EntryType::Directory, _) => "d".to_owned(),
            (tar::EntryType::Symlink, Some(target)) => format!("l {target}"),
            (tar::EntryType::Link, Some(target)) => format!("h {target}"),
            _ => io::read_to_string(&mut entry).unwrap(),
        };
        assert_eq!(found.insert(name.clone(), what), None, "{name} is there twice");
    }
    found
}

#[test]
fn layer_files_outside_usr_are_merged_into_it() {
    let (archive, _) = layer(&[&[
        Item::Folder("./"),
        Item::Folder("./bin/"),
        Item::File("./bin/a", b"A"),
        Item::Hard("./bin/b", "./bin/a"),
        Item::Folder("./lib64/"),
        Item::Link("./lib64/ld.so", "../lib/ld-1.so"),
        Item::File("./var/run/x", b"X"),
        Item::Link("./sbin", "usr/sbin"),
    ]])
    .unwrap();
    let found = listing(&archive);
    assert_eq!(found["bin"], "l usr/bin");
    assert_eq!(found["usr/bin/a"], "A");
    assert_eq!(found["usr/bin/b"], "h usr/bin/a");
    assert_eq!(found["usr/lib64/ld.so"], "l ../lib/ld-1.so");
    assert_eq!(found["lib64"], "l usr/lib64");
    assert_eq!(found["run/x"], "X");
    assert!(!found.contains_key("bin/a") && !found.contains_key("lib32"));
}

#[test]
fn layer_is_the_same_every_time() {
    let items = || vec![Item::Folder("./usr/"), Item::File("./usr/share/d/f", b"1")];
    assert_eq!(layer(&[&items()]).unwrap(), layer(&[&items()]).unwrap());
}

#[test]
fn layer_path_of_two_packages_first_counts_and_is_noted() {
    let (archive, facts) = layer(&[
        &[Item::File("./opt/f", b"1"), Item::Link("./opt/l", "f")],
        &[
            Item::Folder("./opt/"),
            Item::File("./opt/f", b"2"),
            Item::Folder("./opt/d/"),
        ],
    ])
    .unwrap();
    assert_eq!(listing(&archive)["opt/f"], "1");
    assert_eq!(facts.repeated, ["opt/f"]);
}

#[test]
fn layer_shell_is_made_from_what_there_is() {
    let shell = |programs: &[Item]| {
        let (archive, facts) = layer(&[programs]).unwrap();
        (listing(&archive).get("usr/bin/sh").cloned(), facts.shell)
    };
    assert_eq!(shell(&[]), (None, None));
    assert_eq!(
        shell(&[Item::File("./bin/busybox", b"")]),
        (Some("l busybox".into()), Some("/bin/sh"))
    );
    assert_eq!(
        shell(&[Item::File("./bin/bash", b"")]),
        (Some("l bash".into()), Some("/bin/bash"))
    );
    let dash = [
        Item::File("./usr/bin/dash", b""),
        Item::Link("./usr/bin/sh", "dash"),
    ];
    assert_eq!(shell(&dash), (Some("l dash".into()), Some("/bin/sh")));
}

#[test]
fn layer_certificates_are_bundled_in_order() {
    let (archive, _) = layer(&[&[
        Item::File("./usr/share/ca-certificates/mozilla/b.crt", b"B"),
        Item::File("./usr/share/ca-certificates/mozilla/a.crt", b"A\n"),
    ]])
    .unwrap();
    let found = listing(&archive);
    assert_eq!(found["etc/ssl/certs/ca-certificates.crt"], "A\nB\n");
    assert_eq!(found["usr/share/ca-certificates/mozilla/b.crt"], "B");
}

#[test]
fn layer_minimal_etc_is_there_unless_a_package_brings_it() {
    let (archive, _) = layer(&[&[Item::Link("./etc/os-release", "../usr/lib/os-release")]]).unwrap();
    let found = listing(&archive);
    assert!(found["etc/passwd"].starts_with("root:x:0:0:root:/root:/bin/sh\n"));
    assert!(found["etc/group"].contains("\nshadow:x:42:\n"));
    assert_eq!(found["etc/os-release"], "l ../usr/lib/os-release");
    assert!(!found.contains_key("etc/resolv.conf"));
}

#[test]
fn layer_malicious_names_are_refused() {
    for (items, reason) in [
        (vec![Item::File("../x", b"")], "`../x` leads out"),
        (vec![Item::File("/etc/x", b"")], "`/etc/x` leads out"),
        (
            vec![Item::Hard("./x", "../../y")],
            "`./x` links to something outside",
        ),
        (
            vec![Item::Hard("./x", "./y")],
            "`./x` links to `y`, which is not a file",
        ),
        (
            vec![Item::File("./f", b""), Item::File("./f/g", b"")],
            "`./f/g` lies under the file `f`",
        ),
        (
            vec![
                Item::Link("./a", "b"),
                Item::Link("./b", "a"),
                Item::File("./a/x", b""),
            ],
            "too many symbolic links",
        ),
    ] {
        let error = layer(&[&items]).unwrap_err().to_string();
        assert!(error.contains(reason), "{error}");
    }
}

#[test]
fn layer_link_out_of_the_root_stays_inside() {
    let (archive, _) = layer(&[&[Item::Link("./up", "../../../opt"), Item::File("./up/x", b"X")]]).unwrap();
    assert_eq!(listing(&archive)["opt/x"], "X");
}

#[test]
fn layer_truncated_package_is_refused() {
    let whole = package(&[Item::File("./opt/f", &[b'x'; 5000])]);
    let bytes = std::fs::read(whole.path()).unwrap();
    std::fs::write(whole.path(), &bytes[..3000]).unwrap();
    let error = LayerWriter::new(Vec::new())
        .unwrap()
        .package(whole.path())
        .unwrap_err();
    assert!(matches!(error, Error::BadPackage { .. }), "{error}");
}
