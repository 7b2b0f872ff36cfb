//! What the host's processor does with memory that others change at the same time.

use std::sync::atomic::Ordering;

/// Ordering of a plain load of an x86 guest: free on a host of its kind, and as strong as there on every other.
pub const X86_LOAD: Ordering = if cfg!(target_arch = "x86_64") {
    Ordering::Relaxed
} else {
    Ordering::Acquire
};

/// Ordering of its plain store.
pub const X86_STORE: Ordering = if cfg!(target_arch = "x86_64") {
    Ordering::Relaxed
} else {
    Ordering::Release
};

/// Stores `new` in the 16 bytes at `address` where `current` is found, as one step for everybody else; gives back
/// what was there. `None`, and nothing done, where this host has no instruction for it.
///
/// # Safety
/// `address` is a multiple of 16, and 16 bytes there are mapped, writable, and have no Rust reference to them.
pub unsafe fn compare_exchange_16(address: *mut u128, current: u128, new: u128) -> Option<u128> {
    #[cfg(target_arch = "x86_64")]
    if std::arch::is_x86_feature_detected!("cmpxchg16b") {
        // SAFETY: the caller's promise, and the host has the instruction.
        return Some(unsafe { cmpxchg16b(address, current, new) });
    }
    let _ = (address, current, new);
    None
}

/// # Safety
/// As [`compare_exchange_16`], and the host has the instruction.
#[cfg(target_arch = "x86_64")]
unsafe fn cmpxchg16b(address: *mut u128, current: u128, new: u128) -> u128 {
    let (mut low, mut high) = (current as u64, (current >> 64) as u64);
    // SAFETY: the caller's promise. RBX may not be named as an operand, so it is put back by hand.
    unsafe {
        std::arch::asm!(
            "xchg rbx, {new_low}",
            "lock cmpxchg16b [{address}]",
            "mov rbx, {new_low}",
            address = in(reg) address,
            new_low = inout(reg) new as u64 => _,
            inout("rax") low,
            inout("rdx") high,
            in("rcx") (new >> 64) as u64,
            options(nostack),
        );
    }
    u128::from(high) << 64 | u128::from(low)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn compare_exchange_16_stores_only_what_was_expected() {
        let mut value = 7_u128 << 64 | 9;
        let address = &raw mut value;
        // SAFETY: a `u128` is aligned to 16 and nobody refers to it meanwhile.
        let (refused, done) = unsafe {
            let refused = compare_exchange_16(address, 1, 2);
            (refused, compare_exchange_16(address, 7 << 64 | 9, 5 << 64 | 6))
        };
        if refused.is_some() {
            assert_eq!(
                (refused, done, value),
                (Some(7 << 64 | 9), Some(7 << 64 | 9), 5 << 64 | 6)
            );
        }
    }
}
