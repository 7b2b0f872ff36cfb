//! Guests without a machine.

use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::process::{Child, Command};
use std::sync::{Arc, Weak};
use std::thread;
use std::time::Duration;

use device_backends::{ByteStream, DeviceEnd, HostEnd, byte_pipe};
use guest_protocol::{Arch, Configure, Decoder, Frame, Hello, ToGuest, ToHost, wire};

use crate::fs::Fs;
use crate::session::Session;

/// How long anything may take before a test fails; far beyond what it takes.
const PATIENCE: Duration = Duration::from_secs(60);

/// How long a thread rests that nobody wakes.
const IDLE: Duration = Duration::from_millis(20);

/// The guest program in a container of its own, which sees the files of this machine.
pub(super) struct Container {
    pub(super) fs: Fs,
    child: Child,
}

impl Container {
    pub(super) fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let program = directory.path().join("guest");
        std::fs::write(&program, guest::program(Arch::Amd64).unwrap()).unwrap();
        std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
        let (ours, theirs) = UnixStream::pair().unwrap();
        let child = Command::new("unshare")
            .args(["--pid", "--mount", "--fork", "--kill-child", "--mount-proc", "--"])
            .arg(&program)
            .args(["--control-fd", "0"])
            .stdin(OwnedFd::from(theirs))
            .spawn()
            .expect("unshare (Debian package util-linux) can be run");
        let (device, host) = byte_pipe(256 << 10);
        carry(device, ours);
        Self {
            fs: open(host),
            child,
        }
    }

    pub(super) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        // Either may fail only because it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A guest that answers every file request with what `answer` says.
pub(super) fn play(answer: impl Fn(ToGuest) -> ToHost + Send + 'static) -> Fs {
    let (device, host) = byte_pipe(256 << 10);
    thread::spawn(move || {
        let this = thread::current();
        device.set_waker(Arc::new(move || this.unpark()));
        say(&device, 0, ToHost::Hello(hello()));
        let mut decoder = Decoder::<ToGuest>::new();
        while device.is_open() {
            while let Some(Frame { id, message }) = decoder.next_frame().unwrap() {
                match message {
                    ToGuest::CloseFile => {}
                    ToGuest::Configure(_) => say(&device, id, ToHost::Done),
                    message => say(&device, id, answer(message)),
                }
            }
            let mut bytes = [0; 4096];
            let count = device.read(&mut bytes);
            decoder.push(&bytes[..count]);
            if count == 0 {
                thread::park_timeout(IDLE);
            }
        }
    });
    open(host)
}

fn hello() -> Hello {
    Hello {
        version_min: wire::VERSION_MIN,
        version_max: wire::VERSION_MAX,
        arch: Arch::Amd64,
        hosted: true,
        slots: 1,
        boot_id: [0; 16],
        start_ns: 0,
        now_ns: 0,
        release: "played".to_owned(),
    }
}

fn say(device: &DeviceEnd, id: u32, message: ToHost) {
    let bytes = Frame { id, message }.to_bytes().unwrap();
    assert_eq!(
        device.write(&bytes),
        bytes.len(),
        "the pipe holds more than a test says"
    );
}

fn open(host: HostEnd) -> Fs {
    let (session, hello) = Session::open(host, PATIENCE, &|| Ok(())).unwrap();
    session.configure(&hello, Configure::default()).unwrap();
    Fs::new(session)
}

/// Carries bytes between a pipe and a socket until the guest's end closes; the pipe's end closes with it.
fn carry(device: DeviceEnd, socket: UnixStream) {
    let device = Arc::new(device);
    let (from, to) = (Arc::downgrade(&device), socket.try_clone().unwrap());
    let outwards = thread::spawn(move || carry_out(&from, to));
    let outwards = outwards.thread().clone();
    thread::spawn(move || {
        let inwards = thread::current();
        device.set_waker(Arc::new(move || {
            outwards.unpark();
            inwards.unpark();
        }));
        carry_in(&device, socket);
    });
}

fn carry_out(device: &Weak<DeviceEnd>, mut socket: UnixStream) {
    let mut bytes = vec![0; 64 << 10];
    while let Some(device) = device.upgrade() {
        let count = device.read(&mut bytes);
        drop(device);
        if count == 0 {
            thread::park_timeout(IDLE);
        }
        // A guest that is gone is noticed by who reads of it.
        let _ = socket.write_all(&bytes[..count]);
    }
}

fn carry_in(device: &DeviceEnd, mut socket: UnixStream) {
    let mut bytes = vec![0; 64 << 10];
    while let Ok(count @ 1..) = socket.read(&mut bytes) {
        let mut rest = &bytes[..count];
        while !rest.is_empty() {
            let taken = device.write(rest);
            rest = &rest[taken..];
            if taken == 0 {
                thread::park_timeout(IDLE);
            }
        }
    }
}
