//! String instructions, element by element and many at once.

use crate::cpu::Cpu;
use crate::cpu::flags::{CF, DF, TF, ZF};
use crate::exception::Exception;
use crate::testing::integer::*;

const MOVSB: &[u8] = &[0xf3, 0xa4];
const MOVSQ: &[u8] = &[0xf3, 0x48, 0xa5];
const STOSB: &[u8] = &[0xf3, 0xaa];
const STOSQ: &[u8] = &[0xf3, 0x48, 0xab];

/// A machine with RSI, RDI and RCX set, and bytes that all differ from their neighbours at [`DATA`].
fn machine(bits: u8, source: u64, target: u64, count: u64) -> Machine {
    let mut machine = Machine::new(bits);
    let bytes: Vec<u8> = (0..0x1_0000_u32).map(|n| (n * 7 + (n >> 8)) as u8).collect();
    machine.set_bytes(DATA, &bytes);
    machine.set_gprs(&[(Cpu::RSI, source), (Cpu::RDI, target), (Cpu::RCX, count)]);
    machine
}

/// RSI, RDI and RCX.
fn registers(machine: &Machine) -> (u64, u64, u64) {
    let gpr = &machine.cpu.gpr;
    (gpr[Cpu::RSI], gpr[Cpu::RDI], gpr[Cpu::RCX])
}

#[test]
fn one_element_moves_both_indexes_and_no_counter() {
    let mut machine = machine(64, DATA, DATA + 0x100, 9);
    let moved = machine.bytes(DATA, 4);
    machine.run(&[0xa5]).unwrap();
    assert_eq!(machine.bytes(DATA + 0x100, 4), moved);
    assert_eq!(registers(&machine), (DATA + 4, DATA + 0x104, 9));
    machine.cpu.rflags |= DF;
    machine.run(&[0xa4]).unwrap();
    assert_eq!(registers(&machine), (DATA + 3, DATA + 0x103, 9));
}

#[test]
fn repeated_move_over_pages_copies_every_byte() {
    let mut machine = machine(64, DATA + 0x123, DATA + 0x8fed, 0x3456);
    let moved = machine.bytes(DATA + 0x123, 0x3456);
    machine.run_whole(MOVSB).unwrap();
    assert_eq!(machine.bytes(DATA + 0x8fed, 0x3456), moved);
    assert_eq!(
        registers(&machine),
        (DATA + 0x123 + 0x3456, DATA + 0x8fed + 0x3456, 0)
    );
}

#[test]
fn repeated_move_of_elements_across_page_ends_copies_every_byte() {
    let mut machine = machine(64, DATA + 3, DATA + 0x8ffd, 0x500);
    let moved = machine.bytes(DATA + 3, 0x2800);
    machine.run_whole(MOVSQ).unwrap();
    assert_eq!(machine.bytes(DATA + 0x8ffd, 0x2800), moved);
}

#[test]
fn repeated_move_into_itself_repeats_what_it_has_written() {
    let mut by_bytes = machine(64, DATA, DATA + 3, 100);
    by_bytes.set_bytes(DATA, b"abc");
    by_bytes.run_whole(MOVSB).unwrap();
    assert_eq!(by_bytes.bytes(DATA, 12), b"abcabcabcabc");
    // Elements that overlap themselves are read whole before they are written.
    let mut by_words = machine(64, DATA, DATA + 1, 2);
    by_words.set_bytes(DATA, b"0123456789abcdefg");
    by_words.run_whole(MOVSQ).unwrap();
    assert_eq!(by_words.bytes(DATA, 17), b"00123456779abcdef");
}

#[test]
fn repeated_move_downwards_starts_at_the_end() {
    let mut machine = machine(64, DATA + 0x1ff8, DATA + 0x2ff8, 0x400);
    let moved = machine.bytes(DATA, 0x2000);
    machine.cpu.rflags |= DF;
    machine.run_whole(MOVSQ).unwrap();
    assert_eq!(machine.bytes(DATA + 0x1000, 0x2000), moved);
    assert_eq!(registers(&machine), (DATA - 8, DATA + 0xff8, 0));
}

#[test]
fn repeated_store_fills_with_every_width() {
    for (code, size) in [
        (STOSB, 1),
        (&[0xf3, 0x66, 0xab], 2),
        (&[0xf3, 0xab], 4),
        (STOSQ, 8),
    ] {
        let mut machine = machine(64, 0, DATA + 0x5ff3, 0x301);
        machine.cpu.gpr[Cpu::RAX] = 0x1122_3344_5566_7788;
        let element = &0x1122_3344_5566_7788_u64.to_le_bytes()[..size];
        let behind = machine.bytes(DATA + 0x5ff3 + 0x301 * size as u64, 1);
        machine.run_whole(code).unwrap();
        assert_eq!(machine.bytes(DATA + 0x5ff3, 0x301 * size), element.repeat(0x301));
        assert_eq!(machine.bytes(DATA + 0x5ff3 + 0x301 * size as u64, 1), behind);
    }
}

#[test]
fn long_repetitions_let_interrupts_in() {
    let mut machine = machine(64, 0, DATA, 0x5000);
    machine.run(&[0xf3, 0xab]).unwrap();
    assert_eq!(
        (machine.passed(), registers(&machine)),
        (0, (0, DATA + 0x1_0000, 0x1000))
    );
    machine.set_gprs(&[(Cpu::RDI, DATA), (Cpu::RCX, 0x1_0000)]);
    assert_eq!(machine.run_whole(STOSB), Ok(1));
    machine.cpu.rflags |= DF;
    machine.set_gprs(&[(Cpu::RDI, DATA + 0xffff), (Cpu::RCX, 0x1_0000)]);
    let times = machine.run_whole(STOSB).unwrap();
    assert_eq!((times, registers(&machine).2), (16, 0));
}

#[test]
fn single_steps_are_elements() {
    let mut machine = machine(64, DATA, DATA + 0x100, 5);
    machine.cpu.rflags |= TF;
    machine.run(MOVSB).unwrap();
    assert_eq!(
        (machine.passed(), registers(&machine)),
        (0, (DATA + 1, DATA + 0x101, 4))
    );
}

#[test]
fn repetition_of_nothing_touches_nothing() {
    let mut machine = machine(64, 1 << 63, 1 << 63, 0);
    machine.run_whole(MOVSB).unwrap();
    assert_eq!(
        (machine.passed(), registers(&machine)),
        (2, (1 << 63, 1 << 63, 0))
    );
}

#[test]
fn fault_amid_a_repetition_leaves_the_registers_at_its_element() {
    let mut machine = machine(32, DATA, DATA + 0x2f80, 0x100);
    machine.page_without(DATA + 0x3000);
    let result = machine.run(&[0xf3, 0xa5]);
    assert_eq!(result, Err(Exception::page_fault(DATA + 0x3000, 2)));
    assert_eq!(
        (machine.passed(), registers(&machine)),
        (0, (DATA + 0x80, DATA + 0x3000, 0xe0))
    );
}

#[test]
fn source_fault_comes_before_target_fault() {
    let mut machine = machine(32, DATA + 0x3000, 0x5000_0000, 0x100);
    machine.page_without(DATA + 0x3000);
    assert_eq!(machine.run(MOVSB), Err(Exception::page_fault(DATA + 0x3000, 0)));
}

#[test]
fn repetition_stops_at_the_segments_limit() {
    let mut machine = machine(32, 0, DATA, 0x100);
    let mut segment = *machine.cpu.segment(crate::cpu::SegReg::Es);
    segment.limit = DATA as u32 + 0x2f;
    machine.cpu.set_segment(crate::cpu::SegReg::Es, segment);
    assert_eq!(machine.run(&[0xf3, 0xab]), Err(Exception::PROTECTION));
    assert_eq!(registers(&machine), (0, DATA + 0x30, 0x100 - 12));
}

#[test]
fn addresses_of_16_bits_wrap_in_their_segment() {
    let mut machine = machine(16, 0xdddd_0000, 0xeeee_fffc, 0xcccc_0008);
    for register in [crate::cpu::SegReg::Ds, crate::cpu::SegReg::Es] {
        let mut segment = *machine.cpu.segment(register);
        segment.base = DATA;
        machine.cpu.set_segment(register, segment);
    }
    machine.cpu.gpr[Cpu::RAX] = 0x55;
    machine.run_whole(STOSB).unwrap();
    assert_eq!(machine.bytes(DATA, 4), [0x55; 4]);
    assert_eq!(machine.bytes(DATA + 0xfffc, 4), [0x55; 4]);
    assert_eq!(registers(&machine), (0xdddd_0000, 0xeeee_0004, 0xcccc_0000));
}

#[test]
fn addresses_of_32_bits_in_64_bit_code_clear_the_upper_halves() {
    let high = 0xf << 32;
    let mut machine = machine(64, high | DATA, high | (DATA + 0x100), high | 8);
    machine.run_whole(&[0x67, 0xf3, 0xa4]).unwrap();
    assert_eq!(registers(&machine), (DATA + 8, DATA + 0x108, 0));
}

#[test]
fn segment_override_moves_the_source_alone() {
    let mut machine = machine(64, 0x10, DATA + 0x100, 8);
    let mut segment = *machine.cpu.segment(crate::cpu::SegReg::Gs);
    segment.base = DATA;
    machine.cpu.set_segment(crate::cpu::SegReg::Gs, segment);
    machine.run_whole(&[0x65, 0xf3, 0xa4]).unwrap();
    assert_eq!(machine.bytes(DATA + 0x100, 8), machine.bytes(DATA + 0x10, 8));
}

#[test]
fn comparisons_stop_where_their_prefix_says() {
    let mut machine = machine(64, DATA, DATA + 0x100, 16);
    machine.set_bytes(DATA, b"same bytes, other end");
    machine.set_bytes(DATA + 0x100, b"same bytes! other end");
    machine.run_whole(&[0xf3, 0xa6]).unwrap();
    assert_eq!(registers(&machine), (DATA + 11, DATA + 0x10b, 5));
    assert_eq!(machine.status() & (ZF | CF), 0);
    machine.set_gprs(&[(Cpu::RAX, b'o'.into()), (Cpu::RDI, DATA), (Cpu::RCX, 99)]);
    machine.run_whole(&[0xf2, 0xae]).unwrap();
    assert_eq!((registers(&machine).1, machine.status() & ZF), (DATA + 13, ZF));
}

#[test]
fn loads_fill_the_accumulator_as_moves_do() {
    let mut machine = machine(64, DATA, 0, 3);
    machine.cpu.gpr[Cpu::RAX] = u64::MAX;
    let bytes = machine.bytes(DATA, 12);
    machine.run_whole(&[0xf3, 0xad]).unwrap();
    let last = u32::from_le_bytes(bytes[8..].try_into().unwrap());
    assert_eq!(
        (machine.cpu.gpr[Cpu::RAX], registers(&machine)),
        (last.into(), (DATA + 12, 0, 0))
    );
}
