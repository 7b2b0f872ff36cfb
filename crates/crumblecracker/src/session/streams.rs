//! A process's standard streams, as `std` has them.

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::sync::{Arc, Condvar, Mutex, PoisonError};

use guest_protocol::{ReceiveCredit, SendCredit, Stream, ToGuest, wire};

use super::saved::{SavedInput, SavedOutput};
use super::{Shared, lock};

/// Bytes of one output on their way to a reader.
#[derive(Default)]
pub(super) struct OutputQueue {
    state: Mutex<OutputState>,
    changed: Condvar,
}

#[derive(Default)]
struct OutputState {
    bytes: VecDeque<u8>,
    credit: ReceiveCredit,
    /// Granted, and on its way to the channel.
    granting: u32,
    ended: bool,
    reader_gone: bool,
}

impl OutputQueue {
    /// One that goes on with `bytes` that nobody has read yet.
    pub(super) fn resumed(bytes: Vec<u8>, credit: ReceiveCredit, ended: bool) -> Self {
        let state = OutputState {
            bytes: bytes.into(),
            credit,
            ended,
            ..OutputState::default()
        };
        Self {
            state: Mutex::new(state),
            changed: Condvar::new(),
        }
    }

    pub(super) fn save(&self) -> SavedOutput {
        let state = lock(&self.state);
        // What did not reach the channel is still to be granted.
        SavedOutput {
            bytes: state.bytes.iter().copied().collect(),
            outstanding: state.credit.outstanding().saturating_sub(state.granting),
            owed: state.credit.owed() + state.granting,
            ended: state.ended,
        }
    }

    /// Takes what the guest sent.
    pub(super) fn push(&self, bytes: &[u8]) -> Result<(), String> {
        let mut state = lock(&self.state);
        state
            .credit
            .received(bytes.len())
            .map_err(|error| error.to_string())?;
        if !state.reader_gone {
            state.bytes.extend(bytes);
            self.changed.notify_all();
        }
        Ok(())
    }

    /// Nothing follows.
    pub(super) fn end(&self) {
        lock(&self.state).ended = true;
        self.changed.notify_all();
    }
}

/// Standard output or error of a process in the guest. Reading returns 0 at its end; dropping it tells the
/// process that nobody reads any more.
pub struct ProcessOutput {
    pub(super) queue: Arc<OutputQueue>,
    pub(super) session: Arc<Shared>,
    pub(super) id: u32,
    pub(super) stream: Stream,
}

impl Read for ProcessOutput {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let mut state = lock(&self.queue.state);
        while state.bytes.is_empty() && !state.ended && !bytes.is_empty() {
            state = self
                .queue
                .changed
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
        let count = state.bytes.read(bytes)?;
        let due = state.credit.consumed(count).filter(|_| !state.ended);
        if let Some(due) = due {
            state.granting = due;
            drop(state);
            // A guest that is gone needs no credit; the end of the stream says so to the reader.
            let _ = self.session.send(self.id, ToGuest::Credit(self.stream, due));
            lock(&self.queue.state).granting = 0;
        }
        Ok(count)
    }
}

impl Drop for ProcessOutput {
    fn drop(&mut self) {
        let mut state = lock(&self.queue.state);
        state.reader_gone = true;
        state.bytes.clear();
        let ended = state.ended;
        drop(state);
        if !ended {
            // As above.
            let _ = self.session.send(self.id, ToGuest::Close(self.stream));
        }
    }
}

/// Room for bytes on their way to a process's standard input.
#[derive(Default)]
pub(super) struct InputGate {
    state: Mutex<InputState>,
    changed: Condvar,
}

#[derive(Default)]
struct InputState {
    credit: SendCredit,
    /// Taken for bytes that are on their way to the channel.
    sending: u32,
    closed: bool,
}

impl InputGate {
    pub(super) fn resumed(credit: SendCredit, closed: bool) -> Self {
        let state = InputState {
            credit,
            closed,
            ..InputState::default()
        };
        Self {
            state: Mutex::new(state),
            changed: Condvar::new(),
        }
    }

    pub(super) fn save(&self) -> SavedInput {
        let state = lock(&self.state);
        // What did not reach the channel took no credit from the guest.
        SavedInput {
            credit: state.credit.available() + state.sending,
            closed: state.closed,
        }
    }

    pub(super) fn grant(&self, bytes: u32) -> Result<(), String> {
        lock(&self.state)
            .credit
            .grant(bytes)
            .map_err(|error| error.to_string())?;
        self.changed.notify_all();
        Ok(())
    }

    /// The process takes no more.
    pub(super) fn close(&self) {
        lock(&self.state).closed = true;
        self.changed.notify_all();
    }

    /// Waits for room; `None` when the process takes no more.
    fn take(&self, wanted: usize) -> Option<usize> {
        let mut state = lock(&self.state);
        loop {
            if state.closed {
                return None;
            }
            match state.credit.take(wanted) {
                0 => state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner),
                granted => {
                    // At most the credit, which fits.
                    state.sending = granted as u32;
                    return Some(granted);
                }
            }
        }
    }

    fn sent(&self) {
        lock(&self.state).sending = 0;
    }
}

/// Standard input of a process in the guest. Dropping it is its end of file.
pub struct ProcessInput {
    pub(super) gate: Arc<InputGate>,
    pub(super) session: Arc<Shared>,
    pub(super) id: u32,
}

impl Write for ProcessInput {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if bytes.is_empty() {
            return Ok(0);
        }
        let wanted = bytes.len().min(wire::MAX_DATA);
        let granted = self.gate.take(wanted).ok_or(io::ErrorKind::BrokenPipe)?;
        let data = ToGuest::Data(Stream::Stdin, bytes[..granted].to_vec());
        let sent = self.session.send(self.id, data);
        self.gate.sent();
        sent.map_err(io::Error::other)?;
        Ok(granted)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for ProcessInput {
    fn drop(&mut self) {
        // A process that has ended needs no end of file.
        let _ = self.session.send(self.id, ToGuest::Eof(Stream::Stdin));
    }
}
