use std::sync::{Arc, Mutex};

use proptest::prelude::*;
use saved_state::Saved;

use super::*;
use crate::pci::{BarKind, ConfigSpace, Identity, Msix, MsixLayout};
use crate::{MsiMessage, MsiSink};

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

const LAYOUT: MsixLayout = MsixLayout {
    table_bar: 0,
    table_offset: 0,
    pba_bar: 0,
    pba_offset: 0x800,
};

const MESSAGE: MsiMessage = MsiMessage {
    address: 0xfee0_1000,
    data: 0x41,
};

struct Function {
    config: ConfigSpace,
    msix: Msix,
    sent: Arc<Sent>,
}

impl Function {
    fn new() -> Self {
        let mut config = ConfigSpace::new(Identity {
            vendor: 0x1234,
            device: 0x5678,
            ..Identity::default()
        });
        config.add_bar(0, BarKind::Memory32, 0x1000).unwrap();
        let sent = Arc::new(Sent::default());
        let msix = Msix::new(&mut config, 3, LAYOUT, sent.clone()).unwrap();
        Self { config, msix, sent }
    }

    /// With its BAR placed, MSI-X on and a message that waits behind the mask of vector 1.
    fn busy() -> Self {
        let mut function = Self::new();
        function.config.write(0x10, 0xc000_0000, 0xf);
        function.config.write(0x04, 0b110, 0x3);
        function.control(0x8000);
        let Function { msix, .. } = &function;
        msix.bar_write(0, 0x10, &MESSAGE.address.to_le_bytes());
        msix.bar_write(0, 0x18, &MESSAGE.data.to_le_bytes());
        msix.bar_write(0, 0x2c, &[0; 4]);
        msix.signal(1);
        function
    }

    fn control(&mut self, bits: u16) {
        self.config.write(0x40, u32::from(bits) << 16, 0xc);
        self.msix.config_written(&self.config);
    }

    fn save(&self) -> (SavedConfigSpace, SavedMsix) {
        (self.config.save(), self.msix.save())
    }

    fn restore(&mut self, (config, msix): &(SavedConfigSpace, SavedMsix)) -> Result<(), Error> {
        self.config.restore(config)?;
        self.msix.restore(msix, &self.config)
    }
}

#[test]
fn function_saved_and_restored_is_equal_and_sends_nothing() {
    let saved = Function::busy().save();
    let mut function = Function::new();

    function.restore(&saved).unwrap();

    assert_eq!(function.save(), saved);
    assert_eq!(function.sent.take(), []);
    assert_eq!(function.config.bars()[0].gpa, 0xc000_0000);
}

#[test]
fn message_that_waited_goes_out_at_the_unmask_after_a_restore() {
    let mut function = Function::new();
    function.restore(&Function::busy().save()).unwrap();

    function.msix.bar_write(0, 0x1c, &[0; 4]);
    function.msix.signal(1);

    assert_eq!(function.sent.take(), [MESSAGE, MESSAGE]);
}

#[test]
fn state_of_the_first_layout_restores() {
    let config = SavedConfigSpace::from_bytes(include_bytes!("config-space-1.bin")).unwrap();
    let msix = SavedMsix::from_bytes(include_bytes!("msix-1.bin")).unwrap();
    let mut function = Function::new();

    function.restore(&(config, msix)).unwrap();

    assert_eq!(function.save(), Function::busy().save());
}

#[test]
fn restore_bits_that_no_guest_writes_is_refused() {
    for at in [0x00, 0x06, 0x10, 0x34, 0x40, 0x42, 0xff] {
        let mut saved = Function::busy().save();
        saved.0.bytes[at] ^= 1;
        assert!(Function::new().restore(&saved).is_err(), "{at:#x}");
    }
}

#[test]
fn restore_vectors_that_no_guest_has_is_refused() {
    let changes: [fn(&mut Vec<SavedVector>); 4] = [
        |vectors| vectors.truncate(2),
        |vectors| vectors.extend_from_within(..1),
        |vectors| vectors[0].words[3] |= 2,
        |vectors| vectors[2].pending = true,
    ];
    for change in changes {
        let mut saved = Function::busy().save();
        change(&mut saved.1.vectors);
        assert!(Function::new().restore(&saved).is_err());
    }
}

fn change(bytes: &mut [u8], changes: &[(prop::sample::Index, u8)]) {
    for (at, value) in changes {
        *at.get_mut(bytes) = *value;
    }
}

proptest! {
    #[test]
    fn restore_of_changed_bytes_is_refused_or_faithful(
        in_config in prop::collection::vec(any::<(prop::sample::Index, u8)>(), 0..3),
        in_msix in prop::collection::vec(any::<(prop::sample::Index, u8)>(), 0..3),
    ) {
        let (config, msix) = Function::busy().save();
        let (mut config, mut msix) = (config.to_bytes(), msix.to_bytes());
        change(&mut config, &in_config);
        change(&mut msix, &in_msix);
        let mut function = Function::new();
        if let (Ok(config), Ok(msix)) = (SavedConfigSpace::from_bytes(&config), SavedMsix::from_bytes(&msix)) {
            let saved = (config, msix);
            let restored = function.restore(&saved).map(|()| function.save());
            prop_assert!(restored.is_err() || restored.unwrap() == saved);
        }
        prop_assert_eq!(function.sent.take(), []);
    }

    #[test]
    fn restore_of_any_bytes_is_refused(bytes: Vec<u8>) {
        prop_assert!(SavedConfigSpace::from_bytes(&bytes).is_err());
        let msix = SavedMsix::from_bytes(&bytes);
        prop_assert!(msix.and_then(|msix| Function::new().msix.restore(&msix, &Function::new().config)).is_err());
    }
}
