//! The processes of one lab boot: QEMU, and virtiofsd that gives it the host's files.
//!
//! Both die with this program, however it ends.

use std::collections::VecDeque;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::{LabCommand, Output};
use crate::process::{Process, mortal};

const VIRTIOFSD: &str = "/usr/lib/qemu/virtiofsd";
/// Lines of the console that an error shows.
const CONSOLE_TAIL: usize = 20;
/// QEMU's ends of the sockets: the console, then the virtio-serial ports 1, 2 and 3.
const STREAMS: [&str; 4] = ["console", "control", "stdout", "stderr"];

/// What the lab did, as it happens.
pub(super) enum Event {
    /// The console said something.
    Progress,
    /// The init scripts said this on the control port.
    Control(String),
    /// The control port closed: QEMU has ended.
    Ended,
}

/// A running lab.
pub(super) struct Qemu {
    qemu: Process,
    virtiofsd: Process,
    folder: RunFolder,
    /// Events in the order they happened.
    pub(super) events: Receiver<Event>,
    console: Arc<Mutex<VecDeque<String>>>,
    stdout: JoinHandle<Vec<u8>>,
    stderr: JoinHandle<Vec<u8>>,
}

impl Qemu {
    /// Starts a lab on `kernel` (a bzImage) with `initramfs` (a cpio archive).
    ///
    /// # Errors
    /// Where a process cannot be started or QEMU ends at once; the message has its last words.
    pub(super) fn start(command: &LabCommand, kernel: &Path, initramfs: &[u8]) -> Result<Self> {
        let folder = RunFolder::create()?;
        fs::write(folder.file("initramfs"), initramfs).context("writing the lab's initramfs")?;
        let mut listeners = Vec::new();
        for name in STREAMS {
            let listener = UnixListener::bind(folder.file(name))?;
            listener.set_nonblocking(true)?;
            listeners.push(listener);
        }
        let virtiofsd = start_virtiofsd(&folder)?;
        let qemu = qemu_command(command, kernel, &folder)?.spawn();
        let mut qemu = Process(qemu.context("qemu-system-x86_64 could not be started")?);
        let [console_stream, control, stdout, stderr] = accept_all(&listeners, &mut qemu, &folder)?;
        let (sender, events) = channel();
        let console = Arc::default();
        watch_console(console_stream, Arc::clone(&console), sender.clone());
        watch_control(control, sender);
        let output = command.output;
        let stdout = thread::spawn(move || copy(stdout, std::io::stdout(), output));
        let stderr = thread::spawn(move || copy(stderr, std::io::stderr(), output));
        Ok(Self {
            qemu,
            virtiofsd,
            folder,
            events,
            console,
            stdout,
            stderr,
        })
    }

    /// The last lines of the console, indented.
    pub(super) fn console_tail(&self) -> String {
        let lines = self
            .console
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner());
        lines.iter().map(|line| format!("  | {line}\n")).collect()
    }

    /// Ends the processes and gives what was captured of standard output.
    pub(super) fn end(self) -> Vec<u8> {
        drop(self.qemu);
        drop(self.virtiofsd);
        drop(self.folder);
        // The streams end with QEMU: what was written is passed on before this returns.
        let _ = self.stderr.join();
        self.stdout.join().unwrap_or_default()
    }
}

fn start_virtiofsd(folder: &RunFolder) -> Result<Process> {
    let socket = folder.file("virtiofsd");
    let child = mortal(VIRTIOFSD)
        .arg(format!("--socket-path={}", socket.display()))
        // The lab runs the workspace's own programs: the sandbox need not hold, and the stronger
        // `namespace` cannot pivot where the host's root is an initramfs.
        .args(["-o", "source=/", "-o", "sandbox=chroot"])
        // Emulated round trips are dear: what the host changes while a lab runs may not be seen.
        .args(["-o", "cache=always"])
        .stderr(File::create(folder.file("virtiofsd.log"))?)
        .spawn();
    let mut child = Process(child.context("virtiofsd could not be started")?);
    for _ in 0..500 {
        if socket.exists() {
            return Ok(child);
        }
        if let Some(status) = child.0.try_wait()? {
            bail!("virtiofsd ended ({status}): {}", folder.read("virtiofsd.log"));
        }
        thread::sleep(Duration::from_millis(10));
    }
    bail!(
        "virtiofsd did not listen within 5 s: {}",
        folder.read("virtiofsd.log")
    )
}

fn qemu_command(command: &LabCommand, kernel: &Path, folder: &RunFolder) -> Result<Command> {
    let memory = command.memory_mib;
    let mut qemu = mortal("qemu-system-x86_64");
    qemu.args(["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"])
        // Emulated SVM: `max` has it, so a stock kvm-amd finds what it needs. Without these two flags kernels clear and
        // copy pages by eight bytes at a time, each of which is emulated, and not by one.
        .args([
            "-M",
            "q35",
            "-accel",
            "tcg,thread=multi",
            "-cpu",
            "max,-erms,-fsrm",
        ])
        .args(["-m", &memory.to_string(), "-smp", &command.cpus.to_string()])
        .args([
            "-object",
            &format!("memory-backend-memfd,id=ram,size={memory}M,share=on"),
        ])
        .args(["-numa", "node,memdev=ram"]);
    for name in STREAMS {
        let path = folder.file(name);
        qemu.args(["-chardev", &format!("socket,id={name},path={}", path.display())]);
    }
    qemu.args(["-serial", "chardev:console", "-device", "virtio-serial-pci"]);
    for (number, name) in (1..).zip(&STREAMS[1..]) {
        qemu.args(["-device", &format!("virtserialport,nr={number},chardev={name}")]);
    }
    qemu.args([
        "-chardev",
        &format!("socket,id=files,path={}", folder.file("virtiofsd").display()),
    ])
    .args([
        "-device",
        "vhost-user-fs-pci,chardev=files,tag=host,queue-size=1024",
    ])
    .arg("-kernel")
    .arg(kernel)
    .arg("-initrd")
    .arg(folder.file("initramfs"))
    // A program at another address each time would be translated anew each time.
    .args([
        "-append",
        "console=ttyS0 panic=-1 reboot=t mitigations=off norandmaps",
    ])
    .stderr(File::create(folder.file("qemu.log"))?);
    Ok(qemu)
}

/// Waits for QEMU to connect to every socket, which it does before it starts the machine.
fn accept_all(listeners: &[UnixListener], qemu: &mut Process, folder: &RunFolder) -> Result<[UnixStream; 4]> {
    let mut streams = Vec::new();
    for listener in listeners {
        loop {
            match listener.accept() {
                Ok((stream, _)) => {
                    stream.set_nonblocking(false)?;
                    streams.push(stream);
                    break;
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) => return Err(error).context("waiting for QEMU"),
            }
            if let Some(status) = qemu.0.try_wait()? {
                bail!("qemu-system-x86_64 ended ({status}): {}", folder.read("qemu.log"));
            }
            thread::sleep(Duration::from_millis(5));
        }
    }
    streams
        .try_into()
        .map_err(|_| anyhow::anyhow!("QEMU has another number of streams"))
}

fn watch_console(stream: UnixStream, lines: Arc<Mutex<VecDeque<String>>>, sender: Sender<Event>) {
    thread::spawn(move || {
        for line in BufReader::new(stream).split(b'\n').map_while(Result::ok) {
            let line = String::from_utf8_lossy(&line).trim_end().to_owned();
            let mut lines = lines.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
            if lines.len() == CONSOLE_TAIL {
                lines.pop_front();
            }
            lines.push_back(line);
            drop(lines);
            // Nobody listens any more where the lab is over.
            let _ = sender.send(Event::Progress);
        }
    });
}

fn watch_control(stream: UnixStream, sender: Sender<Event>) {
    thread::spawn(move || {
        for line in BufReader::new(stream).lines().map_while(Result::ok) {
            let _ = sender.send(Event::Control(line));
        }
        let _ = sender.send(Event::Ended);
    });
}

/// Copies until the end of `from`; gives what is to be captured.
fn copy(mut from: UnixStream, mut to: impl Write, output: Output) -> Vec<u8> {
    let mut captured = Vec::new();
    let mut buffer = vec![0; 64 << 10];
    while let Ok(count @ 1..) = from.read(&mut buffer) {
        if output != Output::Capture {
            // A closed terminal must not stop the lab: the port is drained all the same.
            let _ = to.write_all(&buffer[..count]).and_then(|()| to.flush());
        }
        if output != Output::Stream {
            captured.extend_from_slice(&buffer[..count]);
        }
    }
    captured
}

/// A folder for the sockets of one boot, short enough for `sun_path`, removed at the end.
struct RunFolder(PathBuf);

impl RunFolder {
    fn create() -> Result<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let parent = std::env::temp_dir();
        sweep(&parent);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let folder = parent.join(format!("{RUN_PREFIX}{}-{number}", std::process::id()));
        fs::create_dir(&folder).with_context(|| format!("creating {}", folder.display()))?;
        Ok(Self(folder))
    }

    fn file(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.file(name))
            .unwrap_or_default()
            .trim()
            .to_owned()
    }
}

impl Drop for RunFolder {
    fn drop(&mut self) {
        // What cannot be removed now is swept by a later run.
        let _ = fs::remove_dir_all(&self.0);
    }
}

const RUN_PREFIX: &str = "xtask-lab-";

/// Removes what killed runs left behind: folders named after processes that are no more.
fn sweep(parent: &Path) {
    let entries = fs::read_dir(parent).into_iter().flatten().flatten();
    for entry in entries {
        let name = entry.file_name();
        let Some(process) = name.to_str().and_then(|name| name.strip_prefix(RUN_PREFIX)) else {
            continue;
        };
        let process = process.split('-').next().unwrap_or_default();
        if process.parse::<u32>().is_ok() && !Path::new("/proc").join(process).exists() {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}
