//! KVM (Documentation/virt/kvm/api.rst of Linux).

mod convert;
mod cpuid;
mod kick;
mod map_ahead;
mod state;
mod vcpu;
mod vm;

use std::os::unix::fs::MetadataExt;
use std::sync::Arc;
use std::{fs, io};

use hypervisor::{Capabilities, Error, GuestArch, Hypervisor, Vm, VmConfig};
use kvm_bindings::KVM_CAP_PRE_FAULT_MEMORY;
use kvm_ioctls::Cap;

use self::state::StateLayout;
use self::vm::KvmVm;

/// The backend's short name.
pub(crate) const NAME: &str = "kvm";
/// Where the host offers it.
const DEVICE: &str = "/dev/kvm";
/// The only version of the interface there is (api.rst, 4.1).
const API_VERSION: i32 = 12;

/// What this backend cannot do without, and its name in errors.
const REQUIRED: &[(Cap, &str)] = &[
    (Cap::UserMemory, "user memory"),
    (Cap::SplitIrqchip, "a split interrupt chip"),
    (Cap::ImmediateExit, "immediate exit"),
    (Cap::SignalMsi, "message-signalled interrupts"),
    (Cap::Xsave, "XSAVE state"),
    (Cap::Xcrs, "XCR state"),
    (Cap::VcpuEvents, "vCPU events"),
    (Cap::Debugregs, "debug registers"),
    (Cap::MpState, "run states"),
];

/// KVM of this host.
pub(crate) struct Kvm {
    kvm: kvm_ioctls::Kvm,
    capabilities: Capabilities,
    msrs: Vec<u32>,
}

impl Kvm {
    /// Opens the device and checks what it offers; runs nothing.
    pub(crate) fn open() -> Result<Self, Error> {
        let kvm = kvm_ioctls::Kvm::new().map_err(|error| unusable(&io::Error::from(error)))?;
        let version = kvm.get_api_version();
        if version < 0 {
            return Err(not_usable(format!("{DEVICE} is not the device of KVM")));
        }
        if version != API_VERSION {
            return Err(not_usable(format!(
                "it speaks version {version} of the interface, not {API_VERSION}"
            )));
        }
        if let Some((_, name)) = REQUIRED.iter().find(|(cap, _)| !kvm.check_extension(*cap)) {
            return Err(not_usable(format!("it lacks {name}; a newer kernel has it")));
        }
        let capabilities = Capabilities {
            arch: GuestArch::X86_64,
            max_vcpus: u32::try_from(kvm.get_max_vcpus()).unwrap_or(1),
            cpuid: cpuid::supported(&kvm)?,
            tsc_khz: None,
            doorbells: kvm.check_extension(Cap::Ioeventfd),
            dirty_log: true,
            maps_ahead: kvm.check_extension_raw(KVM_CAP_PRE_FAULT_MEMORY.into()) > 0,
        };
        let list = kvm
            .get_msr_index_list()
            .map_err(host("ask KVM for its model-specific registers"))?;
        let msrs = list.as_slice().to_vec();
        Ok(Self {
            kvm,
            capabilities,
            msrs,
        })
    }
}

fn not_usable(reason: String) -> Error {
    Error::Unusable {
        backend: NAME,
        reason,
    }
}

/// Says in one clause why the device cannot be opened, and the way out.
fn unusable(error: &io::Error) -> Error {
    not_usable(match error.kind() {
        io::ErrorKind::NotFound => format!(
            "{DEVICE} is absent: virtualization is off in the firmware, the kvm module is not loaded, or this \
             is itself a virtual machine without nesting"
        ),
        io::ErrorKind::PermissionDenied => {
            format!(
                "{DEVICE} may not be opened by this user: join its group (usually `kvm`) and log in again"
            )
        }
        _ => format!("{DEVICE} cannot be opened: {error}"),
    })
}

/// What tells this device from another that might take its place, as by loading another module. `None` where
/// it is absent.
pub(crate) fn device_identity() -> Option<String> {
    let metadata = fs::metadata(DEVICE).ok()?;
    let (changed, nanos) = (metadata.ctime(), metadata.ctime_nsec());
    Some(format!(
        "{:x}-{:x}-{:x}-{changed}.{nanos}",
        metadata.dev(),
        metadata.ino(),
        metadata.rdev()
    ))
}

/// A host error of one operation.
fn host(operation: &'static str) -> impl FnOnce(vmm_sys_util::errno::Error) -> Error {
    move |error| Error::Host {
        operation,
        source: error.into(),
    }
}

/// A refusal that came through `host_os`.
fn host_os_error(operation: &'static str) -> impl FnOnce(host_os::Error) -> Error {
    move |error| Error::Host {
        operation,
        source: io::Error::other(error),
    }
}

impl Hypervisor for Kvm {
    fn name(&self) -> &'static str {
        NAME
    }

    fn capabilities(&self) -> &Capabilities {
        &self.capabilities
    }

    fn create_vm(&self, config: &VmConfig) -> Result<Arc<dyn Vm>, Error> {
        let fd = self.kvm.create_vm().map_err(host("create a virtual machine"))?;
        let xsave2_len = usize::try_from(fd.check_extension_int(Cap::Xsave2)).unwrap_or(0);
        let layout = StateLayout::new(&self.msrs, &self.capabilities.cpuid, xsave2_len);
        Ok(Arc::new(KvmVm::new(fd, config, layout)?))
    }
}
