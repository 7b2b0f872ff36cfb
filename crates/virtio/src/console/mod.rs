//! Console device with several ports (5.3): terminals and plain channels, each plugged into a
//! [`ByteStream`].
//!
//! No byte is lost or reordered. What the guest sends stays in its buffer until the stream has taken it, so a
//! slow host stops the guest's writer; what the host sends stays in the stream until a program in the guest
//! has opened the port and its driver has given buffers. What the guest sends is taken from the start on,
//! whether a port is open or not, so early output of the kernel arrives.

mod control;
mod port;
mod protocol;
mod saved;
#[cfg(test)]
mod tests;
mod worker;

use std::sync::{Arc, Mutex, PoisonError};

use device_backends::ByteStream;
use saved_state::Unit;

use self::port::PortState;
use self::saved::SavedConsole;
use self::worker::{Server, Stopped};
use crate::worker::{Signals, Worker};
use crate::{Activated, ActiveQueue, DeviceType, Error, VirtioDevice};

pub use protocol::Size;

/// One port as the host sees it.
pub struct Port {
    /// Name the guest finds the port by, in `/sys/class/virtio-ports/*/name`. Port 0 of a console needs none.
    pub name: String,
    /// What the port is plugged into.
    pub stream: Box<dyn ByteStream>,
    /// Whether the guest uses the port as a terminal (`hvc0` for the first) or as a plain channel.
    pub console: bool,
}

/// A port and what the device must know of it beyond one driver.
struct HostPort {
    name: String,
    stream: Arc<dyn ByteStream>,
    console: bool,
}

/// A console device. One thread serves all ports.
pub struct Console {
    ports: Arc<[HostPort]>,
    size: Arc<Mutex<Size>>,
    signals: Signals,
    /// What a driver set up; with the thread while it works.
    state: State,
    worker: Option<Worker<Stopped>>,
}

/// What must outlast a stop, as in a snapshot.
#[derive(Default)]
struct State {
    control: control::Outbox,
    ports: Vec<PortState>,
    /// The size the driver was last told, or found when it started.
    shown_size: Option<Size>,
}

impl State {
    fn new(ports: usize) -> Self {
        Self {
            control: control::Outbox::default(),
            ports: (0..ports).map(|_| PortState::default()).collect(),
            shown_size: None,
        }
    }
}

impl Console {
    /// A device with `ports`, 1 to 31, whose terminals have the given size.
    ///
    /// # Errors
    /// No port, or too many.
    pub fn new(ports: Vec<Port>, size: Size) -> Result<Self, Error> {
        if !(1..=protocol::MAX_PORTS).contains(&ports.len()) {
            return Err(Error::Count {
                what: "console ports",
                count: ports.len(),
                min: 1,
                max: protocol::MAX_PORTS,
            });
        }
        let signals = Signals::new()?;
        let ports: Arc<[HostPort]> = ports.into_iter().map(|port| connect(port, &signals)).collect();
        Ok(Self {
            state: State::new(ports.len()),
            ports,
            size: Arc::new(Mutex::new(size)),
            signals,
            worker: None,
        })
    }

    /// A handle by which the size of terminals can be changed later.
    pub fn resizer(&self) -> Resizer {
        Resizer {
            size: self.size.clone(),
            signals: self.signals.clone(),
        }
    }

    fn queues(&self) -> u16 {
        // At most 31 ports, and the two control queues.
        self.ports.len() as u16 * 2 + 2
    }
}

/// Changes the size of a console's terminals. Clones change the same.
#[derive(Clone)]
pub struct Resizer {
    size: Arc<Mutex<Size>>,
    signals: Signals,
}

impl Resizer {
    /// Tells the guest a new size, as soon as its driver is ready to hear it.
    pub fn resize(&self, size: Size) {
        *self.size.lock().unwrap_or_else(PoisonError::into_inner) = size;
        self.signals.raise(worker::WORK);
    }
}

fn connect(port: Port, signals: &Signals) -> HostPort {
    let stream: Arc<dyn ByteStream> = Arc::from(port.stream);
    let signals = signals.clone();
    stream.set_waker(Arc::new(move || signals.raise(worker::WORK)));
    HostPort {
        name: port.name,
        stream,
        console: port.console,
    }
}

impl VirtioDevice for Console {
    fn device_type(&self) -> DeviceType {
        DeviceType::Console
    }

    fn features(&self) -> u64 {
        protocol::F_SIZE | protocol::F_MULTIPORT
    }

    fn queue_sizes(&self) -> Vec<u16> {
        let is_control = |index| matches!(index, protocol::CONTROL_RECEIVE | protocol::CONTROL_TRANSMIT);
        let size = |index| match is_control(index) {
            true => protocol::CONTROL_QUEUE_SIZE,
            false => protocol::DATA_QUEUE_SIZE,
        };
        (0..self.queues()).map(size).collect()
    }

    fn read_config(&self, offset: u64, data: &mut [u8]) {
        let size = *self.size.lock().unwrap_or_else(PoisonError::into_inner);
        let config = protocol::config(size, self.ports.len() as u32);
        crate::device::copy_config(&config, offset, data);
    }

    fn activate(&mut self, activated: Activated) -> Result<(), Error> {
        for queue in &activated.queues {
            self.signals.answer(&queue.doorbell, worker::WORK);
        }
        // The driver may have made requests available before, and streams may have something to say.
        self.signals.restart();
        self.signals.raise(worker::WORK);
        let state = std::mem::replace(&mut self.state, State::new(self.ports.len()));
        let server = Server::new(
            self.ports.clone(),
            self.size.clone(),
            self.signals.clone(),
            state,
            activated,
        );
        self.worker = Some(Worker::spawn("virtio-console", &self.signals, || server.run())?);
        Ok(())
    }

    fn stop(&mut self) -> Vec<ActiveQueue> {
        let stopped = self.worker.take().and_then(Worker::finish);
        let Some(stopped) = stopped else {
            return Vec::new();
        };
        self.state = stopped.state;
        stopped.queues
    }

    fn reset(&mut self) {
        self.state = State::new(self.ports.len());
    }

    fn save_state(&self) -> Unit {
        Unit::new(saved::SCHEMA, &SavedConsole::of(&self.state))
    }

    fn restore_state(&mut self, unit: &Unit) -> Result<(), saved_state::Error> {
        self.state = unit
            .decode::<SavedConsole>(saved::SCHEMA)?
            .into_state(&self.ports)?;
        Ok(())
    }
}
