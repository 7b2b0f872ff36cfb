//! The I/O APIC: turns levels of lines into interrupt messages.
//!
//! A line that is driven high is asserted, whatever polarity the guest programs: polarity describes wires,
//! and there are none.
//!
//! It is entered from vCPUs, which program it and end interrupts, and from any thread that drives a line.
//! No lock that a line or an end of interrupt needs is held while a message goes out or the observer is
//! called, so both may drive lines themselves.

mod registers;
mod saved;
#[cfg(test)]
mod tests;

use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use device_model::{ConcurrentDevice, LineTarget, MmioRange, MsiMessage, MsiSink};
use saved_state::Unit;

use registers::*;
use saved::SavedIoApic;

/// Hears where lines lead, so that it can be repeated to a hypervisor that must know which vectors need an
/// end-of-interrupt upcall.
pub trait RouteObserver: Send + Sync {
    /// The entry of `line` changed: unmasked, it sends `message`, level-triggered where `level`. `None` means
    /// masked with nothing in service. Calls for one I/O APIC come one at a time and in order.
    fn route_changed(&self, line: u32, message: Option<MsiMessage>, level: bool);
}

/// An I/O APIC.
pub struct IoApic {
    gpa: u64,
    sink: Arc<dyn MsiSink>,
    observer: OnceLock<Arc<dyn RouteObserver>>,
    /// Serialises what vCPUs do in the window, with the calls to the observer that follow from it.
    window: Mutex<Window>,
    lines: Mutex<Vec<Line>>,
}

#[derive(Default)]
struct Window {
    select: u8,
    id: u8,
}

#[derive(Clone, Copy)]
struct Line {
    entry: u64,
    /// The wire is asserted.
    high: bool,
}

impl Line {
    const RESET: Self = Self {
        entry: MASKED,
        high: false,
    };

    fn is(&self, bits: u64) -> bool {
        self.entry & bits != 0
    }

    fn vector(&self) -> u8 {
        self.entry as u8
    }

    fn message(&self) -> MsiMessage {
        let mode = self.entry >> 8 & 7;
        let mut address = MESSAGE_ADDRESS | self.entry >> 56 << 12 | (self.entry >> 49 & 0x7f) << 5;
        if self.is(LOGICAL) {
            address |= MESSAGE_LOGICAL;
        }
        if mode == LOWEST_PRIORITY {
            address |= MESSAGE_REDIRECTION_HINT;
        }
        let trigger = if self.is(LEVEL) { MESSAGE_LEVEL } else { 0 };
        MsiMessage {
            address,
            data: u32::from(self.vector()) | (mode as u32) << 8 | MESSAGE_ASSERT | trigger,
        }
    }

    /// The message a level-triggered line owes now, marking it in service.
    fn service_level(&mut self) -> Option<MsiMessage> {
        let due = self.high && self.is(LEVEL) && !self.is(MASKED | REMOTE_IRR);
        due.then(|| {
            self.entry |= REMOTE_IRR;
            self.message()
        })
    }

    /// Takes a new level of the wire; the message it causes.
    fn drive(&mut self, high: bool) -> Option<MsiMessage> {
        let rises = high && !self.high;
        self.high = high;
        if self.is(LEVEL) {
            self.service_level()
        } else {
            // An edge on a masked line is lost (3.2.4, bit 16).
            (rises && !self.is(MASKED)).then(|| self.message())
        }
    }

    /// Takes the bits of `value` that `mask` selects; the message it causes.
    fn write(&mut self, value: u64, mask: u64) -> Option<MsiMessage> {
        let mask = mask & EXISTING & !READ_ONLY;
        self.entry = self.entry & !mask | value & mask;
        if !self.is(LEVEL) {
            // Guests clear a stuck remote IRR by switching the entry to edge and back.
            self.entry &= !REMOTE_IRR;
        }
        self.service_level()
    }

    fn route(&self) -> Option<MsiMessage> {
        (!self.is(MASKED) || self.is(REMOTE_IRR)).then(|| self.message())
    }
}

impl IoApic {
    /// An I/O APIC at `gpa` with `lines` lines (1 to 120; 24 is usual), all masked.
    pub fn new(gpa: u64, lines: u32, sink: Arc<dyn MsiSink>) -> Self {
        let lines = (lines as usize).clamp(1, MAX_LINES);
        Self {
            gpa,
            sink,
            observer: OnceLock::new(),
            window: Mutex::default(),
            lines: Mutex::new(vec![Line::RESET; lines]),
        }
    }

    /// Sets who hears about routes, once, before the guest runs. A second observer is not taken.
    pub fn observe_routes(&self, observer: Arc<dyn RouteObserver>) {
        if self.observer.set(observer).is_err() {
            tracing::warn!("the I/O APIC already has a route observer");
        }
    }

    /// A vCPU has finished a level-triggered interrupt with `vector`.
    pub fn end_of_interrupt(&self, vector: u8) {
        let mut lines = self.lines();
        let mut due = Vec::new();
        for line in lines
            .iter_mut()
            .filter(|line| line.is(REMOTE_IRR) && line.vector() == vector)
        {
            line.entry &= !REMOTE_IRR;
            due.extend(line.service_level());
        }
        drop(lines);
        for message in due {
            self.sink.signal(message);
        }
    }

    /// Number of lines.
    pub fn line_count(&self) -> u32 {
        self.lines().len() as u32
    }

    fn read_register(&self, window: &Window) -> u32 {
        let lines = self.lines();
        match window.select {
            ID | ARBITRATION => u32::from(window.id) << 24,
            VERSION => VERSION_WITH_EOI | (lines.len() as u32 - 1) << 16,
            select => match lines.get(entry_index(select)) {
                Some(line) if select >= REDIRECTION => (line.entry >> entry_shift(select)) as u32,
                _ => 0,
            },
        }
    }

    fn write_register(&self, window: &mut Window, value: u32) {
        let select = window.select;
        if select == ID {
            window.id = (value >> 24) as u8 & ID_MASK;
        }
        if select < REDIRECTION {
            return;
        }
        let index = entry_index(select);
        let shift = entry_shift(select);
        let mut lines = self.lines();
        let Some(line) = lines.get_mut(index) else { return };
        let message = line.write(u64::from(value) << shift, u64::from(u32::MAX) << shift);
        let changed = *line;
        drop(lines);
        // The hypervisor learns of the route before the first interrupt takes it.
        if let Some(observer) = self.observer.get() {
            observer.route_changed(index as u32, changed.route(), changed.is(LEVEL));
        }
        if let Some(message) = message {
            self.sink.signal(message);
        }
    }

    fn window(&self) -> MutexGuard<'_, Window> {
        self.window.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lines(&self) -> MutexGuard<'_, Vec<Line>> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn entry_index(select: u8) -> usize {
    usize::from(select.saturating_sub(REDIRECTION)) / 2
}

fn entry_shift(select: u8) -> u32 {
    u32::from(select % 2) * 32
}

impl LineTarget for IoApic {
    fn set_level(&self, line: u32, high: bool) {
        let mut lines = self.lines();
        let message = lines.get_mut(line as usize).and_then(|line| line.drive(high));
        drop(lines);
        if let Some(message) = message {
            self.sink.signal(message);
        }
    }
}

impl ConcurrentDevice for IoApic {
    fn name(&self) -> &str {
        "ioapic"
    }

    fn reset(&self) {
        let mut window = self.window();
        *window = Window::default();
        let count = {
            let mut lines = self.lines();
            for line in lines.iter_mut() {
                line.entry = Line::RESET.entry;
            }
            lines.len()
        };
        if let Some(observer) = self.observer.get() {
            for line in 0..count {
                observer.route_changed(line as u32, None, false);
            }
        }
    }

    fn save(&self) -> Unit {
        let window = self.window();
        Unit::new(saved::SCHEMA, &SavedIoApic::of(&window, &self.lines()))
    }

    /// The observer hears of every line.
    fn restore(&self, unit: &Unit) -> Result<(), saved_state::Error> {
        let saved = unit.decode::<SavedIoApic>(saved::SCHEMA)?;
        let mut window = self.window();
        let restored = {
            let mut lines = self.lines();
            saved.put_into(&mut window, &mut lines)?;
            lines.clone()
        };
        if let Some(observer) = self.observer.get() {
            for (index, line) in (0..).zip(restored) {
                observer.route_changed(index, line.route(), line.is(LEVEL));
            }
        }
        Ok(())
    }

    fn mmio_ranges(&self) -> Vec<MmioRange> {
        vec![MmioRange {
            gpa: self.gpa,
            len: LEN,
        }]
    }

    fn mmio_read(&self, gpa: u64, data: &mut [u8]) {
        let window = self.window();
        let value = match gpa.wrapping_sub(self.gpa) {
            SELECT => window.select.into(),
            WINDOW => self.read_register(&window),
            _ => 0,
        };
        data.fill(0);
        for (byte, value) in data.iter_mut().zip(value.to_le_bytes()) {
            *byte = value;
        }
    }

    fn mmio_write(&self, gpa: u64, data: &[u8]) {
        let mut bytes = [0; 4];
        for (byte, value) in bytes.iter_mut().zip(data) {
            *byte = *value;
        }
        match gpa.wrapping_sub(self.gpa) {
            SELECT => self.window().select = bytes[0],
            // Registers are 32 bits wide and accessed whole (3.0).
            WINDOW if data.len() >= 4 => self.write_register(&mut self.window(), u32::from_le_bytes(bytes)),
            EOI => self.end_of_interrupt(bytes[0]),
            _ => {}
        }
    }
}
