//! A mirror on loopback that can be made to fail in every way, signed with a key made for this test.

mod debian_support;

use std::fs;

use debian_support::{Fake, Served};
use oci::Platform;
use oci::debian::{Archive, Chosen, DebReference, Error, Keyring, Refresh};

fn closure(archive: &Archive, refresh: Refresh) -> Result<Vec<Chosen>, Error> {
    let reference: DebReference = "deb:hello".parse().unwrap();
    archive.closure(&reference, &Platform::linux("amd64"), refresh, &())
}

fn layer(archive: &Archive, refresh: Refresh) -> Result<Vec<u8>, Error> {
    let packages = closure(archive, refresh)?;
    let mut tar = Vec::new();
    archive.write_layer(&packages, &mut tar, refresh, &())?;
    Ok(tar)
}

fn holds(tar: &[u8], path: &str) -> bool {
    tar::Archive::new(tar)
        .entries()
        .unwrap()
        .any(|entry| entry.unwrap().path().unwrap().to_str() == Some(path))
}

/// Nothing half-written: no object but whole ones, nothing staged.
fn assert_nothing_half_written(fake: &Fake) {
    let staged = fs::read_dir(fake.cache().join("partial")).unwrap();
    let staged: Vec<_> = staged
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    assert!(
        !staged.iter().any(|name| name.starts_with("staged")),
        "{staged:?}"
    );
}

#[test]
fn debian_mirror_signed_archive_gives_a_layer_and_then_works_offline() {
    let fake = Fake::new();
    let archive = fake.archive();
    let tar = layer(&archive, Refresh::WhenStale).unwrap();
    assert!(holds(&tar, "usr/bin/hello") && holds(&tar, "usr/bin/dependency"));
    fake.stop();
    assert_eq!(layer(&archive, Refresh::Never).unwrap(), tar);
    assert_eq!(layer(&fake.archive(), Refresh::WhenStale).unwrap(), tar);
    assert_nothing_half_written(&fake);
}

#[test]
fn debian_mirror_index_is_asked_for_again_only_when_wanted() {
    let fake = Fake::new();
    let archive = fake.archive();
    closure(&archive, Refresh::WhenStale).unwrap();
    closure(&archive, Refresh::WhenStale).unwrap();
    assert_eq!(fake.requests("InRelease"), 1);
    closure(&archive, Refresh::Always).unwrap();
    assert_eq!((fake.requests("InRelease"), fake.not_modified()), (2, 1));
    assert_eq!(fake.requests("Packages"), 1);
}

/// The second archive reads what the index says of itself, and the rest once it must know which files there are.
#[test]
fn debian_mirror_another_package_is_found_in_the_index_that_was_kept() {
    let fake = Fake::new();
    closure(&fake.archive(), Refresh::WhenStale).unwrap();
    fake.stop();
    let reference: DebReference = "deb:dependency".parse().unwrap();
    let platform = Platform::linux("amd64");

    let found = fake
        .archive()
        .closure(&reference, &platform, Refresh::WhenStale, &())
        .unwrap();

    assert!(found.iter().any(|package| package.name == "dependency"));
    assert_eq!(fake.requests("InRelease"), 1);
}

#[test]
fn debian_mirror_other_key_is_refused() {
    let fake = Fake::new();
    fake.sign_with("other", "");
    let error = closure(&fake.archive(), Refresh::WhenStale).unwrap_err();
    assert!(matches!(error, Error::Signature { .. }), "{error}");
    assert!(error.to_string().contains("is not one of"), "{error}");
    // Debian's own keys accept neither.
    let archive = fake.archive_with(Keyring::debian());
    assert!(matches!(
        closure(&archive, Refresh::WhenStale),
        Err(Error::Signature { .. })
    ));
    assert_nothing_half_written(&fake);
}

#[test]
fn debian_mirror_changed_or_surrounded_text_is_refused() {
    let fake = Fake::new();
    let good = String::from_utf8(fake.file("dists/stable/InRelease")).unwrap();
    let unsigned = good
        .split_once("\n\n")
        .unwrap()
        .1
        .split_once("-----BEGIN PGP SIGNATURE")
        .unwrap()
        .0
        .to_owned();
    for bad in [
        good.replace("Codename: trixie", "Codename: forky"),
        format!("Suite: stable\n{good}"),
        format!("\n{good}"),
        format!("{good}Suite: stable\n"),
        format!("{good}{good}"),
        unsigned,
        good.replace("-----BEGIN PGP SIGNATURE-----", "-----BEGIN PGP MESSAGE-----"),
        good[..good.len() / 2].to_owned(),
        String::new(),
    ] {
        fake.serve("dists/stable/InRelease", Served::File(bad.clone().into_bytes()));
        let error = closure(&fake.archive(), Refresh::WhenStale).unwrap_err();
        assert!(matches!(error, Error::Signature { .. }), "{error}: {bad}");
        assert!(!error.to_string().contains('\n'));
    }
}

#[test]
fn debian_mirror_expired_index_is_refused_unless_apt_says_otherwise() {
    let fake = Fake::new();
    fake.sign_with("signing", "Valid-Until: Sat, 19 Sep 2020 07:55:41 UTC\n");
    let error = closure(&fake.archive(), Refresh::WhenStale).unwrap_err();
    assert!(matches!(error, Error::Expired { .. }), "{error}");
    let text = error.to_string();
    assert!(
        text.contains("InRelease expired on Sat, 19 Sep 2020") && text.contains("CC_DEBIAN_MIRROR"),
        "{text}"
    );
    fake.configure_apt("Acquire::Check-Valid-Until \"false\";");
    assert_eq!(closure(&fake.archive(), Refresh::WhenStale).unwrap().len(), 2);
    // And what is in the cache is not exempt.
    fake.configure_apt("");
    assert!(matches!(
        closure(&fake.archive(), Refresh::Never),
        Err(Error::Expired { .. })
    ));
}

#[test]
fn debian_mirror_index_from_the_future_or_without_digests_is_refused() {
    let fake = Fake::new();
    fake.sign_text("signing", &fake.text().replace("2020", "2099"));
    assert!(matches!(
        closure(&fake.archive(), Refresh::WhenStale),
        Err(Error::NotYetValid { .. })
    ));
    fake.sign_text("signing", &fake.text().replace("SHA256:", "MD5Sum:"));
    let error = closure(&fake.archive(), Refresh::WhenStale)
        .unwrap_err()
        .to_string();
    assert!(error.contains("it lists no SHA256 digests"), "{error}");
    fake.sign_text(
        "signing",
        &fake.text().replace(
            "Suite: stable\nCodename: trixie",
            "Suite: oldstable\nCodename: bookworm",
        ),
    );
    let error = closure(&fake.archive(), Refresh::WhenStale)
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("index of oldstable (bookworm), not of stable"),
        "{error}"
    );
}

#[test]
fn debian_mirror_wrong_package_and_index_are_refused() {
    let fake = Fake::new();
    let mut wrong = fake.file("pool/hello.deb");
    *wrong.last_mut().unwrap() ^= 1;
    fake.serve("pool/hello.deb", Served::File(wrong));
    let error = layer(&fake.archive(), Refresh::WhenStale).unwrap_err();
    assert!(matches!(error, Error::WrongContent { .. }), "{error}");

    let fake = Fake::new();
    let mut wrong = fake.file("dists/stable/main/binary-amd64/Packages.gz");
    wrong.push(0);
    fake.serve("dists/stable/main/binary-amd64/Packages.gz", Served::File(wrong));
    let error = closure(&fake.archive(), Refresh::WhenStale).unwrap_err();
    assert!(matches!(error, Error::WrongContent { .. }), "{error}");
    assert_nothing_half_written(&fake);
}

#[test]
fn debian_mirror_broken_transfer_is_resumed_where_it_broke() {
    let fake = Fake::new();
    let whole = fake.file("pool/hello.deb");
    let half = whole.len() / 2;
    fake.serve("pool/hello.deb", Served::BreaksOnce(whole, half));
    assert!(holds(
        &layer(&fake.archive(), Refresh::WhenStale).unwrap(),
        "usr/bin/hello"
    ));
    assert!(
        fake.ranges().contains(&format!("bytes={half}-")),
        "{:?}",
        fake.ranges()
    );
}

#[test]
fn debian_mirror_truncated_package_is_refused_and_kept_for_next_time() {
    let fake = Fake::new();
    let whole = fake.file("pool/hello.deb");
    let short = whole[..whole.len() - 100].to_vec();
    let kept = short.len();
    fake.serve("pool/hello.deb", Served::File(short));
    let error = layer(&fake.archive(), Refresh::WhenStale).unwrap_err();
    assert!(
        matches!(error, Error::Truncated { .. } | Error::Status { .. }),
        "{error}"
    );
    fake.serve("pool/hello.deb", Served::File(whole));
    assert!(layer(&fake.archive(), Refresh::WhenStale).is_ok());
    assert!(
        fake.ranges().contains(&format!("bytes={kept}-")),
        "{:?}",
        fake.ranges()
    );
}

#[test]
fn debian_mirror_full_disk_is_told_and_works_once_there_is_room() {
    let fake = Fake::new();
    fake.limit_cache("60k");
    let error = layer(&fake.archive(), Refresh::WhenStale).unwrap_err();
    assert!(matches!(error, Error::DiskFull { .. }), "{error}");
    assert!(error.to_string().contains("free some space"), "{error}");
    assert_nothing_half_written(&fake);
    fake.limit_cache("1m");
    let tar = layer(&fake.archive(), Refresh::WhenStale).unwrap();
    assert!(holds(&tar, "opt/hello") && holds(&tar, "opt/dependency"));
}

#[test]
fn debian_mirror_unreachable_is_named_and_old_packages_serve_where_they_may() {
    let fake = Fake::new();
    fake.stop();
    let error = closure(&fake.archive(), Refresh::WhenStale).unwrap_err();
    assert!(matches!(error, Error::Unreachable { .. }), "{error}");
    assert!(error.to_string().contains("CC_DEBIAN_MIRROR"), "{error}");
    assert!(matches!(
        closure(&fake.archive(), Refresh::Never),
        Err(Error::NotCached { .. })
    ));

    let fake = Fake::new();
    closure(&fake.archive(), Refresh::WhenStale).unwrap();
    fake.stop();
    assert!(matches!(
        closure(&fake.archive(), Refresh::Always),
        Err(Error::Unreachable { .. })
    ));
    assert!(closure(&fake.archive(), Refresh::WhenStale).is_ok());
}

#[test]
fn debian_mirror_missing_file_and_architecture_are_named() {
    let fake = Fake::new();
    fake.serve("pool/dependency.deb", Served::Status(404));
    let error = layer(&fake.archive(), Refresh::WhenStale).unwrap_err();
    assert!(
        error.to_string().contains("404") && error.to_string().contains("dependency.deb"),
        "{error}"
    );
    let reference: DebReference = "deb:hello".parse().unwrap();
    let error = fake
        .archive()
        .closure(&reference, &Platform::linux("riscv64"), Refresh::WhenStale, &())
        .unwrap_err();
    assert!(error.to_string().contains("no packages for riscv64"), "{error}");
}

#[test]
fn debian_mirror_two_at_once_share_one_cache() {
    let fake = Fake::new();
    let layers: Vec<Vec<u8>> = std::thread::scope(|scope| {
        let run = || layer(&fake.archive(), Refresh::WhenStale).unwrap();
        let threads: Vec<_> = (0..4).map(|_| scope.spawn(run)).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert!(layers.windows(2).all(|pair| pair[0] == pair[1]));
    assert_nothing_half_written(&fake);
}
