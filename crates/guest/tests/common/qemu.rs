//! Debian's kernel under Debian's QEMU, for tests of the guest program as the PID 1 it is meant to be.
#![allow(
    dead_code,
    unreachable_pub,
    reason = "each test file includes this and uses its part"
)]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use guest::{Arch, InitramfsSpec, Module};

use super::Guest;

const QEMU: &str = "qemu-system-x86_64";
const VIRTIOFSD: &str = "/usr/lib/qemu/virtiofsd";
/// How long a boot may take to say Hello before it counts as hanging; it takes a few seconds.
const BOOT_PATIENCE: Duration = Duration::from_secs(40);
/// Emulated boots hang now and then whatever runs in them, so one is tried again at most so often.
const BOOT_RETRIES: u32 = 2;

/// The modules the control channel and virtio-fs need in Debian 12's kernel, in the order of their
/// dependencies.
const MODULES: [(&str, &str); 8] = [
    ("drivers/virtio", "virtio_ring.ko"),
    ("drivers/virtio", "virtio.ko"),
    ("drivers/virtio", "virtio_pci_legacy_dev.ko"),
    ("drivers/virtio", "virtio_pci_modern_dev.ko"),
    ("drivers/virtio", "virtio_pci.ko"),
    ("drivers/char", "virtio_console.ko"),
    ("fs/fuse", "fuse.ko"),
    ("fs/fuse", "virtiofs.ko"),
];

/// A machine that has said Hello. Its processes end with it.
pub struct Machine {
    pub guest: Option<Guest>,
    pub directory: tempfile::TempDir,
    qemu: Child,
    file_servers: Vec<Child>,
}

impl Machine {
    /// Boots with a virtio-fs share for each tag and directory.
    pub fn boot(shares: &[(&str, &Path)]) -> Self {
        install_missing();
        let kernel = debian_kernel();
        for attempt in 0..=BOOT_RETRIES {
            if let Some(machine) = Self::try_boot(&kernel, shares) {
                return machine;
            }
            eprintln!(
                "boot {} of at most {} hung and was ended",
                attempt + 1,
                BOOT_RETRIES + 1
            );
        }
        panic!("every boot hung");
    }

    fn try_boot(kernel: &Path, shares: &[(&str, &Path)]) -> Option<Self> {
        let directory = tempfile::tempdir().unwrap();
        let initrd = directory.path().join("initrd");
        fs::write(&initrd, guest::initramfs(&initramfs_spec(kernel)).unwrap()).unwrap();
        let mut file_servers = Vec::new();
        let mut command = Command::new(QEMU);
        command
            .args([
                "-M", "q35", "-accel", "tcg", "-cpu", "max", "-m", "512M", "-smp", "1",
            ])
            // The file servers read and write the guest's memory.
            .args(["-object", "memory-backend-memfd,id=memory,size=512M,share=on"])
            .args(["-numa", "node,memdev=memory"])
            .args([
                "-display",
                "none",
                "-no-reboot",
                "-nodefaults",
                "-monitor",
                "none",
            ])
            .args(["-device", "virtio-serial-pci", "-device"])
            .arg("virtserialport,chardev=control,name=crumblecracker.control")
            .args(["-append", "console=ttyS0 panic=-1 random.trust_cpu=on"]);
        command
            .arg("-serial")
            .arg(in_directory("file:", &directory, "console", ""));
        command.arg("-chardev").arg(in_directory(
            "socket,id=control,path=",
            &directory,
            "control",
            ",server=on",
        ));
        command
            .arg("-kernel")
            .arg(boot_file(kernel))
            .arg("-initrd")
            .arg(&initrd);
        for (n, (tag, source)) in shares.iter().enumerate() {
            let socket = directory.path().join(format!("fs{n}"));
            file_servers.push(serve_files(&socket, source));
            command
                .arg("-chardev")
                .arg(format!("socket,id=fs{n},path={}", socket.display()));
            command
                .arg("-device")
                .arg(format!("vhost-user-fs-pci,chardev=fs{n},tag={tag}"));
        }
        let qemu = command.stdin(Stdio::null()).spawn().expect("QEMU starts");
        let mut machine = Self {
            guest: None,
            directory,
            qemu,
            file_servers,
        };
        let socket = connect(&machine.directory.path().join("control"));
        machine.guest = Guest::connect(socket, None, BOOT_PATIENCE);
        // Trouble of the program's own is its failure, not an emulator's hang.
        assert!(
            !machine.console().contains("crumblecracker: cannot"),
            "the program could not prepare the guest"
        );
        machine.guest.is_some().then_some(machine)
    }

    pub fn guest(&mut self) -> &mut Guest {
        self.guest.as_mut().expect("a booted machine")
    }

    pub fn console(&self) -> String {
        let bytes = fs::read(self.directory.path().join("console")).unwrap();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// Shuts the guest down and waits for QEMU to end by itself: whether it did, and cleanly.
    pub fn shut_down(mut self) -> bool {
        self.guest.take().unwrap().shut_down(0);
        let deadline = Instant::now() + BOOT_PATIENCE;
        while Instant::now() < deadline {
            if let Some(status) = self.qemu.try_wait().unwrap() {
                return status.success();
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        false
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        if std::thread::panicking() || self.guest.is_none() {
            eprintln!("the machine's console:\n{}", self.console());
        }
        for child in std::iter::once(&mut self.qemu).chain(&mut self.file_servers) {
            // Either may fail only because it has ended already.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn in_directory(before: &str, directory: &tempfile::TempDir, name: &str, after: &str) -> String {
    format!("{before}{}{after}", directory.path().join(name).display())
}

/// QEMU makes the socket when it starts, and boots once somebody is connected.
fn connect(path: &Path) -> UnixStream {
    let deadline = Instant::now() + BOOT_PATIENCE;
    loop {
        match UnixStream::connect(path) {
            Ok(socket) => return socket,
            Err(error) => assert!(Instant::now() < deadline, "QEMU makes no control socket: {error}"),
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn serve_files(socket: &Path, source: &Path) -> Child {
    let child = Command::new(VIRTIOFSD)
        .arg(format!("--socket-path={}", socket.display()))
        .args([
            "-o",
            &format!("source={}", source.display()),
            "-o",
            "sandbox=chroot",
            "-o",
            "cache=none",
        ])
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("virtiofsd starts");
    let deadline = Instant::now() + BOOT_PATIENCE;
    while !socket.exists() {
        assert!(
            Instant::now() < deadline,
            "virtiofsd makes no socket (it needs root)"
        );
        std::thread::sleep(Duration::from_millis(5));
    }
    child
}

fn initramfs_spec(kernel: &Path) -> InitramfsSpec {
    let release = only_entry(&kernel.join("lib/modules"));
    let modules = MODULES
        .iter()
        .map(|(directory, name)| {
            let path = release.join("kernel").join(directory).join(name);
            let bytes = fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
            Module {
                name: (*name).to_owned(),
                bytes,
            }
        })
        .collect();
    InitramfsSpec {
        arch: Arch::Amd64,
        modules,
    }
}

fn only_entry(directory: &Path) -> PathBuf {
    fs::read_dir(directory).unwrap().next().unwrap().unwrap().path()
}

fn boot_file(kernel: &Path) -> PathBuf {
    fs::read_dir(kernel.join("boot"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .find(|path| {
            path.file_name()
                .is_some_and(|name| name.to_string_lossy().starts_with("vmlinuz"))
        })
        .expect("a kernel in the kernel package")
}

/// A root directory with busybox, under the names of a few commands, and the libraries it needs.
pub fn busybox_root() -> tempfile::TempDir {
    install_missing();
    let root = tempfile::tempdir().unwrap();
    fs::set_permissions(root.path(), fs::Permissions::from_mode(0o755)).unwrap();
    fs::create_dir(root.path().join("bin")).unwrap();
    let busybox = root.path().join("bin/busybox");
    fs::copy("/bin/busybox", &busybox).unwrap();
    // ldd(1) says "not a dynamic executable", and fails, for the static busybox.
    let libraries = Command::new("ldd").arg(&busybox).output().unwrap();
    for library in String::from_utf8_lossy(&libraries.stdout).split_whitespace() {
        if let Some(relative) = library.strip_prefix('/') {
            let copy = root.path().join(relative);
            fs::create_dir_all(copy.parent().unwrap()).unwrap();
            fs::copy(library, copy).unwrap();
        }
    }
    for name in [
        "sh", "cat", "ls", "hostname", "date", "id", "ip", "touch", "mount", "stty", "sleep", "stat",
    ] {
        std::os::unix::fs::symlink("busybox", root.path().join("bin").join(name)).unwrap();
    }
    root
}

/// Installs what these tests need from Debian, or fails naming it.
fn install_missing() {
    let needed = [
        (Path::new("/usr/bin").join(QEMU), "qemu-system-x86"),
        (PathBuf::from(VIRTIOFSD), "qemu-system-common"),
        (PathBuf::from("/bin/busybox"), "busybox"),
    ];
    let missing: Vec<&str> = needed
        .iter()
        .filter(|(path, _)| !path.exists())
        .map(|(_, package)| *package)
        .collect();
    if missing.is_empty() {
        return;
    }
    let output = Command::new("apt-get")
        .args(["install", "-y", "--no-install-recommends"])
        .args(&missing)
        .env("DEBIAN_FRONTEND", "noninteractive")
        .output();
    let installed = output.is_ok_and(|output| output.status.success());
    assert!(
        installed,
        "install these Debian packages, as root: {}",
        missing.join(" ")
    );
}

/// The directory of Debian's unpacked cloud kernel package, fetched once from the machine's own archive.
fn debian_kernel() -> PathBuf {
    let kept = Path::new(env!("CARGO_TARGET_TMPDIR")).join("debian-cloud-kernel");
    if kept.is_dir() {
        return kept;
    }
    let staging = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let depends = checked(Command::new("apt-cache").args(["depends", "linux-image-cloud-amd64"]));
    let depends = String::from_utf8_lossy(&depends.stdout).into_owned();
    let package = depends
        .lines()
        .find_map(|line| line.trim().strip_prefix("Depends: "))
        .expect("the Debian package linux-image-cloud-amd64 in apt's lists (apt-get update)");
    checked(
        Command::new("apt-get")
            .args(["download", package])
            .current_dir(staging.path()),
    );
    let archive = only_entry(staging.path());
    let unpacked = staging.path().join("unpacked");
    checked(Command::new("dpkg-deb").arg("-x").arg(&archive).arg(&unpacked));
    // Another test may have been faster; its copy is as good.
    if let Err(error) = fs::rename(&unpacked, &kept) {
        assert!(kept.is_dir(), "{}: {error}", kept.display());
    }
    kept
}

fn checked(command: &mut Command) -> Output {
    let output = command
        .output()
        .unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(
        output.status.success(),
        "{command:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    output
}
