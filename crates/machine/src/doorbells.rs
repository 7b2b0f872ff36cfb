//! Doorbells that the CPU backend rings by itself: a store that would be an exit to this process wakes the device's
//! thread, and the guest goes on at once. `native_cpu`'s example `doorbell_cost` measures what that saves.

use std::sync::{Arc, Mutex, PoisonError, Weak};

use device_model::{Event, FirstTime};
use hypervisor::{Doorbell, DoorbellAddress, DoorbellGuard, Vm};
use tracing::warn;
use virtio::DoorbellObserver;

/// Width of a notification: drivers store the queue's number as 16 bits (VIRTIO 1.3, 4.1.5.2). Other stores ring by an
/// exit.
const WIDTH: u8 = 2;

/// The doorbells of one device. Holds the VM weakly, as devices hold this.
pub(crate) struct DirectDoorbells {
    vm: Weak<dyn Vm>,
    registered: Mutex<Vec<Registered>>,
    /// The guest chooses how often registration fails.
    refused: FirstTime,
}

struct Registered {
    gpa: u64,
    event: Event,
    _guard: Box<dyn DoorbellGuard>,
}

impl DirectDoorbells {
    pub(crate) fn new(vm: &Arc<dyn Vm>) -> Self {
        Self {
            vm: Arc::downgrade(vm),
            registered: Mutex::default(),
            refused: FirstTime::default(),
        }
    }

    /// Without it the store is an exit, and rings all the same.
    fn register(&self, vm: &dyn Vm, gpa: u64, event: Event) -> Option<Registered> {
        let address = DoorbellAddress {
            gpa,
            width: WIDTH,
            value: None,
        };
        match vm.register_doorbell(address, Arc::new(RungByEvent(event.clone()))) {
            Ok(guard) => Some(Registered {
                gpa,
                event,
                _guard: guard,
            }),
            Err(error) => {
                if self.refused.is_now() {
                    warn!(gpa, %error, "a doorbell is rung by exits; this is told once");
                }
                None
            }
        }
    }
}

impl DoorbellObserver for DirectDoorbells {
    fn doorbells_changed(&self, doorbells: &[virtio::DoorbellAddress]) {
        let Some(vm) = self.vm.upgrade() else { return };
        let wanted = doorbells.iter().filter_map(|address| {
            let event = address.doorbell.event()?;
            Some((address.gpa, event))
        });
        let wanted: Vec<_> = wanted.collect();
        let is_wanted = |known: &Registered| {
            let mut wanted = wanted.iter();
            wanted.any(|(gpa, event)| known.is(*gpa, event))
        };
        let mut registered = self.registered.lock().unwrap_or_else(PoisonError::into_inner);
        // What no longer holds goes first: an address may be taken over.
        registered.retain(is_wanted);
        for (gpa, event) in wanted {
            if !registered.iter().any(|known| known.is(gpa, &event)) {
                registered.extend(self.register(&*vm, gpa, event));
            }
        }
    }
}

impl Registered {
    fn is(&self, gpa: u64, event: &Event) -> bool {
        self.gpa == gpa && self.event.raw_handle() == event.raw_handle()
    }
}

struct RungByEvent(Event);

impl Doorbell for RungByEvent {
    fn ring(&self) {
        self.0.signal();
    }

    fn event_handle(&self) -> Option<usize> {
        Some(self.0.raw_handle())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use guest_memory::GuestMemory;
    use hypervisor::x86_64::CpuidLeaf;
    use hypervisor::{Error, Msi, Vcpu};

    use super::*;

    /// A VM that only knows doorbells: those registered now, and how often one was registered.
    #[derive(Default)]
    struct Bells {
        addresses: Arc<Mutex<Vec<u64>>>,
        registrations: Mutex<u32>,
    }

    struct Guard {
        gpa: u64,
        addresses: Arc<Mutex<Vec<u64>>>,
    }

    impl DoorbellGuard for Guard {}

    impl Drop for Guard {
        fn drop(&mut self) {
            self.addresses.lock().unwrap().retain(|gpa| *gpa != self.gpa);
        }
    }

    impl Vm for Bells {
        fn map_ram(&self, _memory: &GuestMemory, _log_dirty: bool) -> Result<(), Error> {
            Err(Error::Unsupported("RAM"))
        }
        fn create_vcpu(&self, _index: u32, _cpuid: &[CpuidLeaf]) -> Result<Box<dyn Vcpu>, Error> {
            Err(Error::Unsupported("CPU"))
        }
        fn signal_msi(&self, _msi: Msi) -> Result<(), Error> {
            Err(Error::Unsupported("interrupt"))
        }
        fn set_ioapic_route(&self, _line: u32, _route: Option<Msi>) -> Result<(), Error> {
            Err(Error::Unsupported("interrupt"))
        }
        fn register_doorbell(
            &self,
            address: DoorbellAddress,
            _doorbell: Arc<dyn Doorbell>,
        ) -> Result<Box<dyn DoorbellGuard>, Error> {
            let mut addresses = self.addresses.lock().unwrap();
            assert!(!addresses.contains(&address.gpa), "registered twice");
            addresses.push(address.gpa);
            *self.registrations.lock().unwrap() += 1;
            Ok(Box::new(Guard {
                gpa: address.gpa,
                addresses: self.addresses.clone(),
            }))
        }
        fn clock(&self) -> Result<Duration, Error> {
            Err(Error::Unsupported("clock"))
        }
        fn set_clock(&self, _clock: Duration) -> Result<(), Error> {
            Err(Error::Unsupported("clock"))
        }
        fn take_dirty_pages(&self) -> Result<Vec<u64>, Error> {
            Err(Error::Unsupported("dirty log"))
        }
    }

    /// A doorbell at `gpa`, answered by `event`.
    fn bell(gpa: u64, event: &Event) -> virtio::DoorbellAddress {
        let doorbell = virtio::Doorbell::default();
        doorbell.connect(event.clone(), || {});
        virtio::DoorbellAddress {
            gpa,
            value: None,
            queue: 0,
            doorbell: Arc::new(doorbell),
        }
    }

    #[test]
    fn doorbells_that_stay_are_kept_and_others_follow_their_device() {
        let bells = Arc::new(Bells::default());
        let vm: Arc<dyn Vm> = bells.clone();
        let direct = DirectDoorbells::new(&vm);
        let events = [Event::new().unwrap(), Event::new().unwrap()];
        let mut steps = Vec::new();
        let mut show = |doorbells: &[virtio::DoorbellAddress]| {
            direct.doorbells_changed(doorbells);
            steps.push((
                bells.addresses.lock().unwrap().clone(),
                *bells.registrations.lock().unwrap(),
            ));
        };

        show(&[bell(0x1000, &events[0]), bell(0x2000, &events[1])]);
        show(&[bell(0x1000, &events[0]), bell(0x3000, &events[1])]);
        // Another event at an address that was known: the device was started anew.
        show(&[bell(0x1000, &events[1])]);
        show(&[]);

        let expected = [
            (vec![0x1000, 0x2000], 2),
            (vec![0x1000, 0x3000], 3),
            (vec![0x1000], 4),
            (vec![], 4),
        ];
        assert_eq!(steps, expected);
    }
}
