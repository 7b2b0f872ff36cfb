use super::{MASKED, bench, register};
use crate::cpu::{Cpu, control, flags};
use crate::exception::Exception;

const INVALID: u32 = 1;
const DENORMAL: u32 = 2;
const DIVIDE: u32 = 4;
const OVERFLOW: u32 = 8;
const UNDERFLOW: u32 = 0x10;
const PRECISION: u32 = 0x20;
const DAZ: u32 = 0x40;
const FTZ: u32 = 0x8000;
const DOWN: u32 = 0x2000;
const UP: u32 = 0x4000;
const TRUNCATE: u32 = 0x6000;

const ADD: u8 = 0x58;
const MULTIPLY: u8 = 0x59;
const SUBTRACT: u8 = 0x5c;
const MINIMUM: u8 = 0x5d;
const DIVIDE_BY: u8 = 0x5e;
const MAXIMUM: u8 = 0x5f;
const ROOT: u8 = 0x51;

/// The default NaN of both formats.
const NAN: u32 = 0xffc0_0000;
const NAN64: u64 = 0xfff8 << 48;

/// The result of `OPss xmm0, xmm1` and the flags it raises.
fn single(opcode: u8, mxcsr: u32, a: u32, b: u32) -> (u32, u32) {
    let mut bench = bench(&[[a.into(), 0, 0, 0], [b.into(), 0, 0, 0]]);
    bench.cpu.vector.mxcsr = mxcsr;
    bench.run(&[0xf3, 0x0f, opcode, 0xc1]).unwrap();
    (register(&bench, 0)[0] as u32, bench.cpu.vector.mxcsr & 0x3f)
}

/// The same with `OPsd`.
fn double(opcode: u8, mxcsr: u32, a: f64, b: f64) -> (f64, u32) {
    let mut bench = bench(&[[a.to_bits(), 0, 0, 0], [b.to_bits(), 0, 0, 0]]);
    bench.cpu.vector.mxcsr = mxcsr;
    bench.run(&[0xf2, 0x0f, opcode, 0xc1]).unwrap();
    let flags = bench.cpu.vector.mxcsr & 0x3f;
    (f64::from_bits(register(&bench, 0)[0]), flags)
}

#[test]
fn sum_that_fits_raises_nothing() {
    assert_eq!(double(ADD, MASKED, 0.5, 0.25), (0.75, 0));
}

#[test]
fn sum_that_does_not_fit_follows_the_rounding_mode() {
    let next = f64::from_bits(1.0_f64.to_bits() + 1);
    assert_eq!(double(ADD, MASKED, 1.0, 1e-30), (1.0, PRECISION));
    assert_eq!(double(ADD, MASKED | UP, 1.0, 1e-30), (next, PRECISION));
    assert_eq!(double(ADD, MASKED | DOWN, -1.0, -1e-30), (-next, PRECISION));
    assert_eq!(double(ADD, MASKED | TRUNCATE, -1.0, -1e-30), (-1.0, PRECISION));
}

#[test]
fn difference_of_equals_is_negative_zero_only_when_rounding_down() {
    assert_eq!(double(SUBTRACT, MASKED, 1.0, 1.0).0.to_bits(), 0);
    assert_eq!(double(SUBTRACT, MASKED | DOWN, 1.0, 1.0).0.to_bits(), 1 << 63);
}

#[test]
fn infinities_of_opposite_sign_have_no_sum() {
    let (result, flags) = double(ADD, MASKED, f64::INFINITY, f64::NEG_INFINITY);
    assert_eq!((result.to_bits(), flags), (NAN64, INVALID));
}

#[test]
fn first_nan_wins_and_becomes_quiet() {
    assert_eq!(
        single(ADD, MASKED, 0x7f80_0001, 0x7fc0_0002),
        (0x7fc0_0001, INVALID)
    );
    assert_eq!(
        single(ADD, MASKED, 0x3f80_0000, 0xff80_0003),
        (0xffc0_0003, INVALID)
    );
    assert_eq!(single(ADD, MASKED, 0x7fc0_0004, 0x3f80_0000), (0x7fc0_0004, 0));
}

#[test]
fn division_by_zero_is_infinite_and_noted() {
    assert_eq!(double(DIVIDE_BY, MASKED, -1.0, 0.0), (f64::NEG_INFINITY, DIVIDE));
}

#[test]
fn zero_by_zero_is_invalid() {
    assert_eq!(single(DIVIDE_BY, MASKED, 0, 0), (NAN, INVALID));
}

#[test]
fn quotient_in_nearest_and_upwards_differ_in_the_last_bit() {
    let third = 1.0 / 3.0;
    let next = f64::from_bits(f64::to_bits(third) + 1);
    assert_eq!(double(DIVIDE_BY, MASKED, 1.0, 3.0), (third, PRECISION));
    assert_eq!(double(DIVIDE_BY, MASKED | UP, 1.0, 3.0), (next, PRECISION));
}

#[test]
fn product_beyond_the_largest_number_follows_the_rounding_mode() {
    let raised = OVERFLOW | PRECISION;
    assert_eq!(double(MULTIPLY, MASKED, 1e300, 1e300), (f64::INFINITY, raised));
    assert_eq!(
        double(MULTIPLY, MASKED | TRUNCATE, 1e300, 1e300),
        (f64::MAX, raised)
    );
    assert_eq!(double(MULTIPLY, MASKED | UP, 1e300, -1e300), (f64::MIN, raised));
}

#[test]
fn exact_denormal_result_raises_no_underflow_while_that_is_masked() {
    // The smallest normal number by 2.
    assert_eq!(
        single(MULTIPLY, MASKED, 0x0080_0000, 0x3f00_0000),
        (0x0040_0000, 0)
    );
}

#[test]
fn exact_denormal_result_is_flushed_where_mxcsr_says_so() {
    let result = single(MULTIPLY, MASKED | FTZ, 0x8080_0000, 0x3f00_0000);
    assert_eq!(result, (0x8000_0000, UNDERFLOW | PRECISION));
}

#[test]
fn result_that_rounds_to_the_smallest_normal_number_is_tiny_all_the_same() {
    // (2 - 2^-23) * 2^-127 has 24 bits: it fits but for its exponent.
    let result = single(MULTIPLY, MASKED, 0x00ff_ffff, 0x3f00_0000);
    assert_eq!(result, (0x0080_0000, UNDERFLOW | PRECISION));
}

#[test]
fn denormal_operand_is_noted_or_taken_for_zero() {
    assert_eq!(
        single(ADD, MASKED, 0x3f80_0000, 1),
        (0x3f80_0000, DENORMAL | PRECISION)
    );
    assert_eq!(single(ADD, MASKED | DAZ, 0x3f80_0000, 1), (0x3f80_0000, 0));
}

#[test]
fn root_of_a_negative_number_is_invalid_but_of_negative_zero_is_not() {
    assert_eq!(single(ROOT, MASKED, 0, 0xbf80_0000), (NAN, INVALID));
    assert_eq!(single(ROOT, MASKED, 0, 0x8000_0000), (0x8000_0000, 0));
}

#[test]
fn root_is_rounded_by_mode() {
    let root = 2.0_f64.sqrt();
    let below = f64::from_bits(root.to_bits() - 1);
    assert_eq!(double(ROOT, MASKED, 0.0, 2.0), (root, PRECISION));
    assert_eq!(double(ROOT, MASKED | DOWN, 0.0, 2.0), (below, PRECISION));
}

#[test]
fn minimum_and_maximum_give_the_second_operand_of_zeros_and_nans() {
    assert_eq!(single(MINIMUM, MASKED, 0, 0x8000_0000), (0x8000_0000, 0));
    assert_eq!(single(MAXIMUM, MASKED, 0, 0x8000_0000), (0x8000_0000, 0));
    assert_eq!(single(MINIMUM, MASKED, NAN, 0x3f80_0000), (0x3f80_0000, INVALID));
    assert_eq!(
        single(MAXIMUM, MASKED, 0x3f80_0000, 0x7f80_0001),
        (0x7f80_0001, INVALID)
    );
}

#[test]
fn unmasked_exception_sets_its_flag_and_changes_no_register() {
    // divps xmm0, xmm1: one division by zero among four.
    let one = 0x3f80_0000_3f80_0000;
    let mut bench = bench(&[[one; 4], [one, 0x3f80_0000, 0, 0]]);
    bench.cpu.vector.mxcsr = MASKED & !(DIVIDE << 7);
    assert_eq!(bench.run(&[0x0f, 0x5e, 0xc1]), Err(Exception::SIMD));
    assert_eq!(register(&bench, 0), [one; 4]);
    assert_eq!(bench.cpu.vector.mxcsr & 0x3f, DIVIDE);
}

#[test]
fn unmasked_exception_without_os_support_is_undefined() {
    let mut bench = bench(&[[0; 4]; 2]);
    bench.cpu.cr4 &= !control::CR4_OSXMMEXCPT;
    bench.cpu.vector.mxcsr = 0;
    assert_eq!(bench.run(&[0x0f, 0x5e, 0xc1]), Err(Exception::UNDEFINED));
}

#[test]
fn exception_before_the_computation_hides_those_after_it() {
    // addps xmm0, xmm1: one denormal operand, one inexact sum.
    let mut bench = bench(&[[0x3f80_0000_0000_0001, 0, 0, 0], [0x3080_0000_0000_0000, 0, 0, 0]]);
    bench.cpu.vector.mxcsr = MASKED & !(DENORMAL << 7);
    assert_eq!(bench.run(&[0x0f, 0x58, 0xc1]), Err(Exception::SIMD));
    assert_eq!(bench.cpu.vector.mxcsr & 0x3f, DENORMAL);
}

#[test]
fn comparisons_order_numbers_in_flags() {
    // ucomisd xmm0, xmm1
    let status = |a: f64, b: f64| {
        let mut bench = bench(&[[a.to_bits(), 0, 0, 0], [b.to_bits(), 0, 0, 0]]);
        bench.run(&[0x66, 0x0f, 0x2e, 0xc1]).unwrap();
        bench.cpu.rflags & flags::STATUS
    };
    assert_eq!(status(1.0, 2.0), flags::CF);
    assert_eq!(status(2.0, 1.0), 0);
    assert_eq!(status(0.0, -0.0), flags::ZF);
    assert_eq!(status(f64::NAN, 1.0), flags::ZF | flags::PF | flags::CF);
}

#[test]
fn quiet_nans_are_invalid_to_comisd_only() {
    let raised = |opcode: u8| {
        let mut bench = bench(&[[f64::NAN.to_bits(), 0, 0, 0], [0; 4]]);
        bench.run(&[0x66, 0x0f, opcode, 0xc1]).unwrap();
        bench.cpu.vector.mxcsr & 0x3f
    };
    assert_eq!(raised(0x2f), INVALID);
    assert_eq!(raised(0x2e), 0);
}

#[test]
fn vcmpsd_knows_predicates_that_cmpsd_does_not() {
    // Predicate 0x1d: greater or equal, quiet. Legacy encodings know its low three bits: not less.
    let compare = |code: &[u8]| {
        let mut bench = bench(&[[f64::NAN.to_bits(), 0, 0, 0], [0; 4]]);
        bench.run(code).unwrap();
        (register(&bench, 0)[0], bench.cpu.vector.mxcsr & 0x3f)
    };
    assert_eq!(compare(&[0xc5, 0xfb, 0xc2, 0xc1, 0x1d]), (0, 0));
    assert_eq!(compare(&[0xf2, 0x0f, 0xc2, 0xc1, 0x1d]), (u64::MAX, INVALID));
}

/// What `CVTSD2SI eax, xmm0` gives, and the flags it raises.
fn to_integer(mxcsr: u32, a: f64) -> (u64, u32) {
    let mut bench = bench(&[[a.to_bits(), 0, 0, 0]]);
    bench.cpu.vector.mxcsr = mxcsr;
    bench.run(&[0xf2, 0x0f, 0x2d, 0xc0]).unwrap();
    (bench.cpu.gpr[Cpu::RAX], bench.cpu.vector.mxcsr & 0x3f)
}

#[test]
fn conversion_to_an_integer_rounds_by_mode() {
    assert_eq!(to_integer(MASKED, 2.5), (2, PRECISION));
    assert_eq!(to_integer(MASKED | UP, 2.5), (3, PRECISION));
    assert_eq!(to_integer(MASKED | DOWN, -0.1), (0xffff_ffff, PRECISION));
    assert_eq!(to_integer(MASKED, -3.0), (0xffff_fffd, 0));
}

#[test]
fn conversion_that_does_not_fit_is_the_indefinite_integer() {
    assert_eq!(to_integer(MASKED, 2_147_483_648.0), (0x8000_0000, INVALID));
    assert_eq!(to_integer(MASKED, -2_147_483_648.0), (0x8000_0000, 0));
    assert_eq!(to_integer(MASKED, 2_147_483_647.5), (0x8000_0000, INVALID));
    assert_eq!(to_integer(MASKED, f64::NAN), (0x8000_0000, INVALID));
}

#[test]
fn cvtsi2ss_rounds_what_has_too_many_bits() {
    // cvtsi2ss xmm0, rax
    let mut bench = bench(&[[0; 4]]);
    bench.cpu.gpr[Cpu::RAX] = u64::MAX >> 1;
    bench.run(&[0xf3, 0x48, 0x0f, 0x2a, 0xc0]).unwrap();
    assert_eq!(register(&bench, 0)[0], 0x5f00_0000);
    assert_eq!(bench.cpu.vector.mxcsr & 0x3f, PRECISION);
}

#[test]
fn roundsd_by_its_immediate_can_keep_quiet() {
    // roundsd xmm0, xmm1, 0xa: upwards, inexactness not noted.
    let mut bench = bench(&[[0; 4], [(-0.5_f64).to_bits(), 0, 0, 0]]);
    bench.run(&[0x66, 0x0f, 0x3a, 0x0b, 0xc1, 0xa]).unwrap();
    assert_eq!(register(&bench, 0)[0], 1 << 63);
    assert_eq!(bench.cpu.vector.mxcsr, MASKED);
}

#[test]
fn vfmadd_rounds_once() {
    // vfmadd213sd xmm0, xmm1, xmm2: xmm1 * xmm0 + xmm2
    let a = 1.0 + f64::EPSILON;
    let mut bench = bench(&[a, a, -(a * a)].map(|number| [number.to_bits(), 0, 0, 0]));
    bench.run(&[0xc4, 0xe2, 0xf1, 0xa9, 0xc2]).unwrap();
    let result = f64::from_bits(register(&bench, 0)[0]);
    assert_eq!(result, f64::EPSILON * f64::EPSILON);
    assert_eq!(bench.cpu.vector.mxcsr, MASKED);
}

#[test]
fn vcvtps2ph_rounds_by_its_immediate() {
    // vcvtps2ph xmm0, xmm1, imm: 1 + 2^-11, halfway between two halves.
    let converted = |control: u8| {
        let mut bench = bench(&[[0; 4], [0x3f80_1000, 0, 0, 0]]);
        bench.run(&[0xc4, 0xe3, 0x79, 0x1d, 0xc8, control]).unwrap();
        register(&bench, 0)[0]
    };
    assert_eq!(converted(0), 0x3c00);
    assert_eq!(converted(2), 0x3c01);
}

#[test]
fn vcvtph2ps_knows_denormals_whatever_mxcsr_says() {
    // vcvtph2ps xmm0, xmm1
    let mut bench = bench(&[[0; 4], [1, 0, 0, 0]]);
    bench.cpu.vector.mxcsr = MASKED | DAZ;
    bench.run(&[0xc4, 0xe2, 0x79, 0x13, 0xc1]).unwrap();
    assert_eq!(f32::from_bits(register(&bench, 0)[0] as u32), 2_f32.powi(-24));
    assert_eq!(bench.cpu.vector.mxcsr & 0x3f, 0);
}

#[test]
fn rcpps_is_within_its_error_and_raises_nothing() {
    // rcpss xmm0, xmm1
    let mut bench = bench(&[[0; 4], [3_f32.to_bits().into(), 0, 0, 0]]);
    bench.run(&[0xf3, 0x0f, 0x53, 0xc1]).unwrap();
    let result = f32::from_bits(register(&bench, 0)[0] as u32);
    assert!((result * 3.0 - 1.0).abs() <= 1.5 / 4096.0);
    assert_eq!(bench.cpu.vector.mxcsr, MASKED);
}

#[test]
fn dpps_adds_chosen_products_and_stores_them_where_asked() {
    // dpps xmm0, xmm1, 0x72: products 0 to 2, to place 1.
    let pair = |low: f32, high: f32| u64::from(low.to_bits()) | u64::from(high.to_bits()) << 32;
    let mut bench = bench(&[
        [pair(1.0, 2.0), pair(3.0, 4.0), 0, 0],
        [pair(1.0, 10.0), pair(100.0, 1000.0), 0, 0],
    ]);
    bench.run(&[0x66, 0x0f, 0x3a, 0x40, 0xc1, 0x72]).unwrap();
    assert_eq!(register(&bench, 0), [pair(0.0, 321.0), 0, 0, 0]);
}
