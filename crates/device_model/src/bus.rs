//! Dispatch of port and memory-mapped accesses by address.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::{ConcurrentDevice, Device, MmioRange, PortRange};

/// A device shared between the bus, its wiring and the machine's lifecycle.
pub type SharedDevice = Arc<Mutex<dyn Device>>;

/// What stands behind a claim.
#[derive(Clone)]
enum Target {
    /// Accesses take turns.
    Locked(SharedDevice),
    /// Accesses enter at once; the device locks for itself.
    Concurrent(Arc<dyn ConcurrentDevice>),
}

/// Why a device cannot hang on the bus.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum BusError {
    /// Two devices claim one address.
    #[error("{device} claims {kind} {first:#x}-{last:#x}, where {other} already is")]
    Overlap {
        /// The device that came second.
        device: String,
        /// `ports` or `memory`.
        kind: &'static str,
        /// First address claimed.
        first: u64,
        /// Last address claimed.
        last: u64,
        /// The device that came first.
        other: String,
    },
    /// A range that is empty or runs past the end of the address space.
    #[error("{device} claims an impossible range of {kind} at {first:#x}")]
    Range {
        /// The device.
        device: String,
        /// `ports` or `memory`.
        kind: &'static str,
        /// Where the range begins.
        first: u64,
    },
}

struct Claim {
    last: u64,
    owner: String,
    target: Target,
}

/// The claims of one address space, by first address.
#[derive(Default)]
struct Space {
    claims: BTreeMap<u64, Claim>,
}

impl Space {
    fn claim(
        &mut self,
        kind: &'static str,
        first: u64,
        last: u64,
        owner: &str,
        target: &Target,
    ) -> Result<(), BusError> {
        if let Some(other) = self
            .claims
            .range(..=last)
            .next_back()
            .filter(|(_, claim)| claim.last >= first)
        {
            return Err(BusError::Overlap {
                device: owner.to_owned(),
                kind,
                first,
                last,
                other: other.1.owner.clone(),
            });
        }
        self.claims.insert(
            first,
            Claim {
                last,
                owner: owner.to_owned(),
                target: target.clone(),
            },
        );
        Ok(())
    }

    fn find(&self, address: u64) -> Option<&Target> {
        let (_, claim) = self.claims.range(..=address).next_back()?;
        (claim.last >= address).then_some(&claim.target)
    }
}

/// All devices by address. Wired once, then read-only: dispatch takes only the device's own lock, and none
/// for a [`ConcurrentDevice`].
#[derive(Default)]
pub struct Bus {
    ports: Space,
    memory: Space,
}

impl Bus {
    /// Hangs a device on the bus with all ports and addresses it claims.
    ///
    /// # Errors
    /// [`BusError`]; the bus must then be thrown away, as some claims may have been entered.
    pub fn add(&mut self, device: &SharedDevice) -> Result<(), BusError> {
        let mut guard = lock(device);
        let owner = guard.name().to_owned();
        let ports = guard.ports().map(|ports| ports.port_ranges()).unwrap_or_default();
        let ranges = guard.mmio().map(|mmio| mmio.mmio_ranges()).unwrap_or_default();
        drop(guard);
        self.claim_all(&owner, &ports, &ranges, &Target::Locked(device.clone()))
    }

    /// Hangs a device on the bus that several vCPUs enter at once.
    ///
    /// # Errors
    /// As [`Bus::add`].
    pub fn add_concurrent(&mut self, device: Arc<dyn ConcurrentDevice>) -> Result<(), BusError> {
        let owner = device.name().to_owned();
        let (ports, ranges) = (device.port_ranges(), device.mmio_ranges());
        self.claim_all(&owner, &ports, &ranges, &Target::Concurrent(device))
    }

    fn claim_all(
        &mut self,
        owner: &str,
        ports: &[PortRange],
        ranges: &[MmioRange],
        target: &Target,
    ) -> Result<(), BusError> {
        let impossible = |kind, first| BusError::Range {
            device: owner.to_owned(),
            kind,
            first,
        };
        for &PortRange { first, last } in ports {
            if last < first {
                return Err(impossible("ports", first.into()));
            }
            self.ports
                .claim("ports", first.into(), last.into(), owner, target)?;
        }
        for &MmioRange { gpa, len } in ranges {
            let last = len.checked_sub(1).and_then(|len| gpa.checked_add(len));
            let last = last.ok_or_else(|| impossible("memory", gpa))?;
            self.memory.claim("memory", gpa, last, owner, target)?;
        }
        Ok(())
    }

    /// Carries out a load. An address nobody claims reads as all ones.
    pub fn mmio_read(&self, gpa: u64, data: &mut [u8]) {
        data.fill(0xff);
        match self.memory.find(gpa) {
            Some(Target::Locked(device)) => {
                if let Some(mmio) = lock(device).mmio() {
                    mmio.mmio_read(gpa, data);
                }
            }
            Some(Target::Concurrent(device)) => device.mmio_read(gpa, data),
            None => {}
        }
    }

    /// Carries out a store. An address nobody claims swallows it.
    pub fn mmio_write(&self, gpa: u64, data: &[u8]) {
        match self.memory.find(gpa) {
            Some(Target::Locked(device)) => {
                if let Some(mmio) = lock(device).mmio() {
                    mmio.mmio_write(gpa, data);
                }
            }
            Some(Target::Concurrent(device)) => device.mmio_write(gpa, data),
            None => {}
        }
    }

    /// Carries out an `in`. A port nobody claims reads as all ones.
    pub fn port_read(&self, port: u16, data: &mut [u8]) {
        data.fill(0xff);
        match self.ports.find(port.into()) {
            Some(Target::Locked(device)) => {
                if let Some(ports) = lock(device).ports() {
                    ports.port_read(port, data);
                }
            }
            Some(Target::Concurrent(device)) => device.port_read(port, data),
            None => {}
        }
    }

    /// Carries out an `out`. A port nobody claims swallows it.
    pub fn port_write(&self, port: u16, data: &[u8]) {
        match self.ports.find(port.into()) {
            Some(Target::Locked(device)) => {
                if let Some(ports) = lock(device).ports() {
                    ports.port_write(port, data);
                }
            }
            Some(Target::Concurrent(device)) => device.port_write(port, data),
            None => {}
        }
    }
}

/// Takes a device's lock. A device whose thread panicked is still the guest's device: what it holds is checked at each
/// access.
pub fn lock(device: &SharedDevice) -> MutexGuard<'_, dyn Device + 'static> {
    device.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{MmioDevice, PortDevice};
    use saved_state::Unit;

    struct Echo {
        ports: Vec<PortRange>,
        ranges: Vec<MmioRange>,
        last: u64,
    }

    impl Device for Echo {
        fn name(&self) -> &str {
            "echo"
        }
        fn reset(&mut self) {}
        fn save(&self) -> Unit {
            Unit::empty()
        }
        fn restore(&mut self, unit: &Unit) -> Result<(), saved_state::Error> {
            unit.expect_empty()
        }
        fn ports(&mut self) -> Option<&mut dyn PortDevice> {
            Some(self)
        }
        fn mmio(&mut self) -> Option<&mut dyn MmioDevice> {
            Some(self)
        }
    }

    impl PortDevice for Echo {
        fn port_ranges(&self) -> Vec<PortRange> {
            self.ports.clone()
        }
        fn port_read(&mut self, port: u16, data: &mut [u8]) {
            data[0] = port as u8;
        }
        fn port_write(&mut self, port: u16, _data: &[u8]) {
            self.last = port.into();
        }
    }

    impl MmioDevice for Echo {
        fn mmio_ranges(&self) -> Vec<MmioRange> {
            self.ranges.clone()
        }
        fn mmio_read(&mut self, gpa: u64, data: &mut [u8]) {
            data[0] = gpa as u8;
        }
        fn mmio_write(&mut self, gpa: u64, _data: &[u8]) {
            self.last = gpa;
        }
    }

    fn echo(ports: &[(u16, u16)], ranges: &[(u64, u64)]) -> SharedDevice {
        Arc::new(Mutex::new(Echo {
            ports: ports
                .iter()
                .map(|&(first, last)| PortRange { first, last })
                .collect(),
            ranges: ranges.iter().map(|&(gpa, len)| MmioRange { gpa, len }).collect(),
            last: 0,
        }))
    }

    #[test]
    fn access_inside_a_claim_reaches_the_device_and_outside_reads_ones() {
        let mut bus = Bus::default();
        bus.add(&echo(&[(0x3f8, 0x3ff)], &[(0xfec0_0000, 0x1000)]))
            .unwrap();
        let mut byte = [0];
        bus.port_read(0x3f9, &mut byte);
        assert_eq!(byte, [0xf9]);
        bus.port_read(0x400, &mut byte);
        assert_eq!(byte, [0xff]);
        bus.mmio_read(0xfec0_0fff, &mut byte);
        assert_eq!(byte, [0xff]);
        bus.mmio_read(0xfec0_0010, &mut byte);
        assert_eq!(byte, [0x10]);
    }

    /// Reads itself through the bus it hangs on, which a lock would forbid.
    struct Nested(std::sync::OnceLock<Arc<Bus>>);

    impl ConcurrentDevice for Nested {
        fn name(&self) -> &str {
            "nested"
        }
        fn reset(&self) {}
        fn save(&self) -> Unit {
            Unit::empty()
        }
        fn restore(&self, unit: &Unit) -> Result<(), saved_state::Error> {
            unit.expect_empty()
        }
        fn port_ranges(&self) -> Vec<PortRange> {
            vec![PortRange { first: 1, last: 2 }]
        }
        fn port_read(&self, port: u16, data: &mut [u8]) {
            data[0] = 0x55;
            if port == 1 {
                self.0.get().unwrap().port_read(2, data);
            }
        }
    }

    #[test]
    fn concurrent_device_is_entered_without_a_lock() {
        let nested = Arc::new(Nested(Default::default()));
        let mut bus = Bus::default();
        bus.add_concurrent(nested.clone()).unwrap();
        let bus = Arc::new(bus);
        assert!(nested.0.set(bus.clone()).is_ok());
        let mut byte = [0];
        bus.port_read(1, &mut byte);
        assert_eq!(byte, [0x55]);
    }

    #[test]
    fn add_overlapping_claim_is_refused_on_either_side() {
        let mut bus = Bus::default();
        bus.add(&echo(&[(0x60, 0x64)], &[(0x1000, 0x1000)])).unwrap();
        assert!(bus.add(&echo(&[(0x64, 0x64)], &[])).is_err());
        assert!(bus.add(&echo(&[(0x50, 0x60)], &[])).is_err());
        assert!(bus.add(&echo(&[], &[(0x1fff, 1)])).is_err());
        assert!(bus.add(&echo(&[], &[(0x0, 0x4000)])).is_err());
        assert!(bus.add(&echo(&[(0x65, 0x70)], &[(0x2000, 0x10)])).is_ok());
    }

    #[test]
    fn add_impossible_range_is_refused() {
        assert!(Bus::default().add(&echo(&[], &[(u64::MAX, 2)])).is_err());
        assert!(Bus::default().add(&echo(&[], &[(0, 0)])).is_err());
        assert!(Bus::default().add(&echo(&[(2, 1)], &[])).is_err());
    }
}
