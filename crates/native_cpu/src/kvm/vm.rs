//! One KVM virtual machine.

use std::os::fd::{BorrowedFd, FromRawFd, IntoRawFd};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use guest_memory::{GuestMemory, PAGE_SIZE, RamRegion};
use hypervisor::x86_64::{CpuidLeaf, for_vcpu};
use hypervisor::{Doorbell, DoorbellAddress, DoorbellGuard, Error, Msi, Vcpu, Vm, VmConfig};
use kvm_bindings::{
    KVM_CAP_EXCEPTION_PAYLOAD, KVM_CAP_SPLIT_IRQCHIP, KVM_CAP_X2APIC_API, KVM_IRQ_ROUTING_MSI,
    KVM_MEM_LOG_DIRTY_PAGES, KVM_X2APIC_API_DISABLE_BROADCAST_QUIRK, KVM_X2APIC_API_USE_32BIT_IDS,
    KvmIrqRouting, kvm_clock_data, kvm_enable_cap, kvm_irq_routing_entry, kvm_msi,
    kvm_userspace_memory_region,
};
use kvm_ioctls::{IoEventAddress, NoDatamatch, VmFd};
use vmm_sys_util::eventfd::EventFd;

use super::state::StateLayout;
use super::vcpu::KvmVcpu;
use super::{cpuid, host};

/// Three pages Intel processors need for real mode (api.rst, 4.4), and the identity map page below them.
/// They lie where no RAM and no device of the machine is.
const TSS_ADDRESS: usize = 0xfffb_d000;
const IDENTITY_MAP_ADDRESS: u64 = 0xfffb_c000;

/// A VM with local APICs in the kernel and everything else outside.
pub(super) struct KvmVm {
    fd: Arc<VmFd>,
    layout: Arc<StateLayout>,
    vcpus: u32,
    slots: Mutex<Slots>,
    routes: Mutex<Vec<Option<Msi>>>,
}

/// What is mapped.
#[derive(Default)]
struct Slots {
    regions: Vec<(RamRegion, bool)>,
    /// Keeps the host mapping alive as long as the VM may touch it.
    memories: Vec<GuestMemory>,
}

impl KvmVm {
    pub(super) fn new(fd: VmFd, config: &VmConfig, layout: StateLayout) -> Result<Self, Error> {
        fd.set_identity_map_address(IDENTITY_MAP_ADDRESS)
            .map_err(host("place the identity map page"))?;
        fd.set_tss_address(TSS_ADDRESS)
            .map_err(host("place the task-state pages"))?;
        enable(&fd, KVM_CAP_SPLIT_IRQCHIP, config.ioapic_lines.into())
            .map_err(host("split the interrupt chip"))?;
        // APIC ids in their architectural places, and exceptions that are pending apart from those that are
        // injected: kernels too old for these work all the same, with a little less state told apart.
        let x2apic = KVM_X2APIC_API_USE_32BIT_IDS | KVM_X2APIC_API_DISABLE_BROADCAST_QUIRK;
        for (capability, argument) in [(KVM_CAP_X2APIC_API, x2apic), (KVM_CAP_EXCEPTION_PAYLOAD, 1)] {
            if fd.check_extension_raw(capability.into()) > 0 {
                enable(&fd, capability, argument.into()).map_err(host("enable a capability of KVM"))?;
            }
        }
        Ok(Self {
            fd: Arc::new(fd),
            layout: Arc::new(layout),
            vcpus: config.vcpus,
            slots: Mutex::default(),
            routes: Mutex::new(vec![None; config.ioapic_lines as usize]),
        })
    }
}

fn enable(fd: &VmFd, cap: u32, argument: u64) -> Result<(), vmm_sys_util::errno::Error> {
    let mut enable = kvm_enable_cap {
        cap,
        ..Default::default()
    };
    enable.args[0] = argument;
    fd.enable_cap(&enable)
}

impl Slots {
    fn overlapping(&self, gpa: u64, len: u64) -> Option<u64> {
        let touches = |region: &RamRegion| region.gpa < gpa + len && gpa < region.gpa + region.len;
        self.regions
            .iter()
            .map(|(region, _)| region)
            .find(|region| touches(region))
            .map(|region| region.gpa)
    }
}

impl Vm for KvmVm {
    fn map_ram(&self, memory: &GuestMemory, log_dirty: bool) -> Result<(), Error> {
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        for RamRegion { gpa, len, .. } in memory.regions() {
            if let Some(other) = slots.overlapping(gpa, len) {
                return Err(Error::Overlap { gpa, len, other });
            }
        }
        // Kept before it is mapped, so that a mapping never outlives its memory.
        slots.memories.push(memory.clone());
        for region in memory.regions() {
            let slot = kvm_userspace_memory_region {
                slot: slots.regions.len() as u32,
                flags: if log_dirty { KVM_MEM_LOG_DIRTY_PAGES } else { 0 },
                guest_phys_addr: region.gpa,
                memory_size: region.len,
                userspace_addr: region.host_address as u64,
            };
            // SAFETY: the range is mapped by `memory`, which lives in `slots` at least as long as the VM.
            unsafe { self.fd.set_user_memory_region(slot) }.map_err(host("map guest memory"))?;
            slots.regions.push((region, log_dirty));
        }
        Ok(())
    }

    fn create_vcpu(&self, index: u32, leaves: &[CpuidLeaf]) -> Result<Box<dyn Vcpu>, Error> {
        let fd = self
            .fd
            .create_vcpu(u64::from(index))
            .map_err(host("create a virtual CPU"))?;
        let leaves = for_vcpu(leaves, index, self.vcpus);
        fd.set_cpuid2(&cpuid::to_kvm(&leaves)?)
            .map_err(host("set the CPUID leaves"))?;
        Ok(Box::new(KvmVcpu::new(fd, self.fd.clone(), self.layout.clone())))
    }

    fn signal_msi(&self, msi: Msi) -> Result<(), Error> {
        let message = kvm_msi {
            address_lo: msi.address as u32,
            address_hi: (msi.address >> 32) as u32,
            data: msi.data,
            ..Default::default()
        };
        self.fd
            .signal_msi(message)
            .map_err(host("deliver a message-signalled interrupt"))?;
        Ok(())
    }

    fn set_ioapic_route(&self, line: u32, route: Option<Msi>) -> Result<(), Error> {
        let mut routes = self.routes.lock().unwrap_or_else(PoisonError::into_inner);
        let slot = routes
            .get_mut(line as usize)
            .ok_or(Error::Unsupported("I/O APIC input of that number"))?;
        if *slot == route {
            return Ok(());
        }
        *slot = route;
        let entries: Vec<_> = (0..)
            .zip(routes.iter())
            .filter_map(|(gsi, route)| route.map(|msi| msi_route(gsi, msi)))
            .collect();
        let table =
            KvmIrqRouting::from_entries(&entries).map_err(|_| Error::Unsupported("so many routes"))?;
        self.fd
            .set_gsi_routing(&table)
            .map_err(host("route an interrupt line"))
    }

    fn clock(&self) -> Result<Duration, Error> {
        let data = self.fd.get_clock().map_err(host("read the guest's clock"))?;
        Ok(Duration::from_nanos(data.clock))
    }

    fn set_clock(&self, clock: Duration) -> Result<(), Error> {
        let data = kvm_clock_data {
            clock: u64::try_from(clock.as_nanos()).unwrap_or(u64::MAX),
            ..Default::default()
        };
        self.fd.set_clock(&data).map_err(host("set the guest's clock"))
    }

    fn register_doorbell(
        &self,
        address: DoorbellAddress,
        doorbell: Arc<dyn Doorbell>,
    ) -> Result<Box<dyn DoorbellGuard>, Error> {
        let handle = doorbell
            .event_handle()
            .ok_or(Error::Unsupported("way to ring this doorbell"))?;
        let fd = i32::try_from(handle).map_err(|_| Error::Unsupported("way to ring this doorbell"))?;
        // SAFETY: the doorbell keeps its descriptor open as long as it lives, and it lives through this call.
        let copy = unsafe { BorrowedFd::borrow_raw(fd) }
            .try_clone_to_owned()
            .map_err(|source| Error::Host {
                operation: "copy a doorbell",
                source,
            })?;
        // SAFETY: the copy was just made, is given up here, and nobody else owns it.
        let event = unsafe { EventFd::from_raw_fd(copy.into_raw_fd()) };
        set_doorbell(&self.fd, &event, address, true)?;
        Ok(Box::new(Registered {
            vm: self.fd.clone(),
            event,
            address,
        }))
    }

    fn take_dirty_pages(&self) -> Result<Vec<u64>, Error> {
        let slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        if slots.regions.iter().any(|(_, logged)| !logged) {
            return Err(Error::Unsupported("dirty log of memory mapped without one"));
        }
        let mut pages = Vec::new();
        for (slot, (region, _)) in (0..).zip(&slots.regions) {
            let bitmap = self
                .fd
                .get_dirty_log(slot, region.len as usize)
                .map_err(host("read the dirty log"))?;
            for (index, mut word) in (0_u64..).zip(bitmap) {
                while word != 0 {
                    let page = index * 64 + u64::from(word.trailing_zeros());
                    pages.push(region.gpa + page * PAGE_SIZE);
                    word &= word - 1;
                }
            }
        }
        Ok(pages)
    }
}

fn msi_route(gsi: u32, msi: Msi) -> kvm_irq_routing_entry {
    let mut entry = kvm_irq_routing_entry {
        gsi,
        type_: KVM_IRQ_ROUTING_MSI,
        ..Default::default()
    };
    entry.u.msi.address_lo = msi.address as u32;
    entry.u.msi.address_hi = (msi.address >> 32) as u32;
    entry.u.msi.data = msi.data;
    entry
}

/// An ioeventfd, as long as it lives.
struct Registered {
    vm: Arc<VmFd>,
    event: EventFd,
    address: DoorbellAddress,
}

impl DoorbellGuard for Registered {}

impl Drop for Registered {
    fn drop(&mut self) {
        // It was registered with these very words; the VM may be on its way out, and then nothing is lost.
        let _ = set_doorbell(&self.vm, &self.event, self.address, false);
    }
}

fn set_doorbell(vm: &VmFd, event: &EventFd, address: DoorbellAddress, on: bool) -> Result<(), Error> {
    let at = IoEventAddress::Mmio(address.gpa);
    let done = match (address.value, address.width, on) {
        (None, _, true) => vm.register_ioevent(event, &at, NoDatamatch),
        (None, _, false) => vm.unregister_ioevent(event, &at, NoDatamatch),
        (Some(value), 2, true) => vm.register_ioevent(event, &at, value as u16),
        (Some(value), 2, false) => vm.unregister_ioevent(event, &at, value as u16),
        (Some(value), _, true) => vm.register_ioevent(event, &at, value),
        (Some(value), _, false) => vm.unregister_ioevent(event, &at, value),
    };
    done.map_err(host("register a doorbell"))
}
