//! Running guests that are put by, and forked, under the names they run under.

use std::collections::HashSet;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::thread;
use std::time::Instant;

use rustix::process::Signal;
use vm_tests::USERLAND;
use vm_tests::place::{Place, Said, told, wait_until};

/// A snapshot that goes when the test ends, however it does.
struct Snapshot<'a>(&'a Place, String);

impl<'a> Snapshot<'a> {
    fn create(place: &'a Place, name: &str, guest: &str) -> Self {
        // Tests run beside each other, and share a cache.
        let name = format!("{name}-{}", std::process::id());
        let created = place.cc(&["snapshot", "create", &name, guest]);
        assert_eq!(created, told(0, &format!("{name}\n")));
        Self(place, name)
    }
}

impl Drop for Snapshot<'_> {
    fn drop(&mut self) {
        self.0.cc(&["snapshot", "rm", &self.1]);
    }
}

/// Counts to standard output, and waits for a file before it goes on.
const COUNTER: &str = "
import os, time
n = 0
while True:
    n += 1
    print(n, flush=True)
    time.sleep(0.01)
    if n == 20:
        while not os.path.exists('/go'):
            time.sleep(0.01)
";

fn exec(place: &Place, guest: &str, line: &str) -> Said {
    place.cc(&["exec", guest, "bash", "-c", line])
}

#[test]
fn guest_put_by_goes_on_itself_and_under_other_names() {
    let place = Place::new();
    place.start_idle("box");
    assert_eq!(exec(&place, "box", "echo kept > /made"), told(0, ""));

    let snapshot = Snapshot::create(&place, "of-box", "box");
    assert_eq!(exec(&place, "box", "echo later > /made"), told(0, ""));

    let (status, _, errors) = place.cc(&["snapshot", "create", &snapshot.1, "box"]);
    assert!(status == Some(125) && errors.contains("already"), "{errors}");
    let started = place.start("other", &["--from", &snapshot.1]);
    assert_eq!(started, told(0, "other\n"));
    assert_eq!(exec(&place, "other", "cat /made"), told(0, "kept\n"));
    assert_eq!(exec(&place, "box", "cat /made"), told(0, "later\n"));
}

/// The bytes of memory that a snapshot of guests has for itself and in common with others.
fn memory_of(name: &str) -> (u64, u64) {
    let cache = std::env::var_os("CC_CACHE_DIR").expect("CC_CACHE_DIR names the tests' cache");
    let files = fs::read_dir(Path::new(&cache).join("guests").join(name)).unwrap();
    files.flatten().fold((0, 0), |(own, common), file| {
        let metadata = file.metadata().unwrap();
        match file.file_name().to_str().unwrap() {
            "memory" => (own + metadata.blocks() * 512, common),
            name if name.starts_with("memory-") => (own, common + metadata.blocks() * 512),
            _ => (own, common),
        }
    })
}

#[test]
fn snapshot_has_only_what_changed_for_itself_until_it_is_flattened() {
    let place = Place::new();
    // The first boots, where nobody did before, and has nothing in common with anybody.
    place.start_idle("before");
    place.start_idle("box");
    assert_eq!(exec(&place, "box", "echo one > /made"), told(0, ""));
    let first = Snapshot::create(&place, "first", "box");
    assert_eq!(place.start("next", &["--from", &first.1]), told(0, "next\n"));
    assert_eq!(exec(&place, "next", "echo two >> /made"), told(0, ""));
    let second = Snapshot::create(&place, "second", "next");

    let sizes = [&first, &second].map(|snapshot| memory_of(&snapshot.1));
    assert!(
        sizes.iter().all(|(own, common)| *own > 0 && own * 2 < *common),
        "{sizes:?}"
    );
    drop(first);
    assert_eq!(place.cc(&["snapshot", "flatten", &second.1]), told(0, ""));

    let (own, common) = memory_of(&second.1);
    assert!(own > sizes[1].1 / 2 && common == 0, "{own} {common}");
    assert_eq!(place.start("last", &["--from", &second.1]), told(0, "last\n"));
    assert_eq!(exec(&place, "last", "cat /made"), told(0, "one\ntwo\n"));
}

#[test]
fn main_process_goes_on_in_each_fork_with_a_log_of_its_own() {
    let place = Place::new();
    let words = [USERLAND, "python3", "-c", COUNTER];
    assert_eq!(place.start("count", &words), told(0, "count\n"));
    let log = |name: &str| place.cc(&["logs", name]).1;
    wait_until(|| log("count").ends_with("\n20\n"));

    let forked = place.cc(&["fork", "-n", "2", "count"]);

    assert_eq!(forked, told(0, "count-1\ncount-2\n"));
    assert_eq!(place.names(), "count\ncount-1\ncount-2\n");
    assert_eq!(exec(&place, "count-2", ": > /go"), told(0, ""));
    wait_until(|| log("count-2").lines().count() > 10);
    assert!(log("count-2").starts_with("21\n22\n"));
    // The others still wait.
    assert_eq!(log("count-1"), "");
    assert!(log("count").ends_with("\n20\n"));
}

#[test]
fn forks_draw_different_random_numbers_and_have_what_was_asked_for_to_themselves() {
    let place = Place::new();
    place.start_idle("box");
    let options = ["--new-hostname", "--new-machine-id", "--name", "twin"];
    let forked = place.cc(&[&["fork", "-n", "2"], &options[..], &["box"]].concat());
    assert_eq!(forked, told(0, "twin-1\ntwin-2\n"));

    let line = "uname -n; cat /etc/hostname /etc/machine-id /proc/sys/kernel/random/uuid; \
                head -c 16 /dev/urandom | od -An -tx1; tail -n 1 /etc/hosts";
    let said: Vec<_> = ["twin-1", "twin-2"]
        .map(|name| exec(&place, name, line).1)
        .into_iter()
        .collect();

    let lines: Vec<Vec<&str>> = said.iter().map(|said| said.lines().collect()).collect();
    assert_eq!(lines[0][..2], ["twin-1", "twin-1"]);
    assert_eq!(lines[1][..2], ["twin-2", "twin-2"]);
    assert_eq!(lines[0][5], "127.0.1.1\ttwin-1");
    let different: HashSet<_> = lines.iter().flat_map(|lines| &lines[2..5]).collect();
    assert_eq!(different.len(), 6, "{said:?}");
}

/// Killed at any moment of a capture, a monitor leaves a whole snapshot or none.
#[test]
fn monitor_killed_at_any_moment_leaves_no_half_snapshot() {
    let place = Place::new();
    let name = format!("killed-{}", std::process::id());
    let is_listed = || {
        let table = place.cc(&["snapshot", "ls"]).1;
        table.lines().any(|line| line.starts_with(&name))
    };
    place.start_idle("box");
    let begin = Instant::now();
    assert_eq!(place.cc(&["snapshot", "create", &name, "box"]).0, Some(0));
    let took = begin.elapsed();

    for part in 0..8 {
        place.cc(&["snapshot", "rm", &name]);
        let mut create = place
            .command(&["snapshot", "create", &name, "box"])
            .spawn()
            .unwrap();
        thread::sleep(took * part / 8);
        place.signal_monitor("box", Signal::KILL);
        create.wait().unwrap();

        if is_listed() {
            let words = ["run", "--quiet", "--from", &name, "--", "echo", "whole"];
            assert_eq!(place.cc(&words), told(0, "whole\n"), "{part}");
        }
        place.start_idle("box");
    }
    place.cc(&["snapshot", "rm", &name]);
    assert_eq!(place.cc(&["snapshot", "create", &name, "box"]).0, Some(0));
    assert_eq!(place.cc(&["snapshot", "rm", &name]).0, Some(0));
}

#[test]
fn forks_are_refused_in_one_line_where_they_cannot_be() {
    let place = Place::new();
    place.start_idle("box");

    let refused = |words: &[&str], reason: &str| {
        let (status, output, errors) = place.cc(words);
        let is_told = errors.lines().count() == 1 && errors.contains(reason);
        assert!(status == Some(125) && output.is_empty() && is_told, "{errors}");
    };
    refused(&["fork", "nobody"], "no guest named nobody");
    refused(&["snapshot", "create", "a/b", "box"], "names have 1 to 64");
    let other = tempfile::tempdir().unwrap();
    let folder = other.path().to_str().unwrap();
    refused(&["--cache-dir", folder, "fork", "box"], "--cache-dir");
    refused(&["fork", "--name", &"x".repeat(63), "box"], "is no name");
    assert_eq!(place.names(), "box\n");
}

#[test]
fn what_forks_are_made_of_is_gone_when_they_run() {
    let place = Place::new();
    place.start_idle("box");
    let cache = std::env::var_os("CC_CACHE_DIR").expect("CC_CACHE_DIR names the tests' cache");
    let forks = Path::new(&cache).join("forks");
    // As a monitor leaves it that was killed.
    let left = forks.join("1-0");
    fs::create_dir_all(&left).unwrap();

    assert_eq!(place.cc(&["fork", "box"]), told(0, "box-1\n"));

    assert!(!left.exists());
    assert_eq!(exec(&place, "box-1", "echo on"), told(0, "on\n"));
    assert_eq!(place.cc(&["stop", "box"]), told(0, ""));
    assert_eq!(exec(&place, "box-1", "echo on"), told(0, "on\n"));
}
