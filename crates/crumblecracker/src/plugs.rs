//! What every machine's devices are plugged into on this side.

use std::sync::Arc;

use device_backends::{Entropy, HostEnd, byte_pipe};
use hypervisor::Hypervisor;
use machine::{Backends, FileSystem, SerialPort};

use crate::Timeline;

/// How many bytes wait in each direction of a console or of the control channel.
pub(crate) const PIPE_CAPACITY: usize = 256 << 10;

/// Random bytes of the host.
pub(crate) struct HostEntropy;

impl Entropy for HostEntropy {
    fn fill(&self, bytes: &mut [u8]) -> std::io::Result<()> {
        host_os::random_bytes(bytes).map_err(std::io::Error::other)
    }
}

/// The host's ends of a machine's consoles: the serial port, and the first port of the virtio console.
pub(crate) struct Consoles {
    pub(crate) serial: HostEnd,
    pub(crate) virtio: HostEnd,
}

/// Plugs in the consoles and entropy that every machine has; `ports` follow the console's own, and what the guest marks
/// goes to `timeline`.
pub(crate) fn plug(
    hypervisor: Arc<dyn Hypervisor>,
    ports: Vec<SerialPort>,
    file_systems: Vec<FileSystem>,
    timeline: &Timeline,
) -> (Backends, Consoles) {
    let (serial, serial_end) = byte_pipe(PIPE_CAPACITY);
    let (console, console_end) = byte_pipe(PIPE_CAPACITY);
    let mut console_ports = vec![SerialPort {
        name: "console".to_owned(),
        stream: Box::new(console),
    }];
    console_ports.extend(ports);
    let backends = Backends {
        hypervisor,
        serial: Box::new(serial),
        console_ports,
        file_systems,
        entropy: Arc::new(HostEntropy),
        marks: Arc::new(timeline.clone()),
    };
    let consoles = Consoles {
        serial: serial_end,
        virtio: console_end,
    };
    (backends, consoles)
}
