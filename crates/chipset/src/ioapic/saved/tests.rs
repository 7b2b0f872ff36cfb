use std::sync::{Arc, Mutex};

use device_model::{ConcurrentDevice, LineTarget, MsiMessage, MsiSink};
use proptest::prelude::*;
use saved_state::{Saved, Unit};

use super::super::{IoApic, RouteObserver};
use super::*;
use crate::testing::{changes, refused_or_faithful};

const GPA: u64 = 0xfec0_0000;

/// Messages and routes, in the order they were told.
#[derive(Default)]
struct Told {
    sent: Mutex<Vec<MsiMessage>>,
    routes: Mutex<Vec<(u32, Option<MsiMessage>, bool)>>,
}

impl MsiSink for Told {
    fn signal(&self, message: MsiMessage) {
        self.sent.lock().unwrap().push(message);
    }
}

impl RouteObserver for Told {
    fn route_changed(&self, line: u32, message: Option<MsiMessage>, level: bool) {
        self.routes.lock().unwrap().push((line, message, level));
    }
}

fn ioapic(lines: u32) -> (IoApic, Arc<Told>) {
    let told = Arc::new(Told::default());
    let ioapic = IoApic::new(GPA, lines, told.clone());
    ioapic.observe_routes(told.clone());
    (ioapic, told)
}

fn write(ioapic: &IoApic, register: u8, value: u32) {
    ioapic.mmio_write(GPA, &[register, 0, 0, 0]);
    ioapic.mmio_write(GPA + WINDOW, &value.to_le_bytes());
}

const IN_SERVICE: MsiMessage = MsiMessage {
    address: 0xfee0_0000,
    data: 0xc041,
};

/// Line 1 high and edge-triggered, line 2 high and in service, line 3 masked.
fn busy() -> IoApic {
    let (ioapic, _) = ioapic(4);
    write(&ioapic, ID, 0x0500_0000);
    write(&ioapic, REDIRECTION + 2, 0x31);
    write(&ioapic, REDIRECTION + 4, (LEVEL | 0x41) as u32);
    write(&ioapic, REDIRECTION + 6, (MASKED | LEVEL | 0x51) as u32);
    ioapic.set_level(1, true);
    ioapic.set_level(2, true);
    ioapic
}

fn restored(unit: &Unit) -> Result<Unit, Error> {
    let (ioapic, told) = ioapic(4);
    let result = ioapic.restore(unit);
    assert_eq!(*told.sent.lock().unwrap(), []);
    result.map(|()| ioapic.save())
}

#[test]
fn ioapic_saved_and_restored_is_equal() {
    let unit = busy().save();
    assert_eq!(restored(&unit).unwrap(), unit);
}

#[test]
fn observer_hears_of_every_line_at_a_restore() {
    let (ioapic, told) = ioapic(4);

    ioapic.restore(&busy().save()).unwrap();

    let edge = MsiMessage {
        address: 0xfee0_0000,
        data: 0x4031,
    };
    let expected = [
        (0, None, false),
        (1, Some(edge), false),
        (2, Some(IN_SERVICE), true),
        (3, None, true),
    ];
    assert_eq!(*told.routes.lock().unwrap(), expected);
}

#[test]
fn line_in_service_sends_again_after_its_end_of_interrupt() {
    let (ioapic, told) = ioapic(4);
    ioapic.restore(&busy().save()).unwrap();

    ioapic.set_level(1, true);
    ioapic.set_level(2, true);
    ioapic.end_of_interrupt(0x41);

    assert_eq!(*told.sent.lock().unwrap(), [IN_SERVICE]);
}

#[test]
fn state_of_the_first_layout_restores() {
    let golden = Unit {
        schema: 1,
        bytes: include_bytes!("../saved-1.bin").to_vec(),
    };
    assert_eq!(restored(&golden).unwrap(), busy().save());
}

#[test]
fn restore_what_no_guest_can_bring_about_is_refused() {
    let changes: [fn(&mut SavedIoApic); 7] = [
        |saved| saved.id = 0x10,
        |saved| saved.lines.truncate(3),
        |saved| saved.lines[0].entry |= 1 << 17,
        |saved| saved.lines[0].entry |= DELIVERY_STATUS,
        |saved| saved.lines[1].entry |= REMOTE_IRR,
        // It would have been sent.
        |saved| saved.lines[2].entry &= !REMOTE_IRR,
        |saved| {
            saved.lines.push(SavedLine {
                entry: MASKED,
                high: false,
            })
        },
    ];
    for change in changes {
        let mut saved = SavedIoApic::from_bytes(&busy().save().bytes).unwrap();
        change(&mut saved);
        assert!(restored(&Unit::new(SCHEMA, &saved)).is_err());
    }
}

proptest! {
    #[test]
    fn restore_of_changed_bytes_is_refused_or_faithful(
        changes in changes(),
        any: Vec<u8>,
    ) {
        refused_or_faithful(busy().save(), changes, any, restored)?;
    }
}
