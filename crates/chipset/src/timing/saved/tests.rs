use std::sync::Arc;

use device_model::{Device, PortDevice};
use proptest::prelude::*;
use saved_state::Unit;

use super::*;
use crate::testing::{changes, refused_or_faithful};

fn timing() -> Timing {
    Timing::new(0x6c0, Arc::new(()))
}

fn busy() -> Timing {
    let mut timing = timing();
    for letter in b"half a li" {
        timing.port_write(0x6c0, &[*letter]);
    }
    timing
}

fn restored(unit: &Unit) -> Result<Timing, Error> {
    let mut timing = timing();
    timing.restore(unit).map(|()| timing)
}

#[test]
fn line_goes_on_where_it_was() {
    let unit = busy().save();

    let again = restored(&unit).unwrap();

    assert_eq!((again.save(), again.line.as_str()), (unit, "half a li"));
}

#[test]
fn state_of_the_first_layout_restores() {
    let golden = Unit {
        schema: 1,
        bytes: include_bytes!("../saved-1.bin").to_vec(),
    };
    assert_eq!(restored(&golden).unwrap().save(), busy().save());
}

#[test]
fn restore_line_that_no_guest_could_write_is_refused() {
    for line in ["x".repeat(65), "a\nb".to_owned(), "\u{e9}".to_owned()] {
        let unit = Unit::new(SCHEMA, &SavedTiming { line });
        assert!(restored(&unit).is_err());
    }
}

proptest! {
    #[test]
    fn restore_of_changed_bytes_is_refused_or_faithful(
        changes in changes(),
        any: Vec<u8>,
    ) {
        refused_or_faithful(busy().save(), changes, any, |unit| restored(unit).map(|device| device.save()))?;
    }
}
