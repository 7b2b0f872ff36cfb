//! `cargo xtask bench pull`: an image of 500 MiB from a registry on loopback, pulled and indexed by `cc`,
//! copied to an OCI layout by skopeo.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::{Row, row};
use crate::lab::packages::{self, Package, run};
use crate::process::{Process, mortal};
use crate::workspace;

const PACKAGES: &[Package] = &[
    Package {
        name: "docker-registry",
        why: "the registry on loopback",
    },
    Package {
        name: "skopeo",
        why: "the peer, and fills the registry",
    },
    Package {
        name: "umoci",
        why: "builds the image",
    },
];
const LAYERS: u32 = 5;
/// Files of 1 MiB in each layer, half of them random, half of them text.
const FILES: u32 = 100;
const FILE_SIZE: u64 = 1 << 20;
const PEER: &str = "skopeo copy";

/// The call of `cc` that pulls `image` from a plain HTTP registry into a cache of its own.
fn ours(cc: &Path, image: &str, cache: &Path) -> Command {
    let registry = image.split('/').next().unwrap_or_default();
    let mut command = Command::new(cc);
    command
        .args([
            "pull",
            "--no-kernel",
            "--insecure-registry",
            registry,
            "--cache-dir",
        ])
        .arg(cache)
        .arg(image);
    command
}

fn peer(image: &str, layout: &Path) -> Command {
    let mut command = Command::new("skopeo");
    command.args(["--insecure-policy", "copy", "--quiet", "--src-tls-verify=false"]);
    command.args([
        format!("docker://{image}"),
        format!("oci:{}:bench", layout.display()),
    ]);
    command
}

/// Measures `runs` pulls of each side, turn by turn, each into an empty folder.
///
/// # Errors
/// Where something cannot be built, or a pull fails.
pub(super) fn measure(runs: u32) -> Result<Vec<Row>> {
    packages::ensure(PACKAGES)?;
    let cc = workspace::cc(true)?;
    let folder = tempfile::tempdir()?;
    let folder = folder.path();
    let (_registry, address) = start_registry(folder)?;
    let image = format!("{address}/bench:latest");
    eprintln!("building an image of {} MiB", LAYERS * FILES);
    let layout = folder.join("layout");
    build_image(&layout, &folder.join("layer"))?;
    run(Command::new("skopeo")
        .args(["--insecure-policy", "copy", "--quiet", "--dest-tls-verify=false"])
        .args([
            format!("oci:{}:bench", layout.display()),
            format!("docker://{image}"),
        ]))?;
    fs::remove_dir_all(&layout)?;

    let (mut our_times, mut peer_times) = (Vec::new(), Vec::new());
    for run in 1..=runs {
        let target = folder.join("peer");
        peer_times.push(time(peer(&image, &target), &target)?);
        let target = folder.join("ours");
        our_times.push(time(ours(&cc, &image, &target), &target)?);
        eprintln!("run {run} of {runs} is done");
    }
    Ok(vec![row(
        "pull of 500 MiB from loopback",
        "s",
        &our_times,
        PEER,
        &peer_times,
    )])
}

/// Runs one pull and removes what it left in `target`.
fn time(mut command: Command, target: &Path) -> Result<f64> {
    let start = Instant::now();
    run(&mut command)?;
    let seconds = start.elapsed().as_secs_f64();
    fs::remove_dir_all(target).with_context(|| format!("{} is not there", target.display()))?;
    // What this side left to be written back must not slow the other.
    run(&mut Command::new("sync"))?;
    Ok(seconds)
}

fn build_image(layout: &Path, layer: &Path) -> Result<()> {
    let image = format!("{}:bench", layout.display());
    run(Command::new("umoci").arg("init").arg("--layout").arg(layout))?;
    run(Command::new("umoci").args(["new", "--image", &image]))?;
    for number in 0..LAYERS {
        fs::create_dir(layer)?;
        for file in 0..FILES / 2 {
            let mut random = File::open("/dev/urandom")?.take(FILE_SIZE);
            io::copy(
                &mut random,
                &mut File::create(layer.join(format!("random-{file}")))?,
            )?;
            let mut text = String::new();
            for line in 0.. {
                if text.len() as u64 >= FILE_SIZE {
                    break;
                }
                text += &format!("layer {number}, file {file}, line {line} of a text that packs well\n");
            }
            text.truncate(FILE_SIZE as usize);
            File::create(layer.join(format!("text-{file}")))?.write_all(text.as_bytes())?;
        }
        let place = format!("/layer-{number}");
        run(Command::new("umoci")
            .args(["insert", "--image", &image])
            .arg(layer)
            .arg(place))?;
        fs::remove_dir_all(layer)?;
    }
    Ok(())
}

/// Starts a registry that keeps its blobs in `folder`; gives its address once it answers.
pub(crate) fn start_registry(folder: &Path) -> Result<(Process, String)> {
    // A free port, unless somebody takes it in this very moment: then the registry says so and ends.
    let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?.to_string();
    let configuration = folder.join("registry.yml");
    let blobs = folder.join("registry");
    let text = format!(
        "version: 0.1\nlog:\n  level: error\nstorage:\n  filesystem:\n    rootdirectory: {}\nhttp:\n  addr: {address}\n",
        blobs.display()
    );
    fs::write(&configuration, text)?;
    let registry = mortal("docker-registry")
        .arg("serve")
        .arg(&configuration)
        .stderr(Stdio::null())
        .spawn();
    let mut registry = Process(registry.context("docker-registry could not be started")?);
    for _ in 0..500 {
        if TcpStream::connect(&address).is_ok() {
            return Ok((registry, address));
        }
        if let Some(status) = registry.0.try_wait()? {
            bail!("docker-registry ended: {status}");
        }
        thread::sleep(Duration::from_millis(20));
    }
    bail!("docker-registry did not answer on {address} within 10 s")
}
