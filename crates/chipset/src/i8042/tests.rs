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

proptest! {
    #[test]
    fn only_the_reset_command_asks_for_a_reset(port in prop::sample::select(vec![DATA, COMMAND]), value: u8) {
        let requests = Arc::new(Requests::default());
        let mut controller = I8042::new(requests.clone());
        controller.port_write(port, &[value]);
        controller.port_write(port, &[]);
        let expected = if (port, value) == (COMMAND, PULSE_RESET) { 1 } else { 0 };
        prop_assert_eq!(requests.0.lock().unwrap().len(), expected);
    }
}

#[test]
fn status_reads_as_idle() {
    let mut data = [0xff];
    I8042::new(Arc::new(Requests::default())).port_read(COMMAND, &mut data);
    assert_eq!(data, [0]);
}

#[test]
fn state_is_empty_and_any_other_is_refused() {
    let mut device = I8042::new(Arc::new(Requests::default()));
    let unit = device.save();
    assert_eq!(unit, Unit::empty());
    assert!(device.restore(&unit).is_ok());
    let longer = Unit {
        bytes: vec![0; 3],
        ..unit
    };
    assert!(device.restore(&longer).is_err());
}
