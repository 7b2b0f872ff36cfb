//! Folders and files of the host in the guest.

use std::fs;
use std::process::Command;

use crumblecracker::{InstanceOptions, Share};
use vm_tests::{Host, bash};

#[test]
fn shares_are_written_through_and_read_only_ones_are_not() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    fs::create_dir(path("rw")).unwrap();
    fs::create_dir(path("ro")).unwrap();
    fs::write(path("ro/given"), "from the host").unwrap();
    fs::write(path("single"), "one file").unwrap();
    let share = |name: &str, guest: &str, read_only| Share {
        host: path(name),
        guest: guest.into(),
        read_only,
    };
    let shares = vec![
        share("rw", "/rw", false),
        share("ro", "/a/b/ro", true),
        share("single", "/etc/one", true),
    ];
    let guest = Host::open()
        .unwrap()
        .start(&InstanceOptions {
            shares,
            ..InstanceOptions::default()
        })
        .unwrap();

    let output = bash(
        &guest,
        "head -c 200000 /dev/zero | tr '\\0' x >/rw/made; mkdir /rw/dir; cat /a/b/ro/given /etc/one",
    );
    assert_eq!(output.unwrap().stdout, "from the hostone file");
    assert_eq!(bash(&guest, "touch /a/b/ro/new").unwrap().status, 1);
    assert_ne!(bash(&guest, "echo x >/etc/one").unwrap().status, 0);
    guest.shutdown(std::time::Duration::from_secs(1)).unwrap();

    assert_eq!(fs::read(path("rw/made")).unwrap(), vec![b'x'; 200_000]);
    assert!(path("rw/dir").is_dir() && !path("ro/new").exists());
    assert_eq!(fs::read(path("single")).unwrap(), b"one file");
}

#[test]
fn share_of_a_missing_folder_is_refused_by_name() {
    let shares = vec![Share {
        host: "/no/such/folder".into(),
        guest: "/x".into(),
        read_only: false,
    }];
    let started = Host::open().unwrap().start(&InstanceOptions {
        shares,
        ..InstanceOptions::default()
    });
    let error = started.err().unwrap().to_string();
    assert!(error.contains("/no/such/folder"), "{error}");
}

#[test]
fn share_on_a_full_disk_says_so_in_the_guest_and_works_once_there_is_room() {
    let folder = tempfile::tempdir().unwrap();
    let mut mount = Command::new("mount");
    mount
        .args(["-t", "tmpfs", "-o", "size=1m", "none"])
        .arg(folder.path());
    assert!(mount.status().unwrap().success());
    let shares = vec![Share {
        host: folder.path().to_owned(),
        guest: "/share".into(),
        read_only: false,
    }];
    let guest = Host::open()
        .unwrap()
        .start(&InstanceOptions {
            shares,
            ..InstanceOptions::default()
        })
        .unwrap();

    let full = bash(&guest, "head -c 3000000 /dev/zero >/share/big").unwrap();
    let after = bash(
        &guest,
        "rm /share/big && echo small >/share/small && cat /share/small",
    )
    .unwrap();

    assert_ne!(full.status, 0);
    assert!(full.stderr.contains("No space left on device"), "{}", full.stderr);
    assert_eq!((after.status, after.stdout.as_str()), (0, "small\n"));
    drop(guest);
    assert!(
        Command::new("umount")
            .arg(folder.path())
            .status()
            .unwrap()
            .success()
    );
}
