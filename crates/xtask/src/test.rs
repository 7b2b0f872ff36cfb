//! `cargo xtask test`: every test of the workspace, on the host and in the lab, and their totals.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result};

use crate::images::Images;
use crate::lab::packages::{self, Package};
use crate::lab::{self, LabCommand, Output};
use crate::workspace::{self, Executable};

/// What tests call that this workspace does not build.
const PACKAGES: &[Package] = &[
    Package {
        name: "apache2-utils",
        why: "htpasswd, for a registry that wants a password",
    },
    Package {
        name: "attr",
        why: "setfattr, for images with extended attributes",
    },
    Package {
        name: "busybox-static",
        why: "a static program for small guests",
    },
    Package {
        name: "cpio",
        why: "reads our initramfs back",
    },
    Package {
        name: "docker-registry",
        why: "a registry on loopback",
    },
    Package {
        name: "e2fsprogs",
        why: "mke2fs, for small disks that fill up",
    },
    Package {
        name: "skopeo",
        why: "fills registries and image layouts",
    },
    Package {
        name: "umoci",
        why: "builds images and unpacks them for comparison",
    },
    Package {
        name: "xz-utils",
        why: "packs test archives",
    },
];
/// The crate whose tests run in guests.
const VM_TESTS: &str = "vm_tests";
/// A test program about the CPU in software, which would prove nothing in the lab and take an hour there.
const SOFTWARE_ONLY: &str = "userland";
/// One that compares hardware with the CPU in software, whose own conformance its crate tests.
const HARDWARE_ONLY: &str = "conformance";
/// Time for the lab's half, its boot included.
const VM_TIME: Duration = Duration::from_secs(40 * 60);

/// Processors of the lab that runs them. With two, QEMU's emulation of nested virtualization stops for good now and
/// then: in 3 of 5 labs that ran the conformance suite three times each, against none of 6 with one.
const VM_CPUS: u32 = 1;

/// Runs a test program by itself in its crate's folder, as `cargo test` does it; a failed one ends nothing.
/// Emulated boots stall now and then, a guest's in the lab like the lab's own: a program that failed over one is
/// run once more, and standard error says so: told by the usual deadline of a boot, which no test waits for. Any
/// other failure stays one.
const ATTEMPT: &str = r#"status=0
filter="$1"
report="$TMPDIR/report"
attempt() { (cd "$1" && "$2" --test-threads=1 $filter) >"$report" 2>&1; }
run_tests() {
    echo "running $2 in the lab"
    attempt "$1" "$2" && cat "$report" && return
    if grep -q 'nothing within 60 seconds' "$report"; then
        cat "$report" >&2
        echo "xtask: a guest's boot stalled in the lab; running $2 once more" >&2
        attempt "$1" "$2" && cat "$report" && return
    fi
    cat "$report"
    status=1
}
"#;

/// `cargo xtask test`.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Run only the tests whose names contain this.
    filter: Option<String>,
}

/// Runs the tests; 0 where all passed, else 1.
///
/// # Errors
/// Where something does not build, a package is missing or the lab does not work.
pub(crate) fn command(arguments: &Arguments) -> Result<u8> {
    packages::ensure(PACKAGES)?;
    let filter = arguments.filter.as_deref();
    let mut totals = host_tests(filter)?;
    totals.add(vm_tests(filter)?);
    println!("{} passed, {} failed", totals.passed, totals.failed);
    Ok(u8::from(totals.failed > 0))
}

/// Tests counted by their programs' own summaries.
#[derive(Default, Debug, PartialEq, Eq)]
struct Totals {
    passed: u32,
    failed: u32,
}

impl Totals {
    /// Adds what a summary line of libtest counts; other lines count nothing.
    fn count(&mut self, line: &str) {
        let Some(summary) = line.strip_prefix("test result: ") else {
            return;
        };
        let number = |label: &str| {
            let part = summary
                .split([';', '.'])
                .find_map(|part| part.trim().strip_suffix(label));
            part.and_then(|number| number.trim().parse::<u32>().ok())
                .unwrap_or(0)
        };
        self.passed += number("passed");
        self.failed += number("failed");
    }

    /// A test program that dies has no summary, yet must not pass.
    fn settle(mut self, success: bool, what: &str) -> Self {
        if !success && self.failed == 0 {
            eprintln!("xtask: {what} failed without naming a test");
            self.failed = 1;
        }
        self
    }

    fn add(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
    }
}

fn host_tests(filter: Option<&str>) -> Result<Totals> {
    let mut cargo = workspace::cargo();
    cargo
        .args(["test", "--workspace", "--exclude", VM_TESTS, "--no-fail-fast"])
        .args(filter);
    counted(&mut cargo, "cargo test")
}

/// Runs tests, shows what they print and counts them.
fn counted(command: &mut Command, what: &str) -> Result<Totals> {
    let child = command.stdout(Stdio::piped()).spawn();
    let mut child = child.with_context(|| format!("{what} could not be started"))?;
    let mut totals = Totals::default();
    let stdout = child.stdout.take().context("a test's standard output")?;
    for line in BufReader::new(stdout).split(b'\n') {
        let line = line.context("reading a test's standard output")?;
        let line = String::from_utf8_lossy(&line);
        println!("{line}");
        totals.count(&line);
    }
    let status = child.wait()?;
    Ok(totals.settle(status.success(), what))
}

/// Tests in real guests: on this machine as it is, and in the lab where this machine has no usable KVM.
fn vm_tests(filter: Option<&str>) -> Result<Totals> {
    // The whole workspace is named, so that its crates are built with the features of the host's half.
    let built = workspace::executables(&["test", "--workspace", "--no-run"])?;
    let is_vm_test = |folder: &Path| folder.file_name().is_some_and(|name| name == VM_TESTS);
    let programs: Vec<_> = built
        .into_iter()
        .filter(|one| is_vm_test(&one.crate_folder))
        .collect();
    let cc = workspace::cc(false)?;
    let images = Images::prepare(&cc)?;
    let env = [
        ("CC_CACHE_DIR".to_owned(), images.cache.display().to_string()),
        ("CC_PROGRAM".to_owned(), cc.display().to_string()),
        ("CC_REGISTRY_IMAGE".to_owned(), images.from_registry.clone()),
    ];
    let mut totals = vm_tests_here(&programs, &env, filter)?;
    totals.add(vm_tests_in_lab(&programs, &env, filter)?);
    Ok(totals)
}

/// On the backend that users of this machine get.
fn vm_tests_here(programs: &[Executable], env: &[(String, String)], filter: Option<&str>) -> Result<Totals> {
    let mut totals = Totals::default();
    for program in programs
        .iter()
        .filter(|program| !is_called(program, HARDWARE_ONLY))
    {
        println!("running {} on this machine", program.path.display());
        let mut test = Command::new(&program.path);
        test.current_dir(&program.crate_folder).arg("--test-threads=2");
        test.args(filter).envs(env.iter().cloned());
        totals.add(counted(&mut test, "a test program")?);
    }
    Ok(totals)
}

/// Whether this is the test program of that name.
fn is_called(program: &Executable, name: &str) -> bool {
    let file = program.path.file_name().unwrap_or_default().to_string_lossy();
    file.rsplit_once('-').is_some_and(|(stem, _)| stem == name)
}

fn vm_tests_in_lab(
    programs: &[Executable],
    env: &[(String, String)],
    filter: Option<&str>,
) -> Result<Totals> {
    // Each program by itself in its crate's folder, as `cargo test` does it; a failed one ends nothing.
    let mut script = String::from(ATTEMPT);
    for program in programs
        .iter()
        .filter(|program| !is_called(program, SOFTWARE_ONLY))
    {
        script += &format!(
            "run_tests {folder} {path}\n",
            path = program.path.display(),
            folder = program.crate_folder.display(),
        );
    }
    script += "exit $status\n";
    let mut command = LabCommand::new(["sh", "-c", &script, "sh", filter.unwrap_or_default()]);
    command.env = env.to_vec();
    command.cpus = VM_CPUS;
    command.timeout = VM_TIME;
    command.output = Output::Tee;
    let outcome = lab::run(&command)?;
    let mut totals = Totals::default();
    String::from_utf8_lossy(&outcome.stdout)
        .lines()
        .for_each(|line| totals.count(line));
    Ok(totals.settle(outcome.status == 0, "the lab's half"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn count_summaries_are_added_up() {
        let mut totals = Totals::default();

        totals.count(
            "test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; 2 filtered out; finished in 0.01s",
        );
        totals.count("test a ... ok. 9 passed");
        totals.count("test result: FAILED. 1 passed; 2 failed; 0 ignored; 0 measured; 0 filtered out");

        assert_eq!(totals, Totals { passed: 4, failed: 2 });
    }

    #[test]
    fn settle_program_that_died_counts_as_failed() {
        assert_eq!(
            Totals::default().settle(false, "x"),
            Totals { passed: 0, failed: 1 }
        );
        assert_eq!(
            Totals { passed: 1, failed: 2 }.settle(false, "x"),
            Totals { passed: 1, failed: 2 }
        );
        assert_eq!(
            Totals { passed: 1, failed: 0 }.settle(true, "x"),
            Totals { passed: 1, failed: 0 }
        );
    }
}
