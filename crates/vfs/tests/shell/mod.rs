//! Runs programs over a tree.

use std::path::Path;
use std::process::Command;

/// Runs a shell script with `$T` set to `directory`; its output, if it succeeds.
pub(crate) fn shell(directory: &Path, script: &str) -> String {
    let output = Command::new("sh")
        .args(["-euc", script])
        .env("T", directory)
        .env("LC_ALL", "C")
        .output()
        .expect("a shell");
    assert!(
        output.status.success(),
        "{script}\nended with {}\n{}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8_lossy(&output.stdout).into_owned()
}
