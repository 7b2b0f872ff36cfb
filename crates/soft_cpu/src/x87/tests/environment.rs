//! Control and environment instructions.

use crate::cpu::control as cr;
use crate::exception::Exception;
use crate::testing::x87::Bench;

const FWAIT: [u8; 1] = [0x9b];
const FNINIT: [u8; 2] = [0xdb, 0xe3];
const FNCLEX: [u8; 2] = [0xdb, 0xe2];
const FLDCW: [u8; 2] = [0xd9, 0x2f];
const FNSTENV: [u8; 2] = [0xd9, 0x37];
const FNSTENV_16: [u8; 3] = [0x66, 0xd9, 0x37];
const FLDENV: [u8; 2] = [0xd9, 0x27];
const FNSAVE: [u8; 2] = [0xdd, 0x37];
const FRSTOR: [u8; 2] = [0xdd, 0x27];
const FNSTSW_AX: [u8; 2] = [0xdf, 0xe0];

/// Eight full registers, TOP 3, ST(i) made of bytes 0x11 * (i + 1).
fn full() -> Bench {
    let mut bench = Bench::long();
    let x87 = &mut bench.cpu.x87;
    (x87.status, x87.tags, x87.opcode) = (0x1800, 0xff, 0x475);
    (x87.instruction_pointer, x87.data_pointer) = (0x7fff_1234_5678, 0x7fff_8765_4321);
    (x87.code_selector, x87.data_selector) = (0x33, 0x2b);
    for (number, register) in x87.registers.iter_mut().enumerate() {
        *register = u128::from_le_bytes([0x11 * (number as u8 + 1); 16]) & ((1 << 80) - 1);
    }
    bench
}

fn double_words(bytes: &[u8]) -> Vec<u32> {
    let words = bytes.chunks_exact(4);
    words
        .map(|word| u32::from_le_bytes(word.try_into().unwrap()))
        .collect()
}

#[test]
fn fninit_empties_registers_and_keeps_their_bits() {
    let mut bench = full();

    bench.run(&FNINIT).unwrap();

    let x87 = &bench.cpu.x87;
    assert_eq!((x87.control, x87.status, x87.tags), (0x37f, 0, 0));
    // ST(0) is physical register 0 now; it was ST(5).
    let lowest = x87.registers.map(|register| register as u8);
    assert_eq!(lowest, [0x66, 0x77, 0x88, 0x11, 0x22, 0x33, 0x44, 0x55]);
}

#[test]
fn fnstenv_shows_pointers_and_tags_and_masks_everything() {
    let mut bench = full();
    bench.cpu.x87.status |= 0x8084;
    bench.cpu.x87.control = 0x37b;

    bench.run(&FNSTENV).unwrap();

    let image = double_words(&bench.data(0, 28));
    // Registers 0x11.. to 0x77.. lack the integer bit; 0x88.. is physical register 2.
    let expected = [
        0xffff_037b,
        0xffff_9884,
        0xffff_aa8a,
        0x1234_5678,
        0x0475_0033,
        0x8765_4321,
        0xffff_002b,
    ];
    assert_eq!(image, expected);
    assert_eq!((bench.cpu.x87.control, bench.cpu.x87.status), (0x37f, 0x1804));
}

#[test]
fn fnstenv_with_words_has_no_opcode() {
    let mut bench = full();
    bench.set_data(0, &[0xcc; 28]);

    bench.run(&FNSTENV_16).unwrap();

    let expected = [
        0x7f, 3, 0, 0x18, 0x8a, 0xaa, 0x78, 0x56, 0x33, 0, 0x21, 0x43, 0x2b, 0,
    ];
    assert_eq!(bench.data(0, 14), expected);
    assert_eq!(bench.data(14, 2), [0xcc; 2]);
}

#[test]
fn fnstenv_in_real_mode_has_linear_addresses() {
    let mut bench = full();
    bench.cpu.cr0 &= !cr::CR0_PE;
    let x87 = &mut bench.cpu.x87;
    (x87.instruction_pointer, x87.code_selector) = (0x5678, 0xa123);
    (x87.data_pointer, x87.data_selector) = (0x4321, 0xb000);

    bench.run(&FNSTENV_16).unwrap();

    // 0xa123 * 16 + 0x5678, and the opcode beside its upper part.
    let expected = [
        0x7f, 3, 0, 0x18, 0x8a, 0xaa, 0xa8, 0x68, 0x75, 0xa4, 0x21, 0x43, 0x00, 0xb0,
    ];
    assert_eq!(bench.data(0, 14), expected);
}

#[test]
fn fldenv_turns_the_stack_under_registers_that_stay() {
    let mut bench = full();
    bench.run(&FNSTENV).unwrap();
    let before = bench.cpu.x87.clone();
    bench.set_data(4, &0x3800_u16.to_le_bytes());

    bench.run(&FLDENV).unwrap();

    let x87 = &bench.cpu.x87;
    assert_eq!((x87.status, x87.tags, x87.opcode), (0x3800, 0xff, 0x475));
    // Physical register 7 was ST(4).
    assert_eq!(x87.registers[0], before.registers[4]);
    assert_eq!(x87.registers[7], before.registers[3]);
}

#[test]
fn fnsave_then_frstor_gives_everything_back() {
    let mut bench = full();
    let before = bench.cpu.x87.clone();

    bench.run(&FNSAVE).unwrap();
    assert_eq!(bench.cpu.x87.tags, 0);
    assert_eq!(bench.data(28, 10), [0x11; 10]);
    assert_eq!(bench.data(98, 10), [0x88; 10]);

    bench.run(&FRSTOR).unwrap();
    assert_eq!(bench.cpu.x87.registers, before.registers);
    assert_eq!(
        (bench.cpu.x87.status, bench.cpu.x87.tags),
        (before.status, before.tags)
    );
    // These have 32 bits in this layout.
    assert_eq!(bench.cpu.x87.instruction_pointer, 0x1234_5678);
}

#[test]
fn fldcw_unmasking_a_flag_makes_it_pending_until_fnclex() {
    let mut bench = Bench::long();
    bench.cpu.x87.status = 4;
    bench.set_data(0, &0x37b_u16.to_le_bytes());

    bench.run(&FLDCW).unwrap();
    assert_eq!(bench.cpu.x87.status, 0x8084);
    assert_eq!(bench.run(&FWAIT), Err(Exception::X87));
    assert_eq!(bench.run(&FLDCW), Err(Exception::X87));
    bench.run(&FNSTSW_AX).unwrap();
    assert_eq!(bench.cpu.gpr[0], 0x8084);

    bench.run(&FNCLEX).unwrap();
    assert_eq!(bench.run(&FWAIT), Ok(()));
}

#[test]
fn fldcw_keeps_only_bits_that_exist() {
    let mut bench = Bench::long();
    bench.set_data(0, &[0xff, 0xff]);
    bench.run(&FLDCW).unwrap();
    assert_eq!(bench.cpu.x87.control, 0x1f7f);

    bench.set_data(0, &[0, 0]);
    bench.run(&FLDCW).unwrap();
    assert_eq!(bench.cpu.x87.control, 0x40);
}

#[test]
fn fwait_is_no_math_only_where_both_bits_say_so() {
    let mut bench = Bench::long();
    bench.cpu.cr0 |= cr::CR0_TS;
    assert_eq!(bench.run(&FWAIT), Ok(()));
    assert_eq!(bench.run(&FNINIT), Err(Exception::NO_MATH));

    bench.cpu.cr0 |= cr::CR0_MP;
    assert_eq!(bench.run(&FWAIT), Err(Exception::NO_MATH));
}
