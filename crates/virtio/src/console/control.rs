//! Control messages in both directions (5.3.6.2).

use std::collections::VecDeque;
use std::io::{Read, Write};

use super::protocol::{CONTROL_LEN, FromDriver, ToDriver};
use crate::{ActiveQueue, Error};

/// Messages the driver may cause before it must take some: a driver that gives no buffers cannot fill the
/// host's memory.
const MAX_WAITING: usize = 64;

/// Messages that wait for the driver's buffers.
#[derive(Default)]
pub(super) struct Outbox {
    pub(super) waiting: VecDeque<ToDriver>,
}

impl Outbox {
    /// Adds a message. Of several sizes of a terminal that wait only the last counts.
    pub(super) fn push(&mut self, message: ToDriver) {
        if let ToDriver::Resize { port, .. } = message {
            self.waiting
                .retain(|waiting| !matches!(waiting, ToDriver::Resize { port: other, .. } if *other == port));
        }
        self.waiting.push_back(message);
    }

    /// Whether no message should be taken that may cause others.
    pub(super) fn is_full(&self) -> bool {
        self.waiting.len() >= MAX_WAITING
    }

    /// Moves messages into the driver's buffers as long as there are both. Returns whether any moved.
    pub(super) fn send(&mut self, queue: &mut ActiveQueue) -> Result<bool, Error> {
        let mut any = false;
        while let Some(message) = self.waiting.front() {
            let Some(chain) = queue.next_chain()? else { break };
            let bytes = message.to_bytes();
            let mut writer = chain.writer();
            writer
                .write_all(&bytes)
                .map_err(|_| Error::Request("the buffer for a console control message is too small"))?;
            let written = writer.written();
            queue.complete(chain, written)?;
            self.waiting.pop_front();
            any = true;
        }
        queue.flush()?;
        Ok(any)
    }
}

/// The driver's next message, if there is one. The caller flushes the queue.
pub(super) fn receive(queue: &mut ActiveQueue) -> Result<Option<FromDriver>, Error> {
    let Some(chain) = queue.next_chain()? else {
        return Ok(None);
    };
    let mut bytes = [0; CONTROL_LEN];
    chain
        .reader()
        .read_exact(&mut bytes)
        .map_err(|_| Error::Request("a console control message is too short"))?;
    queue.complete(chain, 0)?;
    Ok(Some(FromDriver::parse(bytes)))
}
