//! What the tests against other people's tools share: the tools, a registry of Debian's, and images.

#![allow(
    dead_code,
    unreachable_pub,
    reason = "every test program includes this and uses its own part"
)]

pub mod compare;
pub mod proxy;

use std::fs;
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Once;
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// Programs the tests need and the Debian packages they are in.
const TOOLS: [(&str, &str); 7] = [
    ("docker-registry", "docker-registry"),
    ("umoci", "umoci"),
    ("skopeo", "skopeo"),
    ("htpasswd", "apache2-utils"),
    ("setfattr", "attr"),
    ("zstd", "zstd"),
    ("mkfs.ext4", "e2fsprogs"),
];

/// Installs what is missing, or fails with its name.
pub fn need_tools() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let missing = |(program, _): &&(&str, &str)| {
            let path = std::env::var_os("PATH").unwrap_or_default();
            !std::env::split_paths(&path).any(|folder| folder.join(program).is_file())
        };
        let packages: Vec<&str> = TOOLS
            .iter()
            .filter(missing)
            .map(|(_, package)| *package)
            .collect();
        if packages.is_empty() {
            return;
        }
        let mut install = Command::new("apt-get");
        install
            .args(["install", "-y", "--no-install-recommends"])
            .args(&packages);
        let status = install
            .env("DEBIAN_FRONTEND", "noninteractive")
            .stdout(Stdio::null())
            .status();
        let installed = status.is_ok_and(|status| status.success());
        assert!(
            installed,
            "these tests need the Debian packages {packages:?}; as root they install them"
        );
    });
}

/// Runs a program and fails with what it said unless it succeeds.
pub fn run(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {arguments:?}: {errors}");
    String::from_utf8(output.stdout).unwrap()
}

/// Runs a shell script in a folder.
pub fn shell(folder: &Path, script: &str) {
    let output = Command::new("sh")
        .args(["-euc", script])
        .current_dir(folder)
        .output()
        .unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{script}: {errors}");
}

/// Debian's registry on a port of the loopback; it ends with the value.
pub struct Registry {
    process: Child,
    /// `127.0.0.1:PORT`.
    pub host: String,
    /// Its storage.
    pub storage: PathBuf,
    _folder: TempDir,
}

impl Registry {
    /// Starts one, with user `user` and password `secret` or for everybody.
    pub fn start(with_password: bool) -> Registry {
        need_tools();
        let folder = tempfile::tempdir().unwrap();
        let storage = folder.path().join("storage");
        let port = TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap()
            .port();
        let host = format!("127.0.0.1:{port}");
        let mut config = format!(
            "version: 0.1\nlog: {{level: error, accesslog: {{disabled: true}}}}\n\
             storage: {{filesystem: {{rootdirectory: {}}}}}\nhttp: {{addr: \"{host}\"}}\n",
            storage.display()
        );
        if with_password {
            let file = folder.path().join("htpasswd");
            fs::write(&file, run("htpasswd", &["-nbB", "user", "secret"])).unwrap();
            config += &format!("auth: {{htpasswd: {{realm: test, path: {}}}}}\n", file.display());
        }
        let file = folder.path().join("config.yml");
        fs::write(&file, config).unwrap();
        let mut serve = Command::new("docker-registry");
        serve
            .arg("serve")
            .arg(&file)
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let process = serve.spawn().unwrap();
        let registry = Registry {
            process,
            host,
            storage,
            _folder: folder,
        };
        registry.wait_until_up();
        registry
    }

    fn wait_until_up(&self) {
        let start = Instant::now();
        while TcpStream::connect(&self.host).is_err() {
            assert!(
                start.elapsed() < Duration::from_secs(30),
                "docker-registry does not come up"
            );
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Copies an image of a layout into the registry and tells its name there.
    pub fn push(&self, layout: &Layout, tag: &str, options: &[&str]) -> String {
        let name = format!("{}/test/image:{tag}", self.host);
        let (from, to) = (
            format!("oci:{}:{tag}", layout.path().display()),
            format!("docker://{name}"),
        );
        let fixed = ["copy", "-q", "--dest-tls-verify=false"];
        run("skopeo", &[&fixed[..], options, &[&from, &to]].concat());
        name
    }

    /// The file in which the registry keeps a blob.
    pub fn blob_file(&self, digest: &str) -> PathBuf {
        let hex = digest.strip_prefix("sha256:").unwrap();
        self.storage
            .join("docker/registry/v2/blobs/sha256")
            .join(&hex[..2])
            .join(hex)
            .join("data")
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// An image layout made by umoci.
pub struct Layout {
    folder: TempDir,
}

impl Layout {
    /// An empty one.
    pub fn new() -> Layout {
        need_tools();
        let folder = tempfile::tempdir().unwrap();
        run(
            "umoci",
            &[
                "init",
                "--layout",
                &folder.path().join("layout").display().to_string(),
            ],
        );
        Layout { folder }
    }

    pub fn path(&self) -> PathBuf {
        self.folder.path().join("layout")
    }

    /// The text of an image here as a source.
    pub fn source(&self, tag: &str) -> String {
        format!("oci:{}:{tag}", self.path().display())
    }

    /// The image as umoci takes it.
    pub fn image(&self, tag: &str) -> String {
        format!("{}:{tag}", self.path().display())
    }

    /// Makes an image of no layers.
    pub fn create(&self, tag: &str) {
        run("umoci", &["new", "--image", &self.image(tag)]);
    }

    /// Adds a layer: what a script puts into an empty folder, archived by GNU tar with these options.
    pub fn add_layer(&self, tag: &str, tar_options: &[&str], script: &str) {
        let work = tempfile::tempdir_in(self.folder.path()).unwrap();
        let root = work.path().join("root");
        fs::create_dir(&root).unwrap();
        shell(&root, script);
        let (file, root) = (
            work.path().join("layer.tar").display().to_string(),
            root.display().to_string(),
        );
        let fixed = ["-C", &root, "--sort=name", "--numeric-owner", "-cf", &file];
        run("tar", &[&fixed[..], tar_options, &["."]].concat());
        self.add_tar(tag, Path::new(&file));
    }

    /// Adds an archive as a layer.
    pub fn add_tar(&self, tag: &str, file: &Path) {
        run(
            "umoci",
            &[
                "raw",
                "add-layer",
                "--image",
                &self.image(tag),
                &file.display().to_string(),
            ],
        );
    }

    /// Sets configuration values, as `umoci config` takes them.
    pub fn configure(&self, tag: &str, options: &[&str]) {
        let image = self.image(tag);
        run("umoci", &[&["config", "--image", &image][..], options].concat());
    }

    /// Unpacks an image with umoci and tells where its root is.
    pub fn unpack(&self, tag: &str) -> PathBuf {
        let bundle = self.folder.path().join(format!("bundle-{tag}"));
        run(
            "umoci",
            &[
                "unpack",
                "--image",
                &self.image(tag),
                &bundle.display().to_string(),
            ],
        );
        bundle.join("rootfs")
    }

    /// The manifest of an image.
    pub fn manifest(&self, tag: &str) -> serde_json::Value {
        let raw = run("skopeo", &["inspect", "--raw", &self.source(tag)]);
        serde_json::from_str(&raw).unwrap()
    }

    /// Digest of an image's layer as it travels.
    pub fn layer_digest(&self, tag: &str, layer: usize) -> String {
        self.manifest(tag)["layers"][layer]["digest"]
            .as_str()
            .unwrap()
            .to_owned()
    }
}

/// A file system on a folder, which is made; it is unmounted with the value.
pub struct Disk {
    path: PathBuf,
}

impl Disk {
    /// In memory, of this size.
    pub fn tmpfs(path: &Path, size: &str) -> Disk {
        let options = format!("size={size}");
        Disk::mount(path, &["-t", "tmpfs", "-o", &options, "none"])
    }

    /// In memory, without direct writes.
    pub fn ramfs(path: &Path) -> Disk {
        Disk::mount(path, &["-t", "ramfs", "none"])
    }

    /// In a file beside the folder, with direct writes.
    pub fn ext4(path: &Path, size: &str) -> Disk {
        let file = path.with_extension("ext4").display().to_string();
        run("truncate", &["-s", size, &file]);
        run("mkfs.ext4", &["-q", &file]);
        Disk::mount(path, &["-o", "loop", &file])
    }

    /// An overlay whose own files are on this disk.
    pub fn overlay(&self, path: &Path) -> Disk {
        let folder = |name| {
            let folder = self.path.join(name);
            fs::create_dir(&folder).unwrap();
            folder.display().to_string()
        };
        let (lower, upper, work) = (folder("lower"), folder("upper"), folder("work"));
        let options = format!("lowerdir={lower},upperdir={upper},workdir={work}");
        Disk::mount(path, &["-t", "overlay", "-o", &options, "none"])
    }

    fn mount(path: &Path, arguments: &[&str]) -> Disk {
        fs::create_dir_all(path).unwrap();
        run("mount", &[arguments, &[&path.display().to_string()]].concat());
        Disk {
            path: path.to_owned(),
        }
    }

    /// Takes so much of its room, until the file that is given is removed.
    pub fn fill(&self, size: &str) -> PathBuf {
        let file = self.path.join("ballast");
        run("fallocate", &["-l", size, &file.display().to_string()]);
        file
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // What stays mounted goes with the machine.
        let _ = Command::new("umount").arg(&self.path).status();
    }
}
