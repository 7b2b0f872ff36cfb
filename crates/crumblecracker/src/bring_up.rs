//! How a guest gets up: from a snapshot of one that has booted, or by booting and leaving such a snapshot.
//!
//! The snapshot is taken when the guest program has said who it is and nothing else has happened: no root is attached,
//! no name, clock or seed is set. So any image starts from it, and what makes one guest differ from another comes
//! after it in both cases.

use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use device_backends::{Entropy, HostEnd, byte_pipe};
use guest::InitramfsSpec;
use guest_protocol::{Arch, Configure, Hello, PORT_NAME, ToGuest};
use hypervisor::Hypervisor;
use hypervisor::x86_64::{CpuidLeaf, for_vcpu};
use machine::{
    Backends, BootImage, CommandLine, FileSystem, Machine, MachineConfig, MachineHandle, SerialPort,
};
use saved_state::{Snapshot, Unit, record};
use tracing::{debug, warn};

use crate::console::{ConsoleLog, ConsoleSink};
use crate::error::one_line;
use crate::head_start::HeadStart;
use crate::kernel::Kernel;
use crate::plugs::{Consoles, HostEntropy, PIPE_CAPACITY, plug};
use crate::post_mortem::PostMortem;
use crate::session::Session;
use crate::snapshot_cache::{Filling, Key};
use crate::{Error, InstanceOptions, KernelChoice, Library, Result, Timeline};

/// The unit with the guest program's greeting.
pub(crate) const HELLO: &str = "session-hello";
const HELLO_SCHEMA: u16 = 1;

/// A guest whose program answers and that has its name, its clock and its seed.
pub(crate) struct Guest {
    pub(crate) machine: Machine,
    pub(crate) session: Session,
    pub(crate) console: ConsoleLog,
    /// A snapshot on its way to the disk.
    pub(crate) keeping: Option<Keeping>,
    /// Where what this guest gathers is kept for the next.
    pub(crate) head_start: Option<HeadStart>,
    /// What the guest program said of itself.
    pub(crate) hello: Hello,
}

/// The thread that puts a snapshot into the cache. Dropping it waits for its end: a process that ends meanwhile would
/// leave nothing.
pub(crate) struct Keeping {
    thread: Option<JoinHandle<()>>,
}

impl Drop for Keeping {
    fn drop(&mut self) {
        if let Some(thread) = self.thread.take() {
            // A panic was told when it happened, and the snapshot is missing.
            let _ = thread.join();
        }
    }
}

/// A machine's ends on this side.
pub(crate) struct Ends {
    control: HostEnd,
    consoles: Consoles,
}

impl Guest {
    /// Brings up a guest that finds `file_systems` by their tags.
    pub(crate) fn bring_up(
        library: &Library,
        hypervisor: Arc<dyn Hypervisor>,
        file_systems: Vec<FileSystem>,
        options: &InstanceOptions,
        progress: &dyn oci::Progress,
    ) -> Result<Self> {
        let kernel = library.kernel(&options.kernel, options.refresh, progress)?;
        if let Some(profiler) = &options.profiler {
            profiler.boots(&kernel.elf);
        }
        let config = MachineConfig {
            memory_mib: options.memory_mib,
            vcpus: options.vcpus,
            cpu: options.cpu,
        };
        options.timeline.mark("kernel found");
        let initramfs = guest::initramfs(&InitramfsSpec {
            arch: guest::Arch::Amd64,
            modules: Vec::new(),
        });
        let initramfs = initramfs.map_err(|error| Error::Guest(error.to_string()))?;
        let cache = options.snapshots.then(|| library.snapshot_cache());
        let key = key(&config, &*hypervisor, &kernel, &initramfs, &file_systems, options)?;
        let snapshot = cache.as_ref().and_then(|cache| cache.find(&key));
        if let (Some(cache), Some(snapshot)) = (&cache, snapshot) {
            match Self::restore(
                &config,
                &snapshot,
                HeadStart::new(cache, &key),
                hypervisor.clone(),
                file_systems.clone(),
                options,
            ) {
                Ok(guest) => return Ok(guest),
                // No file system has been touched yet, so a boot finds everything as it was.
                Err(error) => {
                    warn!(
                        error = one_line(&error),
                        "a cached snapshot is of no use; the guest boots"
                    );
                    cache.forget(&key);
                }
            }
        }
        let boot = BootImage {
            kernel: kernel.elf,
            initramfs,
            command_line: command_line(options),
        };
        let filling = cache.and_then(|cache| cache.fill(&key, config.identity(&*hypervisor)));
        Self::boot(&config, &boot, hypervisor, file_systems, filling, options)
    }

    fn boot(
        config: &MachineConfig,
        boot: &BootImage,
        hypervisor: Arc<dyn Hypervisor>,
        file_systems: Vec<FileSystem>,
        filling: Option<Filling>,
        options: &InstanceOptions,
    ) -> Result<Self> {
        let (backends, ends) = plug_all(hypervisor, file_systems, &options.timeline);
        let machine =
            Machine::boot(config, boot, backends).map_err(|error| not_booted(error, &options.kernel))?;
        options.timeline.mark("guest runs");
        let (console, control) = follow(ends, &machine, options.console.as_ref())?;
        let (session, hello) = greeted(control, &machine, &console, options)?;
        options.timeline.mark("guest program ready");
        let keeping = match filling {
            Some(filling) => capture(&machine, &session, &hello, filling)?,
            None => None,
        };
        session.configure(&hello, configuration(&options.hostname)?)?;
        options.timeline.mark("guest configured");
        Ok(Self {
            machine,
            session,
            console,
            keeping,
            head_start: None,
            hello,
        })
    }

    fn restore(
        config: &MachineConfig,
        snapshot: &Snapshot,
        head_start: HeadStart,
        hypervisor: Arc<dyn Hypervisor>,
        file_systems: Vec<FileSystem>,
        options: &InstanceOptions,
    ) -> Result<Self> {
        let hello = SavedHello::load(snapshot)?;
        let (backends, ends) = plug_all(hypervisor, file_systems, &options.timeline);
        options.timeline.mark("snapshot opened");
        let machine = Machine::restore(config, snapshot, backends)?;
        options.timeline.mark("guest restored");
        let head_start = head_start.give(&machine, &options.timeline)?;
        machine.resume()?;
        options.timeline.mark("guest runs, restored");
        let (console, control) = follow(ends, &machine, options.console.as_ref())?;
        let session = Session::reopen(control)?;
        let configured = session.configure(&hello, configuration(&options.hostname)?);
        configured.map_err(|error| match machine.wait(Some(Duration::ZERO)) {
            None => error,
            Some(outcome) => Error::BootEnded(PostMortem::new(Some(outcome), &console)),
        })?;
        options.timeline.mark("guest configured");
        Ok(Self {
            machine,
            session,
            console,
            keeping: None,
            head_start,
            hello,
        })
    }
}

/// Everything that a guest which has booted, and nothing else, depends on.
fn key(
    config: &MachineConfig,
    hypervisor: &dyn Hypervisor,
    kernel: &Kernel,
    initramfs: &[u8],
    file_systems: &[FileSystem],
    options: &InstanceOptions,
) -> Result<Key> {
    let version = env!("CARGO_PKG_VERSION");
    let identity = format!("{:?}", config.identity(hypervisor));
    // As one vCPU shows it: what a host tells may depend on which of its processors was asked.
    let cpuid = for_vcpu(&config.cpuid(hypervisor)?, 0, config.vcpus);
    let cpuid = CpuidLeaf::save_all(&cpuid).bytes;
    let command_line = command_line(options).to_string();
    let texts = [version, &identity, &kernel.digest, &command_line].map(str::as_bytes);
    let tags = file_systems.iter().map(|file_system| file_system.tag.as_bytes());
    Ok(Key::of(
        texts.into_iter().chain([&cpuid[..], initramfs]).chain(tags),
    ))
}

pub(crate) fn plug_all(
    hypervisor: Arc<dyn Hypervisor>,
    file_systems: Vec<FileSystem>,
    timeline: &Timeline,
) -> (Backends, Ends) {
    let (channel, control) = byte_pipe(PIPE_CAPACITY);
    let control_port = SerialPort {
        name: PORT_NAME.to_owned(),
        stream: Box::new(channel),
    };
    let (backends, consoles) = plug(hypervisor, vec![control_port], file_systems, timeline);
    (backends, Ends { control, consoles })
}

/// Listens to the consoles, for `sink` as well, and closes the control channel when the machine ends.
pub(crate) fn follow(
    ends: Ends,
    machine: &Machine,
    sink: Option<&ConsoleSink>,
) -> Result<(ConsoleLog, HostEnd)> {
    let console = ConsoleLog::default();
    console.follow(ends.consoles.serial, sink.cloned())?;
    console.follow(ends.consoles.virtio, sink.cloned())?;
    close_at_end(machine.handle(), ends.control.clone())?;
    Ok((console, ends.control))
}

/// Stops the guest, which has only just greeted, writes it down and lets it go on. What keeps it from being written is
/// told, and no more.
fn capture(
    machine: &Machine,
    session: &Session,
    hello: &Hello,
    mut filling: Filling,
) -> Result<Option<Keeping>> {
    // Once it has answered, the guest is silent until it is spoken to.
    session.request(ToGuest::Ping)?;
    machine.pause()?;
    let captured = machine.capture(&mut filling.writer);
    filling.writer.unit(HELLO, &SavedHello::from(hello).unit());
    machine.resume()?;
    let keep = move || match filling.finish() {
        Ok(()) => debug!("the booted guest is in the cache"),
        Err(error) => warn!(error = one_line(&error), "this guest's snapshot cannot be kept"),
    };
    if let Err(error) = captured {
        warn!(error = one_line(&error), "this guest's snapshot cannot be kept");
        return Ok(None);
    }
    let thread = thread::Builder::new().name("snapshot".to_owned()).spawn(keep);
    let thread = thread.map_err(|source| Error::Host {
        doing: "start a thread",
        source,
    })?;
    Ok(Some(Keeping { thread: Some(thread) }))
}

record! {
    /// What the guest program says of itself.
    pub(crate) struct SavedHello {
        1 version_min: u16,
        2 version_max: u16,
        3 slots: u32,
        4 boot_id: [u8; 16],
        5 start_ns: u64,
        6 now_ns: u64,
        7 release: String,
    }
}

impl SavedHello {
    pub(crate) fn unit(&self) -> Unit {
        Unit::new(HELLO_SCHEMA, self)
    }

    pub(crate) fn load(snapshot: &Snapshot) -> Result<Hello> {
        let saved: Self = snapshot.load(HELLO, |unit| unit.decode(HELLO_SCHEMA))?;
        Ok(saved.into())
    }
}

impl From<&Hello> for SavedHello {
    fn from(hello: &Hello) -> Self {
        Self {
            version_min: hello.version_min,
            version_max: hello.version_max,
            slots: hello.slots,
            boot_id: hello.boot_id,
            start_ns: hello.start_ns,
            now_ns: hello.now_ns,
            release: hello.release.clone(),
        }
    }
}

impl From<SavedHello> for Hello {
    fn from(saved: SavedHello) -> Self {
        Self {
            version_min: saved.version_min,
            version_max: saved.version_max,
            arch: Arch::Amd64,
            hosted: false,
            slots: saved.slots,
            boot_id: saved.boot_id,
            start_ns: saved.start_ns,
            now_ns: saved.now_ns,
            release: saved.release,
        }
    }
}

/// A kernel that cannot be loaded is told by the name its user gave it.
fn not_booted(error: machine::Error, kernel: &KernelChoice) -> Error {
    match (error, kernel) {
        (machine::Error::Kernel(reason), KernelChoice::File(path)) => Error::Kernel {
            path: path.clone(),
            reason,
        },
        (error, _) => error.into(),
    }
}

fn command_line(options: &InstanceOptions) -> CommandLine {
    let mut line = CommandLine::standard();
    // Panics are always told; everything else only to who asks.
    line.push(if options.console.is_some() {
        "loglevel=7"
    } else {
        "quiet"
    });
    line
}

/// Whoever waits for the guest hears when there is none any more.
fn close_at_end(machine: MachineHandle, control: HostEnd) -> Result<()> {
    let close = move || {
        machine.wait(None);
        control.shutdown();
    };
    thread::Builder::new()
        .name("end".to_owned())
        .spawn(close)
        .map_err(|source| Error::Host {
            doing: "start a thread",
            source,
        })?;
    Ok(())
}

/// Waits for the guest program's greeting.
fn greeted(
    control: HostEnd,
    machine: &Machine,
    console: &ConsoleLog,
    options: &InstanceOptions,
) -> Result<(Session, Hello)> {
    let give_up = || match machine.wait(Some(Duration::ZERO)) {
        None => Ok(()),
        Some(outcome) => Err(Error::BootEnded(PostMortem::new(Some(outcome), console))),
    };
    Session::open(control, options.boot_deadline, &give_up).map_err(|error| match error {
        Error::BootDeadline(deadline) => Error::BootEnded(PostMortem {
            how: format!("nothing within {} seconds", deadline.as_secs_f32()),
            ..PostMortem::new(None, console)
        }),
        other => other,
    })
}

/// What makes this guest itself.
pub(crate) fn configuration(hostname: &str) -> Result<Configure> {
    let mut entropy = vec![0; 64];
    HostEntropy.fill(&mut entropy).map_err(|source| Error::Host {
        doing: "get random bytes",
        source,
    })?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Ok(Configure {
        version: 0,
        hostname: hostname.as_bytes().to_vec(),
        wall_clock_ns: u64::try_from(now.as_nanos()).unwrap_or(0),
        entropy,
    })
}
