//! `cargo xtask arrows`: the workspace against its own rules. Every fault is one line on standard error.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};

use crate::workspace;

mod layers;
mod lexer;
mod sources;

/// Folders that hold nothing of ours.
const FOREIGN_FOLDERS: &[&str] = &[".git", "target"];
/// Written by cargo, and full of its registry's name.
const FOREIGN_FILES: &[&str] = &["Cargo.lock"];

/// Checks the workspace; 0 where all is well, else 1.
///
/// # Errors
/// Where cargo or a file cannot be read.
pub(crate) fn command() -> Result<u8> {
    let root = workspace::root();
    let metadata = workspace::cargo()
        .args(["metadata", "--no-deps", "--format-version", "1"])
        .output()
        .context("cargo could not be started")?;
    let message = String::from_utf8_lossy(&metadata.stderr);
    ensure!(
        metadata.status.success(),
        "cargo metadata failed: {}",
        message.trim()
    );
    let (shipped, tests) = layers::from_metadata(&metadata.stdout)?;
    let mut faults = layers::check(&shipped, &tests);
    match fs::read_to_string(root.join("docs/architecture.md")) {
        Ok(picture) => faults.extend(layers::check_picture(&picture, &shipped)),
        Err(error) => faults.push(format!(
            "docs/architecture.md, the picture of the layers: {error}"
        )),
    }
    let hosts = sources::forbidden_hosts();
    let mut files = Vec::new();
    collect(root, root, &mut files)?;
    for (path, text) in &files {
        faults.extend(sources::check_text(path, text, &hosts));
        if path.starts_with("crates/") && path.ends_with(".rs") {
            faults.extend(sources::check_rust(path, text));
        } else if path.starts_with("crates/") && path.ends_with("/Cargo.toml") {
            faults.extend(sources::check_manifest(path, text));
        }
    }
    for fault in &faults {
        eprintln!("arrows: {fault}");
    }
    if !faults.is_empty() {
        return Ok(1);
    }
    let count: usize = shipped.values().map(|dependencies| dependencies.len()).sum();
    println!(
        "{} crates, {count} arrows, {} files: all as the layers say",
        shipped.len(),
        files.len()
    );
    Ok(0)
}

/// All text files below `folder`, in order, with their paths relative to `root`.
fn collect(root: &Path, folder: &Path, files: &mut Vec<(String, String)>) -> Result<()> {
    let entries = fs::read_dir(folder).with_context(|| format!("reading {}", folder.display()))?;
    let mut entries = entries.collect::<std::io::Result<Vec<_>>>()?;
    entries.sort_by_key(fs::DirEntry::file_name);
    for entry in entries {
        let name = entry.file_name().to_string_lossy().into_owned();
        let path = entry.path();
        let kind = entry.file_type()?;
        if kind.is_dir() && !FOREIGN_FOLDERS.contains(&name.as_str()) {
            collect(root, &path, files)?;
        } else if kind.is_file() && !FOREIGN_FILES.contains(&name.as_str()) {
            let bytes = fs::read(&path).with_context(|| format!("reading {}", path.display()))?;
            let relative = path
                .strip_prefix(root)
                .unwrap_or(&path)
                .to_string_lossy()
                .into_owned();
            // Binary files say nothing.
            files.extend(String::from_utf8(bytes).ok().map(|text| (relative, text)));
        }
    }
    Ok(())
}
