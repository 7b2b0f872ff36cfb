//! Guest RAM as a CPU in software reaches it: by guest-physical address, with the widths and the atomicity of
//! a processor's own accesses.

use std::sync::atomic::{AtomicU8, AtomicU16, AtomicU32, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use host_os::{X86_LOAD, X86_STORE, compare_exchange_16};

use crate::{GuestMemory, RamRegion};

/// All RAM of a VM, with the addresses in one table. Keeps the memory it shows.
#[derive(Clone, Debug, Default)]
pub struct RamView {
    regions: Vec<RamRegion>,
    memories: Vec<GuestMemory>,
}

/// What no single instruction of the host can do at once is done under this lock: a locked access that
/// straddles eight bytes, and 16 bytes at a time where the host has no such instruction.
static STRADDLING: Mutex<()> = Mutex::new(());

impl RamView {
    /// Shows all of `memory` as well.
    pub fn add(&mut self, memory: &GuestMemory) {
        self.regions.extend(memory.regions());
        self.memories.push(memory.clone());
    }

    /// The stretches of RAM, in the order in which they were added.
    pub fn regions(&self) -> &[RamRegion] {
        &self.regions
    }

    /// Watches the page at `gpa` for [writes by devices](GuestMemory::watch); says whether it was not watched before.
    pub fn watch(&self, gpa: u64) -> bool {
        self.memories.iter().any(|memory| memory.watch(gpa))
    }

    /// Watches it no more.
    pub fn unwatch(&self, gpa: u64) {
        self.memories.iter().for_each(|memory| memory.unwatch(gpa));
    }

    /// Whether it is watched.
    pub fn is_watched(&self, gpa: u64) -> bool {
        self.memories.iter().any(|memory| memory.is_watched(gpa))
    }

    /// Host address of the byte at `gpa`, where `len` bytes from there on are RAM.
    #[inline]
    pub fn host_address(&self, gpa: u64, len: u64) -> Option<usize> {
        for region in &self.regions {
            let offset = gpa.wrapping_sub(region.gpa);
            if offset < region.len {
                return (region.len - offset >= len).then(|| region.host_address + offset as usize);
            }
        }
        None
    }

    /// Reads 1, 2, 4 or 8 bytes, little endian; at once where they are aligned. `None` where not all is RAM.
    #[inline]
    pub fn load(&self, gpa: u64, size: usize) -> Option<u64> {
        let address = self.host_address(gpa, size as u64)?;
        if address % size == 0 {
            // SAFETY: `host_address` found `size` bytes of a mapping that `self.memories` keeps, and the
            // address is aligned to that size. Everybody who touches guest RAM does so by atomic or volatile
            // accesses, so no reference to these bytes exists.
            return Some(unsafe {
                match size {
                    1 => AtomicU8::from_ptr(address as *mut u8).load(X86_LOAD).into(),
                    2 => AtomicU16::from_ptr(address as *mut u16).load(X86_LOAD).into(),
                    4 => AtomicU32::from_ptr(address as *mut u32).load(X86_LOAD).into(),
                    _ => AtomicU64::from_ptr(address as *mut u64).load(X86_LOAD),
                }
            });
        }
        let mut bytes = [0; 8];
        self.read(gpa, &mut bytes[..size]);
        Some(u64::from_le_bytes(bytes))
    }

    /// Writes the low 1, 2, 4 or 8 bytes of `value`, little endian; at once where they are aligned. Writes
    /// nothing and says `false` where not all is RAM.
    #[inline]
    pub fn store(&self, gpa: u64, size: usize, value: u64) -> bool {
        let Some(address) = self.host_address(gpa, size as u64) else {
            return false;
        };
        if address % size != 0 {
            return self.write(gpa, &value.to_le_bytes()[..size]);
        }
        // SAFETY: as in `load`.
        unsafe {
            match size {
                1 => AtomicU8::from_ptr(address as *mut u8).store(value as u8, X86_STORE),
                2 => AtomicU16::from_ptr(address as *mut u16).store(value as u16, X86_STORE),
                4 => AtomicU32::from_ptr(address as *mut u32).store(value as u32, X86_STORE),
                _ => AtomicU64::from_ptr(address as *mut u64).store(value, X86_STORE),
            }
        }
        true
    }

    /// Fills `bytes` from RAM; `false` where not all is RAM.
    #[inline]
    pub fn read(&self, gpa: u64, bytes: &mut [u8]) -> bool {
        let Some(address) = self.host_address(gpa, bytes.len() as u64) else {
            return false;
        };
        // SAFETY: source: `host_address` found that many bytes of a mapping that lives, and no reference to
        // them exists. Destination: a slice of that length, elsewhere. Bytes that the guest changes meanwhile
        // are read as either value.
        unsafe { std::ptr::copy(address as *const u8, bytes.as_mut_ptr(), bytes.len()) };
        true
    }

    /// Copies `bytes` into RAM; writes nothing and says `false` where not all is RAM.
    #[inline]
    pub fn write(&self, gpa: u64, bytes: &[u8]) -> bool {
        let Some(address) = self.host_address(gpa, bytes.len() as u64) else {
            return false;
        };
        // SAFETY: as in `read`, the other way.
        unsafe { std::ptr::copy(bytes.as_ptr(), address as *mut u8, bytes.len()) };
        true
    }

    /// Copies `len` bytes from one place in RAM to another as if byte by byte upwards, which matters where
    /// they overlap; `false`, and nothing done, where not all is RAM.
    pub fn copy_forward(&self, from: u64, to: u64, len: u64) -> bool {
        let (Some(source), Some(target)) = (self.host_address(from, len), self.host_address(to, len)) else {
            return false;
        };
        let distance = target.wrapping_sub(source);
        if distance == 0 || distance >= len as usize {
            // SAFETY: both are `len` bytes of mappings that live; `copy` allows any overlap.
            unsafe { std::ptr::copy(source as *const u8, target as *mut u8, len as usize) };
            return true;
        }
        // The target lies inside the source: what was written is read again, which repeats the first bytes.
        for offset in 0..len as usize {
            // SAFETY: inside the two stretches checked above.
            unsafe {
                ((target + offset) as *mut u8)
                    .write_volatile(((source + offset) as *const u8).read_volatile())
            };
        }
        true
    }

    /// Fills `len` bytes from `gpa` on with copies of `pattern` (1, 2, 4 or 8 bytes long, and `len` a multiple
    /// of it); `false`, and nothing done, where not all is RAM.
    pub fn fill(&self, gpa: u64, len: u64, pattern: &[u8]) -> bool {
        let Some(address) = self.host_address(gpa, len) else {
            return false;
        };
        if let [byte] = pattern {
            // SAFETY: `len` bytes of a mapping that lives, to which no reference exists.
            unsafe { std::ptr::write_bytes(address as *mut u8, *byte, len as usize) };
            return true;
        }
        for offset in (0..len as usize).step_by(pattern.len()) {
            // SAFETY: inside the stretch checked above.
            unsafe { std::ptr::copy(pattern.as_ptr(), (address + offset) as *mut u8, pattern.len()) };
        }
        true
    }

    /// Stores the low `size` bytes of `new` where those of `current` are found, as one step for every other
    /// CPU. `Ok` has what was there where it was stored, `Err` where it was not. `None` where not all is RAM.
    pub fn compare_exchange(
        &self,
        gpa: u64,
        size: usize,
        current: u64,
        new: u64,
    ) -> Option<Result<u64, u64>> {
        const ORDER: Ordering = Ordering::SeqCst;
        let address = self.host_address(gpa, size as u64)?;
        if address % size != 0 {
            return Some(self.compare_exchange_straddling(gpa, size, current, new));
        }
        // SAFETY: as in `load`.
        Some(unsafe {
            match size {
                1 => widen(AtomicU8::from_ptr(address as *mut u8).compare_exchange(
                    current as u8,
                    new as u8,
                    ORDER,
                    ORDER,
                )),
                2 => widen(AtomicU16::from_ptr(address as *mut u16).compare_exchange(
                    current as u16,
                    new as u16,
                    ORDER,
                    ORDER,
                )),
                4 => widen(AtomicU32::from_ptr(address as *mut u32).compare_exchange(
                    current as u32,
                    new as u32,
                    ORDER,
                    ORDER,
                )),
                _ => AtomicU64::from_ptr(address as *mut u64).compare_exchange(current, new, ORDER, ORDER),
            }
        })
    }

    /// Not aligned: inside eight aligned bytes those are exchanged whole, otherwise all such accesses take
    /// turns.
    fn compare_exchange_straddling(&self, gpa: u64, size: usize, current: u64, new: u64) -> Result<u64, u64> {
        let mask = if size == 8 {
            u64::MAX
        } else {
            (1 << (size * 8)) - 1
        };
        let (word, shift) = (gpa & !7, gpa % 8 * 8);
        if gpa % 8 + size as u64 <= 8 {
            loop {
                let whole = self.load(word, 8).unwrap_or(0);
                let old = whole >> shift & mask;
                if old != current & mask {
                    return Err(old);
                }
                let changed = whole & !(mask << shift) | (new & mask) << shift;
                if let Some(Ok(_)) = self.compare_exchange(word, 8, whole, changed) {
                    return Ok(old);
                }
            }
        }
        let _turn = STRADDLING.lock().unwrap_or_else(PoisonError::into_inner);
        let old = self.load(gpa, size).unwrap_or(0);
        if old != current & mask {
            return Err(old);
        }
        self.store(gpa, size, new);
        Ok(old)
    }

    /// The same for 16 bytes at an address that is a multiple of 16. `None` where not all is RAM.
    pub fn compare_exchange_16(&self, gpa: u64, current: u128, new: u128) -> Option<Result<u128, u128>> {
        let address = self.host_address(gpa, 16)?;
        debug_assert!(address % 16 == 0);
        // SAFETY: 16 aligned bytes of a mapping that lives, as in `load`.
        if let Some(old) = unsafe { compare_exchange_16(address as *mut u128, current, new) } {
            return Some(if old == current { Ok(old) } else { Err(old) });
        }
        let _turn = STRADDLING.lock().unwrap_or_else(PoisonError::into_inner);
        let mut bytes = [0; 16];
        self.read(gpa, &mut bytes);
        let old = u128::from_le_bytes(bytes);
        if old != current {
            return Some(Err(old));
        }
        self.write(gpa, &new.to_le_bytes());
        Some(Ok(old))
    }
}

fn widen<T: Into<u64>>(result: Result<T, T>) -> Result<u64, u64> {
    result.map(Into::into).map_err(Into::into)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn view() -> RamView {
        let mut view = RamView::default();
        view.add(&GuestMemory::anonymous(&[(0, 0x2000), (0x10_0000, 0x1000)]).unwrap());
        view
    }

    #[test]
    fn load_and_store_every_width_aligned_or_not_agree() {
        let view = view();
        for (gpa, size, value) in [
            (0x10, 8, 0x1122_3344_5566_7788),
            (0x21, 4, 0x99aa_bbcc),
            (0x31, 2, 0xddee),
            (0x41, 1, 0xff),
        ] {
            assert!(view.store(gpa, size, value));
            assert_eq!(view.load(gpa, size), Some(value));
        }
    }

    #[test]
    fn accesses_over_the_end_or_in_the_gap_touch_nothing() {
        let view = view();
        assert_eq!(view.load(0x1ffd, 4), None);
        assert!(!view.store(0x1ffd, 4, u64::MAX));
        assert_eq!(view.load(0x1ffc, 4), Some(0));
        assert_eq!(view.compare_exchange(0x5000, 4, 0, 1), None);
        assert!(!view.fill(0x1000, 0x1001, &[1]));
        assert!(!view.copy_forward(0, u64::MAX - 1, 8));
    }

    #[test]
    fn compare_exchange_in_every_place_stores_only_what_was_expected() {
        let view = view();
        for gpa in [0x100, 0x201, 0x305] {
            assert_eq!(view.compare_exchange(gpa, 4, 0, 7), Some(Ok(0)));
            assert_eq!(view.compare_exchange(gpa, 4, 0, 9), Some(Err(7)));
            assert_eq!(view.load(gpa, 4), Some(7));
        }
        assert_eq!(view.compare_exchange_16(0x400, 0, 1 << 100), Some(Ok(0)));
        assert_eq!(view.compare_exchange_16(0x400, 0, 2), Some(Err(1 << 100)));
    }

    #[test]
    fn copy_forward_into_itself_repeats_the_first_bytes() {
        let view = view();
        view.write(0, b"ab");
        assert!(view.copy_forward(0, 2, 6));
        let mut bytes = [0; 8];
        view.read(0, &mut bytes);
        assert_eq!(&bytes, b"abababab");
    }
}
