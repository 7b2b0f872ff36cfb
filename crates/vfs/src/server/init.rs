//! FUSE_INIT: version and features.

use std::sync::atomic::Ordering;

use rustix::io::Errno;

use super::call::Call;
use super::{READY, Server};
use crate::attr::CachePolicy;
use crate::protocol::{
    InitIn, InitInShort, InitOut, KERNEL_MINOR_VERSION, KERNEL_VERSION, MIN_MINOR_VERSION, init_flag,
};

/// Largest READ or WRITE in bytes.
const MAX_WRITE: u32 = 1 << 20;
/// Largest READ or WRITE in pages of 4 KiB.
const MAX_PAGES: u16 = 256;
/// How many read-ahead and write-back requests the guest keeps under way.
const MAX_BACKGROUND: u16 = 128;
/// Where the guest takes its writers back: three quarters, as the kernel's own default has it.
const CONGESTION_THRESHOLD: u16 = MAX_BACKGROUND / 4 * 3;

/// Features wanted for every tree.
///
/// Not among them: FUSE_DONT_MASK and FUSE_POSIX_ACL (without ACLs the kernel applies the umask itself and
/// `system.posix_acl_*` is not offered), FUSE_EXPORT_SUPPORT, FUSE_POSIX_LOCKS and FUSE_FLOCK_LOCKS (locks
/// are between the guest's own processes), FUSE_SUBMOUNTS (every server is one file system).
const COMMON: u64 = init_flag::ASYNC_READ
    | init_flag::BIG_WRITES
    | init_flag::DO_READDIRPLUS
    | init_flag::READDIRPLUS_AUTO
    | init_flag::ASYNC_DIO
    | init_flag::PARALLEL_DIROPS
    | init_flag::MAX_PAGES
    | init_flag::HANDLE_KILLPRIV_V2
    | init_flag::INIT_EXT;

/// Features for a tree with this policy.
///
/// A tree that only this guest changes is cached in full: written pages stay in the guest until it writes
/// them back, links and pages never go stale. Anything else is written through, and pages are dropped when
/// the times of their file change. Without opens there is no O_TRUNC to carry: the kernel truncates by
/// SETATTR then.
pub(super) fn wanted(policy: &CachePolicy) -> u64 {
    let mut flags = COMMON;
    if policy.exclusive {
        flags |= init_flag::WRITEBACK_CACHE | init_flag::CACHE_SYMLINKS | init_flag::EXPLICIT_INVAL_DATA;
    } else {
        flags |= init_flag::AUTO_INVAL_DATA;
    }
    if policy.stateless {
        flags |= init_flag::NO_OPEN_SUPPORT | init_flag::NO_OPENDIR_SUPPORT;
    } else {
        flags |= init_flag::ATOMIC_O_TRUNC;
    }
    flags
}

impl Server {
    pub(super) fn init(&self, call: &mut Call<'_>) -> Result<usize, Errno> {
        let mut arguments = call.arguments();
        let asked = if arguments.remaining() < size_of::<InitIn>() {
            let short: InitInShort = arguments.take()?;
            let InitInShort {
                major,
                minor,
                max_readahead,
                flags,
            } = short;
            InitIn {
                major,
                minor,
                max_readahead,
                flags,
                ..InitIn::default()
            }
        } else {
            arguments.take()?
        };
        // A newer major version is answered with ours alone; the kernel then tries again with that.
        if asked.major > KERNEL_VERSION {
            let ours = InitOut {
                major: KERNEL_VERSION,
                minor: KERNEL_MINOR_VERSION,
                ..InitOut::default()
            };
            return call.reply(&ours);
        }
        if asked.major < KERNEL_VERSION || asked.minor < MIN_MINOR_VERSION {
            return Err(Errno::PROTO);
        }
        if self.negotiated(READY) {
            return Err(Errno::IO);
        }
        let mut offered = u64::from(asked.flags);
        if offered & init_flag::INIT_EXT != 0 {
            offered |= u64::from(asked.flags2) << 32;
        }
        let flags = wanted(&self.tree.cache_policy()) & offered;
        let length = call.reply(&InitOut {
            major: KERNEL_VERSION,
            minor: asked.minor.min(KERNEL_MINOR_VERSION),
            max_readahead: asked.max_readahead.min(MAX_WRITE),
            flags: flags as u32,
            max_background: MAX_BACKGROUND,
            congestion_threshold: CONGESTION_THRESHOLD,
            max_write: MAX_WRITE,
            time_gran: 1,
            max_pages: MAX_PAGES,
            map_alignment: 0,
            flags2: (flags >> 32) as u32,
            unused: [0; 7],
        })?;
        // Only one of two simultaneous INITs may win.
        self.connection
            .compare_exchange(0, flags | READY, Ordering::AcqRel, Ordering::Acquire)
            .map_err(|_| Errno::IO)?;
        Ok(length)
    }
}
