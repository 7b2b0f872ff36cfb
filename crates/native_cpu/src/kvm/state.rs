//! CPU state, element by element of the state table.

use std::collections::BTreeMap;

use hypervisor::Error;
use hypervisor::x86_64::{
    Activity, CpuStateAccess, CpuidLeaf, DebugRegisters, ExtendedState, GeneralRegisters, LocalApic, Msrs,
    PendingEvents, SystemRegisters, XsaveLayout, find_leaf, msr,
};
use kvm_bindings::{
    KVM_MP_STATE_HALTED, KVM_MP_STATE_INIT_RECEIVED, KVM_MP_STATE_RUNNABLE, KVM_MP_STATE_SIPI_RECEIVED,
    KVM_MP_STATE_UNINITIALIZED, KVM_VCPUEVENT_VALID_SIPI_VECTOR, Xsave, kvm_debugregs, kvm_mp_state,
    kvm_msr_entry, kvm_xcr, kvm_xcrs, kvm_xsave,
};

use super::vcpu::KvmVcpu;
use super::{convert, host};

/// How one VM's vCPUs hold what differs between hosts.
pub(super) struct StateLayout {
    /// Those of [`msr::STATE_MSRS`] that this host's KVM has.
    pub(super) msrs: Vec<u32>,
    /// Standard format of the XSAVE area.
    pub(super) xsave: XsaveLayout,
    /// Bytes that KVM_GET_XSAVE2 fills; 0 where only the 4096 bytes of KVM_GET_XSAVE exist.
    pub(super) xsave2_len: usize,
    /// Whether the guest's processor is AMD's, whose SYSENTER exists in 32-bit code alone (AMD APM vol. 2, 6.1.2): KVM
    /// takes the low halves of its registers, though a guest's own write leaves more there to be read.
    narrow_sysenter: bool,
}

impl StateLayout {
    pub(super) fn new(offered: &[u32], cpuid: &[CpuidLeaf], xsave2_len: usize) -> Self {
        let msrs = msr::STATE_MSRS
            .iter()
            .copied()
            .filter(|index| offered.contains(index) || is_mtrr(*index))
            .collect();
        Self {
            msrs,
            xsave: XsaveLayout::from_cpuid(cpuid),
            xsave2_len,
            narrow_sysenter: is_amd(cpuid),
        }
    }

    /// The part of an MSR's value that means something and can be set again.
    fn meaningful(&self, index: u32, value: u64) -> u64 {
        let sysenter = matches!(index, msr::SYSENTER_ESP | msr::SYSENTER_EIP);
        match self.narrow_sysenter && sysenter {
            true => value & u64::from(u32::MAX),
            false => value,
        }
    }
}

/// Whether this is a memory-type range register, which KVM has even where it does not list it.
fn is_mtrr(index: u32) -> bool {
    matches!(index, 0x200..=0x20f | 0x250..=0x26f | msr::MTRR_DEF_TYPE)
}

/// Whether CPUID names AMD as the vendor (leaf 0: EBX, EDX, ECX).
fn is_amd(cpuid: &[CpuidLeaf]) -> bool {
    find_leaf(cpuid, 0, 0).is_some_and(|leaf| {
        let name = [leaf.ebx, leaf.edx, leaf.ecx].map(u32::to_le_bytes).concat();
        name == b"AuthenticAMD" || name == b"HygonGenuine"
    })
}

impl KvmVcpu {
    /// The value of one MSR; `None` where this vCPU's CPUID does not have it.
    fn read_msr(&self, index: u32) -> Result<Option<u64>, Error> {
        let mut list = msr_list(index, 0)?;
        let count = self
            .fd
            .get_msrs(&mut list)
            .map_err(host("read a model-specific register"))?;
        Ok((count == 1).then(|| list.as_slice()[0].data))
    }

    fn write_msr(&self, element: &'static str, index: u32, value: u64) -> Result<(), Error> {
        let count = self
            .fd
            .set_msrs(&msr_list(index, value)?)
            .map_err(host("set a model-specific register"))?;
        if count == 1 {
            return Ok(());
        }
        Err(Error::State {
            element,
            reason: format!("KVM refuses {value:#x} for MSR {index:#x}"),
        })
    }

    fn xsave_area(&self) -> Result<Vec<u8>, Error> {
        let len = self.layout.xsave2_len;
        if len == 0 {
            let xsave = self.fd.get_xsave().map_err(host("read the extended state"))?;
            return Ok(to_bytes(&xsave.region));
        }
        let mut xsave = xsave2_buffer(len)?;
        // SAFETY: the buffer has the length that KVM_CAP_XSAVE2 gave for this VM, and no component is enabled
        // between that answer and now, because this crate enables none.
        unsafe { self.fd.get_xsave2(&mut xsave) }.map_err(host("read the extended state"))?;
        let mut area = to_bytes(&xsave.as_fam_struct_ref().xsave.region);
        area.extend(to_bytes(xsave.as_slice()));
        Ok(area)
    }
}

fn to_bytes(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}

fn fill_words(words: &mut [u32], bytes: &[u8]) {
    for (word, bytes) in words.iter_mut().zip(bytes.as_chunks().0) {
        *word = u32::from_le_bytes(*bytes);
    }
}

/// A `kvm_xsave` with room for `len` bytes; its first 4096 are in the fixed part.
fn xsave2_buffer(len: usize) -> Result<Xsave, Error> {
    let extra = len
        .saturating_sub(size_of::<kvm_xsave>())
        .div_ceil(size_of::<u32>());
    Xsave::new(extra).map_err(|_| Error::State {
        element: "extended",
        reason: format!("{len} bytes are too many"),
    })
}

fn msr_list(index: u32, data: u64) -> Result<kvm_bindings::Msrs, Error> {
    kvm_bindings::Msrs::from_entries(&[kvm_msr_entry {
        index,
        data,
        ..Default::default()
    }])
    .map_err(|_| Error::State {
        element: "msrs",
        reason: "the list cannot be made".to_owned(),
    })
}

impl CpuStateAccess for KvmVcpu {
    fn system(&mut self) -> Result<SystemRegisters, Error> {
        let sregs = self.fd.get_sregs().map_err(host("read the system registers"))?;
        Ok(convert::system_from(&sregs))
    }

    fn set_system(&mut self, value: &SystemRegisters) -> Result<(), Error> {
        self.fd
            .set_sregs(&convert::system_to(value))
            .map_err(host("set the system registers"))
    }

    fn general(&mut self) -> Result<GeneralRegisters, Error> {
        let regs = self.fd.get_regs().map_err(host("read the general registers"))?;
        Ok(convert::general_from(&regs))
    }

    fn set_general(&mut self, value: &GeneralRegisters) -> Result<(), Error> {
        self.fd
            .set_regs(&convert::general_to(value))
            .map_err(host("set the general registers"))
    }

    fn xcr0(&mut self) -> Result<u64, Error> {
        let xcrs = self.fd.get_xcrs().map_err(host("read XCR0"))?;
        let mut known = xcrs.xcrs.iter().take(xcrs.nr_xcrs as usize);
        Ok(known.find(|xcr| xcr.xcr == 0).map_or(1, |xcr| xcr.value))
    }

    fn set_xcr0(&mut self, value: &u64) -> Result<(), Error> {
        let mut xcrs = kvm_xcrs {
            nr_xcrs: 1,
            ..Default::default()
        };
        xcrs.xcrs[0] = kvm_xcr {
            xcr: 0,
            reserved: 0,
            value: *value,
        };
        self.fd.set_xcrs(&xcrs).map_err(host("set XCR0"))
    }

    fn extended(&mut self) -> Result<ExtendedState, Error> {
        let area = self.xsave_area()?;
        self.layout.xsave.parse(&area).ok_or_else(|| Error::State {
            element: "extended",
            reason: format!("KVM's area of {} bytes is shorter than CPUID says", area.len()),
        })
    }

    fn set_extended(&mut self, value: &ExtendedState) -> Result<(), Error> {
        let len = self
            .layout
            .xsave
            .area_len()
            .max(self.layout.xsave2_len)
            .max(size_of::<kvm_xsave>());
        let mut area = vec![0; len];
        self.layout
            .xsave
            .format(value, &mut area)
            .map_err(|component| Error::State {
                element: "extended",
                reason: format!("this host has no state component {component} of that size"),
            })?;
        let mut xsave = xsave2_buffer(len)?;
        let (fixed, extra) = area.split_at(size_of::<kvm_xsave>());
        fill_words(xsave.as_mut_slice(), extra);
        // SAFETY: no field that tells the buffer's length is written.
        fill_words(unsafe { &mut xsave.as_mut_fam_struct().xsave.region }, fixed);
        // SAFETY: KVM reads as many bytes as KVM_CAP_XSAVE2 says, and the buffer has at least that many.
        unsafe { self.fd.set_xsave2(&xsave) }.map_err(host("set the extended state"))
    }

    fn debug(&mut self) -> Result<DebugRegisters, Error> {
        let kvm_debugregs { db, dr6, dr7, .. } = self
            .fd
            .get_debug_regs()
            .map_err(host("read the debug registers"))?;
        Ok(DebugRegisters { dr: db, dr6, dr7 })
    }

    fn set_debug(&mut self, value: &DebugRegisters) -> Result<(), Error> {
        let DebugRegisters { dr, dr6, dr7 } = *value;
        let registers = kvm_debugregs {
            db: dr,
            dr6,
            dr7,
            ..Default::default()
        };
        self.fd
            .set_debug_regs(&registers)
            .map_err(host("set the debug registers"))
    }

    fn tsc(&mut self) -> Result<u64, Error> {
        Ok(self.read_msr(msr::TSC)?.unwrap_or(0))
    }

    fn set_tsc(&mut self, value: &u64) -> Result<(), Error> {
        self.write_msr("tsc", msr::TSC, *value)
    }

    fn msrs(&mut self) -> Result<Msrs, Error> {
        let mut values = BTreeMap::new();
        for &index in &self.layout.msrs {
            if let Some(value) = self.read_msr(index)? {
                values.insert(index, self.layout.meaningful(index, value));
            }
        }
        Ok(values)
    }

    /// Writes only what differs: some registers that can be read refuse any write, and most states are
    /// restored onto a vCPU that holds the same values.
    fn set_msrs(&mut self, value: &Msrs) -> Result<(), Error> {
        for (&index, &wanted) in value {
            if self.read_msr(index)? != Some(wanted) {
                self.write_msr("msrs", index, wanted)?;
            }
        }
        Ok(())
    }

    fn lapic(&mut self) -> Result<LocalApic, Error> {
        let lapic = self.fd.get_lapic().map_err(host("read the local APIC"))?;
        Ok(convert::lapic_from(&lapic))
    }

    fn set_lapic(&mut self, value: &LocalApic) -> Result<(), Error> {
        self.fd
            .set_lapic(&convert::lapic_to(value))
            .map_err(host("set the local APIC"))
    }

    fn tsc_deadline(&mut self) -> Result<u64, Error> {
        Ok(self.read_msr(msr::TSC_DEADLINE)?.unwrap_or(0))
    }

    fn set_tsc_deadline(&mut self, value: &u64) -> Result<(), Error> {
        // Setting the local APIC disarmed it; and where the timer is in another mode a write is ignored.
        if *value == 0 {
            return Ok(());
        }
        self.write_msr("tsc_deadline", msr::TSC_DEADLINE, *value)
    }

    fn activity(&mut self) -> Result<Activity, Error> {
        let state = self.fd.get_mp_state().map_err(host("read the activity state"))?;
        Ok(match state.mp_state {
            KVM_MP_STATE_RUNNABLE => Activity::Running,
            KVM_MP_STATE_HALTED => Activity::Halted,
            KVM_MP_STATE_UNINITIALIZED => Activity::WaitForInit,
            KVM_MP_STATE_INIT_RECEIVED => Activity::WaitForSipi,
            KVM_MP_STATE_SIPI_RECEIVED => {
                let events = self
                    .fd
                    .get_vcpu_events()
                    .map_err(host("read the start-up vector"))?;
                Activity::SipiReceived(events.sipi_vector as u8)
            }
            other => {
                let reason = format!("KVM reports activity {other}, which x86-64 has not");
                return Err(Error::State {
                    element: "activity",
                    reason,
                });
            }
        })
    }

    fn set_activity(&mut self, value: &Activity) -> Result<(), Error> {
        let mp_state = match *value {
            Activity::Running => KVM_MP_STATE_RUNNABLE,
            Activity::Halted => KVM_MP_STATE_HALTED,
            Activity::WaitForInit => KVM_MP_STATE_UNINITIALIZED,
            Activity::WaitForSipi => KVM_MP_STATE_INIT_RECEIVED,
            Activity::SipiReceived(vector) => {
                let mut events = self.fd.get_vcpu_events().map_err(host("read pending events"))?;
                events.sipi_vector = u32::from(vector);
                events.flags |= KVM_VCPUEVENT_VALID_SIPI_VECTOR;
                self.fd
                    .set_vcpu_events(&events)
                    .map_err(host("set the start-up vector"))?;
                KVM_MP_STATE_SIPI_RECEIVED
            }
        };
        self.fd
            .set_mp_state(kvm_mp_state { mp_state })
            .map_err(host("set the activity state"))
    }

    fn events(&mut self) -> Result<PendingEvents, Error> {
        let events = self.fd.get_vcpu_events().map_err(host("read pending events"))?;
        Ok(convert::events_from(&events))
    }

    fn set_events(&mut self, value: &PendingEvents) -> Result<(), Error> {
        let before = self.fd.get_vcpu_events().map_err(host("read pending events"))?;
        self.fd
            .set_vcpu_events(&convert::events_to(value, &before))
            .map_err(host("set pending events"))
    }
}
