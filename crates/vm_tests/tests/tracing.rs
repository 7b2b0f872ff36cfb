//! Guests of the CPU in software that are traced and profiled.

use std::fs;
use std::path::{Path, PathBuf};

use tempfile::TempDir;
use vm_tests::USERLAND;
use vm_tests::kernels::{OUTSIDE_PROFILE, SPIN, TRIPLE_FAULT, kernel};
use vm_tests::program::{cc_run, said};

/// A folder with a kernel that says `hi`, then executes `last`; and a name for another file there.
struct Files {
    _folder: TempDir,
    kernel: PathBuf,
    other: PathBuf,
}

impl Files {
    fn new(last: &[u8]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let [path, other] = ["kernel", "other"].map(|name| folder.path().join(name));
        fs::write(&path, kernel("hi", last)).unwrap();
        Self {
            _folder: folder,
            kernel: path,
            other,
        }
    }

    /// What `cc run` of the kernel with these options says on standard error; the guest never comes up.
    fn failed(&self, options: &[&str]) -> Vec<String> {
        let words = [
            &["--backend", "soft", "--kernel", text(&self.kernel)][..],
            options,
            &[USERLAND, "true"],
        ];
        let (status, stdout, stderr) = said(&cc_run(&words.concat()).output().unwrap());
        assert_eq!((status, stdout.as_str()), (Some(125), ""), "{stderr}");
        stderr.lines().map(str::to_owned).collect()
    }
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

const FELL: [&str; 3] = [
    "cc: the guest ended while it started: its CPU shut down after a triple fault",
    "its console said:",
    "  hi",
];
const HUNG: &str = "cc: the guest ended while it started: nothing within 1.5 seconds";

#[test]
fn cc_run_trace_tells_exits_and_exceptions_on_standard_error() {
    let files = Files::new(TRIPLE_FAULT);

    let told = files.failed(&["--trace", "exits,exceptions"]);

    let traced = [
        "vcpu0 exit port-write port=0x3f8 size=1 value=0x68 rip=0x200012",
        "vcpu0 exit port-write port=0x3f8 size=1 value=0x69 rip=0x200012",
        "vcpu0 exit port-write port=0x3f8 size=1 value=0xa rip=0x200012",
        "vcpu0 exception #UD vector=6 rip=0x200015 cpl=0",
        "vcpu0 exception #GP vector=13 error=0x33 rip=0x200015 cpl=0",
        "vcpu0 exception #DF vector=8 error=0x0 rip=0x200015 cpl=0",
        "vcpu0 exit shutdown rip=0x200015",
    ];
    assert_eq!(told, [&traced[..], &FELL].concat());
}

#[test]
fn cc_run_trace_tells_blocks_and_instructions_in_a_file() {
    let files = Files::new(TRIPLE_FAULT);

    let told = files.failed(&[
        "--trace",
        "blocks",
        "--trace",
        "instructions",
        "--trace-file",
        text(&files.other),
    ]);

    assert_eq!(told, FELL);
    let traced = fs::read_to_string(&files.other).unwrap();
    let lines: Vec<_> = traced.lines().collect();
    assert_eq!(lines[0], "vcpu0 block rip=0x200000 cpl=0 bits=64 interpreted");
    assert_eq!(lines[1], "vcpu0 instruction rip=0x200000 cpl=0 mov edx,0x3f8");
    assert_eq!(lines[lines.len() - 1], "vcpu0 instruction rip=0x200015 cpl=0 ud2");
}

#[test]
fn cc_run_trace_file_that_cannot_be_written_is_told_in_one_line() {
    let files = Files::new(TRIPLE_FAULT);

    let full = files.failed(&["--trace", "exits", "--trace-file", "/dev/full"]);
    let missing = files.failed(&["--trace", "exits", "--trace-file", "/no/such/file"]);

    let line = "cc: cannot write the trace /dev/full: No space left on device (os error 28)";
    assert_eq!(full, [&[line][..], &FELL].concat());
    assert_eq!(
        missing,
        ["cc: cannot write the trace /no/such/file: No such file or directory (os error 2)"]
    );
}

#[test]
fn cc_run_profile_of_a_boot_that_hangs_shows_where() {
    let files = Files::new(SPIN);

    let told = files.failed(&["--boot-timeout", "1.5", "--profile", text(&files.other)]);

    assert_eq!(told[0], HUNG);
    let profile = fs::read_to_string(&files.other).unwrap();
    let spinning = profile
        .lines()
        .find_map(|line| line.strip_prefix("kernel;0x200015 "));
    let milliseconds: u64 = spinning.unwrap().parse().unwrap();
    assert!(milliseconds > 0, "{profile}");
}

#[test]
fn cc_run_profile_that_cannot_be_written_is_told_in_one_line() {
    let files = Files::new(SPIN);

    let full = files.failed(&["--boot-timeout", "1.5", "--profile", "/dev/full"]);
    let missing = files.failed(&["--profile", "/no/such/file"]);

    let line = "cc: cannot write the profile /dev/full: No space left on device (os error 28)";
    assert_eq!(full[..2], [line, HUNG]);
    let line = "cc: cannot write the profile /no/such/file: No such file or directory (os error 2)";
    assert_eq!(missing, [line]);
}

#[test]
fn cc_run_profile_names_processes_and_the_kernels_functions() {
    let files = Files::new(SPIN);
    let profile = text(&files.other);
    let script = "for ((n = 0; n < 100000; n++)); do :; done; ls -lR /usr >/dev/null; exit 3";
    let words = [
        "--backend",
        "soft",
        "--profile",
        profile,
        USERLAND,
        "--",
        "bash",
        "-c",
        script,
    ];

    let ended = said(&cc_run(&words).output().unwrap());

    assert_eq!(ended, (Some(3), String::new(), String::new()));
    let folded = fs::read_to_string(profile).unwrap();
    let has = |start: &str| folded.lines().any(|line| line.starts_with(start));
    assert!(has("bash;user 0x"), "{folded}");
    assert!(
        has("ls;entry_SYSCALL_64_after_hwframe;do_syscall_64;"),
        "{folded}"
    );
    assert!(has("swapper/0;"), "{folded}");
    let counts = folded
        .lines()
        .map(|line| line.rsplit_once(' ').unwrap().1.parse::<u64>());
    assert!(counts.collect::<Result<Vec<_>, _>>().is_ok(), "{folded}");
}

#[test]
fn cc_run_trace_on_hardware_is_refused_in_one_line() {
    let words = ["--backend", "kvm", "--trace", "exits", USERLAND, "true"];

    let refused = said(&cc_run(&words).output().unwrap());

    let line =
        "cc: guests on kvm can be neither traced nor profiled; choose the CPU in software: --backend soft\n";
    assert_eq!(refused, (Some(125), String::new(), line.to_owned()));
}

#[test]
fn cc_run_verbose_tells_an_absent_instruction_and_the_state_at_a_triple_fault() {
    let files = Files::new(OUTSIDE_PROFILE);

    let told = files.failed(&["--verbose"]);
    let quiet = files.failed(&[]);

    let absent = " INFO the guest used an instruction that its CPU does not have: bytes 62 f1 7c 48 58 c0 at rip=0x200015 cpl=0";
    assert_eq!(told.iter().filter(|line| *line == absent).count(), 1, "{told:?}");
    let fault = told
        .iter()
        .find(|line| line.starts_with(" INFO triple fault: rip=0x200015 "));
    assert!(
        fault.is_some_and(|line| line.contains(" rsi=0x20001e ")),
        "{told:?}"
    );
    assert_eq!(quiet, FELL);
}
