//! `cargo xtask test`: every test of the workspace, on the host and in the lab, and their totals.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use anyhow::{Context, Result};

use crate::lab::packages::{self, Package};
use crate::workspace;

mod guests;

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
        name: "faketime",
        why: "a host whose clock is another",
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
    totals.add(guests::tests(filter)?);
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
