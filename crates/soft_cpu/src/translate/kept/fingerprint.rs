//! Which program, on which processor, made some code: it fits no other.

use std::sync::OnceLock;

use super::digest::{Digest, digest};
use crate::cpu::Cpu;
use crate::translate::{eligible, layout, pages::CODE_PAGES, runtime::Runtime, slow_path};

/// What code depends on beside the guest's.
pub(super) type Fingerprint = Digest;

/// The one of this program here; `None` where the system does not say which program this is.
///
/// Translated code has offsets into [`Cpu`] in it and relies on what the translator's every part means. The compiler lays
/// the one out anew for each build, and nobody would remember to count the other: so it is the executable itself that
/// counts, as the file that it is. The rest is what a processor or a library in another file could change.
pub(super) fn fingerprint() -> Option<Fingerprint> {
    static KNOWN: OnceLock<Option<Fingerprint>> = OnceLock::new();
    *KNOWN.get_or_init(|| {
        let program = host_os::program_identity(fingerprint as *const () as usize).ok()?;
        let mut bytes = Runtime::assemble(0, 0).1;
        for number in program {
            bytes.extend(number.to_le_bytes());
        }
        // Code is so far from the shared pieces, whose length depends on where that function is.
        let shared = Runtime::assemble(0, slow_path as *const () as u64).1.len();
        for number in [size_of::<Cpu>(), align_of::<Cpu>(), CODE_PAGES, shared] {
            bytes.extend(number.to_le_bytes());
        }
        bytes.extend(layout::all().map(i32::to_le_bytes).concat());
        bytes.extend(env!("CARGO_PKG_VERSION").bytes());
        bytes.extend(eligible::host_features().bytes());
        Some(digest(&bytes))
    })
}
