//! The workspace's folder, and what cargo builds in it.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};

/// A program cargo has built.
pub(crate) struct Executable {
    /// Folder of its crate under `crates/`.
    pub(crate) crate_folder: PathBuf,
    /// The file.
    pub(crate) path: PathBuf,
}

/// The workspace's folder.
pub(crate) fn root() -> &'static Path {
    let own = Path::new(env!("CARGO_MANIFEST_DIR"));
    own.ancestors().nth(2).unwrap_or(own)
}

/// Cargo, as the one that started this program, in the workspace's folder and without standard input.
pub(crate) fn cargo() -> Command {
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.current_dir(root()).stdin(Stdio::null());
    cargo
}

/// Runs cargo with `arguments`, a kind of build, and gives the programs that came of it.
///
/// # Errors
/// Where the build fails; cargo has said why.
pub(crate) fn executables(arguments: &[&str]) -> Result<Vec<Executable>> {
    let output = cargo()
        .args(arguments)
        .arg("--message-format=json-render-diagnostics")
        .stderr(Stdio::inherit())
        .output()
        .context("cargo could not be started")?;
    ensure!(output.status.success(), "cargo {} failed", arguments.join(" "));
    from_messages(&String::from_utf8_lossy(&output.stdout))
}

/// Builds `cc` with the release profile where `release`, else with that of tests, and gives its path.
///
/// # Errors
/// Where the build fails.
pub(crate) fn cc(release: bool) -> Result<PathBuf> {
    let mut arguments = vec!["build", "--package", "crumblecracker-cc"];
    arguments.extend(release.then_some("--release"));
    let built = executables(&arguments)?
        .into_iter()
        .find(|one| one.path.ends_with("cc"));
    Ok(built.context("cargo built no cc")?.path)
}

fn from_messages(messages: &str) -> Result<Vec<Executable>> {
    let mut executables = Vec::new();
    for line in messages.lines().filter(|line| line.starts_with('{')) {
        let message: Message = serde_json::from_str(line).context("a message of cargo")?;
        if let (Some(path), Some(manifest)) = (message.executable, message.manifest_path) {
            let crate_folder = manifest.parent().unwrap_or(root()).to_owned();
            executables.push(Executable { crate_folder, path });
        }
    }
    Ok(executables)
}

/// The part of cargo's "compiler-artifact" that names a program; other messages have none of it.
#[derive(serde::Deserialize)]
struct Message {
    executable: Option<PathBuf>,
    manifest_path: Option<PathBuf>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_only_programs_are_kept() {
        let messages = r#"{"reason":"compiler-artifact","manifest_path":"/w/crates/a/Cargo.toml","executable":null}
{"reason":"compiler-artifact","manifest_path":"/w/crates/b/Cargo.toml","executable":"/w/target/debug/b"}
{"reason":"build-finished","success":true}"#;

        let executables = from_messages(messages).unwrap();

        assert_eq!(executables.len(), 1);
        assert_eq!(executables[0].crate_folder, Path::new("/w/crates/b"));
        assert_eq!(executables[0].path, Path::new("/w/target/debug/b"));
    }
}
