//! Capture and restore: a machine as a snapshot's units and files.
//!
//! Restore is construction: the machine is built from its configuration and fresh host resources, every unit is
//! decoded, and only then RAM is mapped and anything runs.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, Seek};

use hypervisor::x86_64::{CpuProfile, CpuState, CpuidLeaf, UnknownProfile, for_vcpu};
use hypervisor::{Hypervisor, KeptCode, Vcpu};
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

/// What the profile of a machine's CPUs is called in its identity; a machine without one has the host's.
const PROFILE: &str = "cpu";

impl MachineConfig {
    /// What a snapshot of such a machine on `hypervisor` is called after: machines that are the same in this can be
    /// restored from each other's snapshots.
    pub fn identity(&self, hypervisor: &dyn Hypervisor) -> Identity {
        let mut identity = Identity::from(
            [
                ("machine", MACHINE.to_owned()),
                ("memory", format!("{} MiB", self.memory_mib)),
                ("vcpus", self.vcpus.to_string()),
            ]
            .map(|(name, value)| (name.to_owned(), value)),
        );
        if self.cpu.is_portable() {
            identity.insert(PROFILE.to_owned(), self.cpu.name().to_owned());
            return identity;
        }
        let tsc = match hypervisor.capabilities().tsc_khz {
            Some(khz) => format!("{khz} kHz"),
            None => "unknown".to_owned(),
        };
        identity.insert("backend".to_owned(), hypervisor.name().to_owned());
        identity.insert("time-stamp counter".to_owned(), tsc);
        identity
    }

    /// What the CPUs of such a machine show on `hypervisor`.
    ///
    /// # Errors
    /// [`Error::Hypervisor`] with all that it lacks for the profile.
    pub fn cpuid(&self, hypervisor: &dyn Hypervisor) -> Result<Vec<CpuidLeaf>, Error> {
        Ok(self.cpu.apply(&hypervisor.capabilities().cpuid)?)
    }
}

/// The profile of the CPUs in a snapshot.
///
/// # Errors
/// [`Error::Mismatch`] for one that does not exist.
pub fn profile_in(snapshot: &Snapshot) -> Result<CpuProfile, Error> {
    match snapshot.manifest().identity.get(PROFILE) {
        None => Ok(CpuProfile::Host),
        Some(name) => name
            .parse()
            .map_err(|unknown: UnknownProfile| Error::Mismatch(vec![unknown.to_string()])),
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
    /// [`Error::Ended`] for a machine that is not paused or has ended, a full disk, a backend that does not tell, CPU state
    /// that is not of the machine's profile.
    pub fn capture(&self, writer: &mut SnapshotWriter) -> Result<(), Error> {
        let profile = self.parts.config.cpu;
        self.with_paused_vcpus(|vcpus| {
            for (index, vcpu) in vcpus.iter_mut().enumerate() {
                writer.unit(&vcpu_unit(index), &profile.carried(vcpu.state()?)?.save());
            }
            self.parts.capture(writer)
        })
    }

    /// Offers code that [`Machine::code_to_keep`] gave after an earlier run from the same snapshot to a machine that was
    /// restored and has not run yet. Says what the first CPU did with it; see [`hypervisor::Vcpu::take_up_code`] for what
    /// must never be offered.
    ///
    /// # Errors
    /// [`Error::Ended`] for a machine that is not paused.
    pub fn take_up_code(&self, kept: Option<&File>) -> Result<KeptCode, Error> {
        self.with_paused_vcpus(|vcpus| {
            let from_start = |mut file: &File| file.rewind().is_ok();
            let take = |vcpu: &mut Box<dyn Vcpu>| match kept.filter(|file| from_start(file)) {
                Some(mut file) => vcpu.take_up_code(&mut file),
                None => vcpu.take_up_code(&mut io::empty()),
            };
            // Every one is offered it, whatever the others say.
            let done: Vec<_> = vcpus.iter_mut().map(take).collect();
            Ok(done.first().copied().unwrap_or(KeptCode::NotWanted))
        })
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
        let cpuid = self.config.cpuid(&*self.hypervisor)?;
        writer.unit(CPUID, &CpuidLeaf::save_all(&cpuid));
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
    let leaves = snapshot.load(CPUID, CpuidLeaf::load_all)?;
    let mut differences = identity_differences(&snapshot.manifest().identity, &config.identity(hypervisor));
    match config.cpuid(hypervisor) {
        Ok(offered) => differences.extend(cpuid_differences(&leaves, &offered, config.vcpus)),
        Err(Error::Hypervisor(lacking @ hypervisor::Error::Profile { .. })) => {
            differences.push(lacking.to_string());
        }
        Err(error) => return Err(error),
    }
    match differences.is_empty() {
        true => Ok(leaves),
        false => Err(Error::Mismatch(differences)),
    }
}

/// What a snapshot's identity and the one that is wanted do not have in common.
fn identity_differences(found: &Identity, wanted: &Identity) -> Vec<String> {
    let names: BTreeSet<&String> = found.keys().chain(wanted.keys()).collect();
    let value =
        |identity: &Identity, name: &String| identity.get(name).cloned().unwrap_or("nothing".to_owned());
    names
        .into_iter()
        .map(|name| (name, value(found, name), value(wanted, name)))
        .filter(|(_, found, wanted)| found != wanted)
        .map(|(name, found, wanted)| format!("{name} is {found}, not {wanted}"))
        .collect()
}

/// The leaves of a snapshot that would be other ones here. Seen from one vCPU: what a host shows may depend on where it was
/// asked.
fn cpuid_differences(found: &[CpuidLeaf], offered: &[CpuidLeaf], vcpus: u32) -> Vec<String> {
    let [there, here] = [found, offered].map(|leaves| for_vcpu(leaves, 0, vcpus));
    let differing = there.iter().filter(|leaf| !here.contains(leaf));
    differing
        .map(|leaf| {
            format!(
                "CPUID leaf {:#x}.{} differs",
                leaf.leaf,
                leaf.subleaf.unwrap_or(0)
            )
        })
        .collect()
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

#[cfg(test)]
mod tests {
    use super::*;

    fn identity(entries: &[(&str, &str)]) -> Identity {
        let owned = entries
            .iter()
            .map(|&(name, value)| (name.to_owned(), value.to_owned()));
        owned.collect()
    }

    #[test]
    fn identity_differences_names_what_either_side_has_alone_or_otherwise() {
        let found = identity(&[("backend", "kvm"), ("machine", "x86-64 2"), ("vcpus", "1")]);
        let wanted = identity(&[("cpu", "x86-64-v3"), ("machine", "x86-64 2"), ("vcpus", "2")]);

        let differences = identity_differences(&found, &wanted);

        let expected = [
            "backend is kvm, not nothing",
            "cpu is nothing, not x86-64-v3",
            "vcpus is 1, not 2",
        ];
        assert_eq!(differences, expected);
    }

    #[test]
    fn cpuid_differences_names_every_leaf_that_would_be_another() {
        let leaf = |leaf, subleaf, eax| CpuidLeaf {
            leaf,
            subleaf,
            eax,
            ebx: 0,
            ecx: 0,
            edx: 0,
        };
        let found = [leaf(6, None, 4), leaf(7, Some(0), 0), leaf(0x8000_0007, None, 1)];
        let offered = [leaf(6, None, 4), leaf(7, Some(0), 1)];

        let differences = cpuid_differences(&found, &offered, 1);

        assert_eq!(
            differences,
            ["CPUID leaf 0x7.0 differs", "CPUID leaf 0x80000007.0 differs"]
        );
    }
}
