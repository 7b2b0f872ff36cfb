//! MSI-X: a function's table of messages and its pending bits (PCI Local Bus 3.0, 6.8.2).

use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use saved_state::require;

use super::{ConfigSpace, PciError, SavedMsix, SavedVector};
use crate::{MsiMessage, MsiSink};

const CAPABILITY_ID: u8 = 0x11;
const MAX_VECTORS: u16 = 2048;
const ENTRY_LEN: u64 = 16;

/// Message control (6.8.2.3), the upper half of the capability's first register.
const CONTROL_FUNCTION_MASK: u16 = 1 << 14;
const CONTROL_ENABLE: u16 = 1 << 15;

/// Vector control (6.8.2.9).
const VECTOR_MASKED: u32 = 1;

/// Where the table and the pending bits lie. Both offsets are multiples of 8.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MsixLayout {
    /// BAR that holds the table.
    pub table_bar: u8,
    /// Where in that BAR.
    pub table_offset: u32,
    /// BAR that holds the pending bits.
    pub pba_bar: u8,
    /// Where in that BAR.
    pub pba_offset: u32,
}

/// The MSI-X structure of one function.
///
/// [`Msix::signal`] may be called from any thread; the other methods belong to the function's own accesses.
/// A message goes out under a lock, so once a write that masks a vector has returned no message of that
/// vector follows; the sink must therefore not call back into the function.
pub struct Msix {
    layout: MsixLayout,
    capability: u16,
    sink: Arc<dyn MsiSink>,
    state: Mutex<State>,
}

struct State {
    enabled: bool,
    function_masked: bool,
    vectors: Vec<Vector>,
}

#[derive(Clone, Copy)]
struct Vector {
    /// Address low, address high, data, control, as the guest sees them.
    words: [u32; 4],
    pending: bool,
}

impl Vector {
    const RESET: Self = Self {
        words: [0, 0, 0, VECTOR_MASKED],
        pending: false,
    };

    fn message(&self) -> MsiMessage {
        MsiMessage {
            address: u64::from(self.words[1]) << 32 | u64::from(self.words[0]),
            data: self.words[2],
        }
    }
}

impl Msix {
    /// Adds the capability to `config` and makes the structure, with `vectors` vectors, 1 to 2048.
    ///
    /// # Errors
    /// [`PciError`] where the capability does not fit or the layout is impossible.
    pub fn new(
        config: &mut ConfigSpace,
        vectors: u16,
        layout: MsixLayout,
        sink: Arc<dyn MsiSink>,
    ) -> Result<Self, PciError> {
        let places = [
            (layout.table_bar, layout.table_offset),
            (layout.pba_bar, layout.pba_offset),
        ];
        let possible = places.iter().all(|&(bar, offset)| bar < 6 && offset % 8 == 0);
        if !(1..=MAX_VECTORS).contains(&vectors) || !possible {
            return Err(PciError::Msix { vectors });
        }
        let mut body = [0; 10];
        body[..2].copy_from_slice(&(vectors - 1).to_le_bytes());
        body[2..6].copy_from_slice(&(layout.table_offset | u32::from(layout.table_bar)).to_le_bytes());
        body[6..].copy_from_slice(&(layout.pba_offset | u32::from(layout.pba_bar)).to_le_bytes());
        let writable = (CONTROL_ENABLE | CONTROL_FUNCTION_MASK).to_le_bytes();
        Ok(Self {
            layout,
            capability: config.add_capability(CAPABILITY_ID, &body, &writable)?,
            sink,
            state: Mutex::new(State {
                enabled: false,
                function_masked: false,
                vectors: vec![Vector::RESET; vectors.into()],
            }),
        })
    }

    /// Bytes that the table of `vectors` vectors takes.
    pub fn table_len(vectors: u16) -> u64 {
        u64::from(vectors) * ENTRY_LEN
    }

    /// Bytes that the pending bits of `vectors` vectors take.
    pub fn pba_len(vectors: u16) -> u64 {
        u64::from(vectors).div_ceil(64) * 8
    }

    /// Interrupts through `vector`: at once, or when it is unmasked. Without effect while MSI-X is off or
    /// where there is no such vector (a driver may name any number, 0xffff being virtio's word for none).
    pub fn signal(&self, vector: u16) {
        let mut state = self.lock();
        let entry = usize::from(vector);
        if state.enabled && entry < state.vectors.len() {
            state.vectors[entry].pending = true;
            self.deliver(&mut state, entry);
        }
    }

    /// Whether the guest has switched MSI-X on.
    pub fn is_enabled(&self) -> bool {
        self.lock().enabled
    }

    /// How many vectors there are.
    pub fn vectors(&self) -> u16 {
        // At most MAX_VECTORS by construction.
        self.lock().vectors.len() as u16
    }

    /// The message of `vector` if it would be delivered now.
    pub fn message(&self, vector: u16) -> Option<MsiMessage> {
        let state = self.lock();
        let entry = state.vectors.get(usize::from(vector))?;
        state.may_send(entry).then(|| entry.message())
    }

    /// Takes over message control; the function calls it after each write to `config`.
    pub fn config_written(&self, config: &ConfigSpace) {
        let mut state = self.lock();
        state.take_control(self.control(config));
        for vector in 0..state.vectors.len() {
            self.deliver(&mut state, vector);
        }
    }

    /// Carries out a load in BAR `bar`. False where neither table nor pending bits lie there.
    pub fn bar_read(&self, bar: u8, offset: u64, data: &mut [u8]) -> bool {
        let state = self.lock();
        if let Some(start) = self.inside(&self.table(&state), bar, offset, data.len()) {
            for (byte, at) in data.iter_mut().zip(start..) {
                let (vector, word, byte_of_word) = split(at);
                *byte = state.vectors[vector].words[word].to_le_bytes()[byte_of_word];
            }
            true
        } else if let Some(start) = self.inside(&self.pba(&state), bar, offset, data.len()) {
            for (byte, at) in data.iter_mut().zip(start..) {
                let bits = state.vectors.iter().skip(at * 8).take(8).enumerate();
                *byte = bits.fold(0, |byte, (bit, vector)| byte | u8::from(vector.pending) << bit);
            }
            true
        } else {
            false
        }
    }

    /// Carries out a store in BAR `bar`. False where neither table nor pending bits lie there. Pending bits
    /// are read-only.
    pub fn bar_write(&self, bar: u8, offset: u64, data: &[u8]) -> bool {
        let mut state = self.lock();
        let Some(start) = self.inside(&self.table(&state), bar, offset, data.len()) else {
            return self.inside(&self.pba(&state), bar, offset, data.len()).is_some();
        };
        for (byte, at) in data.iter().zip(start..) {
            let (vector, word, byte_of_word) = split(at);
            let stored = &mut state.vectors[vector].words[word];
            let mut bytes = stored.to_le_bytes();
            bytes[byte_of_word] = *byte;
            *stored = u32::from_le_bytes(bytes);
            state.vectors[vector].words[3] &= VECTOR_MASKED;
        }
        let last = start + data.len().saturating_sub(1);
        for vector in split(start).0..=split(last).0 {
            self.deliver(&mut state, vector);
        }
        true
    }

    /// Puts the structure back to its state after power-on, as [`ConfigSpace::reset`] does its capability.
    pub fn reset(&self) {
        let mut state = self.lock();
        state.enabled = false;
        state.function_masked = false;
        state.vectors.fill(Vector::RESET);
    }

    /// What it holds apart from its capability.
    pub fn save(&self) -> SavedMsix {
        let state = self.lock();
        let vectors = state.vectors.iter().map(|vector| SavedVector {
            words: vector.words,
            pending: vector.pending,
        });
        SavedMsix {
            vectors: vectors.collect(),
        }
    }

    /// Takes over what was saved, and message control from `config`, which was restored before. Sends nothing.
    ///
    /// # Errors
    /// Another number of vectors than this structure has, or vectors that no guest can have brought about.
    pub fn restore(&self, saved: &SavedMsix, config: &ConfigSpace) -> Result<(), saved_state::Error> {
        let mut state = self.lock();
        require(
            saved.vectors.len() == state.vectors.len(),
            "the number of MSI-X vectors",
        )?;
        state.take_control(self.control(config));
        for (at, &SavedVector { words, pending }) in saved.vectors.iter().enumerate() {
            require(words[3] & !VECTOR_MASKED == 0, "an MSI-X vector control")?;
            let vector = Vector { words, pending };
            // It would have been sent when it was unmasked.
            require(!(pending && state.may_send(&vector)), "an MSI-X pending bit")?;
            state.vectors[at] = vector;
        }
        Ok(())
    }

    fn control(&self, config: &ConfigSpace) -> u16 {
        (config.read(self.capability) >> 16) as u16
    }

    /// Sends what is pending on `vector` unless it is masked. `vector` exists.
    fn deliver(&self, state: &mut State, vector: usize) {
        let entry = state.vectors[vector];
        if entry.pending && state.may_send(&entry) {
            state.vectors[vector].pending = false;
            self.sink.signal(entry.message());
        }
    }

    fn table(&self, state: &State) -> (u8, Range<u64>) {
        let start = u64::from(self.layout.table_offset);
        let len = state.vectors.len() as u64 * ENTRY_LEN;
        (self.layout.table_bar, start..start + len)
    }

    fn pba(&self, state: &State) -> (u8, Range<u64>) {
        let start = u64::from(self.layout.pba_offset);
        (
            self.layout.pba_bar,
            start..start + Self::pba_len(state.vectors.len() as u16),
        )
    }

    /// Where in `place` an access begins, if all of it lies there.
    fn inside(&self, place: &(u8, Range<u64>), bar: u8, offset: u64, len: usize) -> Option<usize> {
        let (place_bar, range) = place;
        let end = offset.checked_add(len as u64)?;
        let inside = *place_bar == bar && len > 0 && offset >= range.start && end <= range.end;
        inside.then(|| (offset - range.start) as usize)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn take_control(&mut self, control: u16) {
        self.enabled = control & CONTROL_ENABLE != 0;
        self.function_masked = control & CONTROL_FUNCTION_MASK != 0;
    }

    fn may_send(&self, entry: &Vector) -> bool {
        self.enabled && !self.function_masked && entry.words[3] & VECTOR_MASKED == 0
    }
}

/// Vector, word of its entry and byte of that word of a byte of the table.
fn split(at: usize) -> (usize, usize, usize) {
    (at / 16, at % 16 / 4, at % 4)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pci::Identity;
    use proptest::prelude::*;

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
        table_bar: 1,
        table_offset: 0x1000,
        pba_bar: 1,
        pba_offset: 0x1800,
    };

    fn setup(vectors: u16) -> (ConfigSpace, Msix, Arc<Sent>) {
        let mut config = ConfigSpace::new(Identity::default());
        let sent = Arc::new(Sent::default());
        let msix = Msix::new(&mut config, vectors, LAYOUT, sent.clone()).unwrap();
        (config, msix, sent)
    }

    fn control(config: &mut ConfigSpace, msix: &Msix, bits: u16) {
        config.write(0x40, u32::from(bits) << 16, 0xc);
        msix.config_written(config);
    }

    /// Fills in and unmasks an entry.
    fn program(msix: &Msix, vector: u64, message: MsiMessage) {
        let at = 0x1000 + vector * 16;
        assert!(msix.bar_write(1, at, &message.address.to_le_bytes()));
        assert!(msix.bar_write(1, at + 8, &message.data.to_le_bytes()));
        assert!(msix.bar_write(1, at + 12, &0u32.to_le_bytes()));
    }

    fn pending(msix: &Msix) -> u64 {
        let mut bits = [0xff; 8];
        assert!(msix.bar_read(1, 0x1800, &mut bits));
        u64::from_le_bytes(bits)
    }

    const MESSAGE: MsiMessage = MsiMessage {
        address: 0xfee0_1000,
        data: 0x41,
    };

    #[test]
    fn new_capability_shows_size_and_places() {
        let (config, ..) = setup(5);
        assert_eq!(config.read(0x40), 0x0004_0011);
        assert_eq!((config.read(0x44), config.read(0x48)), (0x1001, 0x1801));
    }

    #[test]
    fn signal_enabled_and_unmasked_sends_the_message() {
        let (mut config, msix, sent) = setup(2);
        control(&mut config, &msix, CONTROL_ENABLE);
        program(&msix, 1, MESSAGE);
        msix.signal(1);
        assert_eq!(sent.take(), [MESSAGE]);
        assert_eq!((msix.message(1), msix.message(0)), (Some(MESSAGE), None));
    }

    #[test]
    fn signal_while_off_is_lost() {
        let (mut config, msix, sent) = setup(2);
        program(&msix, 0, MESSAGE);
        msix.signal(0);
        control(&mut config, &msix, CONTROL_ENABLE);
        assert_eq!((sent.take(), pending(&msix)), (vec![], 0));
    }

    #[test]
    fn signal_masked_vector_waits_for_its_unmask() {
        let (mut config, msix, sent) = setup(2);
        control(&mut config, &msix, CONTROL_ENABLE);
        msix.signal(1);
        msix.signal(1);
        assert_eq!((sent.take(), pending(&msix)), (vec![], 0b10));
        program(&msix, 1, MESSAGE);
        assert_eq!((sent.take(), pending(&msix)), (vec![MESSAGE], 0));
    }

    #[test]
    fn signal_masked_function_waits_for_its_unmask() {
        let (mut config, msix, sent) = setup(2);
        control(&mut config, &msix, CONTROL_ENABLE | CONTROL_FUNCTION_MASK);
        program(&msix, 0, MESSAGE);
        msix.signal(0);
        assert_eq!((sent.take(), pending(&msix)), (vec![], 1));
        control(&mut config, &msix, CONTROL_ENABLE);
        assert_eq!(sent.take(), [MESSAGE]);
    }

    #[test]
    fn signal_unknown_vector_does_nothing() {
        let (mut config, msix, sent) = setup(2);
        control(&mut config, &msix, CONTROL_ENABLE);
        msix.signal(2);
        msix.signal(0xffff);
        assert_eq!((sent.take(), pending(&msix)), (vec![], 0));
    }

    #[test]
    fn access_outside_table_and_pba_is_not_taken() {
        let (_, msix, _) = setup(2);
        let mut data = [0; 8];
        for (bar, offset) in [
            (0, 0x1000),
            (1, 0xfff),
            (1, 0x1020),
            (1, 0x1019),
            (1, 0x1801),
            (1, u64::MAX),
        ] {
            assert!(!msix.bar_read(bar, offset, &mut data), "{bar} {offset:#x}");
            assert!(!msix.bar_write(bar, offset, &data), "{bar} {offset:#x}");
        }
    }

    #[test]
    fn pba_write_is_swallowed() {
        let (_, msix, _) = setup(2);
        assert!(msix.bar_write(1, 0x1800, &[0xff; 8]));
        assert_eq!(pending(&msix), 0);
    }

    #[test]
    fn reset_masks_every_vector() {
        let (mut config, msix, sent) = setup(2);
        control(&mut config, &msix, CONTROL_ENABLE);
        program(&msix, 0, MESSAGE);
        msix.reset();
        msix.signal(0);
        assert_eq!(sent.take(), []);
        let mut word = [0; 4];
        assert!(msix.bar_read(1, 0x100c, &mut word));
        assert_eq!(word, [1, 0, 0, 0]);
    }

    #[test]
    fn new_impossible_layout_is_refused() {
        let mut config = ConfigSpace::new(Identity::default());
        let odd = MsixLayout {
            table_offset: 4,
            ..LAYOUT
        };
        for (vectors, layout) in [(0, LAYOUT), (2049, LAYOUT), (1, odd)] {
            let refused = Msix::new(&mut config, vectors, layout, Arc::new(Sent::default()));
            assert_eq!(refused.err(), Some(PciError::Msix { vectors }));
        }
    }

    proptest! {
        #[test]
        fn any_accesses_are_harmless(
            accesses in prop::collection::vec((any::<u8>(), 0xf00u64..0x1900, any::<[u8; 8]>(), 0usize..=8), 0..200),
        ) {
            let (mut config, msix, _) = setup(70);
            for (kind, offset, data, len) in accesses {
                match kind % 4 {
                    0 => { msix.bar_read(1, offset, &mut [0; 8][..len]); }
                    1 => { msix.bar_write(1, offset, &data[..len]); }
                    2 => msix.signal(data[0].into()),
                    _ => control(&mut config, &msix, u16::from(data[0]) << 8),
                }
            }
        }
    }
}
