//! A split virtqueue as a driver sees it (2.7), at a fixed place for each queue index.

use guest_memory::{Bytes, GuestAddress, GuestMemory};

use super::BUFFERS;
use crate::queue::QueuePosition;

pub(crate) const NEXT: u16 = 1;
pub(crate) const WRITE: u16 = 2;
pub(crate) const INDIRECT: u16 = 4;

const RING_SPACE: u64 = 0x8000;
const BUFFER_SPACE: u64 = 0x4_0000;

/// Address, length, flags, next.
pub(crate) type Descriptor = (u64, u32, u16, u16);

pub(crate) struct Ring {
    memory: GuestMemory,
    pub(crate) position: QueuePosition,
    available: u16,
    pub(crate) last_used: u16,
    next_descriptor: u16,
    buffers: u64,
    next_buffer: u64,
    /// Device-writable buffers of the chains in flight, by head.
    answers: Vec<Vec<(u64, u32)>>,
}

impl Ring {
    pub(crate) fn new(memory: &GuestMemory, index: u16, size: u16) -> Self {
        let base = 0x1000 + u64::from(index) * RING_SPACE;
        let buffers = BUFFERS + u64::from(index) * BUFFER_SPACE;
        let position = QueuePosition {
            size,
            descriptors: base,
            driver: base + 0x4000,
            device: base + 0x6000,
            ..QueuePosition::default()
        };
        Self {
            memory: memory.clone(),
            position,
            available: 0,
            last_used: 0,
            next_descriptor: 0,
            buffers,
            next_buffer: 0,
            answers: vec![Vec::new(); size.into()],
        }
    }

    /// Stores one descriptor in the table at `table`.
    pub(crate) fn store(&self, table: u64, index: u16, (gpa, len, flags, next): Descriptor) {
        let mut bytes = gpa.to_le_bytes().to_vec();
        bytes.extend(len.to_le_bytes());
        bytes.extend(flags.to_le_bytes());
        bytes.extend(next.to_le_bytes());
        let place = GuestAddress(table + u64::from(index) * 16);
        self.memory.write_slice(&bytes, place).unwrap();
    }

    /// Makes the chain that begins with `head` available.
    pub(crate) fn offer(&mut self, head: u16) {
        let slot = u64::from(self.available % self.position.size) * 2;
        self.write_u16(self.position.driver + 4 + slot, head);
        self.available = self.available.wrapping_add(1);
        self.set_available(self.available);
    }

    pub(crate) fn set_available(&mut self, index: u16) {
        self.available = index;
        self.write_u16(self.position.driver + 2, index);
    }

    /// Stores a whole table from descriptor 0 on and offers head 0.
    pub(crate) fn offer_table(&mut self, table: &[Descriptor]) {
        for (index, descriptor) in (0..).zip(table) {
            self.store(self.position.descriptors, index, *descriptor);
        }
        self.offer(0);
    }

    /// Offers a request of buffers with `request`, and room for answers of the given lengths. Returns the
    /// head.
    pub(crate) fn send(&mut self, request: &[&[u8]], answer: &[usize]) -> u16 {
        let parts = self.buffers_for(request, answer);
        let head = self.next_descriptor;
        for (n, &(gpa, len, flags)) in parts.iter().enumerate() {
            let last = n + 1 == parts.len();
            let next = (self.next_descriptor + 1) % self.position.size;
            let flags = if last { flags } else { flags | NEXT };
            self.store(
                self.position.descriptors,
                self.next_descriptor,
                (gpa, len, flags, next),
            );
            self.next_descriptor = next;
        }
        self.remember(head, &parts);
        self.offer(head);
        head
    }

    /// As [`Ring::send`], through an indirect table.
    pub(crate) fn send_indirect(&mut self, request: &[&[u8]], answer: &[usize]) -> u16 {
        let parts = self.buffers_for(request, answer);
        let table = self.allocate(parts.len() * 16);
        for (n, &(gpa, len, flags)) in (0_u16..).zip(&parts) {
            let last = usize::from(n) + 1 == parts.len();
            let flags = if last { flags } else { flags | NEXT };
            self.store(table, n, (gpa, len, flags, n + 1));
        }
        let head = self.next_descriptor;
        let len = parts.len() as u32 * 16;
        self.store(self.position.descriptors, head, (table, len, INDIRECT, 0));
        self.next_descriptor = (head + 1) % self.position.size;
        self.remember(head, &parts);
        self.offer(head);
        head
    }

    /// The next completion: head and answer.
    pub(crate) fn completion(&mut self) -> Option<(u16, Vec<u8>)> {
        if self.read_u16(self.position.device + 2) == self.last_used {
            return None;
        }
        let slot = u64::from(self.last_used % self.position.size) * 8;
        let element = GuestAddress(self.position.device + 4 + slot);
        let [head, len]: [u32; 2] = [0, 4].map(|at| {
            let place = GuestAddress(element.0 + at);
            u32::from_le(self.memory.read_obj(place).unwrap())
        });
        self.last_used = self.last_used.wrapping_add(1);
        let mut answer = Vec::new();
        for &(gpa, room) in &self.answers[head as usize] {
            let mut bytes = vec![0; (room as usize).min(len as usize - answer.len())];
            self.memory.read_slice(&mut bytes, GuestAddress(gpa)).unwrap();
            answer.extend(bytes);
        }
        assert_eq!(answer.len(), len as usize, "more used than there was room for");
        Some((head as u16, answer))
    }

    /// Asks for an interrupt with the next completion, where the event index is in use.
    pub(crate) fn arm(&self) {
        self.set_used_event(self.last_used);
    }

    pub(crate) fn set_used_event(&self, index: u16) {
        self.write_u16(
            self.position.driver + 4 + u64::from(self.position.size) * 2,
            index,
        );
    }

    pub(crate) fn set_available_flags(&self, flags: u16) {
        self.write_u16(self.position.driver, flags);
    }

    /// What the device wants: the available index whose chain rings the doorbell.
    pub(crate) fn available_event(&self) -> u16 {
        self.read_u16(self.position.device + 4 + u64::from(self.position.size) * 8)
    }

    fn buffers_for(&mut self, request: &[&[u8]], answer: &[usize]) -> Vec<(u64, u32, u16)> {
        let mut parts = Vec::new();
        for bytes in request {
            let gpa = self.allocate(bytes.len());
            self.memory.write_slice(bytes, GuestAddress(gpa)).unwrap();
            parts.push((gpa, bytes.len() as u32, 0));
        }
        for &len in answer {
            parts.push((self.allocate(len), len as u32, WRITE));
        }
        parts
    }

    fn remember(&mut self, head: u16, parts: &[(u64, u32, u16)]) {
        let writable = parts.iter().filter(|part| part.2 & WRITE != 0);
        self.answers[usize::from(head)] = writable.map(|part| (part.0, part.1)).collect();
    }

    /// Buffers go round in the queue's own space, never two side by side.
    fn allocate(&mut self, len: usize) -> u64 {
        let len = len as u64 + 16;
        if self.next_buffer + len > BUFFER_SPACE {
            self.next_buffer = 0;
        }
        let gpa = self.buffers + self.next_buffer;
        self.next_buffer += len.next_multiple_of(16);
        gpa
    }

    fn write_u16(&self, gpa: u64, value: u16) {
        self.memory
            .write_slice(&value.to_le_bytes(), GuestAddress(gpa))
            .unwrap();
    }

    fn read_u16(&self, gpa: u64) -> u16 {
        u16::from_le(self.memory.read_obj(GuestAddress(gpa)).unwrap())
    }
}
