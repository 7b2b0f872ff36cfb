//! What a PCI function shows its host bridge (PCI Local Bus 3.0, PCI Express Base), and the parts one is
//! made of: [`ConfigSpace`] and [`Msix`].

mod config_space;
mod msix;
mod saved;

pub use config_space::{BarKind, ConfigSpace, Identity};
pub use msix::{Msix, MsixLayout};
pub use saved::{SavedConfigSpace, SavedMsix, SavedVector};

/// Why a function's configuration space cannot be laid out as asked. Only wiring meets it, never a guest.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum PciError {
    /// A BAR with a bad number, a bad length, or where another one is.
    #[error("BAR {bar} of {len:#x} bytes cannot be placed")]
    Bar {
        /// BAR number.
        bar: u8,
        /// Length in bytes.
        len: u64,
    },
    /// The 192 bytes for capabilities are used up, or one is longer than its length byte can say.
    #[error("no room for capability {id:#04x} of {len} bytes")]
    Capability {
        /// Capability id.
        id: u8,
        /// Length in bytes, with its header.
        len: usize,
    },
    /// An MSI-X structure with no or too many vectors, or at an impossible place.
    #[error("MSI-X with {vectors} vectors cannot be placed")]
    Msix {
        /// Vectors asked for.
        vectors: u16,
    },
}

/// One PCI function. The host bridge owns dispatch: configuration cycles come by register, memory accesses
/// by BAR and offset, according to what [`PciFunction::bars`] says at that moment, so a guest may move BARs
/// freely.
pub trait PciFunction {
    /// Reads the aligned 32-bit register at byte offset `register` (0 to 0xffc) of configuration space.
    fn config_read(&mut self, register: u16) -> u32;

    /// Writes the bytes of `value` that `byte_enable` (bit n: byte n) selects to the aligned register.
    fn config_write(&mut self, register: u16, value: u32, byte_enable: u8);

    /// The memory BARs that decode now: enabled in the command register and assigned.
    fn bars(&self) -> Vec<BarWindow>;

    /// A load of 1 to 8 bytes in BAR `bar`.
    fn bar_read(&mut self, bar: u8, offset: u64, data: &mut [u8]);

    /// A store of 1 to 8 bytes in BAR `bar`.
    fn bar_write(&mut self, bar: u8, offset: u64, data: &[u8]);
}

/// Where a BAR decodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BarWindow {
    /// BAR number, 0 to 5; a 64-bit BAR counts by its lower half.
    pub bar: u8,
    /// First guest-physical address.
    pub gpa: u64,
    /// Length in bytes, a power of two.
    pub len: u64,
}
