/// Why the chipset cannot be put together. A guest never causes any of these.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A thread of a device did not start.
    #[error("cannot start the thread of {device}")]
    Thread {
        /// The device.
        device: String,
        /// The system's reason.
        source: std::io::Error,
    },
    /// A PCI device number that is past 31 or taken.
    #[error("PCI device number {number} is not free")]
    PciSlot {
        /// The number asked for.
        number: u8,
    },
    /// Something hung on the PCI bus that is not a PCI function.
    #[error("{device} is not a PCI function")]
    NotPci {
        /// The device.
        device: String,
    },
    /// An ACPI table cannot say this.
    #[error("ACPI tables cannot describe {what}")]
    Acpi {
        /// What is out of range.
        what: String,
    },
}
