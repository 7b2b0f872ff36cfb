//! The images that `cargo xtask test` gives the virtual machines: made on the host, for the lab has no network.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, ensure};

use crate::bench::pull::start_registry;
use crate::lab::packages::run;

/// What all tests share, pulled from Debian's archive.
const USERLAND: &str = "deb:bash,coreutils,mount,perl-base,procps,python3-minimal,util-linux";
/// For the tests that run on this machine alone.
const TOOLS: &str = "deb:trixie/bash,coreutils,diffutils,gcc,gzip,libc6-dev,libpython3.13-testsuite,mount,openssl,perl,\
                         python3.13,sed,util-linux,xz-utils";
/// The static program of the image from the registry.
const BUSYBOX: &str = "/usr/bin/busybox";
/// What that image does unless told otherwise: it tells everything its configuration asks for.
const SCRIPT: &str = "/bin/busybox id -u; pwd; echo $GREETING; echo $0 $*; exit 9";

/// A cache with all images in it. The image from the registry leaves it with this value: its name has a port
/// in it that the next run will not have.
pub(crate) struct Images {
    /// Folder of the cache.
    pub(crate) cache: PathBuf,
    /// Name of the image that was pulled from a registry.
    pub(crate) from_registry: String,
    cc: PathBuf,
}

impl Images {
    /// Pulls what is missing into the cache beside `cc`.
    ///
    /// # Errors
    /// Where an image cannot be built or pulled; `cc` has said why.
    pub(crate) fn prepare(cc: &Path) -> Result<Self> {
        let cache = cc.with_file_name("vm_tests-images");
        pull(cc, &cache, USERLAND)?;
        pull(cc, &cache, TOOLS)?;
        let from_registry = pull_from_registry(cc, &cache)?;
        Ok(Self {
            cache,
            from_registry,
            cc: cc.to_owned(),
        })
    }
}

impl Drop for Images {
    fn drop(&mut self) {
        // An image that stays costs the cache two megabytes and the tests nothing.
        let mut remove = Command::new(&self.cc);
        remove
            .args(["rmi", "--cache-dir"])
            .args([self.cache.as_os_str(), self.from_registry.as_ref()]);
        let _ = run(&mut remove);
    }
}

/// Pulls an image into a cache.
///
/// # Errors
/// Where `cc` fails; it has said why.
pub(crate) fn pull(cc: &Path, cache: &Path, image: &str) -> Result<()> {
    finish(start_pull(cc, cache, &[image])?, image)
}

/// Pulls an image of our own from a registry on loopback, with two programs at once, and gives its name.
fn pull_from_registry(cc: &Path, cache: &Path) -> Result<String> {
    let folder = tempfile::tempdir()?;
    let (_registry, address) = start_registry(folder.path())?;
    let image = format!("{address}/app:latest");
    let layout = format!("{}:app", folder.path().join("layout").display());
    build(folder.path(), &layout)?;
    run(Command::new("skopeo")
        .args(["--insecure-policy", "copy", "--quiet", "--dest-tls-verify=false"])
        .args([format!("oci:{layout}"), format!("docker://{image}")]))?;

    let words = ["--insecure-registry", &address, &image];
    let at_once = [start_pull(cc, cache, &words)?, start_pull(cc, cache, &words)?];
    // Both are waited for before either is judged, so that none is left behind.
    let results = at_once.map(|child| finish(child, &image));
    results.into_iter().collect::<Result<()>>()?;
    Ok(image)
}

/// Builds an image of one static program, with a user, a folder, a variable and a command of its own.
fn build(folder: &Path, layout: &str) -> Result<()> {
    let root = folder.join("root");
    fs::create_dir_all(root.join("bin"))?;
    fs::create_dir_all(root.join("etc"))?;
    fs::create_dir_all(root.join("srv/app"))?;
    fs::copy(BUSYBOX, root.join("bin/busybox")).with_context(|| format!("copying {BUSYBOX}"))?;
    symlink("busybox", root.join("bin/sh"))?;
    fs::write(
        root.join("etc/passwd"),
        "root:x:0:0::/:/bin/sh\napp:x:1234:1234::/srv/app:/bin/sh\n",
    )?;
    fs::write(root.join("etc/group"), "root:x:0:\napp:x:1234:\n")?;

    run(Command::new("umoci")
        .arg("init")
        .arg("--layout")
        .arg(folder.join("layout")))?;
    run(Command::new("umoci").args(["new", "--image", layout]))?;
    run(Command::new("umoci")
        .args(["insert", "--image", layout])
        .arg(&root)
        .arg("/"))?;
    let mut configure = Command::new("umoci");
    configure.args(["config", "--image", layout]);
    configure.args(["--config.user=app", "--config.workingdir=/srv/app"]);
    configure.arg("--config.env=GREETING=hello");
    for word in ["/bin/sh", "-c", SCRIPT, "app"] {
        configure.arg(format!("--config.entrypoint={word}"));
    }
    configure.args(["--config.cmd=from", "--config.cmd=cmd"]);
    run(&mut configure)
}

fn start_pull(cc: &Path, cache: &Path, words: &[&str]) -> Result<Child> {
    let mut command = Command::new(cc);
    command.args(["pull", "--cache-dir"]).arg(cache).args(words);
    let child = command.stdin(Stdio::null()).spawn();
    child.context("cc could not be started")
}

fn finish(mut pull: Child, image: &str) -> Result<()> {
    ensure!(pull.wait()?.success(), "cc could not pull {image}");
    Ok(())
}
