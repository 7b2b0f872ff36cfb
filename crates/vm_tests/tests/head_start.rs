//! What the first guest from a snapshot leaves for the next: pages that are there and mapped before they are used.

use std::fs;
use std::path::Path;

use crumblecracker::InstanceOptions;
use vm_tests::program::{cc, cc_run, said};
use vm_tests::{Host, USERLAND, without_snapshots};

/// What tells that a guest's pages came in advance.
const BROUGHT_IN: &str = "pages brought in";
/// The files that say which; only what is of use to the backend is there.
const FILES: [&str; 2] = ["pages-written", "pages-used"];

/// Bytes that name pages of any kind: none, of devices, beyond all RAM, turned around.
fn nonsense() -> Vec<u8> {
    let numbers: [u64; 11] = [
        0x1001,
        0x2001,
        0xa_0000,
        0xa_1000,
        0xfee0_0000,
        0xfee0_1000,
        u64::MAX - 0xfff,
        u64::MAX,
        0x9000,
        0x8000,
        7,
    ];
    numbers.iter().flat_map(|number| number.to_le_bytes()).collect()
}

fn overwrite(entry: &Path, bytes: &[u8]) {
    assert!(!fs::read(entry.join(FILES[0])).unwrap().is_empty());
    for file in FILES {
        fs::write(entry.join(file), bytes).unwrap();
    }
}

/// The first run boots, the second leaves what it used, later ones have it; files of nonsense change nothing.
#[test]
fn cc_run_third_time_has_the_pages_of_the_second_and_does_the_same() {
    let (host, folder) = without_snapshots();
    let line = "seq 1 2000 | sort -R | sort -n | md5sum";
    let run = || {
        let mut run = cc_run(&["--timing", USERLAND, "--", "bash", "-c", line]);
        let output = run.env("CC_CACHE_DIR", folder.path()).output().unwrap();
        let (status, output, told) = said(&output);
        let sum = "ea4d0a24dabcaa11f9aa979b872d162b";
        assert_eq!((status, output), (Some(0), format!("{sum}  -\n")), "{told}");
        assert!(!told.contains("WARN"), "{told}");
        told.contains(BROUGHT_IN)
    };

    assert_eq!([(); 3].map(|()| run()), [false, false, true]);
    for entry in host.library.snapshot_cache().entries().unwrap() {
        overwrite(&folder.path().join("snapshots").join(entry.key), &nonsense());
    }
    run();
}

#[test]
fn guest_put_by_goes_on_the_second_time_with_the_pages_of_the_first() {
    let host = Host::open().unwrap();
    let instance = host.start(&InstanceOptions::default()).unwrap();
    let guests = host.library.saved_guests();
    let name = format!("head-start-{}", std::process::id());
    instance.save(&guests, &name).unwrap();
    drop(instance);
    let run = || {
        let words = [
            "run",
            "--timing",
            "--from",
            &name,
            "--",
            "bash",
            "-c",
            "seq 3 | tac",
        ];
        let (status, output, told) = said(&cc(&words).output().unwrap());
        assert_eq!((status, output.as_str()), (Some(0), "3\n2\n1\n"), "{told}");
        told.contains(BROUGHT_IN)
    };

    let brought_in = [(); 2].map(|()| run());
    overwrite(
        &host.library.cache_folder().join("guests").join(&name),
        &nonsense(),
    );
    run();
    guests.remove(&name).unwrap();

    assert_eq!(brought_in, [false, true]);
}
