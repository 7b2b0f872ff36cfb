//! What the tests that run whole virtual machines share.
//!
//! They need a CPU backend that works and images that are in the cache already: `cargo xtask test` brings
//! both, the first by the lab where the host has none. `CC_CACHE_DIR` names the cache, `CC_PROGRAM` the
//! command line under test.
//!
//! **Knows:** the public library and the command line, as any user does. **Must never know:** their insides.
#![forbid(unsafe_code)]

pub mod kernels;
pub mod place;
pub mod program;

use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::symlink;
use std::sync::Arc;
use std::thread;

use anyhow::{Context, Result};
use crumblecracker::{
    Command, Hypervisor, Image, Instance, InstanceOptions, Library, Progress, PullOptions, PullPolicy,
    open_backend, session::Process,
};
use tempfile::TempDir;

/// The Debian userland most tests run in.
pub const USERLAND: &str = "deb:bash,coreutils,mount,perl-base,procps,python3-minimal,util-linux";

/// The one that checks itself: compilers, interpreters, digests.
pub const TOOLS: &str = "deb:trixie/bash,coreutils,diffutils,gcc,gzip,libc6-dev,libpython3.13-testsuite,mount,openssl,perl,\
                         python3.13,sed,util-linux,xz-utils";

/// The tests' images and kernel with no snapshot yet: a cache of its own for as long as the folder lives.
///
/// # Panics
/// Where the tests' cache is not there.
pub fn without_snapshots() -> (Host, TempDir) {
    let mut host = Host::open().expect("the tests' cache and backend");
    let folder = tempfile::tempdir().expect("a folder can be made");
    let parts = fs::read_dir(host.library.cache_folder()).expect("the tests' cache");
    for part in parts.flatten() {
        let linked = folder.path().join(part.file_name());
        symlink(part.path(), linked).expect("a link can be made");
    }
    // Whatever snapshots the tests' own cache has.
    for folder_of_snapshots in ["snapshots", "guests", "forks"] {
        let _ = fs::remove_file(folder.path().join(folder_of_snapshots));
    }
    host.library = Library::open(Some(folder.path())).expect("the cache is one");
    (host, folder)
}

/// What stands ready to make guests of.
pub struct Host {
    /// Cache and settings.
    pub library: Library,
    /// Executes guest code.
    pub backend: Arc<dyn Hypervisor>,
    /// [`USERLAND`], or what was asked for.
    pub image: Image,
}

impl Host {
    /// Opens everything for [`USERLAND`]; the network is not asked.
    pub fn open() -> Result<Self> {
        Self::open_with(USERLAND)
    }

    /// Opens everything for this image.
    pub fn open_with(image: &str) -> Result<Self> {
        let library = Library::open(None)?;
        let backend = open_backend(None, &library)?;
        let nobody_watches: Arc<dyn Progress> = Arc::new(());
        let options = PullOptions {
            policy: PullPolicy::Never,
            ..PullOptions::default()
        };
        let image = library
            .image(image, &options, &nobody_watches)
            .context("the tests' image")?;
        Ok(Self {
            library,
            backend,
            image,
        })
    }

    /// Starts a guest.
    pub fn start(&self, options: &InstanceOptions) -> crumblecracker::Result<Instance> {
        let options = InstanceOptions {
            refresh: crumblecracker::Refresh::Never,
            ..options.clone()
        };
        Instance::start(&self.library, &self.image, self.backend.clone(), &options, &())
    }
}

/// What a command gave.
#[derive(Debug, PartialEq, Eq)]
pub struct Output {
    /// Its status as a shell sees it.
    pub status: u8,
    /// Its standard output.
    pub stdout: String,
    /// Its standard error.
    pub stderr: String,
}

/// A command of these words.
pub fn command(words: &[&str]) -> Command {
    Command {
        arguments: words.iter().map(|word| (*word).to_owned()).collect(),
        ..Command::default()
    }
}

/// Runs a command to its end.
pub fn run(instance: &Instance, command: &Command) -> Result<Output> {
    finish(instance.spawn(command)?, b"")
}

/// Runs a line of bash to its end.
pub fn bash(instance: &Instance, line: &str) -> Result<Output> {
    run(instance, &command(&["bash", "-c", line]))
}

/// What a line of bash says, which must succeed and complain of nothing.
///
/// # Panics
/// Where it does not.
pub fn says(instance: &Instance, line: &str) -> String {
    let output = bash(instance, line).expect("the guest answers");
    assert_eq!(
        (output.status, output.stderr.as_str()),
        (0, ""),
        "{line}: {}",
        output.stdout
    );
    output.stdout
}

/// Feeds a process, reads all it says and waits for it.
pub fn finish(mut process: Process, input: &[u8]) -> Result<Output> {
    let (stdin, stdout, stderr) = (process.stdin.take(), process.stdout.take(), process.stderr.take());
    let read = |output: Option<crumblecracker::session::ProcessOutput>| -> std::io::Result<String> {
        let mut bytes = Vec::new();
        if let Some(mut output) = output {
            output.read_to_end(&mut bytes)?;
        }
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    };
    let (stdout, stderr) = thread::scope(|scope| {
        let feeding = scope.spawn(move || stdin.map(|mut stdin| stdin.write_all(input)));
        let stderr = scope.spawn(|| read(stderr));
        let stdout = read(stdout);
        // A command that does not read its input is no failure.
        let _ = feeding.join();
        (stdout, stderr.join())
    });
    let stderr = stderr.map_err(|_| anyhow::anyhow!("the thread that read standard error panicked"))??;
    Ok(Output {
        status: process.wait()?.code(),
        stdout: stdout?,
        stderr,
    })
}
