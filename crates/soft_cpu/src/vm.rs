//! The backend and its virtual machines.

use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::thread;
use std::time::Duration;

use guest_memory::{GuestMemory, RamRegion, WriteObserver};
use hypervisor::x86_64::{CpuidLeaf, for_vcpu};
use hypervisor::{
    Capabilities, Doorbell, DoorbellAddress, DoorbellGuard, Error, GuestArch, Hypervisor, Msi, Vcpu, Vm,
    VmConfig,
};

use crate::apic::{Apic, Interconnect};
use crate::attention::{Attention, FORGET_WRITES};
use crate::cpu::{Cpu, TSC_KHZ, TscClock, TscEpoch};
use crate::memory::Memory;
use crate::observe::{Observation, Sampler, Trace, TraceKind, Tracer, Undefined};
use crate::system;
use crate::translate::Tiers;
use crate::vcpu::SoftVcpu;

/// The backend's short name.
const NAME: &str = "soft";
/// The most vCPUs of one VM: what xAPIC ids can number.
const MAX_VCPUS: u32 = 255;

/// Opens the CPU in software. It is usable everywhere.
pub fn open() -> Arc<dyn Hypervisor> {
    open_with(Tiers::default())
}

/// Opens the CPU in software with a choice of how it executes; for tests.
pub fn open_with(tiers: Tiers) -> Arc<dyn Hypervisor> {
    open_all(tiers, Observation::default())
}

/// Opens the CPU in software, its guests watched.
pub fn open_observed(observation: Observation) -> Arc<dyn Hypervisor> {
    let by_instruction = |trace: &Trace| trace.has(TraceKind::Instructions);
    let tiers = if observation.trace.as_ref().is_some_and(by_instruction) {
        Tiers::Interpreter
    } else {
        Tiers::default()
    };
    open_all(tiers, observation)
}

fn open_all(tiers: Tiers, observation: Observation) -> Arc<dyn Hypervisor> {
    let capabilities = Capabilities {
        arch: GuestArch::X86_64,
        max_vcpus: MAX_VCPUS,
        cpuid: system::offered_leaves(),
        tsc_khz: Some(TSC_KHZ),
        doorbells: false,
        dirty_log: true,
        maps_ahead: false,
    };
    Arc::new(SoftCpu {
        capabilities,
        tiers,
        observation,
    })
}

struct SoftCpu {
    capabilities: Capabilities,
    tiers: Tiers,
    observation: Observation,
}

impl Hypervisor for SoftCpu {
    fn name(&self) -> &'static str {
        NAME
    }

    fn capabilities(&self) -> &Capabilities {
        &self.capabilities
    }

    fn create_vm(&self, config: &VmConfig) -> Result<Arc<dyn Vm>, Error> {
        Ok(Arc::new(SoftVm {
            shared: Arc::new(Shared::new(config, self.tiers, &self.observation)?),
        }))
    }
}

/// What the vCPUs of a VM share.
pub(crate) struct Shared {
    vcpus: u32,
    memory: RwLock<Arc<Memory>>,
    interconnect: Arc<Interconnect>,
    routes: Mutex<Vec<Option<Msi>>>,
    epoch: Arc<TscEpoch>,
    tiers: Tiers,
    trace: Option<Trace>,
    sampler: Option<Sampler>,
    undefined: Arc<Undefined>,
}

impl Shared {
    fn new(config: &VmConfig, tiers: Tiers, observation: &Observation) -> Result<Self, Error> {
        let sampler = observation.samples.clone().map(Sampler::start).transpose();
        let sampler = sampler.map_err(|source| Error::Host {
            operation: "start the thread that samples the guest",
            source,
        })?;
        Ok(Self {
            vcpus: config.vcpus,
            memory: RwLock::default(),
            interconnect: Arc::default(),
            routes: Mutex::new(vec![None; config.ioapic_lines as usize]),
            epoch: TscEpoch::now(),
            tiers,
            trace: observation.trace.clone(),
            sampler,
            undefined: Arc::default(),
        })
    }

    /// What is mapped now.
    pub(crate) fn memory(&self) -> Arc<Memory> {
        self.memory.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Room for a CPU's state, which is built on the stack before it is on the heap; just too short for a large page, which
/// the host could else give to the first byte touched.
const BUILDING_STACK: usize = 0x1f_0000;

/// Makes something large on a thread of its own: what it touches of the caller's stack would stay resident.
fn on_a_stack_that_goes<T: Send>(make: impl FnOnce() -> T + Send) -> Result<T, Error> {
    let builder = thread::Builder::new().stack_size(BUILDING_STACK);
    thread::scope(|scope| {
        let made = builder.spawn_scoped(scope, make).map_err(|source| Error::Host {
            operation: "start a thread",
            source,
        })?;
        Ok(made
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
    })
}

struct SoftVm {
    shared: Arc<Shared>,
}

impl Vm for SoftVm {
    fn map_ram(&self, memory: &GuestMemory, log_dirty: bool) -> Result<(), Error> {
        let mut mapped = self.shared.memory.write().unwrap_or_else(PoisonError::into_inner);
        for RamRegion { gpa, len, .. } in memory.regions() {
            let in_the_way = |region: &&RamRegion| region.gpa < gpa + len && gpa < region.gpa + region.len;
            if let Some(other) = mapped.ram().regions().iter().find(in_the_way) {
                return Err(Error::Overlap {
                    gpa,
                    len,
                    other: other.gpa,
                });
            }
        }
        let observer: Arc<dyn WriteObserver> = self.shared.interconnect.clone();
        memory.observe_writes(&observer);
        *mapped = Arc::new(mapped.with(memory, log_dirty));
        Ok(())
    }

    fn create_vcpu(&self, index: u32, cpuid: &[CpuidLeaf]) -> Result<Box<dyn Vcpu>, Error> {
        let shared = &self.shared;
        let attention = Arc::new(Attention::default());
        let tsc = Arc::new(TscClock::new(shared.epoch.clone()));
        let apic = Apic::new(index, tsc, attention, Arc::downgrade(&shared.interconnect));
        shared.interconnect.add(apic.clone());
        let leaves = for_vcpu(cpuid, index, shared.vcpus);
        let mut cpu = on_a_stack_that_goes(|| Cpu::new(apic, leaves))?;
        cpu.translations.hot = shared.tiers.hot();
        cpu.undefined = shared.undefined.clone();
        let trace = shared.trace.clone();
        cpu.tracer = trace.map(|trace| Box::new(Tracer::new(index, trace)));
        let attention = cpu.apic.attention().clone();
        cpu.sampled = shared
            .sampler
            .as_ref()
            .map(|sampler| sampler.add(index, attention));
        Ok(Box::new(SoftVcpu::new(cpu, shared.clone())))
    }

    fn signal_msi(&self, msi: Msi) -> Result<(), Error> {
        self.shared.interconnect.signal(msi);
        Ok(())
    }

    fn set_ioapic_route(&self, line: u32, route: Option<Msi>) -> Result<(), Error> {
        // The end of every level-triggered interrupt goes up, so routes need not be looked at; a line that does
        // not exist is refused all the same.
        let mut routes = self.shared.routes.lock().unwrap_or_else(PoisonError::into_inner);
        let slot = routes
            .get_mut(line as usize)
            .ok_or(Error::Unsupported("I/O APIC input of that number"))?;
        *slot = route;
        Ok(())
    }

    fn register_doorbell(
        &self,
        _address: DoorbellAddress,
        _doorbell: Arc<dyn Doorbell>,
    ) -> Result<Box<dyn DoorbellGuard>, Error> {
        // An access of a device is a function call here: there is no exit to save.
        Err(Error::Unsupported("doorbells"))
    }

    fn clock(&self) -> Result<Duration, Error> {
        Ok(Duration::from_nanos(self.shared.epoch.clock()))
    }

    fn set_clock(&self, clock: Duration) -> Result<(), Error> {
        let nanoseconds = u64::try_from(clock.as_nanos()).unwrap_or(u64::MAX);
        self.shared.epoch.set_clock(nanoseconds);
        Ok(())
    }

    fn take_dirty_pages(&self) -> Result<Vec<u64>, Error> {
        let memory = self.shared.memory();
        if !memory.logs_dirty() {
            return Err(Error::Unsupported("dirty log of memory mapped without one"));
        }
        let pages = memory.take_dirty();
        for apic in self.shared.interconnect.all() {
            apic.attention().post(FORGET_WRITES);
        }
        Ok(pages)
    }
}
