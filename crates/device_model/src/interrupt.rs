//! Interrupt lines and messages, as devices hold them.

use std::sync::Arc;

/// A message-signalled interrupt: a store of `data` to `address`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct MsiMessage {
    /// Where the message goes.
    pub address: u64,
    /// What it says.
    pub data: u32,
}

/// Takes message-signalled interrupts. Called from device threads and vCPU threads at once; a message that
/// cannot be delivered is logged by the sink.
pub trait MsiSink: Send + Sync {
    /// Delivers one message.
    fn signal(&self, message: MsiMessage);
}

/// Takes changes of level of numbered lines: an interrupt controller.
pub trait LineTarget: Send + Sync {
    /// Sets the level of input `line`. Called from any thread.
    fn set_level(&self, line: u32, high: bool);
}

/// One wire from a device to an interrupt controller. Clones are the same wire.
#[derive(Clone)]
pub struct InterruptLine {
    target: Arc<dyn LineTarget>,
    line: u32,
}

impl InterruptLine {
    /// The wire to input `line` of `target`.
    pub fn new(target: Arc<dyn LineTarget>, line: u32) -> Self {
        Self { target, line }
    }

    /// Drives the wire.
    pub fn set_level(&self, high: bool) {
        self.target.set_level(self.line, high);
    }

    /// One edge: up and down.
    pub fn pulse(&self) {
        self.set_level(true);
        self.set_level(false);
    }
}
