use std::sync::Mutex;

use proptest::prelude::*;

use super::*;

#[derive(Default)]
struct Requests(Mutex<Vec<PowerRequest>>);

impl PowerControl for Requests {
    fn request(&self, request: PowerRequest) {
        self.0.lock().unwrap().push(request);
    }
}

const REGISTERS: PowerRegisters = PowerRegisters { base: 0x600 };

fn requests_after(writes: &[(u16, &[u8])]) -> Vec<PowerRequest> {
    let requests = Arc::new(Requests::default());
    let mut power = Power::new(REGISTERS, requests.clone());
    for (port, data) in writes {
        power.port_write(*port, data);
    }
    requests.0.lock().unwrap().clone()
}

#[test]
fn sleep_type_5_enabled_is_power_off() {
    assert_eq!(requests_after(&[(0x600, &[0x34])]), [PowerRequest::PowerOff]);
}

#[test]
fn other_sleep_types_and_type_without_enable_are_nothing() {
    let all_but_off = (0..=255u8).filter(|value| value & 0x3c != 0x34);
    for value in all_but_off {
        assert_eq!(requests_after(&[(0x600, &[value])]), [], "{value:#x}");
    }
}

#[test]
fn reset_value_is_reset_and_other_values_are_nothing() {
    assert_eq!(requests_after(&[(0x602, &[0]), (0x602, &[2]), (0x602, &[])]), []);
    assert_eq!(requests_after(&[(0x602, &[1])]), [PowerRequest::Reset]);
}

#[test]
fn status_reads_as_awake() {
    let mut power = Power::new(REGISTERS, Arc::new(Requests::default()));
    let mut data = [0xff; 4];
    power.port_read(REGISTERS.sleep_status(), &mut data);
    assert_eq!(data, [0; 4]);
}

#[test]
fn firmware_entry_code_writes_the_reset_value_and_fits_below_1_mib() {
    let code = REGISTERS.firmware_entry_code();
    assert_eq!(&code[..6], [0xba, 0x02, 0x06, 0xb0, 0x01, 0xee]);
    assert!(PowerRegisters::FIRMWARE_ENTRY + code.len() as u64 <= 1 << 20);
}

proptest! {
    #[test]
    fn any_write_makes_at_most_one_request(port in 0x600u16..=0x602, data in any::<[u8; 4]>(), len in 0usize..=4) {
        prop_assert!(requests_after(&[(port, &data[..len])]).len() <= 1);
    }
}

#[test]
fn state_is_empty_and_any_other_is_refused() {
    let mut device = Power::new(REGISTERS, Arc::new(Requests::default()));
    let unit = device.save();
    assert_eq!(unit, Unit::empty());
    assert!(device.restore(&unit).is_ok());
    let longer = Unit {
        bytes: vec![0; 3],
        ..unit
    };
    assert!(device.restore(&longer).is_err());
}
