//! The state of the console: what its driver set up and has yet to hear. The names of ports are the host's.

use saved_state::{Error, record, require};

use super::control::Outbox;
use super::port::PortState;
use super::protocol::{Size, ToDriver, event};
use super::{HostPort, State};

pub(super) const SCHEMA: u16 = 1;

#[cfg(test)]
mod tests;

/// Far more messages than can come to wait for a driver.
const MAX_WAITING: usize = 4096;

record! {
    /// [`State`].
    pub(super) struct SavedConsole {
        1 ports: Vec<SavedPort>,
        2 waiting: Vec<SavedMessage>,
        3 shown_size: Option<SavedSize>,
    }
}

record! {
    /// [`PortState`].
    pub(super) struct SavedPort {
        1 ready: bool,
        2 guest_open: bool,
        3 shown_open: bool,
        4 sent: u64,
    }
}

record! {
    /// [`ToDriver`].
    pub(super) struct SavedMessage {
        /// Number in 5.3.6.2.
        1 event: u16,
        2 port: u16,
        /// Of PORT_OPEN.
        3 open: Option<bool>,
        /// Of RESIZE.
        4 size: Option<SavedSize>,
    }
}

record! {
    /// [`Size`].
    pub(super) struct SavedSize {
        1 columns: u16,
        2 rows: u16,
    }
}

impl SavedConsole {
    pub(super) fn of(state: &State) -> Self {
        let State {
            control: Outbox { waiting },
            ports,
            shown_size,
        } = state;
        Self {
            ports: ports.iter().map(SavedPort::of).collect(),
            waiting: waiting.iter().map(SavedMessage::of).collect(),
            shown_size: shown_size.map(SavedSize::of),
        }
    }

    pub(super) fn into_state(self, ports: &[HostPort]) -> Result<State, Error> {
        require(self.ports.len() == ports.len(), "the number of console ports")?;
        let waiting = self.waiting.len() <= MAX_WAITING;
        require(waiting, "the number of console messages")?;
        let states = self.ports.into_iter().map(SavedPort::into_state);
        let messages = self.waiting.into_iter();
        let messages = messages.map(|message| message.into_message(ports));
        Ok(State {
            ports: states.collect::<Result<_, _>>()?,
            control: Outbox {
                waiting: messages.collect::<Result<_, _>>()?,
            },
            shown_size: self.shown_size.map(SavedSize::into_size),
        })
    }
}

impl SavedPort {
    fn of(state: &PortState) -> Self {
        let PortState {
            ready,
            guest_open,
            shown_open,
            sent,
        } = state;
        Self {
            ready: *ready,
            guest_open: *guest_open,
            shown_open: *shown_open,
            sent: *sent as u64,
        }
    }

    fn into_state(self) -> Result<PortState, Error> {
        Ok(PortState {
            ready: self.ready,
            guest_open: self.guest_open,
            shown_open: self.shown_open,
            // More than the chain has means all of it.
            sent: usize::try_from(self.sent).map_err(|_| Error::Value("a console port's progress"))?,
        })
    }
}

impl SavedMessage {
    fn of(message: &ToDriver) -> Self {
        let (event, port, open, size) = match *message {
            ToDriver::PortAdd { port } => (event::PORT_ADD, port, None, None),
            ToDriver::ConsolePort { port } => (event::CONSOLE_PORT, port, None, None),
            ToDriver::Resize { port, size } => (event::RESIZE, port, None, Some(size)),
            ToDriver::PortOpen { port, open } => (event::PORT_OPEN, port, Some(open), None),
            ToDriver::PortName { port, .. } => (event::PORT_NAME, port, None, None),
        };
        Self {
            event,
            port,
            open,
            size: size.map(SavedSize::of),
        }
    }

    fn into_message(self, ports: &[HostPort]) -> Result<ToDriver, Error> {
        const IMPOSSIBLE: Error = Error::Value("a console message");
        let Self {
            event,
            port,
            open,
            size,
        } = self;
        let host = ports.get(usize::from(port)).ok_or(IMPOSSIBLE)?;
        let size = size.map(SavedSize::into_size);
        match (event, open, size) {
            (event::PORT_ADD, None, None) => Ok(ToDriver::PortAdd { port }),
            (event::CONSOLE_PORT, None, None) if host.console => Ok(ToDriver::ConsolePort { port }),
            (event::RESIZE, None, Some(size)) if host.console => Ok(ToDriver::Resize { port, size }),
            (event::PORT_OPEN, Some(open), None) => Ok(ToDriver::PortOpen { port, open }),
            (event::PORT_NAME, None, None) if !host.name.is_empty() => Ok(ToDriver::PortName {
                port,
                name: host.name.clone(),
            }),
            _ => Err(IMPOSSIBLE),
        }
    }
}

impl SavedSize {
    fn of(size: Size) -> Self {
        let Size { columns, rows } = size;
        Self { columns, rows }
    }

    fn into_size(self) -> Size {
        let Self { columns, rows } = self;
        Size { columns, rows }
    }
}
