//! The thread of the console device.

use std::sync::{Arc, Mutex, PoisonError};

use super::port::{Lane, PortQueues};
use super::protocol::{
    CONTROL_RECEIVE, CONTROL_TRANSMIT, F_MULTIPORT, FromDriver, Size, ToDriver, receive_queue,
};
use super::{HostPort, State, control};
use crate::worker::Signals;
use crate::{Activated, ActiveQueue, Error, Interrupt};

/// The one signal: something may have changed.
pub(super) const WORK: u64 = 1;

/// What the thread leaves behind.
pub(super) struct Stopped {
    pub(super) state: State,
    pub(super) queues: Vec<ActiveQueue>,
}

pub(super) struct Server {
    ports: Arc<[HostPort]>,
    size: Arc<Mutex<Size>>,
    signals: Signals,
    interrupt: Interrupt,
    multiport: bool,
    state: State,
    queues: Vec<PortQueues>,
    control_receive: Option<ActiveQueue>,
    control_transmit: Option<ActiveQueue>,
    /// The size the driver was last told.
    shown_size: Size,
}

impl Server {
    pub(super) fn new(
        ports: Arc<[HostPort]>,
        size: Arc<Mutex<Size>>,
        signals: Signals,
        state: State,
        mut activated: Activated,
    ) -> Self {
        let multiport = activated.features & F_MULTIPORT != 0;
        let mut take = |index| activated.take(index).ok();
        let queues = (0..ports.len() as u16)
            .map(receive_queue)
            .map(|index| PortQueues {
                receive: take(index).map(Lane::new),
                transmit: take(index + 1).map(Lane::new),
            });
        let queues = queues.collect();
        let control_receive = take(CONTROL_RECEIVE);
        let control_transmit = take(CONTROL_TRANSMIT);
        let now = *size.lock().unwrap_or_else(PoisonError::into_inner);
        Self {
            shown_size: state.shown_size.unwrap_or(now),
            ports,
            size,
            signals,
            interrupt: activated.interrupt,
            multiport,
            state,
            queues,
            control_receive,
            control_transmit,
        }
    }

    pub(super) fn run(mut self) -> Stopped {
        while self.signals.wait().is_some() {
            if let Err(error) = self.serve() {
                self.interrupt.broken(&error);
                break;
            }
        }
        self.state.shown_size = Some(self.shown_size);
        let lanes = self
            .queues
            .into_iter()
            .flat_map(|port| [port.receive, port.transmit]);
        let data = lanes.flatten().map(Lane::into_queue);
        Stopped {
            state: self.state,
            queues: data
                .chain(self.control_receive)
                .chain(self.control_transmit)
                .collect(),
        }
    }

    fn serve(&mut self) -> Result<(), Error> {
        let mut more = true;
        while more && !self.signals.is_stopping() {
            self.show_size();
            more = self.multiport && self.serve_control()?;
            for port in 0..self.ports.len() {
                more |= self.serve_port(port)?;
            }
        }
        Ok(())
    }

    /// Messages from the driver, answers to it. Returns whether there may be more to do at once.
    fn serve_control(&mut self) -> Result<bool, Error> {
        let mut more = false;
        if let Some(mut queue) = self.control_transmit.take() {
            let result = self.take_messages(&mut queue);
            self.control_transmit = Some(queue);
            more |= result?;
        }
        if let Some(queue) = &mut self.control_receive {
            more |= self.state.control.send(queue)?;
        }
        Ok(more)
    }

    fn take_messages(&mut self, queue: &mut ActiveQueue) -> Result<bool, Error> {
        let mut any = false;
        while !self.state.control.is_full() && !self.signals.is_stopping() {
            let Some(message) = control::receive(queue)? else {
                break;
            };
            self.handle(message);
            any = true;
        }
        queue.flush()?;
        Ok(any)
    }

    fn handle(&mut self, message: FromDriver) {
        match message {
            FromDriver::DeviceReady(true) => {
                for port in 0..self.ports.len() as u16 {
                    self.state.control.push(ToDriver::PortAdd { port });
                }
            }
            FromDriver::PortReady { port, ready } if self.knows(port) => {
                self.port_ready(port as u16, ready);
            }
            FromDriver::PortOpen { port, open } if self.knows(port) => {
                self.state.ports[port as usize].guest_open = open;
            }
            other => tracing::debug!(?other, "console control message without effect"),
        }
    }

    fn knows(&self, port: u32) -> bool {
        (port as usize) < self.ports.len()
    }

    /// Tells the driver what kind of port it has, and whether the host's side is open.
    fn port_ready(&mut self, port: u16, ready: bool) {
        let host = &self.ports[usize::from(port)];
        let state = &mut self.state.ports[usize::from(port)];
        let outbox = &mut self.state.control;
        state.ready = ready;
        state.shown_open = false;
        if !ready {
            // A guest can say so without end.
            tracing::debug!(port = host.name, "the guest could not set up a console port");
            return;
        }
        if host.console {
            outbox.push(ToDriver::ConsolePort { port });
            let size = self.shown_size;
            outbox.push(ToDriver::Resize { port, size });
        }
        if !host.name.is_empty() {
            let name = host.name.clone();
            outbox.push(ToDriver::PortName { port, name });
        }
    }

    /// Moves a port's bytes. Returns whether there may be more to do at once.
    fn serve_port(&mut self, port: usize) -> Result<bool, Error> {
        let stream = &*self.ports[port].stream;
        let state = &mut self.state.ports[port];
        let queues = &mut self.queues[port];
        let mut more = false;
        if let Some(lane) = &mut queues.transmit {
            more |= lane.transmit(state, stream, &self.signals)?;
        }
        // A driver throws away what comes to a port that nobody has open.
        let listening = state.guest_open || !self.multiport;
        if let Some(lane) = queues.receive.as_mut().filter(|_| listening) {
            more |= lane.receive(stream)?;
        }
        let open = stream.is_open();
        if state.ready && state.shown_open != open {
            state.shown_open = open;
            let port = port as u16;
            self.state.control.push(ToDriver::PortOpen { port, open });
            more = true;
        }
        Ok(more)
    }

    /// Tells the driver of a new size: by message, or by configuration where it knows only one port.
    fn show_size(&mut self) {
        let size = *self.size.lock().unwrap_or_else(PoisonError::into_inner);
        if size == self.shown_size {
            return;
        }
        self.shown_size = size;
        if !self.multiport {
            self.interrupt.config_changed();
            return;
        }
        for (port, (host, state)) in (0..).zip(self.ports.iter().zip(&self.state.ports)) {
            if host.console && state.ready {
                self.state.control.push(ToDriver::Resize { port, size });
            }
        }
    }
}
