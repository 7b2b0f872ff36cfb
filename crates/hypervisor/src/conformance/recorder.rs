//! What a guest program did, as a trace that two backends can be compared by.

use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use super::guest::DONE_PORT;
use crate::{GuestIo, Kick};

/// One upcall. Values are little endian.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// An `in`, and what it was given.
    PortRead {
        /// The port.
        port: u16,
        /// Width in bytes.
        width: u8,
        /// What was read.
        value: u64,
    },
    /// An `out`.
    PortWrite {
        /// The port.
        port: u16,
        /// Width in bytes.
        width: u8,
        /// What was written.
        value: u64,
    },
    /// A load from a device register, and what it was given.
    MmioRead {
        /// Guest-physical address.
        gpa: u64,
        /// Width in bytes.
        width: u8,
        /// What was read.
        value: u64,
    },
    /// A store to a device register.
    MmioWrite {
        /// Guest-physical address.
        gpa: u64,
        /// Width in bytes.
        width: u8,
        /// What was written.
        value: u64,
    },
    /// The end of a level-triggered interrupt.
    Eoi {
        /// Its vector.
        vector: u8,
    },
}

/// What the suite's devices answer: byte `i` of a load from `address` depends on where it lies and on nothing
/// else, so that an access split in two reads the same bytes.
pub(super) fn answer(address: u64, width: u8) -> u64 {
    let mut bytes = [0; 8];
    fill(address, &mut bytes[..usize::from(width)]);
    u64::from_le_bytes(bytes)
}

fn fill(address: u64, data: &mut [u8]) {
    for (byte, offset) in data.iter_mut().zip(0_u8..) {
        *byte = (address as u8).wrapping_add(offset) ^ 0xa5;
    }
}

/// What a store of the guest to one port sets off.
pub(super) type Reaction = Box<dyn Fn() + Send + Sync>;

/// Records every upcall, answers loads, and stops the CPU at the program's end.
#[derive(Default)]
pub(super) struct Recorder {
    trace: Mutex<Vec<Access>>,
    stop: OnceLock<Arc<dyn Kick>>,
    reactions: Vec<(u16, Reaction)>,
}

impl Recorder {
    pub(super) fn stop_with(&self, kick: Arc<dyn Kick>) {
        // Set once, when the guest is made.
        let _ = self.stop.set(kick);
    }

    pub(super) fn react(&mut self, port: u16, reaction: Reaction) {
        self.reactions.push((port, reaction));
    }

    pub(super) fn trace(&self) -> Vec<Access> {
        self.trace.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn record(&self, access: Access) {
        self.trace
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(access);
    }
}

fn width(data: &[u8]) -> u8 {
    u8::try_from(data.len()).unwrap_or(u8::MAX)
}

fn value(data: &[u8]) -> u64 {
    data.iter()
        .rev()
        .fold(0, |value, byte| value << 8 | u64::from(*byte))
}

impl GuestIo for Recorder {
    fn mmio_read(&self, gpa: u64, data: &mut [u8]) {
        fill(gpa, data);
        self.record(Access::MmioRead {
            gpa,
            width: width(data),
            value: value(data),
        });
    }

    fn mmio_write(&self, gpa: u64, data: &[u8]) {
        self.record(Access::MmioWrite {
            gpa,
            width: width(data),
            value: value(data),
        });
    }

    fn port_read(&self, port: u16, data: &mut [u8]) {
        fill(port.into(), data);
        self.record(Access::PortRead {
            port,
            width: width(data),
            value: value(data),
        });
    }

    fn port_write(&self, port: u16, data: &[u8]) {
        if port == DONE_PORT {
            if let Some(stop) = self.stop.get() {
                stop.kick();
            }
            return;
        }
        self.record(Access::PortWrite {
            port,
            width: width(data),
            value: value(data),
        });
        for (_, reaction) in self.reactions.iter().filter(|(at, _)| *at == port) {
            reaction();
        }
    }

    fn eoi(&self, vector: u8) {
        self.record(Access::Eoi { vector });
    }
}
