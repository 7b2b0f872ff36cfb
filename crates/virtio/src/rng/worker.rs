//! The thread of the entropy device.

use std::io::Write;
use std::sync::Arc;

use device_backends::Entropy;

use super::protocol::MAX_BYTES;
use crate::queue::Chain;
use crate::worker::Signals;
use crate::{ActiveQueue, Error, Interrupt};

pub(super) struct Server {
    pub(super) queue: ActiveQueue,
    pub(super) source: Arc<dyn Entropy>,
    pub(super) interrupt: Interrupt,
    pub(super) signals: Signals,
}

impl Server {
    pub(super) fn run(mut self) -> ActiveQueue {
        while self.signals.wait().is_some() {
            if let Err(error) = self.serve() {
                self.interrupt.broken(&error);
                break;
            }
        }
        self.queue
    }

    fn serve(&mut self) -> Result<(), Error> {
        while !self.signals.is_stopping() {
            let Some(chain) = self.queue.next_chain()? else {
                break;
            };
            let written = self.fill(&chain).map_err(|source| Error::Service {
                service: "source of entropy",
                source,
            })?;
            self.queue.complete(chain, written)?;
            self.queue.flush()?;
        }
        Ok(())
    }

    fn fill(&self, chain: &Chain) -> std::io::Result<usize> {
        let mut writer = chain.writer();
        let mut left = writer.remaining().min(MAX_BYTES);
        let mut bytes = [0; 1024];
        while left > 0 {
            let part = &mut bytes[..left.min(1024)];
            self.source.fill(part)?;
            writer.write_all(part)?;
            left -= part.len();
        }
        Ok(writer.written())
    }
}
