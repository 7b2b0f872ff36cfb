//! A doorbell for the conformance suite that the host's hypervisor can ring by itself.

use std::sync::Arc;

use host_os::Event;
use hypervisor::conformance::TestDoorbell;
use hypervisor::{Doorbell, Error};

struct EventDoorbell(Event);

impl Doorbell for EventDoorbell {
    fn ring(&self) {
        self.0.signal();
    }

    fn event_handle(&self) -> Option<usize> {
        Some(self.0.raw_handle())
    }
}

impl TestDoorbell for EventDoorbell {
    fn take(&self) -> bool {
        self.0.take()
    }
}

/// Makes a doorbell that is an event of the host.
///
/// # Errors
/// [`Error::Host`] where the host has no more events.
pub fn event_doorbell() -> Result<Arc<dyn TestDoorbell>, Error> {
    let event = Event::new().map_err(|error| Error::Host {
        operation: "make an event",
        source: std::io::Error::other(error),
    })?;
    Ok(Arc::new(EventDoorbell(event)))
}
