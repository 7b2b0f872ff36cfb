//! Running guests that are put by and taken up again.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::process::Stdio;
use std::time::Duration;

use crumblecracker::session::{Process, ProcessOutput};
use crumblecracker::{Command, Error, Instance, InstanceOptions, Share, TakeUpOptions};
use vm_tests::program::{cc, said};
use vm_tests::{Host, command, says};

/// Takes it away whatever happens to the test.
struct Saved<'a>(&'a Host, String);

impl<'a> Saved<'a> {
    fn of(host: &'a Host, instance: &Instance, name: &str) -> Self {
        // Tests run beside each other, and share a cache.
        let name = format!("{name}-{}", std::process::id());
        instance.save(&host.library.saved_guests(), &name).unwrap();
        Self(host, name)
    }

    fn take_up(&self, options: &TakeUpOptions) -> crumblecracker::Result<(Instance, Vec<Process>)> {
        let backend = crumblecracker::open_backend(None, &self.0.library)?;
        Instance::take_up(&self.0.library.saved_guests(), &self.1, backend, options)
    }
}

impl Drop for Saved<'_> {
    fn drop(&mut self) {
        let _ = self.0.library.saved_guests().remove(&self.1);
    }
}

/// Reads `count` numbers, one a line, each of which is one more than the one before; gives the first.
fn counting(output: &mut BufReader<ProcessOutput>, count: usize) -> u64 {
    let mut numbers = output
        .lines()
        .take(count)
        .map(|line| line.unwrap().parse::<u64>().unwrap());
    let first = numbers.next().unwrap();
    assert!((first + 1..).take(count - 1).eq(numbers));
    first
}

/// Counts to standard output, and to a file that stays open.
const COUNTER: &str = "
import sys, time
log, n = open('/log', 'w', buffering=1), 0
while True:
    n += 1
    log.write('%d\\n' % n)
    print(n, flush=True)
    time.sleep(0.005)
";

#[test]
fn programs_go_on_with_their_files_and_pipes_in_every_guest_taken_up() {
    let host = Host::open().unwrap();
    let instance = host.start(&InstanceOptions::default()).unwrap();
    says(&instance, "echo mine > /made; rm /etc/hosts");
    let mut python = instance.spawn(&command(&["python3", "-c", COUNTER])).unwrap();
    let piped = "n=0; while :; do n=$((n+1)); echo $n; sleep 0.01; done | cat";
    let mut pipe = instance.spawn(&command(&["bash", "-c", piped])).unwrap();
    let mut outputs = [&mut python, &mut pipe].map(|process| BufReader::new(process.stdout.take().unwrap()));
    for output in &mut outputs {
        assert_eq!(counting(output, 5), 1);
    }

    let saved = Saved::of(&host, &instance, "counting");

    for output in &mut outputs {
        counting(output, 50);
    }
    let taken_up = [(); 2].map(|()| saved.take_up(&TakeUpOptions::default()).unwrap());
    let mut drawn = Vec::new();
    for (guest, mut processes) in taken_up {
        assert_eq!(processes.len(), 2);
        for process in &mut processes {
            process.wait_started().unwrap().unwrap();
            let mut output = BufReader::new(process.stdout.take().unwrap());
            // Of what was put by, nothing is lost and nothing comes twice.
            counting(&mut output, 100);
            let control = process.control();
            control.signal(9).unwrap();
            assert_eq!(process.wait().unwrap().code(), 137);
        }
        assert_eq!(
            says(&guest, "cat /made; test -e /etc/hosts || echo gone"),
            "mine\ngone\n"
        );
        let log = says(&guest, "cat /log");
        let numbers = log.lines().map(|line| line.parse::<u64>().unwrap());
        assert!((1..).zip(numbers).all(|(expected, number)| expected == number));
        let noticed = "[[ $(dmesg) == *'crng reseeded due to virtual machine fork'* ]] && echo noticed";
        assert_eq!(says(&guest, noticed), "noticed\n");
        drawn.push(says(&guest, "od -An -tx1 -N16 /dev/urandom"));
    }
    assert_ne!(drawn[0], drawn[1]);
}

#[test]
fn shares_go_on_where_they_are_said_to_be() {
    let host = Host::open().unwrap();
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("there"), "before\n").unwrap();
    let share = Share {
        host: folder.path().to_owned(),
        guest: "/share".to_owned(),
        read_only: false,
    };
    let instance = host
        .start(&InstanceOptions {
            shares: vec![share.clone()],
            hostname: "first".to_owned(),
            ..InstanceOptions::default()
        })
        .unwrap();
    assert_eq!(says(&instance, "cat /share/there"), "before\n");
    let saved = Saved::of(&host, &instance, "sharing");
    drop(instance);
    fs::write(folder.path().join("there"), "after\n").unwrap();

    let without = saved.take_up(&TakeUpOptions::default()).map(drop).unwrap_err();
    let options = TakeUpOptions {
        shares: vec![share],
        hostname: Some("second".to_owned()),
        ..TakeUpOptions::default()
    };
    let (guest, _) = saved.take_up(&options).unwrap();

    assert!(matches!(without, Error::SavedGuestShare { .. }), "{without}");
    assert_eq!(
        says(&guest, "echo new > /share/made; cat /share/there; uname -n"),
        "after\nsecond\n"
    );
    assert_eq!(fs::read_to_string(folder.path().join("made")).unwrap(), "new\n");
    guest.shutdown(Duration::from_secs(1)).unwrap();
}

#[test]
fn guest_that_is_damaged_is_refused_and_kept() {
    let host = Host::open().unwrap();
    let instance = host.start(&InstanceOptions::default()).unwrap();
    let saved = Saved::of(&host, &instance, "damaged");
    let again = instance.save(&host.library.saved_guests(), &saved.1).unwrap_err();
    let units = host
        .library
        .cache_folder()
        .join("guests")
        .join(&saved.1)
        .join("units");
    let mut bytes = fs::read(&units).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&units, bytes).unwrap();

    let error = saved.take_up(&TakeUpOptions::default()).map(drop).unwrap_err();

    assert!(matches!(again, Error::SavedGuestExists(_)), "{again}");
    assert!(matches!(error, Error::Snapshot(_)), "{error}");
    assert!(units.exists());
    assert!(says(&instance, "echo goes on") == "goes on\n");
}

#[test]
fn program_goes_on_with_what_runs_or_runs_something_else() {
    let host = Host::open().unwrap();
    let instance = host.start(&InstanceOptions::default()).unwrap();
    let waits = Command {
        stdin: true,
        ..command(&["bash", "-c", "echo waits; read -r word; echo got $word; exit 7"])
    };
    let mut process = instance.spawn(&waits).unwrap();
    let mut line = String::new();
    let mut output = BufReader::new(process.stdout.take().unwrap());
    output.read_line(&mut line).unwrap();
    assert_eq!(line, "waits\n");
    let saved = Saved::of(&host, &instance, "waiting");
    drop(instance);

    let name = saved.1.as_str();
    let run = |words: &[&str], input: &'static [u8]| {
        let mut program = cc(words).stdin(Stdio::piped()).spawn().unwrap();
        program.stdin.take().unwrap().write_all(input).unwrap();
        said(&program.wait_with_output().unwrap())
    };
    let went_on = run(&["run", "--from", name], b"this\n");
    let other = run(
        &["run", "--from", name, "--", "bash", "-c", "echo other; exit 3"],
        b"",
    );
    let listed = run(&["snapshot", "ls"], b"");
    let removed = run(&["snapshot", "rm", name], b"");
    let gone = run(&["run", "--from", name], b"");

    assert_eq!((went_on.0, went_on.1.as_str()), (Some(7), "got this\n"));
    assert_eq!((other.0, other.1.as_str()), (Some(3), "other\n"));
    assert!(listed.1.contains(name), "{}", listed.1);
    assert_eq!(removed.0, Some(0));
    assert_eq!(gone.0, Some(125));
    assert!(gone.2.contains("snapshot ls"), "{}", gone.2);
}
