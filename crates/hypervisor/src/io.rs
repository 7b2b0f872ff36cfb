//! The upcall by which a backend finishes an exit.

/// What a vCPU reaches outside RAM. Implemented once, by the machine's dispatcher.
///
/// *Concurrency:* called from every vCPU thread at once, without any lock of the backend held.
/// *Widths:* 1, 2, 4 or 8 bytes, little endian; a string instruction is one call per element. Addresses that
/// no device claims read as all ones and swallow writes.
pub trait GuestIo: Send + Sync {
    /// A load from guest-physical address `gpa` that is not RAM.
    fn mmio_read(&self, gpa: u64, data: &mut [u8]);
    /// A store to guest-physical address `gpa` that is not RAM.
    fn mmio_write(&self, gpa: u64, data: &[u8]);
    /// An `in` from `port`.
    fn port_read(&self, port: u16, data: &mut [u8]);
    /// An `out` to `port`.
    fn port_write(&self, port: u16, data: &[u8]);
    /// The guest ended a level-triggered interrupt with this vector at its local APIC.
    fn eoi(&self, vector: u8);
}

/// One message-signalled interrupt (Intel SDM vol. 3, 11.11): a store of `data` to `address`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Msi {
    /// Where the message goes; selects destination and delivery.
    pub address: u64,
    /// What it says; vector, delivery mode and trigger mode.
    pub data: u32,
}
