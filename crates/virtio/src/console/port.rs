//! The two byte streams of one port.

use std::io::{Read, Write};

use device_backends::ByteStream;

use crate::queue::Chain;
use crate::worker::Signals;
use crate::{ActiveQueue, Error};

/// Chains handled before other ports have their turn.
const BATCH: usize = 64;
/// Bytes copied at a time.
const PIECE: usize = 4096;

/// What a driver set up for one port, and how far an unfinished transfer has got.
#[derive(Clone, Copy, Default)]
pub(super) struct PortState {
    /// The driver has set the port up.
    pub(super) ready: bool,
    /// A program in the guest has it open.
    pub(super) guest_open: bool,
    /// What the driver was last told about the host's side.
    pub(super) shown_open: bool,
    /// Bytes of the first chain of the transmit queue that the stream has taken.
    pub(super) sent: usize,
}

/// A port's queues while the device works. A queue that the driver left out carries nothing.
pub(super) struct PortQueues {
    pub(super) receive: Option<Lane>,
    pub(super) transmit: Option<Lane>,
}

/// A queue and the chain that waits for the stream.
pub(super) struct Lane {
    queue: ActiveQueue,
    held: Option<Chain>,
}

impl Lane {
    pub(super) fn new(queue: ActiveQueue) -> Self {
        Self { queue, held: None }
    }

    fn next(&mut self) -> Result<Option<Chain>, Error> {
        match self.held.take() {
            Some(chain) => Ok(Some(chain)),
            None => self.queue.next_chain(),
        }
    }

    /// The queue, as if the chain that waits had not been taken.
    pub(super) fn into_queue(mut self) -> ActiveQueue {
        if let Some(chain) = self.held {
            self.queue.queue.put_back(chain);
        }
        self.queue
    }

    /// Gives `stream` what the driver wrote. Returns whether there may be more to do at once.
    pub(super) fn transmit(
        &mut self,
        state: &mut PortState,
        stream: &dyn ByteStream,
        signals: &Signals,
    ) -> Result<bool, Error> {
        let mut more = true;
        for _ in 0..BATCH {
            let Some(chain) = self.next()? else {
                more = false;
                break;
            };
            if !send(&chain, &mut state.sent, stream, signals)? {
                self.held = Some(chain);
                more = false;
                break;
            }
            state.sent = 0;
            self.queue.complete(chain, 0)?;
        }
        self.queue.flush()?;
        Ok(more)
    }

    /// Fills the driver's buffers from `stream`. Returns whether there may be more to do at once.
    pub(super) fn receive(&mut self, stream: &dyn ByteStream) -> Result<bool, Error> {
        let mut more = true;
        for _ in 0..BATCH {
            let Some(chain) = self.next()? else {
                more = false;
                break;
            };
            let written = fill(&chain, stream)?;
            // A chain without room goes back at once, or it would be in the way for ever.
            if written == 0 && chain.writer().remaining() > 0 {
                self.held = Some(chain);
                more = false;
                break;
            }
            self.queue.complete(chain, written)?;
        }
        self.queue.flush()?;
        Ok(more)
    }
}

/// Writes the chain's bytes from `sent` on to the stream. Returns whether it took them all.
fn send(chain: &Chain, sent: &mut usize, stream: &dyn ByteStream, signals: &Signals) -> Result<bool, Error> {
    let mut reader = chain.reader();
    reader.skip(*sent);
    let mut piece = [0; PIECE];
    while reader.remaining() > 0 {
        let count = reader.read(&mut piece).map_err(copy_failed)?;
        let taken = stream.write(&piece[..count]);
        *sent += taken;
        if taken < count || signals.is_stopping() {
            return Ok(reader.remaining() == 0 && taken == count);
        }
    }
    Ok(true)
}

fn fill(chain: &Chain, stream: &dyn ByteStream) -> Result<usize, Error> {
    let mut writer = chain.writer();
    let mut piece = [0; PIECE];
    while writer.remaining() > 0 {
        let room = writer.remaining().min(PIECE);
        let count = stream.read(&mut piece[..room]);
        if count == 0 {
            break;
        }
        writer.write_all(&piece[..count]).map_err(copy_failed)?;
    }
    Ok(writer.written())
}

fn copy_failed(source: std::io::Error) -> Error {
    Error::Service {
        service: "access to a console buffer",
        source,
    }
}
