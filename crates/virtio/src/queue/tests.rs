use std::io::{Read, Write};

use device_backends::{ReplySink, RequestSource};
use guest_memory::{Bytes, GuestAddress};
use proptest::prelude::*;

use super::*;
use crate::testing::{BUFFERS, Descriptor, INDIRECT, NEXT, RAM_LEN, Ring, WRITE, ram};

const SIZE: u16 = 8;

fn setup(event_index: bool) -> (GuestMemory, Ring, Queue) {
    let memory = ram();
    let ring = Ring::new(&memory, 0, SIZE);
    let queue = Queue::new(memory.clone(), ring.position, event_index).unwrap();
    (memory, ring, queue)
}

/// What `pop` says of a table whose descriptor 0 is offered.
fn pop_table(table: &[Descriptor]) -> Result<Option<Chain>, Error> {
    let (_, mut ring, mut queue) = setup(false);
    ring.offer_table(table);
    queue.pop()
}

fn text(error: Result<Option<Chain>, Error>) -> String {
    error.err().unwrap().to_string()
}

#[test]
fn pop_chain_yields_its_bytes_and_completion_its_answer() {
    let (_, mut ring, mut queue) = setup(false);
    let head = ring.send(&[b"abc", b"", b"defgh"], &[2, 6]);
    let chain = queue.pop().unwrap().unwrap();
    let mut request = Vec::new();
    chain.reader().read_to_end(&mut request).unwrap();
    let mut writer = chain.writer();
    writer.write_all(b"answer").unwrap();
    let written = writer.written();
    queue.complete(chain, written).unwrap();
    assert_eq!(request, b"abcdefgh");
    assert_eq!(ring.completion(), Some((head, b"answer".to_vec())));
    assert!(queue.pop().unwrap().is_none());
}

#[test]
fn pop_indirect_chain_yields_its_bytes() {
    let (_, mut ring, mut queue) = setup(false);
    ring.send_indirect(&[b"indirect"], &[4]);
    let chain = queue.pop().unwrap().unwrap();
    let mut request = [0; 8];
    chain.reader().read_exact(&mut request).unwrap();
    assert_eq!((&request, chain.writer().remaining()), (b"indirect", 4));
}

#[test]
fn streams_by_place_cross_descriptors_and_refuse_what_is_outside() {
    let (_, mut ring, mut queue) = setup(false);
    ring.send(&[b"0123", b"4567"], &[3, 3]);
    let chain = queue.pop().unwrap().unwrap();
    let mut bytes = [0; 4];
    chain.reader().read_at(2, &mut bytes).unwrap();
    assert_eq!(&bytes, b"2345");
    assert!(chain.reader().read_at(5, &mut bytes).is_err());
    assert!(chain.reader().read_at(usize::MAX, &mut bytes).is_err());
    let mut writer = chain.writer();
    writer.write_at(1, b"wxyz").unwrap();
    writer.write_at(0, b"v").unwrap();
    assert!(writer.write_at(3, b"wxyz").is_err());
    queue.complete(chain, 5).unwrap();
    assert_eq!(ring.completion().unwrap().1, b"vwxyz");
}

#[test]
fn files_move_straight_through_a_chain() {
    let (_, mut ring, mut queue) = setup(false);
    ring.send(&[b"header", b"to the file"], &[4, 20]);
    let chain = queue.pop().unwrap().unwrap();
    let file = tempfile::tempfile().unwrap();
    assert_eq!(chain.reader().write_to_file(9, 8, &file, 1).unwrap(), 8);
    let mut writer = chain.writer();
    assert_eq!(writer.fill_from_file(2, 22, &file, 0).unwrap(), 9);
    assert!(writer.fill_from_file(3, 22, &file, 0).is_err());
    assert!(chain.reader().write_to_file(10, 8, &file, 0).is_err());
    queue.complete(chain, 11).unwrap();
    assert_eq!(ring.completion().unwrap().1, b"\0\0\0the file");
}

#[test]
fn complete_more_than_there_is_room_for_is_cut() {
    let (_, mut ring, mut queue) = setup(false);
    ring.send(&[b"x"], &[4]);
    let chain = queue.pop().unwrap().unwrap();
    queue.complete(chain, usize::MAX).unwrap();
    assert_eq!(ring.completion().unwrap().1.len(), 4);
}

#[test]
fn put_back_chain_is_popped_again() {
    let (_, mut ring, mut queue) = setup(false);
    let head = ring.send(&[b"x"], &[]);
    let chain = queue.pop().unwrap().unwrap();
    queue.put_back(chain);
    assert_eq!(queue.position().next_available, 0);
    assert!(!queue.is_empty());
    assert_eq!(queue.pop().unwrap().unwrap().head(), head);
}

#[test]
fn queue_at_an_earlier_position_goes_on_there() {
    let (memory, mut ring, mut queue) = setup(true);
    ring.send(&[b"first"], &[]);
    let chain = queue.pop().unwrap().unwrap();
    queue.complete(chain, 0).unwrap();
    let position = queue.position();
    let second = ring.send(&[b"second"], &[]);
    let mut later = Queue::new(memory, position, true).unwrap();
    let chain = later.pop().unwrap().unwrap();
    assert_eq!(chain.head(), second);
    later.complete(chain, 0).unwrap();
    assert_eq!(ring.completion().unwrap().0, 0);
    assert_eq!(ring.completion().unwrap().0, second);
}

#[test]
fn chain_that_loops_is_refused() {
    assert!(text(pop_table(&[(BUFFERS, 4, NEXT, 1), (BUFFERS, 4, NEXT, 0)])).contains("no proper end"));
    assert!(text(pop_table(&[(BUFFERS, 4, NEXT, 0)])).contains("no proper end"));
}

#[test]
fn chain_that_leaves_its_table_is_refused() {
    assert!(text(pop_table(&[(BUFFERS, 4, NEXT, SIZE)])).contains("no proper end"));
}

#[test]
fn head_outside_the_table_is_refused() {
    let (_, mut ring, mut queue) = setup(false);
    ring.offer(SIZE);
    assert!(text(queue.pop()).contains("no proper end"));
}

#[test]
fn indirect_table_inside_an_indirect_table_is_refused() {
    let (_, mut ring, mut queue) = setup(false);
    let table = BUFFERS + 0x100;
    ring.store(table, 0, (table, 16, INDIRECT, 0));
    ring.offer_table(&[(table, 16, INDIRECT, 0)]);
    assert!(text(queue.pop()).contains("no proper end"));
}

#[test]
fn indirect_table_of_impossible_length_or_place_is_refused() {
    for (gpa, len) in [
        (BUFFERS, 0),
        (BUFFERS, 15),
        (BUFFERS, u32::MAX - 15),
        (RAM_LEN, 16),
    ] {
        assert!(text(pop_table(&[(gpa, len, INDIRECT, 0)])).contains("no proper end"));
    }
}

#[test]
fn indirect_table_of_more_descriptors_than_the_cap_is_refused() {
    let (_, mut ring, mut queue) = setup(false);
    for index in 0..2000 {
        ring.store(BUFFERS, index, (BUFFERS, 1, NEXT, index + 1));
    }
    ring.store(BUFFERS, 2000, (BUFFERS, 1, 0, 0));
    ring.offer_table(&[(BUFFERS, 2001 * 16, INDIRECT, 0)]);
    assert!(text(queue.pop()).contains("no proper end"));
}

#[test]
fn wild_address_or_length_is_refused() {
    for (gpa, len) in [
        (RAM_LEN, 1),
        (RAM_LEN - 1, 2),
        (u64::MAX, 2),
        (0, u32::MAX),
        (u64::MAX - 3, 4),
    ] {
        assert!(text(pop_table(&[(gpa, len, WRITE, 0)])).contains("not RAM"));
    }
}

#[test]
fn readable_after_writable_is_refused() {
    let table = [(BUFFERS, 4, NEXT | WRITE, 1), (BUFFERS, 4, 0, 0)];
    assert!(text(pop_table(&table)).contains("wrong order"));
}

#[test]
fn descriptors_of_no_length_hold_nothing() {
    let chain = pop_table(&[(u64::MAX, 0, NEXT, 1), (0, 0, WRITE, 0)])
        .unwrap()
        .unwrap();
    assert!(chain.reader().is_empty());
    assert_eq!(chain.writer().capacity(), 0);
}

#[test]
fn available_index_too_far_ahead_is_refused() {
    let (_, mut ring, mut queue) = setup(false);
    ring.set_available(SIZE + 1);
    assert!(queue.pop().is_err());
}

#[test]
fn broken_queue_stays_broken() {
    let (_, mut ring, mut queue) = setup(false);
    ring.send(&[b"good"], &[]);
    let good = queue.pop().unwrap().unwrap();
    ring.offer(SIZE);
    assert!(queue.pop().is_err());
    ring.send(&[b"good"], &[]);
    assert!(queue.pop().is_err());
    assert!(queue.complete(good, 0).is_err());
    assert!(queue.arm().is_err());
    assert!(queue.wants_interrupt().is_err());
}

#[test]
fn new_impossible_ring_is_refused() {
    let (memory, ring, _) = setup(false);
    let good = ring.position;
    for bad in [
        QueuePosition { size: 0, ..good },
        QueuePosition { size: 3, ..good },
        QueuePosition { size: 0xffff, ..good },
        QueuePosition {
            descriptors: 8,
            ..good
        },
        QueuePosition {
            driver: 0x1001,
            ..good
        },
        QueuePosition {
            device: 0x1002,
            ..good
        },
        QueuePosition {
            device: RAM_LEN,
            ..good
        },
        QueuePosition {
            device: RAM_LEN - 8,
            ..good
        },
        QueuePosition {
            driver: u64::MAX - 1,
            ..good
        },
        QueuePosition {
            descriptors: !15,
            ..good
        },
    ] {
        assert!(Queue::new(memory.clone(), bad, true).is_err(), "{bad:?}");
    }
}

#[test]
fn interrupt_without_event_index_follows_the_flag() {
    let (_, ring, mut queue) = setup(false);
    assert!(queue.wants_interrupt().unwrap());
    ring.set_available_flags(1);
    assert!(!queue.wants_interrupt().unwrap());
}

#[test]
fn interrupt_with_event_index_comes_when_the_event_is_passed() {
    let (_, mut ring, mut queue) = setup(true);
    ring.set_used_event(1);
    let mut wanted = Vec::new();
    for _ in 0..3 {
        ring.send(&[b"x"], &[]);
        let chain = queue.pop().unwrap().unwrap();
        queue.complete(chain, 0).unwrap();
        wanted.push(queue.wants_interrupt().unwrap());
    }
    assert_eq!(wanted, [false, true, false]);
}

#[test]
fn arm_with_event_index_asks_for_the_next_chain_and_sees_one_that_came() {
    let (_, mut ring, mut queue) = setup(true);
    ring.send(&[b"x"], &[]);
    queue.pop().unwrap();
    assert!(!queue.arm().unwrap());
    assert_eq!(ring.available_event(), 1);
    ring.send(&[b"x"], &[]);
    assert!(queue.arm().unwrap());
}

fn descriptor() -> impl Strategy<Value = Descriptor> {
    let gpa = prop_oneof![
        4 => 0..RAM_LEN,
        1 => any::<u64>(),
        // Tables in tables: the queue's own, at times.
        2 => (0_u64..16).prop_map(|n| 0x1000 + n * 16),
    ];
    let len = prop_oneof![4 => 0_u32..0x2000, 1 => any::<u32>(), 2 => (0_u32..12).prop_map(|n| n * 16)];
    (gpa, len, 0_u16..8, 0..SIZE + 2)
}

proptest! {
    #[test]
    fn any_table_and_ring_is_served_or_refused(
        table in prop::collection::vec(descriptor(), usize::from(SIZE)),
        heads in prop::collection::vec(0..SIZE + 2, 0..20),
        jump in prop::option::of(any::<u16>()),
        event_index in any::<bool>(),
    ) {
        let (memory, mut ring, mut queue) = setup(event_index);
        for (index, descriptor) in (0..).zip(&table) {
            ring.store(ring.position.descriptors, index, *descriptor);
        }
        for head in heads.iter().take(SIZE.into()) {
            ring.offer(*head);
        }
        if let Some(index) = jump {
            ring.set_available(index);
        }
        for _ in 0..2 * SIZE {
            let Ok(Some(chain)) = queue.pop() else { break };
            let mut request = vec![0; chain.reader().len().min(0x1_0000)];
            chain.reader().read_exact(&mut request).unwrap();
            let mut writer = chain.writer();
            let room = writer.remaining().min(0x1_0000);
            writer.write_all(&vec![0xa5; room]).unwrap();
            let _ = queue.complete(chain, room);
            let _ = queue.wants_interrupt();
            let _ = queue.arm();
        }
        // The guest's RAM is still there, wherever the writes went.
        prop_assert!(memory.read_obj::<u8>(GuestAddress(RAM_LEN - 1)).is_ok());
    }
}
