//! Code that the CPU in software makes in one guest, and later ones have.

use std::fs;

use vm_tests::program::{cc_run, said};
use vm_tests::{USERLAND, without_snapshots};

/// What tells that a guest has code of an earlier one.
const TAKEN_UP: &str = "kept code taken up";

/// The second run gathers code on the software CPU, later ones have it; a file of code that is damaged, or that others may
/// write, is none, and nobody hears of it.
#[test]
fn cc_run_third_time_has_the_code_of_the_second_and_does_the_same() {
    let (host, folder) = without_snapshots();
    let line = "seq 1 20000 | sort -R | sort -n | md5sum; test $(id -u) = 0; nproc";
    let run = |cpus: &str| {
        let options = ["--timing", "--backend", "soft", "--cpus", cpus];
        let words = [&options[..], &[USERLAND, "--", "bash", "-c", line]].concat();
        let output = said(
            &cc_run(&words)
                .env("CC_CACHE_DIR", folder.path())
                .output()
                .unwrap(),
        );
        let sum = "e071f707df7bbeee2a6a1eb48011ddd0";
        assert_eq!((output.0, output.1), (Some(0), format!("{sum}  -\n{cpus}\n")));
        let told = output.2;
        assert!(!told.contains("WARN"), "{told}");
        told.contains(TAKEN_UP)
    };
    for cpus in ["1", "2"] {
        assert_eq!([(); 4].map(|()| run(cpus)), [false, false, true, true]);
    }
    for entry in host.library.snapshot_cache().entries().unwrap() {
        let code = folder.path().join("snapshots").join(entry.key).join("code");
        let mut bytes = fs::read(&code).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 4;
        fs::write(&code, bytes).unwrap();
    }
    assert_eq!([(); 2].map(|()| run("2")), [false, true]);
}
