//! Capture and restore: a machine as a snapshot's units and files.
//!
//! Restore is construction: the machine is built from its configuration and fresh host resources, every unit is
//! decoded, and only then RAM is mapped and anything runs.

use std::fs::File;
use std::io::{self, Seek};
use std::ops::Range;
use std::thread;

use hypervisor::x86_64::{CpuState, CpuidLeaf, for_vcpu};
use hypervisor::{Hypervisor, Vcpu};
use saved_state::{Identity, Snapshot, SnapshotWriter, Unit, record};

use crate::machine::Parts;
use crate::memory_image::{self, EXTENTS, Image};
use crate::{Backends, Error, Machine, MachineConfig};

/// Version of the machine as the guest sees it: addresses, devices, their order.
const MACHINE: &str = "x86-64 2";
/// The unit of the clock.
const CLOCK: &str = "clock";
/// The unit of what the CPUs show.
const CPUID: &str = "cpuid";
/// Layout of the units that are the machine's own.
const SCHEMA: u16 = 1;

record! {
    /// The backend's clock.
    struct SavedClock {
        1 nanoseconds: u64,
    }
}

impl MachineConfig {
    /// What a snapshot of such a machine on `hypervisor` is called after: machines that are the same in this can be
    /// restored from each other's snapshots.
    pub fn identity(&self, hypervisor: &dyn Hypervisor) -> Identity {
        let tsc = match hypervisor.capabilities().tsc_khz {
            Some(khz) => format!("{khz} kHz"),
            None => "unknown".to_owned(),
        };
        let entries = [
            ("machine", MACHINE.to_owned()),
            ("memory", format!("{} MiB", self.memory_mib)),
            ("vcpus", self.vcpus.to_string()),
            ("backend", hypervisor.name().to_owned()),
            ("time-stamp counter", tsc),
        ];
        entries.map(|(name, value)| (name.to_owned(), value)).into()
    }
}

impl Machine {
    /// How this machine was made.
    pub fn config(&self) -> &MachineConfig {
        &self.parts.config
    }

    /// The name of the backend that executes it.
    pub fn backend(&self) -> &'static str {
        self.parts.hypervisor.name()
    }

    /// What a snapshot of this machine is called after.
    pub fn identity(&self) -> Identity {
        self.parts.config.identity(&*self.parts.hypervisor)
    }

    /// Writes the state of this machine, which is paused, to a snapshot.
    ///
    /// # Errors
    /// [`Error::Ended`] for a machine that is not paused or has ended, a full disk, a backend that does not tell.
    pub fn capture(&self, writer: &mut SnapshotWriter) -> Result<(), Error> {
        self.with_paused_vcpus(|vcpus| {
            for (index, vcpu) in vcpus.iter_mut().enumerate() {
                writer.unit(&vcpu_unit(index), &vcpu.state()?.save());
            }
            self.parts.capture(writer)
        })
    }

    /// Offers code that [`Machine::code_to_keep`] gave after an earlier run from the same snapshot to a machine that was
    /// restored and has not run yet. Says whether it was of use; where not, the backend may gather some from now on. See
    /// [`hypervisor::Vcpu::take_up_code`] for what must never be offered.
    ///
    /// # Errors
    /// [`Error::Ended`] for a machine that is not paused.
    pub fn take_up_code(&self, kept: Option<&File>) -> Result<bool, Error> {
        self.with_paused_vcpus(|vcpus| {
            let take = |vcpu: &mut Box<dyn Vcpu>| match kept {
                Some(mut file) => file.rewind().is_ok() && vcpu.take_up_code(&mut file),
                None => vcpu.take_up_code(&mut io::empty()),
            };
            // Every one is offered it, whatever the others say.
            let refused = vcpus.iter_mut().map(take).filter(|taken| !taken).count();
            Ok(refused == 0)
        })
    }

    /// The pages of RAM that were written since the machine was made, for [`Machine::bring_in`].
    pub fn touched(&self) -> Vec<Range<u64>> {
        self.parts.memory.touched()
    }

    /// Has `pages` of RAM ready before the guest writes them, while others do something else; what is no RAM is passed
    /// over.
    ///
    /// # Errors
    /// [`Error::Thread`].
    pub fn bring_in(&self, pages: Vec<Range<u64>>) -> Result<(), Error> {
        let memory = self.parts.memory.clone();
        let thread = thread::Builder::new().name("bring-in".to_owned());
        // It ends by itself, and keeps the memory until then.
        let started = thread.spawn(move || memory.bring_in(&pages));
        started.map(drop).map_err(Error::Thread)
    }

    /// What the first CPU's backend has made of the guest's kernel, for later machines from the same snapshot; `None`
    /// where nothing was gathered. The machine is paused, or has ended, after it.
    pub fn code_to_keep(&self) -> Option<Vec<u8>> {
        if self.pause().is_err() {
            // One that has ended is as good, but no device may write to RAM meanwhile.
            self.parts.devices.pause();
        }
        self.with_paused_vcpus(|vcpus| Ok(vcpus.first_mut().and_then(|vcpu| vcpu.code_to_keep())))
            .ok()?
    }

    /// Makes a machine from a snapshot. It is paused; with [`Machine::resume`] it goes on where it was.
    ///
    /// # Errors
    /// [`Error::Mismatch`] with all that differs for a snapshot of another machine; [`Error::Snapshot`] for one that is
    /// damaged. Nothing is left behind.
    pub fn restore(config: &MachineConfig, snapshot: &Snapshot, backends: Backends) -> Result<Self, Error> {
        let cpuid = compatible(config, snapshot, &*backends.hypervisor)?;
        let mut parts = Parts::new(config, backends)?;
        check_units(&parts, snapshot)?;
        let states = (0..config.vcpus as usize)
            .map(|index| snapshot.load(&vcpu_unit(index), CpuState::load))
            .collect::<Result<Vec<_>, _>>()?;
        let clock: SavedClock = snapshot.load(CLOCK, |unit| unit.decode(SCHEMA))?;
        let image = Image::open(snapshot)?;
        parts.devices.pause();
        parts.devices.restore(snapshot)?;
        image.map(&parts.memory)?;
        let mut vcpus = parts.create_vcpus(&cpuid)?;
        for (vcpu, state) in vcpus.iter_mut().zip(&states) {
            vcpu.set_state(state)?;
        }
        parts
            .vm
            .set_clock(std::time::Duration::from_nanos(clock.nanoseconds))?;
        parts.image = Some(image);
        Ok(Self::restored(parts, vcpus))
    }
}

impl Parts {
    /// Writes everything but the vCPUs.
    fn capture(&self, writer: &mut SnapshotWriter) -> Result<(), Error> {
        let cpuid = &self.hypervisor.capabilities().cpuid;
        writer.unit(CPUID, &CpuidLeaf::save_all(cpuid));
        let nanoseconds = u64::try_from(self.vm.clock()?.as_nanos()).unwrap_or(u64::MAX);
        writer.unit(CLOCK, &Unit::new(SCHEMA, &SavedClock { nanoseconds }));
        self.devices.save(writer);
        memory_image::write(&self.memory, self.image.as_ref(), writer)
    }
}

fn vcpu_unit(index: usize) -> String {
    format!("vcpu{index}")
}

/// That the snapshot is of such a machine and its CPUs can be had here; what they show.
fn compatible(
    config: &MachineConfig,
    snapshot: &Snapshot,
    hypervisor: &dyn Hypervisor,
) -> Result<Vec<CpuidLeaf>, Error> {
    let found = &snapshot.manifest().identity;
    let mut differences = Vec::new();
    for (name, wanted) in config.identity(hypervisor) {
        let found = found.get(&name).map_or("nothing", String::as_str);
        if found != wanted {
            differences.push(format!("{name} is {found}, not {wanted}"));
        }
    }
    let leaves = snapshot.load(CPUID, CpuidLeaf::load_all)?;
    // Seen from one vCPU: what a host shows may depend on where it was asked.
    let here = for_vcpu(&hypervisor.capabilities().cpuid, 0, config.vcpus);
    let there = for_vcpu(&leaves, 0, config.vcpus);
    for leaf in there.iter().filter(|leaf| !here.contains(leaf)) {
        let subleaf = leaf.subleaf.unwrap_or(0);
        differences.push(format!("CPUID leaf {:#x}.{subleaf} differs", leaf.leaf));
    }
    match differences.is_empty() {
        true => Ok(leaves),
        false => Err(Error::Mismatch(differences)),
    }
}

/// That the snapshot has a unit for everything, and nothing else.
fn check_units(parts: &Parts, snapshot: &Snapshot) -> Result<(), Error> {
    let own = [CPUID, CLOCK, EXTENTS].map(str::to_owned);
    let vcpus = (0..parts.config.vcpus as usize).map(vcpu_unit);
    let known: Vec<String> = parts
        .devices
        .names()
        .into_iter()
        .chain(own)
        .chain(vcpus)
        .collect();
    let foreign = |name: &&String| !known.contains(name) && !name.starts_with(CALLER_UNITS);
    if let Some(unknown) = snapshot
        .manifest()
        .units
        .iter()
        .map(|unit| &unit.name)
        .find(foreign)
    {
        return Err(saved_state::Error::UnknownUnit(unknown.clone()).into());
    }
    Ok(())
}

/// What units are called that a machine's owner adds.
const CALLER_UNITS: &str = "session-";
