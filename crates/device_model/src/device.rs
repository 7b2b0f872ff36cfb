//! A device as a set of capabilities.

use saved_state::Unit;

use crate::pci::PciFunction;

/// Port addresses a device answers, `first` to `last` inclusive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PortRange {
    /// First port.
    pub first: u16,
    /// Last port.
    pub last: u16,
}

/// Guest-physical addresses a device answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MmioRange {
    /// First address.
    pub gpa: u64,
    /// Length in bytes.
    pub len: u64,
}

/// Anything that hangs on the bus. It returns itself as what it can do; the bus asks once, at wiring.
pub trait Device: Send {
    /// Name in logs and errors, such as `uart0`.
    fn name(&self) -> &str;

    /// Puts the device into its state after power-on.
    fn reset(&mut self);

    /// Stops whatever the device does besides answering accesses: from then on it touches neither guest memory nor
    /// interrupts until [`Device::resume`]. Without effect on one that is paused. Accesses do not come meanwhile.
    fn pause(&mut self) {}

    /// Goes on where [`Device::pause`], or a [`Device::restore`], left it. Trouble with what the guest set up is told
    /// to the guest's driver.
    fn resume(&mut self) {}

    /// The state of a device that is paused, without what it is plugged into. What was saved, restored and saved again
    /// is equal.
    fn save(&self) -> Unit;

    /// Takes over what [`Device::save`] gave. Only on a device that is new and paused, whose guest has not run.
    ///
    /// # Errors
    /// What is wrong with the unit; the device must then be thrown away.
    fn restore(&mut self, unit: &Unit) -> Result<(), saved_state::Error>;

    /// Port accesses, where it has any.
    fn ports(&mut self) -> Option<&mut dyn PortDevice> {
        None
    }

    /// Memory-mapped accesses, where it has any.
    fn mmio(&mut self) -> Option<&mut dyn MmioDevice> {
        None
    }

    /// A PCI function, where it is one.
    fn pci(&mut self) -> Option<&mut dyn PciFunction> {
        None
    }
}

/// A device with I/O ports. Data is 1, 2 or 4 bytes, little endian.
pub trait PortDevice {
    /// The ports it answers; fixed for its life.
    fn port_ranges(&self) -> Vec<PortRange>;
    /// An `in`; `data` comes filled with ones.
    fn port_read(&mut self, port: u16, data: &mut [u8]);
    /// An `out`.
    fn port_write(&mut self, port: u16, data: &[u8]);
}

/// A device with memory-mapped registers. Data is 1 to 8 bytes, little endian.
pub trait MmioDevice {
    /// The addresses it answers; fixed for its life.
    fn mmio_ranges(&self) -> Vec<MmioRange>;
    /// A load at absolute address `gpa`; `data` comes filled with ones.
    fn mmio_read(&mut self, gpa: u64, data: &mut [u8]);
    /// A store at absolute address `gpa`.
    fn mmio_write(&mut self, gpa: u64, data: &[u8]);
}

/// A device that several vCPUs enter at once: an interrupt controller, or a bridge that only dispatches
/// further. It guards its own state and calls out with none of its locks held. Data is as for [`PortDevice`]
/// and [`MmioDevice`].
pub trait ConcurrentDevice: Send + Sync {
    /// Name in logs and errors.
    fn name(&self) -> &str;

    /// Puts the device into its state after power-on.
    fn reset(&self);

    /// As [`Device::save`].
    fn save(&self) -> Unit;

    /// As [`Device::restore`].
    ///
    /// # Errors
    /// As there.
    fn restore(&self, unit: &Unit) -> Result<(), saved_state::Error>;

    /// The ports it answers; fixed for its life.
    fn port_ranges(&self) -> Vec<PortRange> {
        Vec::new()
    }

    /// The addresses it answers; fixed for its life.
    fn mmio_ranges(&self) -> Vec<MmioRange> {
        Vec::new()
    }

    /// An `in`; `data` comes filled with ones.
    fn port_read(&self, _port: u16, _data: &mut [u8]) {}

    /// An `out`.
    fn port_write(&self, _port: u16, _data: &[u8]) {}

    /// A load at absolute address `gpa`; `data` comes filled with ones.
    fn mmio_read(&self, _gpa: u64, _data: &mut [u8]) {}

    /// A store at absolute address `gpa`.
    fn mmio_write(&self, _gpa: u64, _data: &[u8]) {}
}
