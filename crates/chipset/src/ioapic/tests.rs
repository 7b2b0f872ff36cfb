use std::sync::Weak;

use proptest::prelude::*;

use super::*;

const GPA: u64 = 0xfec0_0000;

#[derive(Default)]
struct Sent(Mutex<Vec<MsiMessage>>);

impl MsiSink for Sent {
    fn signal(&self, message: MsiMessage) {
        self.0.lock().unwrap().push(message);
    }
}

impl Sent {
    fn take(&self) -> Vec<MsiMessage> {
        std::mem::take(&mut self.0.lock().unwrap())
    }
}

#[derive(Default)]
struct Routes(Mutex<Vec<(u32, Option<MsiMessage>, bool)>>);

impl RouteObserver for Routes {
    fn route_changed(&self, line: u32, message: Option<MsiMessage>, level: bool) {
        self.0.lock().unwrap().push((line, message, level));
    }
}

fn setup() -> (IoApic, Arc<Sent>) {
    let sent = Arc::new(Sent::default());
    (IoApic::new(GPA, 24, sent.clone()), sent)
}

fn read(ioapic: &IoApic, register: u8) -> u32 {
    ioapic.mmio_write(GPA, &[register, 0, 0, 0]);
    let mut data = [0; 4];
    ioapic.mmio_read(GPA + WINDOW, &mut data);
    u32::from_le_bytes(data)
}

fn write(ioapic: &IoApic, register: u8, value: u32) {
    ioapic.mmio_write(GPA, &[register, 0, 0, 0]);
    ioapic.mmio_write(GPA + WINDOW, &value.to_le_bytes());
}

fn program(ioapic: &IoApic, line: u8, entry: u64) {
    write(ioapic, REDIRECTION + line * 2 + 1, (entry >> 32) as u32);
    write(ioapic, REDIRECTION + line * 2, entry as u32);
}

fn message(address: u64, data: u32) -> MsiMessage {
    MsiMessage { address, data }
}

#[test]
fn version_shows_line_count_and_id_is_writable() {
    let (ioapic, _) = setup();
    assert_eq!(read(&ioapic, VERSION), 0x0017_0020);
    write(&ioapic, ID, 0x0500_0000);
    assert_eq!(
        (read(&ioapic, ID), read(&ioapic, ARBITRATION)),
        (0x0500_0000, 0x0500_0000)
    );
    assert_eq!((read(&ioapic, 0x10), read(&ioapic, 0x3f)), (0x0001_0000, 0));
    assert_eq!((read(&ioapic, 0x40), read(&ioapic, 0xff)), (0, 0));
}

#[test]
fn edge_line_sends_once_for_each_rise() {
    let (ioapic, sent) = setup();
    program(&ioapic, 4, 0x0100_0000_0000_0031);
    ioapic.set_level(4, true);
    ioapic.set_level(4, true);
    ioapic.set_level(4, false);
    assert_eq!(sent.take(), [message(0xfee0_1000, 0x4031)]);
    ioapic.set_level(4, true);
    assert_eq!(sent.take().len(), 1);
}

#[test]
fn edge_on_masked_line_is_lost() {
    let (ioapic, sent) = setup();
    ioapic.set_level(4, true);
    program(&ioapic, 4, 0x31);
    assert_eq!(sent.take(), []);
}

#[test]
fn level_line_sends_again_only_after_end_of_interrupt() {
    let (ioapic, sent) = setup();
    program(&ioapic, 9, LEVEL | 0x41);
    ioapic.set_level(9, true);
    ioapic.set_level(9, false);
    ioapic.set_level(9, true);
    assert_eq!(sent.take(), [message(0xfee0_0000, 0xc041)]);
    assert_eq!(read(&ioapic, 0x22) & REMOTE_IRR as u32, REMOTE_IRR as u32);
    ioapic.end_of_interrupt(0x42);
    assert_eq!(sent.take(), []);
    ioapic.end_of_interrupt(0x41);
    assert_eq!(sent.take().len(), 1);
    ioapic.set_level(9, false);
    ioapic.mmio_write(GPA + EOI, &[0x41, 0, 0, 0]);
    assert_eq!(
        (sent.take(), read(&ioapic, 0x22) & REMOTE_IRR as u32),
        (vec![], 0)
    );
}

#[test]
fn level_line_high_while_masked_sends_at_unmask() {
    let (ioapic, sent) = setup();
    ioapic.set_level(9, true);
    program(&ioapic, 9, LEVEL | 0x41);
    assert_eq!(sent.take().len(), 1);
}

#[test]
fn switch_to_edge_clears_remote_irr() {
    let (ioapic, sent) = setup();
    program(&ioapic, 9, LEVEL | 0x41);
    ioapic.set_level(9, true);
    write(&ioapic, 0x22, (MASKED | 0x41) as u32);
    write(&ioapic, 0x22, (LEVEL | 0x41) as u32);
    assert_eq!(sent.take().len(), 2);
}

#[test]
fn message_carries_logical_lowest_priority_and_extended_destination() {
    let (ioapic, sent) = setup();
    program(
        &ioapic,
        1,
        0xff06_0000_0000_0000 | LOGICAL | LOWEST_PRIORITY << 8 | 0x55,
    );
    ioapic.set_level(1, true);
    assert_eq!(sent.take(), [message(0xfeef_f06c, 0x4155)]);
}

#[test]
fn read_only_bits_stay_and_missing_bits_read_zero() {
    let (ioapic, _) = setup();
    program(&ioapic, 2, !LEVEL);
    assert_eq!(u64::from(read(&ioapic, 0x14)), 0x1_ffff & !LEVEL & !READ_ONLY);
    assert_eq!(read(&ioapic, 0x15), 0xfffe_0000);
}

#[test]
fn observer_hears_routes_and_masks() {
    let (ioapic, _) = setup();
    let routes = Arc::new(Routes::default());
    ioapic.observe_routes(routes.clone());
    write(&ioapic, 0x10 + 9 * 2, (LEVEL | 0x41) as u32);
    write(&ioapic, 0x10 + 9 * 2, (MASKED | LEVEL | 0x41) as u32);
    let heard = std::mem::take(&mut *routes.0.lock().unwrap());
    assert_eq!(
        heard,
        [(9, Some(message(0xfee0_0000, 0xc041)), true), (9, None, true)]
    );
}

#[test]
fn observer_still_hears_a_masked_line_in_service() {
    let (ioapic, _) = setup();
    let routes = Arc::new(Routes::default());
    ioapic.observe_routes(routes.clone());
    program(&ioapic, 9, LEVEL | 0x41);
    ioapic.set_level(9, true);
    write(&ioapic, 0x10 + 9 * 2, (MASKED | LEVEL | 0x41) as u32);
    assert!(routes.0.lock().unwrap().last().unwrap().1.is_some());
}

/// A sink and observer that drive lines from inside the call.
#[derive(Default)]
struct Reentrant(OnceLock<Weak<IoApic>>);

impl Reentrant {
    fn drive(&self) {
        let ioapic = self.0.get().and_then(Weak::upgrade).unwrap();
        ioapic.set_level(7, false);
        ioapic.end_of_interrupt(0x99);
    }
}

impl MsiSink for Reentrant {
    fn signal(&self, _message: MsiMessage) {
        self.drive();
    }
}

impl RouteObserver for Reentrant {
    fn route_changed(&self, _line: u32, _message: Option<MsiMessage>, _level: bool) {
        self.drive();
    }
}

#[test]
fn sink_and_observer_may_drive_lines() {
    let reentrant = Arc::new(Reentrant::default());
    let ioapic = Arc::new(IoApic::new(GPA, 24, reentrant.clone()));
    assert!(reentrant.0.set(Arc::downgrade(&ioapic)).is_ok());
    ioapic.observe_routes(reentrant);
    program(&ioapic, 4, LEVEL | 0x31);
    ioapic.set_level(4, true);
    ioapic.end_of_interrupt(0x31);
}

#[test]
fn reset_masks_lines_and_keeps_the_wires() {
    let (ioapic, sent) = setup();
    program(&ioapic, 9, LEVEL | 0x41);
    ioapic.set_level(9, true);
    ioapic.reset();
    assert_eq!(u64::from(read(&ioapic, 0x22)), MASKED);
    sent.take();
    program(&ioapic, 9, LEVEL | 0x42);
    assert_eq!(sent.take().len(), 1);
}

proptest! {
    #[test]
    fn any_accesses_never_leave_a_level_line_unserved(
        accesses in prop::collection::vec((0u8..5, any::<u8>(), any::<u32>(), 0usize..=8), 0..300),
    ) {
        let (ioapic, _) = setup();
        for (kind, byte, value, len) in accesses {
            let data = u64::from(value).to_le_bytes();
            match kind {
                0 => write(&ioapic, byte % 0x48, value),
                1 => ioapic.set_level(u32::from(byte % 30), value % 2 == 0),
                2 => ioapic.end_of_interrupt(byte),
                3 => ioapic.mmio_write(GPA + u64::from(byte), &data[..len]),
                _ => ioapic.mmio_read(GPA + u64::from(byte), &mut [0; 8][..len]),
            }
            for line in ioapic.lines().iter() {
                let due = line.high && line.is(LEVEL) && !line.is(MASKED);
                prop_assert!(!due || line.is(REMOTE_IRR));
            }
        }
    }
}
