//! Configuration space of an endpoint: the type 0 header and its list of capabilities.
//!
//! PCI Local Bus 3.0, chapter 6.

use super::{BarWindow, PciError, SavedConfigSpace};

pub(super) const SIZE: usize = 256;

/// Offsets in the type 0 header (6.1, figure 6-1).
const VENDOR_ID: usize = 0x00;
const DEVICE_ID: usize = 0x02;
const COMMAND: usize = 0x04;
const STATUS: usize = 0x06;
const REVISION_AND_CLASS: usize = 0x08;
const CACHE_LINE_SIZE: usize = 0x0c;
const FIRST_BAR: usize = 0x10;
const SUBSYSTEM_VENDOR_ID: usize = 0x2c;
const SUBSYSTEM_ID: usize = 0x2e;
const CAPABILITIES_POINTER: usize = 0x34;
const INTERRUPT_LINE: usize = 0x3c;
const INTERRUPT_PIN: usize = 0x3d;
const HEADER_END: usize = 0x40;

const BAR_COUNT: u8 = 6;

/// Command register (6.2.2).
const COMMAND_MEMORY: u16 = 1 << 1;
const COMMAND_BUS_MASTER: u16 = 1 << 2;
const COMMAND_PARITY: u16 = 1 << 6;
const COMMAND_SERR: u16 = 1 << 8;
const COMMAND_INTX_DISABLE: u16 = 1 << 10;

/// Status register (6.2.3).
const STATUS_CAPABILITIES: u16 = 1 << 4;

/// Base address register (6.2.5.1).
const BAR_MEMORY_64: u64 = 0b0100;
const BAR_PREFETCHABLE: u64 = 0b1000;
/// The smallest memory BAR: its low four bits are flags.
const BAR_MIN_LEN: u64 = 16;

/// Who a function says it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Identity {
    /// Vendor id.
    pub vendor: u16,
    /// Device id.
    pub device: u16,
    /// Revision.
    pub revision: u8,
    /// Base class, sub-class and programming interface, `0xBBSSPP`.
    pub class: u32,
    /// Subsystem vendor id.
    pub subsystem_vendor: u16,
    /// Subsystem id.
    pub subsystem: u16,
}

/// What kind of memory a BAR asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BarKind {
    /// Anywhere below 4 GiB; at most 2 GiB long.
    Memory32,
    /// Anywhere; takes this BAR and the next one.
    Memory64 {
        /// Reads have no side effects, so the guest may put it in a prefetchable window.
        prefetchable: bool,
    },
}

#[derive(Clone, Copy)]
struct Bar {
    len: u64,
    wide: bool,
}

/// Configuration space of one endpoint. A [`PciFunction`](super::PciFunction) embeds it and passes it the
/// cycles it does not treat itself.
///
/// The guest changes only bits that are declared writable; everything else swallows writes. Extended
/// configuration space (0x100 and up) reads as zero: no extended capabilities.
pub struct ConfigSpace {
    bytes: [u8; SIZE],
    /// Bits the guest may change.
    writable: [u8; SIZE],
    /// Contents after power-on.
    initial: [u8; SIZE],
    bars: [Option<Bar>; BAR_COUNT as usize],
    /// Where the pointer to the next capability goes.
    last_link: usize,
    free: usize,
}

impl ConfigSpace {
    /// A header without BARs, capabilities and interrupt pin.
    pub fn new(identity: Identity) -> Self {
        let mut space = Self {
            bytes: [0; SIZE],
            writable: [0; SIZE],
            initial: [0; SIZE],
            bars: [None; BAR_COUNT as usize],
            last_link: CAPABILITIES_POINTER,
            free: HEADER_END,
        };
        let command =
            COMMAND_MEMORY | COMMAND_BUS_MASTER | COMMAND_PARITY | COMMAND_SERR | COMMAND_INTX_DISABLE;
        let revision_and_class = identity.class << 8 | u32::from(identity.revision);
        space.define(VENDOR_ID, &identity.vendor.to_le_bytes());
        space.define(DEVICE_ID, &identity.device.to_le_bytes());
        space.define(REVISION_AND_CLASS, &revision_and_class.to_le_bytes());
        space.define(SUBSYSTEM_VENDOR_ID, &identity.subsystem_vendor.to_le_bytes());
        space.define(SUBSYSTEM_ID, &identity.subsystem.to_le_bytes());
        space.allow(COMMAND, &command.to_le_bytes());
        space.allow(CACHE_LINE_SIZE, &[0xff]);
        space.allow(INTERRUPT_LINE, &[0xff]);
        space
    }

    /// Adds BAR number `bar` of `len` bytes, a power of two and at least 16.
    ///
    /// # Errors
    /// [`PciError::Bar`] for a bad number or length, or where a BAR already is.
    pub fn add_bar(&mut self, bar: u8, kind: BarKind, len: u64) -> Result<(), PciError> {
        let (wide, flags) = match kind {
            BarKind::Memory32 => (false, 0),
            BarKind::Memory64 { prefetchable } => (
                true,
                BAR_MEMORY_64 | if prefetchable { BAR_PREFETCHABLE } else { 0 },
            ),
        };
        let slots = bar..=bar.saturating_add(wide.into());
        let fits = *slots.end() < BAR_COUNT
            && len.is_power_of_two()
            && (BAR_MIN_LEN..=if wide { 1 << 62 } else { 1 << 31 }).contains(&len)
            && slots.clone().all(|slot| !self.bar_is_taken(slot));
        if !fits {
            return Err(PciError::Bar { bar, len });
        }
        let width = if wide { 8 } else { 4 };
        let offset = FIRST_BAR + usize::from(bar) * 4;
        self.define(offset, &flags.to_le_bytes()[..width]);
        self.allow(offset, &(!(len - 1)).to_le_bytes()[..width]);
        self.bars[usize::from(bar)] = Some(Bar { len, wide });
        Ok(())
    }

    /// Appends a capability: `body` follows its id and next pointer, `writable` says which bits of `body` the
    /// guest may change (missing bytes: none). Returns the offset of the id byte.
    ///
    /// # Errors
    /// [`PciError::Capability`] where it does not fit.
    pub fn add_capability(&mut self, id: u8, body: &[u8], writable: &[u8]) -> Result<u16, PciError> {
        let len = body.len() + 2;
        let offset = self.free;
        // The pointer to a capability is one byte, so a space of 256 bytes is all there is.
        let pointer = u8::try_from(offset).map_err(|_| PciError::Capability { id, len })?;
        if offset + len > SIZE || writable.len() > body.len() {
            return Err(PciError::Capability { id, len });
        }
        self.define(offset, &[id, 0]);
        self.define(offset + 2, body);
        self.allow(offset + 2, writable);
        self.define(self.last_link, &[pointer]);
        let status = self.read_u16(STATUS) | STATUS_CAPABILITIES;
        self.define(STATUS, &status.to_le_bytes());
        self.last_link = offset + 1;
        self.free = (offset + len).next_multiple_of(4);
        Ok(pointer.into())
    }

    /// Says which interrupt pin the function drives: 1 for INTA# to 4 for INTD#, 0 for none.
    pub fn set_interrupt_pin(&mut self, pin: u8) {
        self.define(INTERRUPT_PIN, &[pin]);
    }

    /// Changes bytes the guest sees, whether it may write them or not: a field that follows the device's
    /// state. Bytes past the end are left out. They are no part of what is saved: a function that has such
    /// fields sets them to their initial value before it saves.
    pub fn set_bytes(&mut self, offset: u16, value: &[u8]) {
        for (byte, value) in self.bytes.iter_mut().skip(offset.into()).zip(value) {
            *byte = *value;
        }
    }

    /// Reads the aligned 32-bit register at byte offset `register`.
    pub fn read(&self, register: u16) -> u32 {
        let offset = usize::from(register & !3);
        let bytes = self.bytes.get(offset..offset + 4);
        bytes.map_or(0, |bytes| {
            u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]])
        })
    }

    /// Writes the bytes of `value` that `byte_enable` (bit n: byte n) selects to the aligned register.
    pub fn write(&mut self, register: u16, value: u32, byte_enable: u8) {
        let offset = usize::from(register & !3);
        for (n, value) in value.to_le_bytes().into_iter().enumerate() {
            if byte_enable & 1 << n == 0 {
                continue;
            }
            if let (Some(byte), Some(mask)) = (self.bytes.get_mut(offset + n), self.writable.get(offset + n))
            {
                *byte = *byte & !mask | value & mask;
            }
        }
    }

    /// The memory BARs that decode now: memory space is enabled and the BAR is not zero.
    pub fn bars(&self) -> Vec<BarWindow> {
        if self.command() & COMMAND_MEMORY == 0 {
            return Vec::new();
        }
        let present = (0..BAR_COUNT)
            .zip(self.bars)
            .filter_map(|(bar, info)| Some((bar, info?)));
        let placed = present.map(|(bar, info)| BarWindow {
            bar,
            gpa: self.bar_address(bar, info.wide),
            len: info.len,
        });
        placed
            .filter(|window| window.gpa != 0 && window.gpa.checked_add(window.len - 1).is_some())
            .collect()
    }

    /// Whether the function may access memory and send messages.
    pub fn is_bus_master(&self) -> bool {
        self.command() & COMMAND_BUS_MASTER != 0
    }

    /// Puts everything back to its state after power-on. BARs and capabilities stay declared.
    pub fn reset(&mut self) {
        self.bytes = self.initial;
    }

    /// What it holds.
    pub fn save(&self) -> SavedConfigSpace {
        SavedConfigSpace { bytes: self.bytes }
    }

    /// Takes over what was saved of a space that was laid out alike.
    ///
    /// # Errors
    /// Bits that a guest cannot have changed.
    pub fn restore(&mut self, saved: &SavedConfigSpace) -> Result<(), saved_state::Error> {
        saved.check(&self.initial, &self.writable)?;
        self.bytes = saved.bytes;
        Ok(())
    }

    fn command(&self) -> u16 {
        self.read_u16(COMMAND)
    }

    fn read_u16(&self, offset: usize) -> u16 {
        u16::from_le_bytes([self.bytes[offset], self.bytes[offset + 1]])
    }

    fn bar_address(&self, bar: u8, wide: bool) -> u64 {
        let register = FIRST_BAR as u16 + u16::from(bar) * 4;
        let low = u64::from(self.read(register) & !0xf);
        if wide {
            u64::from(self.read(register + 4)) << 32 | low
        } else {
            low
        }
    }

    fn bar_is_taken(&self, bar: u8) -> bool {
        let wide_below = bar.checked_sub(1).and_then(|below| self.bars[usize::from(below)]);
        self.bars[usize::from(bar)].is_some() || wide_below.is_some_and(|below| below.wide)
    }

    /// Sets bytes and their value after power-on. Callers have checked the bounds.
    fn define(&mut self, offset: usize, value: &[u8]) {
        self.bytes[offset..offset + value.len()].copy_from_slice(value);
        self.initial[offset..offset + value.len()].copy_from_slice(value);
    }

    /// Declares bits writable. Callers have checked the bounds.
    fn allow(&mut self, offset: usize, mask: &[u8]) {
        self.writable[offset..offset + mask.len()].copy_from_slice(mask);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn space() -> ConfigSpace {
        ConfigSpace::new(Identity {
            vendor: 0x1af4,
            device: 0x1043,
            revision: 1,
            class: 0x07_80_00,
            subsystem_vendor: 0x1af4,
            subsystem: 0x1100,
        })
    }

    #[test]
    fn new_header_shows_identity() {
        let space = space();
        assert_eq!(space.read(0x00), 0x1043_1af4);
        assert_eq!(space.read(0x08), 0x0780_0001);
        assert_eq!(space.read(0x2c), 0x1100_1af4);
        assert_eq!(space.read(0x34), 0);
        assert_eq!(space.read(0x100), 0);
        assert_eq!(space.read(0xffff), 0);
    }

    #[test]
    fn bar32_sizing_yields_length_and_assignment_decodes() {
        let mut space = space();
        space.add_bar(1, BarKind::Memory32, 0x2000).unwrap();
        space.write(0x14, u32::MAX, 0xf);
        assert_eq!(space.read(0x14), 0xffff_e000);
        space.write(0x14, 0xe000_0000, 0xf);
        assert_eq!(space.bars(), []);
        space.write(0x04, 2, 0x3);
        let window = BarWindow {
            bar: 1,
            gpa: 0xe000_0000,
            len: 0x2000,
        };
        assert_eq!(space.bars(), [window]);
    }

    #[test]
    fn bar64_sizing_yields_length_over_both_halves() {
        let mut space = space();
        let kind = BarKind::Memory64 { prefetchable: true };
        space.add_bar(4, kind, 1 << 33).unwrap();
        for register in [0x20, 0x24] {
            space.write(register, u32::MAX, 0xf);
        }
        assert_eq!((space.read(0x20), space.read(0x24)), (0xc, 0xffff_fffe));
        space.write(0x24, 0x10, 0xf);
        space.write(0x04, 2, 0x3);
        assert_eq!(space.bars()[0].gpa, 0x10_0000_0000);
    }

    #[test]
    fn bar_that_is_not_assigned_does_not_decode() {
        let mut space = space();
        space.add_bar(0, BarKind::Memory32, 0x1000).unwrap();
        space.write(0x04, 2, 0x3);
        assert_eq!(space.bars(), []);
    }

    #[test]
    fn add_bar_bad_number_length_or_overlap_is_refused() {
        let mut space = space();
        let wide = BarKind::Memory64 { prefetchable: false };
        for (bar, kind, len) in [
            (6, BarKind::Memory32, 0x1000),
            (5, wide, 0x1000),
            (255, wide, 0x1000),
            (0, BarKind::Memory32, 0x1800),
            (0, BarKind::Memory32, 8),
            (0, BarKind::Memory32, 1 << 32),
        ] {
            assert_eq!(space.add_bar(bar, kind, len), Err(PciError::Bar { bar, len }));
        }
        space.add_bar(2, wide, 0x1000).unwrap();
        for bar in [1, 2, 3] {
            assert!(space.add_bar(bar, wide, 0x1000).is_err());
        }
    }

    #[test]
    fn capabilities_form_a_list_in_order() {
        let mut space = space();
        let first = space.add_capability(0x09, &[14, 1, 0], &[]).unwrap();
        let second = space.add_capability(0x11, &[0; 10], &[0, 0xc0]).unwrap();
        assert_eq!((first, second), (0x40, 0x48));
        assert_eq!(space.read(0x04) >> 16, u32::from(STATUS_CAPABILITIES));
        assert_eq!(space.read(0x34), 0x40);
        assert_eq!(space.read(0x40), 0x010e_4809);
        assert_eq!(space.read(0x48), 0x11);
        space.write(0x48, u32::MAX, 0xf);
        assert_eq!(space.read(0x48), 0xc000_0011);
    }

    #[test]
    fn add_capability_over_the_end_is_refused() {
        let mut space = space();
        space.add_capability(0x09, &[0; 180], &[]).unwrap();
        assert!(space.add_capability(0x09, &[0; 16], &[]).is_err());
        assert_eq!(space.add_capability(0x09, &[0; 6], &[]), Ok(0xf8));
        assert!(space.add_capability(0x09, &[], &[]).is_err());
    }

    #[test]
    fn write_changes_only_enabled_writable_bits() {
        let mut space = space();
        space.write(0x00, 0, 0xf);
        space.write(0x04, u32::MAX, 0b0001);
        space.write(0x3c, 0xffff_ff0a, 0xf);
        assert_eq!(space.read(0x00), 0x1043_1af4);
        assert_eq!(space.read(0x04), 0x46);
        assert_eq!(space.read(0x3c), 0x0a);
        assert!(space.is_bus_master());
        space.reset();
        assert!(!space.is_bus_master());
    }

    proptest! {
        #[test]
        fn any_writes_keep_identity_and_sane_windows(
            writes in prop::collection::vec((any::<u16>(), any::<u32>(), any::<u8>()), 0..200),
        ) {
            let mut space = space();
            space.add_bar(0, BarKind::Memory32, 0x1000).unwrap();
            space.add_bar(2, BarKind::Memory64 { prefetchable: false }, 0x4000).unwrap();
            space.add_capability(0x11, &[0; 10], &[0, 0xc0]).unwrap();
            for (register, value, byte_enable) in writes {
                space.write(register % 0x180, value, byte_enable);
                for window in space.bars() {
                    prop_assert_eq!(window.gpa % window.len, 0);
                    prop_assert!(window.gpa.checked_add(window.len - 1).is_some());
                }
            }
            prop_assert_eq!(space.read(0), 0x1043_1af4);
            prop_assert_eq!(space.read(0x34), 0x40);
        }
    }
}
