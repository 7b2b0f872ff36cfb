//! `cargo xtask demo`: the product's main job under KVM: this machine's where it works, else the lab's.

use std::process::{Command, Stdio};

use anyhow::{Context, Result};

use crate::lab::{self, LabCommand};
use crate::{images, workspace};

const IMAGE: &str = "deb:bash,coreutils";
const GUEST_COMMAND: [&str; 3] = ["bash", "-c", "echo hello from $(uname -sr)"];

/// Runs the demo and gives the exit status of `cc`.
///
/// # Errors
/// Where `cc` does not build, the image cannot be pulled or the lab does not work.
pub(crate) fn command() -> Result<u8> {
    let cc = workspace::cc(true)?;
    let doctor = Command::new(&cc).arg("doctor").stdin(Stdio::null()).output();
    let report = doctor.context("cc could not be started")?.stdout;
    if report.starts_with(b"kvm: usable") {
        println!("demo: on this machine's KVM");
        let status = Command::new(&cc)
            .args(["run", "--backend", "kvm", IMAGE, "--"])
            .args(GUEST_COMMAND)
            .status()?;
        return Ok(status
            .code()
            .and_then(|code| u8::try_from(code).ok())
            .unwrap_or(1));
    }
    println!("demo: this machine's KVM is not usable (`cc doctor` says why), so in the lab");
    let cache = cc.with_file_name("demo-images");
    images::pull(&cc, &cache, IMAGE)?;
    let (cc, cache) = (cc.display().to_string(), cache.display().to_string());
    let words = [&cc, "run", "--cache-dir", &cache, "--pull", "never", IMAGE, "--"];
    Ok(lab::run(&LabCommand::new(words.into_iter().chain(GUEST_COMMAND)))?.status)
}
