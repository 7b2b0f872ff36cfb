//! Debian packages the tooling needs: installed on the machine, or unpacked aside.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

/// A Debian package and what it is needed for.
pub(crate) struct Package {
    /// Name as apt knows it.
    pub(crate) name: &'static str,
    /// What the tooling does with it, for the error message.
    pub(crate) why: &'static str,
}

/// Installs those of `packages` that are missing.
///
/// # Errors
/// Without root, or where apt fails: names every missing package, its reason and the command to run.
pub(crate) fn ensure(packages: &[Package]) -> Result<()> {
    let missing: Vec<&Package> = packages
        .iter()
        .filter(|package| !is_installed(package.name))
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    let names: Vec<&str> = missing.iter().map(|package| package.name).collect();
    let reasons: Vec<String> = missing
        .iter()
        .map(|package| format!("  {}: {}", package.name, package.why))
        .collect();
    let help = format!(
        "missing Debian packages:\n{}\nrun: apt-get install {}",
        reasons.join("\n"),
        names.join(" ")
    );
    if !is_root() {
        bail!("{help}");
    }
    eprintln!("xtask: installing {}", names.join(" "));
    let mut install = vec!["install", "--yes", "--no-install-recommends"];
    install.extend(&names);
    with_fresh_lists(|| apt_get(&install, Path::new("/"))).with_context(|| help)
}

/// Unpacks the package that `metapackage` depends on under `cache`, once, and gives the folder.
///
/// Safe for several processes at once: the folder is published by a rename.
///
/// # Errors
/// Where apt knows no such package or cannot download it.
pub(crate) fn unpacked_dependency(metapackage: &str, cache: &Path) -> Result<PathBuf> {
    fs::create_dir_all(cache).with_context(|| format!("creating {}", cache.display()))?;
    if let Some(found) = newest_folder(cache, metapackage)? {
        return Ok(found);
    }
    let mut package = String::new();
    with_fresh_lists(|| {
        package = dependency_of(metapackage)?;
        Ok(())
    })?;
    eprintln!("xtask: fetching {package}");
    let staging = tempfile::tempdir_in(cache)?;
    with_fresh_lists(|| apt_get(&["download", &package], staging.path()))?;
    let archive = fs::read_dir(staging.path())?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .find(|path| path.extension().is_some_and(|extension| extension == "deb"))
        .with_context(|| format!("apt-get download {package} left no file"))?;
    let unpacked = staging.path().join("unpacked");
    run(Command::new("dpkg-deb").arg("-x").arg(&archive).arg(&unpacked))?;
    let published = cache.join(format!("{metapackage}={package}"));
    match fs::rename(&unpacked, &published) {
        Err(_) if published.is_dir() => {} // Another process was first.
        result => result.with_context(|| format!("publishing {}", published.display()))?,
    }
    Ok(published)
}

/// Whether this process is the superuser.
pub(crate) fn is_root() -> bool {
    Command::new("id")
        .arg("-u")
        .output()
        .is_ok_and(|output| output.stdout == b"0\n")
}

fn is_installed(name: &str) -> bool {
    Command::new("dpkg-query")
        .args(["--show", "--showformat=${db:Status-Status}", name])
        .stderr(Stdio::null())
        .output()
        .is_ok_and(|output| output.stdout == b"installed")
}

fn newest_folder(cache: &Path, metapackage: &str) -> Result<Option<PathBuf>> {
    let prefix = format!("{metapackage}=");
    let folders = fs::read_dir(cache)?.filter_map(|entry| Some(entry.ok()?.path()));
    Ok(folders
        .filter(|path| {
            path.file_name()
                .is_some_and(|name| name.as_encoded_bytes().starts_with(prefix.as_bytes()))
        })
        .max())
}

fn dependency_of(metapackage: &str) -> Result<String> {
    let output = Command::new("apt-cache")
        .args(["depends", "--important", metapackage])
        .output()?;
    let text = String::from_utf8_lossy(&output.stdout);
    let dependency = text
        .lines()
        .find_map(|line| line.trim().strip_prefix("Depends: "));
    dependency
        .map(str::to_owned)
        .with_context(|| format!("the machine's package sources have no {metapackage}"))
}

/// Tries `action`; where it fails the package lists may be absent or old, so they are fetched once.
fn with_fresh_lists(mut action: impl FnMut() -> Result<()>) -> Result<()> {
    if action().is_ok() {
        return Ok(());
    }
    eprintln!("xtask: fetching the package lists");
    apt_get(&["update"], Path::new("/"))?;
    action()
}

fn apt_get(arguments: &[&str], directory: &Path) -> Result<()> {
    run(Command::new("apt-get")
        .arg("--quiet=2")
        .args(arguments)
        .current_dir(directory)
        .env("DEBIAN_FRONTEND", "noninteractive"))
}

/// Runs a command silently; where it fails, its standard error is the message.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    let program = command.get_program().to_string_lossy().into_owned();
    let output = command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("{program} could not be started"))?;
    if !output.status.success() {
        let words = String::from_utf8_lossy(&output.stderr);
        bail!("{program} failed ({}): {}", output.status, words.trim());
    }
    Ok(())
}
