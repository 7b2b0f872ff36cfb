//! The threads of the file-system device.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use device_backends::{FileService, ReplySink};

use crate::queue::Chain;
use crate::worker::{Signals, Worker};
use crate::{ActiveQueue, Error, Interrupt};

/// A queue that several threads serve: they take turns at the rings and work on requests at once.
pub(super) struct RequestQueue {
    queue: Mutex<ActiveQueue>,
    service: Arc<dyn FileService>,
    interrupt: Interrupt,
    signals: Signals,
}

impl RequestQueue {
    pub(super) fn new(
        queue: ActiveQueue,
        service: Arc<dyn FileService>,
        interrupt: Interrupt,
    ) -> Result<Self, Error> {
        Ok(Self {
            queue: Mutex::new(queue),
            service,
            interrupt,
            signals: Signals::new()?,
        })
    }

    fn run(&self) {
        while self.signals.wait().is_some() {
            if let Err(error) = self.serve() {
                self.interrupt.broken(&error);
                break;
            }
        }
    }

    fn serve(&self) -> Result<(), Error> {
        while !self.signals.is_stopping() {
            let Some(chain) = self.next()? else { break };
            let written = self.handle(&chain);
            let mut queue = self.lock();
            queue.complete(chain, written)?;
            queue.flush()?;
        }
        Ok(())
    }

    fn next(&self) -> Result<Option<Chain>, Error> {
        let mut queue = self.lock();
        let chain = queue.next_chain()?;
        if chain.is_some() && !queue.queue.is_empty() {
            // There is work for another thread; this one is about to be busy.
            self.signals.raise(1);
        }
        Ok(chain)
    }

    fn handle(&self, chain: &Chain) -> usize {
        let mut reply = chain.writer();
        let written = self.service.handle(&chain.reader(), &mut reply);
        written.min(reply.capacity())
    }

    /// The rings are consistent whenever the lock is free, so poisoning does no harm.
    fn lock(&self) -> MutexGuard<'_, ActiveQueue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A queue and the threads that serve it.
pub(super) struct Serving {
    queue: Arc<RequestQueue>,
    threads: Vec<Worker<()>>,
}

impl Serving {
    pub(super) fn start(queue: RequestQueue, threads: usize) -> Result<Self, Error> {
        let queue = Arc::new(queue);
        let signals = queue.signals.clone();
        let name = {
            let queue = queue.lock();
            signals.answer(&queue.doorbell, 1);
            format!("virtio-fs-{}", queue.index)
        };
        // The driver may have made requests available before the doorbell had a listener.
        signals.raise(1);
        let start = |_| {
            let queue = queue.clone();
            Worker::spawn(&name, &signals, move || queue.run())
        };
        let threads = (0..threads).map(start).collect::<Result<_, _>>()?;
        Ok(Self { queue, threads })
    }

    /// Ends the threads once their requests are done. A thread that failed leaves its request behind, as the
    /// queue's position shows.
    pub(super) fn stop(self) -> Option<ActiveQueue> {
        drop(self.threads);
        let queue = Arc::into_inner(self.queue)?;
        Some(queue.queue.into_inner().unwrap_or_else(PoisonError::into_inner))
    }
}
