//! Numbers and messages of the console device (5.3).

/// Feature bits (5.3.3).
pub(super) const F_SIZE: u64 = 1 << 0;
pub(super) const F_MULTIPORT: u64 = 1 << 1;

/// Virtqueues (5.3.2): port 0 has the first two, then come those for control messages, then the other ports.
pub(super) const CONTROL_RECEIVE: u16 = 2;
pub(super) const CONTROL_TRANSMIT: u16 = 3;

/// Linux fills receive queues with a page for each descriptor, so larger ones cost the guest memory.
pub(super) const DATA_QUEUE_SIZE: u16 = 64;
pub(super) const CONTROL_QUEUE_SIZE: u16 = 32;

/// Keeps the number of queues at 64.
pub(super) const MAX_PORTS: usize = 31;

/// The receive queue of port `port`; the transmit queue follows it.
pub(super) fn receive_queue(port: u16) -> u16 {
    if port == 0 { 0 } else { 2 + 2 * port }
}

/// Control events (5.3.6.2).
pub(super) mod event {
    pub(in crate::console) const DEVICE_READY: u16 = 0;
    pub(in crate::console) const PORT_ADD: u16 = 1;
    pub(in crate::console) const PORT_READY: u16 = 3;
    pub(in crate::console) const CONSOLE_PORT: u16 = 4;
    pub(in crate::console) const RESIZE: u16 = 5;
    pub(in crate::console) const PORT_OPEN: u16 = 6;
    pub(in crate::console) const PORT_NAME: u16 = 7;
}

/// Length of `struct virtio_console_control`.
pub(super) const CONTROL_LEN: usize = 8;

/// Size of a terminal in characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size {
    /// Characters in a line.
    pub columns: u16,
    /// Lines.
    pub rows: u16,
}

/// A control message from the driver.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FromDriver {
    /// The driver is ready for ports.
    DeviceReady(bool),
    /// The driver has set port up, or could not.
    PortReady { port: u32, ready: bool },
    /// A program in the guest opened or closed a port.
    PortOpen { port: u32, open: bool },
    /// None that a driver sends.
    Unknown { event: u16 },
}

impl FromDriver {
    pub(super) fn parse(bytes: [u8; CONTROL_LEN]) -> Self {
        let [p0, p1, p2, p3, e0, e1, v0, v1] = bytes;
        let port = u32::from_le_bytes([p0, p1, p2, p3]);
        let value = u16::from_le_bytes([v0, v1]) == 1;
        match u16::from_le_bytes([e0, e1]) {
            event::DEVICE_READY => Self::DeviceReady(value),
            event::PORT_READY => Self::PortReady { port, ready: value },
            event::PORT_OPEN => Self::PortOpen { port, open: value },
            event => Self::Unknown { event },
        }
    }
}

/// A control message to the driver.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum ToDriver {
    PortAdd { port: u16 },
    ConsolePort { port: u16 },
    Resize { port: u16, size: Size },
    PortOpen { port: u16, open: bool },
    PortName { port: u16, name: String },
}

impl ToDriver {
    pub(super) fn to_bytes(&self) -> Vec<u8> {
        let (port, event, value) = match *self {
            Self::PortAdd { port } => (port, event::PORT_ADD, 0),
            Self::ConsolePort { port } => (port, event::CONSOLE_PORT, 1),
            Self::Resize { port, .. } => (port, event::RESIZE, 0),
            Self::PortOpen { port, open } => (port, event::PORT_OPEN, u16::from(open)),
            Self::PortName { port, .. } => (port, event::PORT_NAME, 1),
        };
        let mut bytes = u32::from(port).to_le_bytes().to_vec();
        bytes.extend(event.to_le_bytes());
        bytes.extend(value.to_le_bytes());
        match self {
            // Columns first, as 5.3.6.2 has it; Linux before 6.15 takes them for rows.
            Self::Resize { size, .. } => {
                bytes.extend(size.columns.to_le_bytes());
                bytes.extend(size.rows.to_le_bytes());
            }
            Self::PortName { name, .. } => bytes.extend(name.as_bytes()),
            _ => {}
        }
        bytes
    }
}

/// Device configuration (5.3.4). The emergency write register is there but does nothing, as its feature is
/// not offered.
pub(super) fn config(size: Size, ports: u32) -> [u8; 12] {
    let mut bytes = [0; 12];
    bytes[0..2].copy_from_slice(&size.columns.to_le_bytes());
    bytes[2..4].copy_from_slice(&size.rows.to_le_bytes());
    bytes[4..8].copy_from_slice(&ports.to_le_bytes());
    bytes
}
