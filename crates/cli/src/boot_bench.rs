//! `cc boot-bench`: a kernel by itself, for `cargo xtask bench boot`.

use std::io::{self, Write};
use std::sync::Arc;

use anyhow::Result;
use crumblecracker::BootOnly;

use crate::args::{BootBench, Common};

/// Boots and shows the console until the machine ends.
pub(crate) fn boot(common: &Common, arguments: &BootBench) -> Result<u8> {
    let library = common.library()?;
    let backend = crumblecracker::open_backend(arguments.backend.as_deref(), &library)?;
    let boot = BootOnly {
        kernel: &arguments.kernel,
        initramfs: &arguments.initramfs,
        memory_mib: arguments.memory,
        append: &arguments.append,
    };
    let sink = |bytes: &[u8]| {
        let mut stdout = io::stdout().lock();
        // The guest goes on when nobody looks.
        let _ = stdout.write_all(bytes).and_then(|()| stdout.flush());
    };
    crumblecracker::boot_kernel(&boot, backend, Arc::new(sink))?;
    Ok(0)
}
