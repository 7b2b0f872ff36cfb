use device_model::{ConcurrentDevice, Device};
use proptest::prelude::*;
use saved_state::{Error, Saved, Unit};

use super::super::tests::{Memory, WINDOW, empty, place, read, select, write};
use super::*;
use crate::testing::{changes, refused_or_faithful};

fn busy() -> super::super::PciHost {
    let host = empty();
    write(&host, 0, 0x3c, 0x0b);
    select(&host, 3, 0x10);
    host
}

fn restored(unit: &Unit) -> Result<Unit, Error> {
    let host = empty();
    host.restore(unit)?;
    Ok(host.save())
}

#[test]
fn bridge_saved_and_restored_is_equal() {
    let unit = busy().save();

    let host = empty();
    host.restore(&unit).unwrap();

    assert_eq!(host.save(), unit);
    let mut address = [0; 4];
    host.port_read(0xcf8, &mut address);
    assert_eq!(u32::from_le_bytes(address), 0x8000_1810);
    assert_eq!(read(&host, 0, 0x3c), 0x0b);
}

#[test]
fn function_restored_before_the_bridge_decodes_after_it() {
    let (old, new) = (Memory::new(), Memory::new());
    let mut host = empty();
    host.add(3, old.clone()).unwrap();
    place(&host, 3, WINDOW as u32);
    let (function, bridge) = (old.lock().unwrap().save(), host.save());

    let mut host = empty();
    host.add(3, new.clone()).unwrap();
    new.lock().unwrap().restore(&function).unwrap();
    host.restore(&bridge).unwrap();

    host.mmio_write(WINDOW + 8, &[7]);
    let mut byte = [0];
    host.mmio_read(WINDOW + 8, &mut byte);
    assert_eq!(byte, [7]);
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
    let changes: [fn(&mut SavedPciHost); 2] =
        [|saved| saved.address |= 1, |saved| saved.bridge.bytes[0] ^= 1];
    for change in changes {
        let mut saved = SavedPciHost::from_bytes(&busy().save().bytes).unwrap();
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
