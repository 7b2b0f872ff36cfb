//! The tests that run virtual machines: on this machine as it is, and in the lab under real KVM.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::Result;

use super::{Totals, VM_TESTS, counted};
use crate::images::Images;
use crate::lab::{self, LabCommand, Output};
use crate::workspace::{self, Executable};

/// Test programs about the CPU in software, which would prove nothing in the lab and take an hour there.
const SOFTWARE_ONLY: &[&str] = &["kept_code", "tracing", "userland"];
/// One that compares hardware with the CPU in software, whose own conformance its crate tests.
const HARDWARE_ONLY: &str = "conformance";
/// Time for one lab, its boot included.
const LAB_TIME: Duration = Duration::from_secs(30 * 60);
/// Labs for the whole half: the emulation stops for good now and then (see `lab`), and the programs that had
/// not ended by then run in the next one.
const LABS: u32 = 3;

/// Runs a test program by itself in its crate's folder, as `cargo test` does it; a failed one ends nothing.
/// Emulated boots stall now and then, a guest's in the lab like the lab's own: a program that failed over one is
/// run once more, and standard error says so: told by the usual deadline of a boot, which no test waits for, or by
/// time without end. Any other failure stays one.
const ATTEMPT: &str = r#"status=0
filter="$1"
report="$TMPDIR/report"
attempt() {
    (cd "$1" && exec timeout --kill-after=5 600 "$2" --test-threads=1 $filter) >"$report" 2>&1
    attempted=$?
    [ $attempted != 124 ] || echo "xtask: no end of $2 within 600 seconds" >>"$report"
    return $attempted
}
run_tests() {
    echo "running $2 in the lab"
    if ! attempt "$1" "$2" && grep -qE 'nothing within 60 seconds|no end of .* within 600 seconds' "$report"; then
        cat "$report" >&2
        echo "xtask: a guest stalled in the lab; running $2 once more" >&2
        attempt "$1" "$2"
    fi
    cat "$report"
    [ $attempted = 0 ] || status=1
    ! grep -q '^test result: ' "$report" || echo "ended $2 in the lab"
}
"#;

/// Runs the tests in guests here and in the lab.
pub(super) fn tests(filter: Option<&str>) -> Result<Totals> {
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
    let mut totals = here(&programs, &env, filter)?;
    totals.add(in_lab(&programs, &env, filter)?);
    Ok(totals)
}

/// On the backend that users of this machine get.
fn here(programs: &[Executable], env: &[(String, String)], filter: Option<&str>) -> Result<Totals> {
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

/// Under KVM, in as many labs as it takes to see every program end.
fn in_lab(programs: &[Executable], env: &[(String, String)], filter: Option<&str>) -> Result<Totals> {
    let mut left: Vec<&Executable> = programs
        .iter()
        .filter(|program| !SOFTWARE_ONLY.iter().any(|name| is_called(program, name)))
        .collect();
    let mut totals = Totals::default();
    for lab in 1..=LABS {
        let mut command = LabCommand::new(["sh", "-c", &script(&left), "sh", filter.unwrap_or_default()]);
        command.env = env.to_vec();
        command.timeout = LAB_TIME;
        command.output = Output::Tee;
        let outcome = lab::run(&command)?;
        let output = String::from_utf8_lossy(&outcome.stdout);
        output.lines().for_each(|line| totals.count(line));
        if !outcome.froze || lab == LABS {
            return Ok(totals.settle(outcome.status == 0, "the lab's half"));
        }
        left.retain(|program| !output.lines().any(|line| line == ended(program)));
        eprintln!("xtask: {} test programs go on in another lab", left.len());
    }
    Ok(totals)
}

/// The shell script that runs the programs one after the other.
fn script(programs: &[&Executable]) -> String {
    let mut script = String::from(ATTEMPT);
    for program in programs {
        script += &format!(
            "run_tests {folder} {path}\n",
            path = program.path.display(),
            folder = program.crate_folder.display(),
        );
    }
    script + "exit $status\n"
}

/// What the script prints when a program has ended with a summary; one without runs again should the lab freeze.
fn ended(program: &Executable) -> String {
    format!("ended {} in the lab", program.path.display())
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;
    use std::process::Output;

    use super::*;

    /// Runs the lab's script, here, on one program made of these shell lines.
    fn run_script(lines: &str) -> Output {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("program");
        fs::write(&path, format!("#!/bin/sh\n{lines}\n")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        let program = Executable {
            crate_folder: folder.path().to_owned(),
            path,
        };
        Command::new("sh")
            .args(["-c", &script(&[&program]), "sh", ""])
            .env("TMPDIR", folder.path())
            .output()
            .unwrap()
    }

    #[test]
    fn script_failed_program_fails_and_is_not_repeated() {
        let output = run_script("echo once >>runs; cat runs; exit 101");

        let printed = String::from_utf8_lossy(&output.stdout);
        assert_eq!(
            (output.status.code(), printed.matches("once").count()),
            (Some(1), 1)
        );
    }

    #[test]
    fn script_program_with_a_summary_has_ended_and_one_without_has_not() {
        let whole = run_script("echo 'test result: FAILED. 1 passed; 2 failed'; exit 101");
        let dead = run_script("exit 101");

        let printed = |output: &Output| String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(printed(&whole).contains("ended /"));
        assert!(!printed(&dead).contains("ended /"));
    }

    #[test]
    fn script_program_over_a_stalled_boot_is_repeated_once() {
        let output = run_script(
            "[ -e seen ] || { touch seen; echo nothing within 60 seconds; exit 101; }; echo passed",
        );

        let printed = String::from_utf8_lossy(&output.stdout);
        assert_eq!(output.status.code(), Some(0), "{printed}");
        assert!(printed.contains("passed"), "{printed}");
        assert!(!printed.contains("nothing"), "{printed}");
    }
}
