use std::time::Duration;

use device_model::{Device, PortDevice};
use proptest::prelude::*;
use saved_state::Unit;

use super::super::registers::{DATA, INDEX, REGISTER_D};
use super::*;
use crate::testing::{changes, refused_or_faithful};

fn rtc() -> Rtc {
    Rtc::new(Box::new(|| Duration::ZERO))
}

fn busy() -> Rtc {
    let mut rtc = rtc();
    rtc.port_write(INDEX, &[0x80 | REGISTER_D]);
    rtc
}

fn restored(unit: &Unit) -> Result<Rtc, Error> {
    let mut rtc = rtc();
    rtc.restore(unit).map(|()| rtc)
}

#[test]
fn index_that_was_chosen_is_still_read() {
    let unit = busy().save();

    let mut rtc = restored(&unit).unwrap();

    let mut data = [0xff];
    rtc.port_read(DATA, &mut data);
    assert_eq!((rtc.save(), data), (unit, [0x80]));
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
fn restore_index_that_does_not_exist_is_refused() {
    let unit = Unit::new(SCHEMA, &SavedRtc { index: 0x80 });
    assert!(restored(&unit).is_err());
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
