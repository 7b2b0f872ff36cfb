//! Machines that are captured and restored, again and again, in the middle of work.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use device_backends::{Entropy, HostEnd, byte_pipe};
use guest_protocol::{Decoder, Frame, PORT_NAME, ToGuest, ToHost};
use hypervisor::Hypervisor;
use hypervisor::x86_64::{CpuProfile, CpuState};
use machine::{Backends, BootImage, CommandLine, Machine, MachineConfig, Outcome, SerialPort};
use saved_state::{Snapshot, SnapshotWriter};
use vm_tests::Host;

const CONFIG: MachineConfig = MachineConfig {
    memory_mib: 128,
    vcpus: 1,
    cpu: CpuProfile::Host,
};

struct Zeroes;

impl Entropy for Zeroes {
    fn fill(&self, bytes: &mut [u8]) -> std::io::Result<()> {
        bytes.fill(0);
        Ok(())
    }
}

/// A machine and this side of its ports.
struct Running {
    machine: Machine,
    control: HostEnd,
    serial: HostEnd,
    console: HostEnd,
}

impl Running {
    fn with(hypervisor: &Arc<dyn Hypervisor>, make: impl FnOnce(Backends) -> Machine) -> Self {
        Self::try_with(hypervisor, |backends| Ok(make(backends))).unwrap()
    }

    fn try_with(
        hypervisor: &Arc<dyn Hypervisor>,
        make: impl FnOnce(Backends) -> Result<Machine, machine::Error>,
    ) -> Result<Self, machine::Error> {
        let ends = [(); 3].map(|()| byte_pipe(1 << 20));
        let [
            (serial, serial_end),
            (console, console_end),
            (control, control_end),
        ] = ends;
        let port = |name: &str, stream| SerialPort {
            name: name.to_owned(),
            stream: Box::new(stream),
        };
        let machine = make(Backends {
            hypervisor: hypervisor.clone(),
            serial: Box::new(serial),
            console_ports: vec![port("console", console), port(PORT_NAME, control)],
            file_systems: Vec::new(),
            entropy: Arc::new(Zeroes),
            marks: Arc::new(()),
        })?;
        Ok(Self {
            machine,
            control: control_end,
            serial: serial_end,
            console: console_end,
        })
    }

    fn boot(hypervisor: &Arc<dyn Hypervisor>) -> Self {
        Self::boot_with(CpuProfile::Host, hypervisor)
    }

    fn boot_with(cpu: CpuProfile, hypervisor: &Arc<dyn Hypervisor>) -> Self {
        let mut command_line = CommandLine::standard();
        command_line.push("loglevel=7");
        let initramfs = guest::initramfs(&guest::InitramfsSpec {
            arch: guest::Arch::Amd64,
            modules: Vec::new(),
        });
        let boot = BootImage {
            kernel: kernel(),
            initramfs: initramfs.unwrap(),
            command_line,
        };
        Self::with(hypervisor, |backends| {
            Machine::boot(&MachineConfig { cpu, ..CONFIG }, &boot, backends).unwrap()
        })
    }

    fn restore(hypervisor: &Arc<dyn Hypervisor>, snapshot: &Path) -> Self {
        let snapshot = Snapshot::open(snapshot).unwrap();
        let config = MachineConfig {
            cpu: machine::profile_in(&snapshot).unwrap(),
            ..CONFIG
        };
        Self::with(hypervisor, |backends| {
            Machine::restore(&config, &snapshot, backends).unwrap()
        })
    }

    /// Writes down a machine that is paused.
    fn capture(&self, place: PathBuf) -> PathBuf {
        let identity = self.machine.identity();
        let mut writer = SnapshotWriter::new(&place, &place.with_extension("new"), identity).unwrap();
        self.machine.capture(&mut writer).unwrap();
        writer.commit().unwrap();
        place
    }

    /// What came through the control port until now.
    fn greeting(&self, decoder: &mut Decoder<ToHost>) -> Option<Frame<ToHost>> {
        let mut bytes = [0; 4096];
        while let count @ 1.. = self.control.read_available(&mut bytes) {
            decoder.push(&bytes[..count]);
        }
        decoder.next_frame().unwrap()
    }

    /// What the kernel said until now.
    fn said(&self) -> String {
        let mut all = Vec::new();
        for end in [&self.serial, &self.console] {
            let mut bytes = [0; 4096];
            while let count @ 1.. = end.read_available(&mut bytes) {
                all.extend_from_slice(&bytes[..count]);
            }
        }
        String::from_utf8_lossy(&all).into_owned()
    }
}

/// The kernel that the tests' guests boot, unpacked.
fn kernel() -> File {
    let library = Host::open().unwrap().library;
    let folder = library.cache_folder().join("kernels");
    let elf = fs::read_dir(folder).unwrap().next().expect("a kernel").unwrap();
    File::open(elf.path()).unwrap()
}

/// Boots a guest to its greeting; how long that took.
fn greeted(hypervisor: &Arc<dyn Hypervisor>) -> (Running, Duration) {
    let begin = Instant::now();
    let running = Running::boot(hypervisor);
    let mut decoder = Decoder::new();
    wait_for_greeting(&running, &mut decoder);
    (running, begin.elapsed())
}

fn wait_for_greeting(running: &Running, decoder: &mut Decoder<ToHost>) {
    let begin = Instant::now();
    let mut said = String::new();
    loop {
        said += &running.said();
        if let Some(frame) = running.greeting(decoder) {
            assert!(matches!(frame.message, ToHost::Hello(_)), "{frame:?}");
            return;
        }
        assert!(begin.elapsed() < Duration::from_secs(60), "no greeting:\n{said}");
        thread::sleep(Duration::from_millis(2));
    }
}

/// What may differ between two readings of a machine that stands still: time.
fn runs_on(register: &String) -> bool {
    register == "tsc" || register == "lapic[0x390]"
}

/// What backends tell in their own ways: the local APIC's version; a register that is zero; a state component in its
/// initial configuration.
fn is_told_otherwise(register: &str, states: &[CpuState; 2]) -> bool {
    const DEBUGCTL: u32 = 0x1d9;
    let debugctl = || {
        states
            .iter()
            .all(|state| state.msrs.get(&DEBUGCTL).is_none_or(|value| *value == 0))
    };
    let lacks = |component: u32| {
        let mut components = states.iter().map(|state| &state.extended.components.0);
        register == format!("extended.components[{component:#x}]")
            && components.any(|components| !components.contains_key(&component))
    };
    register == "lapic[0x30]" || register == "msrs[0x1d9]" && debugctl() || (0..3).any(lacks)
}

/// That two snapshots are of the same machine in the same state.
fn assert_same_state(left: &Path, right: &Path) {
    let [left, right] = [left, right].map(|path| Snapshot::open(path).unwrap());
    let names = |snapshot: &Snapshot| -> Vec<String> {
        let units = snapshot.manifest().units.iter();
        units.map(|unit| unit.name.clone()).collect()
    };
    assert_eq!(names(&left), names(&right));
    assert!(names(&left).iter().any(|name| name == "vcpu0"));
    for name in names(&left) {
        let units = [&left, &right].map(|snapshot| snapshot.unit(&name).unwrap());
        match name.as_str() {
            // What lies where says nothing: what is there is compared.
            "clock" | "memory-extents" => {}
            "vcpu0" => {
                let states = units.each_ref().map(|unit| CpuState::load(unit).unwrap());
                let mut differences = states[0].differences(&states[1]);
                differences.retain(|register| !runs_on(register) && !is_told_otherwise(register, &states));
                assert!(differences.is_empty(), "{differences:?}");
            }
            _ => assert_eq!(units[0], units[1], "{name}"),
        }
    }
    assert_same_memory(&left, &right);
}

saved_state::record! {
    /// Where RAM lies in its files: guest-physical address, length, offset; the number of the file of each.
    struct SavedExtents {
        1 extents: Vec<[u64; 3]>,
        2 files: Vec<u32>,
    }
}

/// Bytes of a page.
const PAGE: usize = 4096;

/// All pages of RAM that are not zero throughout, by their addresses.
fn pages(snapshot: &Snapshot) -> BTreeMap<u64, Vec<u8>> {
    let saved: SavedExtents = snapshot.unit("memory-extents").unwrap().decode(1).unwrap();
    let mut pages = BTreeMap::new();
    for ([gpa, len, offset], number) in saved.extents.into_iter().zip(saved.files) {
        let name = match number {
            0 => "memory".to_owned(),
            _ => format!("memory-{number}"),
        };
        let mut bytes = vec![0; len as usize];
        snapshot
            .file(&name)
            .unwrap()
            .read_exact_at(&mut bytes, offset)
            .unwrap();
        let numbered = (0..).zip(bytes.chunks(PAGE));
        let of_use = numbered.filter(|(_, page)| page.iter().any(|byte| *byte != 0));
        pages.extend(of_use.map(|(number, page)| (gpa + number * PAGE as u64, page.to_vec())));
    }
    pages
}

/// That RAM is the same, but for what a backend itself writes there when its clock's registers are set.
fn assert_same_memory(left: &Snapshot, right: &Snapshot) {
    let clocks = clock_structures(&CpuState::load(&left.unit("vcpu0").unwrap()).unwrap());
    let [left, right] = [left, right].map(pages);
    let zeroes = vec![0; PAGE];
    for gpa in left.keys().chain(right.keys()) {
        let both = [&left, &right].map(|pages| pages.get(gpa).unwrap_or(&zeroes));
        let pairs = both[0].iter().zip(both[1]);
        let differs = (*gpa..).zip(pairs).filter(|(_, (left, right))| left != right);
        let unexpected: Vec<_> = differs
            .map(|(gpa, _)| gpa)
            .filter(|gpa| !clocks.iter().any(|clock| clock.contains(gpa)))
            .take(16)
            .collect();
        assert!(unexpected.is_empty(), "{unexpected:x?}, not in {clocks:x?}");
    }
}

/// The guest-physical addresses of KVM's paravirtual clocks (Linux, Documentation/virt/kvm/x86/msr.rst).
fn clock_structures(state: &CpuState) -> Vec<std::ops::Range<u64>> {
    const WALL_CLOCKS: [u32; 2] = [0x11, 0x4b56_4d00];
    const SYSTEM_TIMES: [u32; 2] = [0x12, 0x4b56_4d01];
    const ENABLED: u64 = 1;
    let place = |msr: &u32| state.msrs.get(msr).copied().unwrap_or(0) & !ENABLED;
    let wall = WALL_CLOCKS.iter().map(place).map(|gpa| gpa..gpa + 12);
    let system = SYSTEM_TIMES.iter().map(place).map(|gpa| gpa..gpa + 32);
    wall.chain(system).collect()
}

#[test]
fn boot_that_moves_from_machine_to_machine_comes_to_its_end() {
    const MOVES: u32 = 8;
    let hypervisor = Host::open().unwrap().backend;
    let folder = tempfile::tempdir().unwrap();
    let (_, took) = greeted(&hypervisor);
    let mut running = Running::boot(&hypervisor);
    let mut decoder = Decoder::new();
    for number in 0..MOVES {
        thread::sleep(took / (MOVES + 1));
        running.machine.pause().unwrap();
        let before = running.capture(folder.path().join(format!("{number}-before")));
        // Whatever it greeted with is on this side already.
        if running.greeting(&mut decoder).is_some() {
            return;
        }
        drop(running);

        running = Running::restore(&hypervisor, &before);

        let after = running.capture(folder.path().join(format!("{number}-after")));
        assert_same_state(&before, &after);
        running.machine.resume().unwrap();
        for snapshot in [before, after] {
            fs::remove_dir_all(snapshot).unwrap();
        }
    }
    wait_for_greeting(&running, &mut decoder);
}

/// The profile is the same on hardware and in software, so the same machine is read back from both, whichever it ran on.
#[test]
fn boot_that_moves_from_backend_to_backend_is_the_same_machine_and_comes_to_its_end() {
    const MOVES: u32 = 4;
    let hardware = Host::open().unwrap().backend;
    let software = soft_cpu::open();
    let folder = tempfile::tempdir().unwrap();
    let (_, took) = greeted(&hardware);
    let mut running = Running::boot_with(CpuProfile::X86_64V3, &hardware);
    let mut decoder = Decoder::new();
    for number in 0..MOVES {
        thread::sleep(took / (MOVES + 1));
        running.machine.pause().unwrap();
        let before = running.capture(folder.path().join(format!("{number}-before")));
        if running.greeting(&mut decoder).is_some() {
            return;
        }
        drop(running);

        let between = Running::restore(&software, &before);
        let elsewhere = between.capture(folder.path().join(format!("{number}-elsewhere")));
        drop(between);
        running = Running::restore(&hardware, &elsewhere);
        let after = running.capture(folder.path().join(format!("{number}-after")));

        assert_same_state(&before, &elsewhere);
        assert_same_state(&elsewhere, &after);
        running.machine.resume().unwrap();
        for snapshot in [before, elsewhere, after] {
            fs::remove_dir_all(snapshot).unwrap();
        }
    }
    wait_for_greeting(&running, &mut decoder);
}

#[test]
fn one_snapshot_restores_again_and_again_without_drift_or_leak() {
    let hypervisor = Host::open().unwrap().backend;
    // An emulated processor is slower by as much.
    let cycles = if hypervisor.name() == "soft" { 1000 } else { 100 };
    let folder = tempfile::tempdir().unwrap();
    let (running, _) = greeted(&hypervisor);
    running.machine.pause().unwrap();
    let snapshot = running.capture(folder.path().join("greeted"));
    drop(running);
    answers_after_restore(&hypervisor, &snapshot);
    let before = resources();

    for _ in 0..cycles {
        answers_after_restore(&hypervisor, &snapshot);
    }

    let after = resources();
    assert!(
        after.0 <= before.0 + 4 && after.1 <= before.1 + 4,
        "{before:?} {after:?}"
    );
    assert!(after.2 < before.2 + 64 * 1024, "{before:?} {after:?}");
    assert!(Snapshot::open(&snapshot).unwrap().verify().is_ok());
}

/// Whatever bytes a snapshot's units have, under digests that agree: it is refused, or its guest runs into what it
/// runs into, and this side goes on.
#[test]
fn snapshot_with_bytes_changed_is_refused_or_runs() {
    let hypervisor = Host::open().unwrap().backend;
    let changes = if hypervisor.name() == "soft" { 400 } else { 40 };
    let folder = tempfile::tempdir().unwrap();
    let (running, _) = greeted(&hypervisor);
    running.machine.pause().unwrap();
    let place = running.capture(folder.path().join("greeted"));
    drop(running);
    let original = Snapshot::open(&place).unwrap();
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let mut ran = 0;
    for number in 0..changes {
        let changed = changed(&original, folder.path(), &mut random);
        let snapshot = Snapshot::open(&changed).unwrap();
        if let Ok(running) = Running::try_with(&hypervisor, |backends| {
            Machine::restore(&CONFIG, &snapshot, backends)
        }) {
            running.machine.resume().unwrap();
            let outcome = running.machine.wait(Some(Duration::from_millis(3)));
            let panicked = Some(Outcome::Failed("a CPU's thread panicked".to_owned()));
            assert_ne!(outcome, panicked, "change {number}");
            ran += 1;
        }
        fs::remove_dir_all(changed).unwrap();
    }
    assert!(ran > 0 && ran < changes, "{ran} of {changes}");
}

/// A snapshot with a few bytes of one unit changed, its memory the original's.
fn changed(original: &Snapshot, folder: &Path, random: &mut Random) -> PathBuf {
    let place = folder.join("changed");
    let identity = original.manifest().identity.clone();
    let mut writer = SnapshotWriter::new(&place, &folder.join("changed.new"), identity).unwrap();
    let units = &original.manifest().units;
    let victim = random.below(units.len());
    for (index, entry) in units.iter().enumerate() {
        let mut unit = original.unit(&entry.name).unwrap();
        if index == victim && !unit.bytes.is_empty() {
            for _ in 0..=random.below(3) {
                let at = random.below(unit.bytes.len());
                unit.bytes[at] ^= 1 << random.below(8);
            }
        }
        writer.unit(&entry.name, &unit);
    }
    writer.file("memory").unwrap();
    writer.commit().unwrap();
    // The memory is the same file: a copy each time would take most of the test's time.
    let manifest = fs::read_to_string(place.join("manifest")).unwrap();
    let len = original.manifest().files[0].len;
    let manifest = manifest.replace("\"len\": 0,", &format!("\"len\": {len},"));
    fs::write(place.join("manifest"), manifest).unwrap();
    fs::remove_file(place.join("memory")).unwrap();
    fs::hard_link(folder.join("greeted/memory"), place.join("memory")).unwrap();
    place
}

/// Marsaglia's xorshift: the same changes in every run.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % bound as u64) as usize
    }
}

/// A guest that is restored answers; then it goes.
fn answers_after_restore(hypervisor: &Arc<dyn Hypervisor>, snapshot: &Path) {
    let running = Running::restore(hypervisor, snapshot);
    running.machine.resume().unwrap();
    let ping = Frame {
        id: 7,
        message: ToGuest::Ping,
    };
    let mut control = running.control.clone();
    control.write_all(&ping.to_bytes().unwrap()).unwrap();
    let mut decoder = Decoder::<ToHost>::new();
    let mut bytes = [0; 256];
    let frame = loop {
        let count = control.read(&mut bytes).unwrap();
        assert!(count > 0, "the guest is gone");
        decoder.push(&bytes[..count]);
        if let Some(frame) = decoder.next_frame().unwrap() {
            break frame;
        }
    };
    assert!(
        matches!(frame.message, ToHost::Done) && frame.id == 7,
        "{frame:?}"
    );
}

/// Threads, open files and resident KiB of this process.
fn resources() -> (usize, usize, usize) {
    let count = |folder: &str| fs::read_dir(folder).unwrap().count();
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let resident = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .unwrap();
    let resident = resident.trim().trim_end_matches(" kB").parse().unwrap();
    (count("/proc/self/task"), count("/proc/self/fd"), resident)
}
