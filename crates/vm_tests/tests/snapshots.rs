//! Guests that start from a snapshot of one that has booted.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crumblecracker::{Instance, InstanceOptions, Share, Timeline};
use vm_tests::place::{Place, told};
use vm_tests::program::{cc, cc_run, cc_run_under, said};
use vm_tests::{Host, USERLAND, says, without_snapshots};

/// What tells that a guest came from a snapshot.
const RESTORED: &str = "guest runs, restored";

/// Starts a guest; says whether it came from a snapshot.
fn start(host: &Host, options: &InstanceOptions) -> (Instance, bool) {
    let options = InstanceOptions {
        timeline: Timeline::default(),
        ..options.clone()
    };
    let instance = host.start(&options).unwrap();
    let restored = options
        .timeline
        .moments()
        .iter()
        .any(|moment| moment.what == RESTORED);
    (instance, restored)
}

#[test]
fn second_guest_is_restored_and_is_no_twin() {
    let (host, _folder) = without_snapshots();
    let named = |name: &str| InstanceOptions {
        hostname: name.to_owned(),
        ..InstanceOptions::default()
    };
    drop(start(&host, &named("first")));

    let guests = ["second", "third"].map(|name| start(&host, &named(name)));

    let line = "uname -n; cat /etc/hostname; id -u; touch /made && ls /made; \
                head -c 16 /dev/urandom | od -An -tx1; cat /proc/sys/kernel/random/uuid";
    let said = guests.each_ref().map(|(guest, restored)| {
        assert!(restored);
        says(guest, line)
    });
    let fixed = |text: &str| text.lines().take(4).map(str::to_owned).collect::<Vec<_>>();
    assert_eq!(fixed(&said[0]), ["second", "second", "0", "/made"]);
    assert_eq!(fixed(&said[1]), ["third", "third", "0", "/made"]);
    let drawn = said
        .each_ref()
        .map(|text| text.lines().skip(4).collect::<Vec<_>>());
    assert_ne!(drawn[0][0], drawn[1][0]);
    assert_ne!(drawn[0][1], drawn[1][1]);
}

#[test]
fn restored_guest_has_the_hosts_time_and_its_clock_goes_on() {
    let (host, _folder) = without_snapshots();
    let options = InstanceOptions::default();
    let (first, _) = start(&host, &options);
    let before: f64 = uptime(&first);
    drop(first);

    let (guest, restored) = start(&host, &options);

    assert!(restored);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let told: u64 = says(&guest, "date +%s").trim().parse().unwrap();
    assert!(
        now.abs_diff(Duration::from_secs(told)) < Duration::from_secs(60),
        "{told}"
    );
    let (up, later) = (uptime(&guest), uptime(&guest));
    assert!(
        up > 0.0 && up < before + 60.0 && later >= up,
        "{before} {up} {later}"
    );
    says(&guest, "sleep 0.2; timeout 1 sleep 30; true");
}

/// Restores the snapshot of a booted guest on a host whose clock has gone on by a day.
#[test]
fn cc_run_a_day_later_has_that_days_date_at_once() {
    const DAY: u64 = 24 * 60 * 60;
    let (_host, folder) = without_snapshots();
    let words = ["--timing", USERLAND, "--", "date", "+%s"];
    let run = |starter: &[&str]| {
        let mut command = cc_run_under(starter, &words);
        said(&command.env("CC_CACHE_DIR", folder.path()).output().unwrap())
    };
    assert_eq!(run(&[]).0, Some(0));

    let (status, date, told) = run(&["faketime", "--exclude-monotonic", "-f", "+1d"]);

    assert!(status == Some(0) && told.contains(RESTORED), "{told}");
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let date: u64 = date.trim().parse().unwrap();
    assert!(date.abs_diff(now + DAY) < 60, "{date} {now}");
}

fn uptime(guest: &Instance) -> f64 {
    let text = says(guest, "cat /proc/uptime");
    text.split(' ').next().unwrap().parse().unwrap()
}

#[test]
fn restored_guest_has_its_shares_and_several_processes_at_once() {
    let (host, _folder) = without_snapshots();
    let shared = tempfile::tempdir().unwrap();
    let options = InstanceOptions {
        shares: vec![Share {
            host: shared.path().to_owned(),
            guest: "/share".to_owned(),
            read_only: false,
        }],
        vcpus: 2,
        memory_mib: 256,
        ..InstanceOptions::default()
    };
    for round in ["booted", "restored"] {
        let (guest, restored) = start(&host, &options);
        assert_eq!(restored, round == "restored");
        let line = format!(
            "echo {round} > /share/{round}; seq 1 200000 | sort -R | sort -n | md5sum & md5sum /bin/bash & wait"
        );
        let sums = says(&guest, &line);
        assert_eq!(sums.lines().count(), 2, "{sums}");
        let written = fs::read_to_string(shared.path().join(round)).unwrap();
        assert_eq!(written, format!("{round}\n"));
    }
}

#[test]
fn torn_snapshot_is_a_boot_and_is_replaced() {
    let (host, folder) = without_snapshots();
    let options = InstanceOptions::default();
    let tears: [fn(&Path); 4] = [
        |entry| fs::write(entry.join("manifest"), "{").unwrap(),
        |entry| fs::remove_file(entry.join("memory")).unwrap(),
        |entry| {
            let mut units = fs::read(entry.join("units")).unwrap();
            units[1000] ^= 1;
            fs::write(entry.join("units"), units).unwrap();
        },
        |entry| {
            let path = entry.join("manifest");
            let text = fs::read_to_string(&path).unwrap();
            fs::write(
                path,
                text.replace("\"memory\": \"512 MiB\"", "\"memory\": \"513 MiB\""),
            )
            .unwrap();
        },
    ];
    drop(start(&host, &options));
    for tear in tears {
        let entries = host.library.snapshot_cache().entries().unwrap();
        assert_eq!(entries.len(), 1);
        tear(&folder.path().join("snapshots").join(&entries[0].key));

        let (guest, restored) = start(&host, &options);

        assert!(!restored);
        assert_eq!(says(&guest, "echo up"), "up\n");
        drop(guest);
        assert!(start(&host, &options).1);
    }
}

#[test]
fn other_machines_have_snapshots_of_their_own() {
    let (host, _folder) = without_snapshots();
    let sizes = [256, 384].map(|memory_mib| InstanceOptions {
        memory_mib,
        ..InstanceOptions::default()
    });
    let restored = [&sizes[0], &sizes[1], &sizes[0], &sizes[1]].map(|options| start(&host, options).1);

    assert_eq!(restored, [false, false, true, true]);
    let cache = host.library.snapshot_cache();
    assert_eq!(cache.entries().unwrap().len(), 2);
    assert!(cache.verify().unwrap().is_empty());
    assert_eq!(cache.prune(0).unwrap().len(), 2);
    assert!(!start(&host, &sizes[0]).1);
}

#[test]
fn guests_that_want_no_snapshot_neither_use_nor_leave_one() {
    let (host, _folder) = without_snapshots();
    let options = InstanceOptions {
        snapshots: false,
        ..InstanceOptions::default()
    };
    assert!(!start(&host, &options).1);
    assert!(!start(&host, &options).1);
    assert!(host.library.snapshot_cache().entries().unwrap().is_empty());
}

/// A disk that a snapshot does not fit on, and one that cannot be written: the guest boots, and one line says why there
/// will be no snapshot.
#[test]
fn cc_run_without_room_for_a_snapshot_boots_and_says_so_in_one_line() {
    for options in ["size=8m", "ro"] {
        let (_host, folder) = without_snapshots();
        let snapshots = folder.path().join("snapshots");
        fs::create_dir(&snapshots).unwrap();
        let mount = |words: &[&str]| {
            let status = Command::new(words[0]).args(&words[1..]).arg(&snapshots).status();
            assert!(status.unwrap().success());
        };
        mount(&[
            "mount",
            "-t",
            "tmpfs",
            "-o",
            &format!("mode=755,{options}"),
            "none",
        ]);

        let run = || {
            let mut command = cc_run(&[USERLAND, "--", "echo", "done"]);
            said(&command.env("CC_CACHE_DIR", folder.path()).output().unwrap())
        };
        let outputs = [run(), run()];

        let left = fs::read_dir(&snapshots).unwrap().flatten();
        let left: Vec<_> = left
            .map(|entry| entry.file_name().into_string().unwrap())
            .collect();
        mount(&["umount"]);
        for (status, stdout, stderr) in outputs {
            assert_eq!((status, stdout.as_str()), (Some(0), "done\n"), "{stderr}");
            assert!(
                stderr.lines().count() == 1 && stderr.contains("this guest's snapshot cannot be kept"),
                "{options}: {stderr}"
            );
        }
        assert!(left.iter().all(|name| name.starts_with("lock-")), "{left:?}");
    }
}

#[test]
fn guest_without_room_to_be_put_by_says_so_in_one_line_and_goes_on() {
    let (_host, folder) = without_snapshots();
    let place = Place::new();
    let cc = |words: &[&str]| {
        let mut command = place.command(words);
        said(&command.env("CC_CACHE_DIR", folder.path()).output().unwrap())
    };
    let start = [
        "start",
        "--pull",
        "never",
        "--name",
        "box",
        "--entrypoint",
        "",
        USERLAND,
    ];
    assert_eq!(cc(&start).0, Some(0));
    let small = ["guests", "forks"].map(|name| folder.path().join(name));
    for folder in &small {
        fs::create_dir(folder).unwrap();
        let options = ["-t", "tmpfs", "-o", "mode=755,size=1m", "none"];
        let status = Command::new("mount").args(options).arg(folder).status();
        assert!(status.unwrap().success());
    }

    let refused = [cc(&["snapshot", "create", "one", "box"]), cc(&["fork", "box"])];
    let went_on = cc(&["exec", "box", "echo", "on"]);

    let names = |folder: &PathBuf| {
        let listed = fs::read_dir(folder).unwrap().flatten();
        listed
            .map(|entry| entry.file_name().into_string().unwrap())
            .collect::<Vec<_>>()
    };
    let left = small.each_ref().map(names).concat();
    for folder in &small {
        let status = Command::new("umount").arg(folder).status();
        assert!(status.unwrap().success());
    }
    assert_eq!(went_on, told(0, "on\n"));
    for (status, stdout, stderr) in refused {
        assert_eq!((status, stdout.as_str()), (Some(125), ""), "{stderr}");
        assert!(
            stderr.lines().count() == 1 && stderr.contains("No space left"),
            "{stderr}"
        );
    }
    assert!(left.iter().all(|name| name.starts_with("lock-")), "{left:?}");
    assert_eq!(place.names(), "box\n");
}

/// Killed at any moment, a run leaves a whole snapshot or none, and the next finds its way.
#[test]
fn cc_run_killed_at_any_moment_leaves_no_half_snapshot() {
    let (host, folder) = without_snapshots();
    let run = || {
        let mut command = cc_run(&[USERLAND, "--", "echo", "done"]);
        command.env("CC_CACHE_DIR", folder.path());
        command
    };
    let begin = Instant::now();
    assert!(run().output().unwrap().status.success());
    let took = begin.elapsed();
    let cache = host.library.snapshot_cache();
    for part in 1..=6 {
        cache.prune(0).unwrap();
        let mut child = run().spawn().unwrap();
        thread::sleep(took * part / 6);
        child.kill().unwrap();
        child.wait().unwrap();

        assert!(cache.verify().unwrap().is_empty());
        let output = said(&run().output().unwrap());
        assert_eq!(output, (Some(0), "done\n".to_owned(), String::new()), "{part}");
        assert_eq!(cache.entries().unwrap().len(), 1);
    }
}

#[test]
fn cc_run_second_time_is_restored_and_tells_when_what_happened() {
    let (_host, folder) = without_snapshots();
    let run = |options: &[&str]| {
        let words = [options, &["--timing", USERLAND, "--", "echo", "done"]].concat();
        let output = said(
            &cc_run(&words)
                .env("CC_CACHE_DIR", folder.path())
                .output()
                .unwrap(),
        );
        assert_eq!((output.0, output.1.as_str()), (Some(0), "done\n"), "{}", output.2);
        output.2
    };
    let told = [run(&[]), run(&[]), run(&["--no-snapshot"])];

    let restored = told.each_ref().map(|lines| lines.contains(RESTORED));
    assert_eq!(restored, [false, true, false]);
    for lines in &told {
        for moment in [
            "image resolved",
            "root attached",
            "command runs",
            "first output",
            "end",
        ] {
            assert!(lines.contains(moment), "{lines}");
        }
    }
}

#[test]
fn cc_cache_lists_verifies_and_prunes() {
    let (host, folder) = without_snapshots();
    let cache = |words: &[&str]| {
        let words = [&["cache"], words].concat();
        said(&cc(&words).env("CC_CACHE_DIR", folder.path()).output().unwrap())
    };
    drop(start(&host, &InstanceOptions::default()));

    let (status, listed, _) = cache(&["ls"]);
    assert_eq!(status, Some(0));
    assert!(
        listed.lines().count() == 2 && listed.contains("512 MiB"),
        "{listed}"
    );
    assert_eq!(cache(&["verify"]).0, Some(0));
    let entry = &host.library.snapshot_cache().entries().unwrap()[0];
    let memory = folder.path().join("snapshots").join(&entry.key).join("memory");
    let mut bytes = fs::read(&memory).unwrap();
    bytes[12345] ^= 0x10;
    fs::write(&memory, bytes).unwrap();
    let (status, _, told) = cache(&["verify"]);
    assert!(
        status == Some(125) && told.contains("memory of the snapshot is damaged"),
        "{told}"
    );
    assert_eq!(cache(&["ls"]).1.lines().count(), 1);
    drop(start(&host, &InstanceOptions::default()));
    assert!(cache(&["prune", "--keep", "1G"]).1.contains("0 B freed"));
    assert_eq!(cache(&["ls"]).1.lines().count(), 2);
    assert_eq!(cache(&["prune"]).0, Some(0));
    assert_eq!(cache(&["ls"]).1.lines().count(), 1);
}
