//! Instructions on the register stack, and what they report.

use crate::cpu::{Cpu, control as cr, flags};
use crate::exception::Exception;
use crate::testing::x87::{Bench, CODE, DATA};

const ONE: u128 = 0x3fff_8000_0000_0000_0000;
const TWO: u128 = 0x4000_8000_0000_0000_0000;
const INDEFINITE: u128 = 0xffff_c000_0000_0000_0000;
const PI: u128 = 0x4000_c90f_daa2_2168_c235;

const FLD1: [u8; 2] = [0xd9, 0xe8];
const FLDZ: [u8; 2] = [0xd9, 0xee];
const FADD_ST1: [u8; 2] = [0xd8, 0xc1];
const FADDP_ST1: [u8; 2] = [0xde, 0xc1];
const FDIV_ST1: [u8; 2] = [0xd8, 0xf1];
const FNOP: [u8; 2] = [0xd9, 0xd0];
const FSTP_QUAD: [u8; 2] = [0xdd, 0x1f];
const FLD_QUAD: [u8; 2] = [0xdd, 0x07];
const FISTP_WORD: [u8; 2] = [0xdf, 0x1f];

/// A processor on whose stack `numbers` are, the first on top, with this control word.
fn holding(control: u16, numbers: &[u128]) -> Bench {
    let mut bench = Bench::long();
    let x87 = &mut bench.cpu.x87;
    x87.control = control;
    x87.status = ((8 - numbers.len() as u16) & 7) << 11;
    x87.tags = (0xff00_u16 >> numbers.len()) as u8;
    x87.registers[..numbers.len()].copy_from_slice(numbers);
    bench
}

/// Status word without the top of the stack, and the top.
fn status(bench: &Bench) -> (u16, u16) {
    let status = bench.cpu.x87.status;
    (status & !0x3800, status >> 11 & 7)
}

#[test]
fn fld_pushes_below_the_top_and_fstp_pops() {
    let mut bench = Bench::long();

    bench.run(&FLD1).unwrap();
    assert_eq!(status(&bench), (0, 7));
    assert_eq!((bench.cpu.x87.tags, bench.cpu.x87.registers[0]), (0x80, ONE));

    bench.run(&FSTP_QUAD).unwrap();
    assert_eq!((status(&bench), bench.cpu.x87.tags), ((0, 0), 0));
    assert_eq!(bench.quad(0), 1_f64.to_bits());
}

#[test]
fn fld_on_a_full_stack_is_an_overflow() {
    let mut bench = holding(0x37f, &[ONE; 8]);

    bench.run(&FLDZ).unwrap();

    // Invalid, stack fault, C1.
    assert_eq!(status(&bench), (0x241, 7));
    assert_eq!(bench.cpu.x87.registers[0], INDEFINITE);
    assert_eq!(bench.cpu.x87.tags, 0xff);
}

#[test]
fn fld_on_a_full_stack_unmasked_changes_nothing_but_flags() {
    let mut bench = holding(0x37e, &[ONE; 8]);

    bench.run(&FLDZ).unwrap();

    assert_eq!(status(&bench), (0x82c1, 0));
    assert_eq!(bench.cpu.x87.registers, [ONE; 8]);
}

#[test]
fn fadd_of_an_empty_register_is_an_underflow() {
    let mut bench = holding(0x37f, &[ONE]);

    bench.run(&FADD_ST1).unwrap();

    assert_eq!(status(&bench), (0x41, 7));
    assert_eq!(bench.cpu.x87.registers[0], INDEFINITE);
}

#[test]
fn faddp_stores_then_pops() {
    let mut bench = holding(0x37f, &[ONE, ONE]);

    bench.run(&FADDP_ST1).unwrap();

    assert_eq!(status(&bench), (0, 7));
    assert_eq!((bench.cpu.x87.registers[0], bench.cpu.x87.tags), (TWO, 0x80));
}

#[test]
fn fdiv_by_zero_unmasked_stores_nothing_and_is_reported_by_the_next() {
    let mut bench = holding(0x37b, &[ONE, 0]);
    bench.set_code(&FDIV_ST1);

    bench.run(&FDIV_ST1).unwrap();

    assert_eq!(status(&bench), (0x8084, 6));
    assert_eq!(bench.cpu.x87.registers[0], ONE);
    assert_eq!(bench.run(&FNOP), Err(Exception::X87));
    assert_eq!(
        (bench.cpu.x87.instruction_pointer, bench.cpu.x87.opcode),
        (CODE, 0xf1)
    );
}

#[test]
fn pending_exception_without_cr0_ne_goes_unreported() {
    let mut bench = holding(0x37b, &[ONE, 0]);
    bench.cpu.cr0 &= !cr::CR0_NE;

    bench.run(&FDIV_ST1).unwrap();

    assert_eq!(bench.run(&FNOP), Ok(()));
}

#[test]
fn x87_instruction_after_task_switch_is_no_math() {
    let mut bench = holding(0x37b, &[ONE]);
    bench.cpu.cr0 |= cr::CR0_TS;
    assert_eq!(bench.run(&FNOP), Err(Exception::NO_MATH));

    bench.cpu.cr0 = bench.cpu.cr0 & !cr::CR0_TS | cr::CR0_EM;
    assert_eq!(bench.run(&FLD1), Err(Exception::NO_MATH));
}

#[test]
fn memory_operand_leaves_where_it_was() {
    let mut bench = holding(0x37f, &[]);
    // FLD QWORD PTR [RDI] behind a prefix that does nothing.
    let code = [0x3e, 0xdd, 0x07];
    bench.set_code(&code);

    bench.run(&code).unwrap();

    let x87 = &bench.cpu.x87;
    assert_eq!((x87.instruction_pointer, x87.opcode), (CODE, 0x507));
    assert_eq!((x87.data_pointer, x87.data_selector), (DATA, 0x10));
}

#[test]
fn fstp_to_a_missing_address_leaves_the_stack_as_it_is() {
    let mut bench = holding(0x37f, &[ONE]);
    bench.cpu.gpr[Cpu::RDI] = 1 << 63;
    let before = bench.cpu.x87.clone();

    assert_eq!(bench.run(&FSTP_QUAD), Err(Exception::PROTECTION));
    assert_eq!(bench.cpu.x87, before);
}

#[test]
fn fld_of_a_denormal_loads_it_even_unmasked() {
    let mut bench = holding(0x37d, &[]);
    bench.set_data(0, &1_u64.to_le_bytes());

    bench.run(&FLD_QUAD).unwrap();

    assert_eq!(status(&bench), (0x8082, 7));
    assert_eq!(bench.cpu.x87.registers[0], (0x3fff - 1074) << 64 | 1 << 63);
}

#[test]
fn fistp_of_too_much_unmasked_stores_and_pops_nothing() {
    let mut bench = holding(0x37e, &[0x4020_8000_0000_0000_0000]);
    bench.set_data(0, &[0xcc; 2]);

    bench.run(&FISTP_WORD).unwrap();

    assert_eq!(status(&bench), (0x8081, 7));
    assert_eq!(bench.data(0, 2), [0xcc; 2]);
}

#[test]
fn fistp_of_too_much_masked_stores_the_indefinite_integer() {
    let mut bench = holding(0x37f, &[0x4020_8000_0000_0000_0000]);

    bench.run(&FISTP_WORD).unwrap();

    assert_eq!(status(&bench), (0x01, 0));
    assert_eq!(bench.data(0, 2), [0, 0x80]);
}

#[test]
fn fxch_of_an_empty_register_exchanges_the_indefinite_number() {
    let mut bench = holding(0x37f, &[ONE]);

    bench.run(&[0xd9, 0xc9]).unwrap();

    assert_eq!(status(&bench), (0x41, 7));
    assert_eq!(bench.cpu.x87.registers[..2], [INDEFINITE, ONE]);
}

#[test]
fn fcmov_moves_if_its_flags_say_so() {
    let fcmovb_st1 = [0xda, 0xc1];
    let mut bench = holding(0x37f, &[ONE, TWO]);
    bench.run(&fcmovb_st1).unwrap();
    assert_eq!(bench.cpu.x87.registers[0], ONE);

    bench.cpu.rflags |= flags::CF;
    bench.run(&fcmovb_st1).unwrap();
    assert_eq!(bench.cpu.x87.registers[0], TWO);
}

#[test]
fn fcomip_leaves_the_result_in_flags_and_pops() {
    let mut bench = holding(0x37f, &[ONE, TWO]);
    bench.cpu.rflags |= flags::OF | flags::ZF;

    bench.run(&[0xdf, 0xf1]).unwrap();

    assert_eq!(bench.cpu.rflags & flags::STATUS, flags::CF);
    assert_eq!(status(&bench), (0, 7));
}

#[test]
fn fucom_of_a_quiet_nan_is_unordered_and_valid() {
    let mut bench = holding(0x37f, &[ONE, INDEFINITE]);

    bench.run(&[0xdd, 0xe1]).unwrap();
    assert_eq!(status(&bench), (0x4500, 6));

    // FCOM ST1
    bench.run(&[0xd8, 0xd1]).unwrap();
    assert_eq!(status(&bench), (0x4501, 6));
}

/// Condition codes of `FXAM`.
fn examined(number: u128) -> u16 {
    let mut bench = holding(0x37f, &[number]);
    bench.run(&[0xd9, 0xe5]).unwrap();
    status(&bench).0
}

#[test]
fn fxam_tells_classes_apart() {
    assert_eq!(examined(ONE), 0x400);
    assert_eq!(examined(0x8000 << 64), 0x4200);
    assert_eq!(examined(1), 0x4400);
    assert_eq!(examined(0x7fff_8000_0000_0000_0000), 0x500);
    assert_eq!(examined(INDEFINITE), 0x300);
    assert_eq!(examined(0x3fff_0000_0000_0000_0000), 0);
    let mut empty = holding(0x37f, &[]);
    empty.run(&[0xd9, 0xe5]).unwrap();
    assert_eq!(status(&empty), (0x4100, 0));
}

#[test]
fn constants_obey_rounding_control() {
    let loaded = |control, code: [u8; 2]| {
        let mut bench = holding(control, &[]);
        bench.run(&code).unwrap();
        bench.cpu.x87.registers[0]
    };
    let fldpi = [0xd9, 0xeb];

    assert_eq!(loaded(0x37f, fldpi), PI);
    assert_eq!(loaded(0xb7f, fldpi), PI);
    assert_eq!(loaded(0x77f, fldpi), PI - 1);
    assert_eq!(loaded(0xf7f, fldpi), PI - 1);
    assert_eq!(loaded(0xb7f, FLD1), ONE);
    // FLDL2T is nearest to what is below it.
    assert_eq!(loaded(0x37f, [0xd9, 0xe9]), 0x4000_d49a_784b_cd1b_8afe);
    assert_eq!(loaded(0xb7f, [0xd9, 0xe9]), 0x4000_d49a_784b_cd1b_8aff);
}

#[test]
fn fsincos_leaves_the_cosine_above_the_sine() {
    let mut bench = holding(0x37f, &[0]);

    bench.run(&[0xd9, 0xfb]).unwrap();

    assert_eq!(status(&bench).1, 6);
    assert_eq!(bench.cpu.x87.registers[..2], [ONE, 0]);
}

#[test]
fn fptan_beyond_its_range_sets_c2_and_pushes_nothing() {
    let far = 0x403e_8000_0000_0000_0000;
    let mut bench = holding(0x37f, &[far]);

    bench.run(&[0xd9, 0xf2]).unwrap();

    assert_eq!(status(&bench), (0x400, 7));
    assert_eq!(bench.cpu.x87.registers[0], far);
}

#[test]
fn fxtract_pushes_the_significand() {
    let mut bench = holding(0x37f, &[0x4009_c000_0000_0000_0000]);

    bench.run(&[0xd9, 0xf4]).unwrap();

    // 10 below, 1.5 on top.
    assert_eq!(
        bench.cpu.x87.registers[..2],
        [0x3fff_c000_0000_0000_0000, 0x4002_a000_0000_0000_0000]
    );
}

#[test]
fn fyl2x_replaces_two_operands_by_one() {
    // ST(0) is 8, ST(1) is 2.
    let mut bench = holding(0x37f, &[0x4002_8000_0000_0000_0000, TWO]);

    bench.run(&[0xd9, 0xf1]).unwrap();

    assert_eq!(status(&bench).1, 7);
    assert_eq!(
        (bench.cpu.x87.registers[0], bench.cpu.x87.tags),
        (0x4001_c000_0000_0000_0000, 0x80)
    );
}

#[test]
fn fincstp_and_ffree_pop_nothing() {
    let mut bench = holding(0x37f, &[ONE, TWO]);

    // FINCSTP, FFREE ST0
    bench.run(&[0xd9, 0xf7, 0xdd, 0xc0]).unwrap();

    assert_eq!(status(&bench), (0, 7));
    assert_eq!(bench.cpu.x87.tags, 0x40);
}

#[test]
fn fstpnce_of_an_empty_register_is_no_underflow() {
    let mut bench = holding(0x37f, &[ONE]);
    bench.cpu.x87.tags = 0;

    bench.run(&[0xd9, 0xd9]).unwrap();

    assert_eq!((status(&bench), bench.cpu.x87.tags), ((0, 0), 0));
}
