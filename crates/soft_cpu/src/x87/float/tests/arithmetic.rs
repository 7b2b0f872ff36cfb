//! Addition to square root, remainders and scaling.

use proptest::prelude::*;
use rustc_apfloat::ieee::X87DoubleExtended;
use rustc_apfloat::{Float as _, Status, StatusAnd};

use super::super::{
    Context, Float, Outcome, Remainder, Round, add, compare, divide, extract, flag, multiply, remainder,
    scale, square_root, subtract,
};
use super::{
    INDEFINITE, INFINITY, LARGEST, ONE, SMALLEST, SMALLEST_NORMAL, THREE, TWO, float, nearest, rounding,
};

/// Numbers of every kind that IEEE 754 knows, with a liking for those that meet.
fn any_number() -> impl Strategy<Value = u128> {
    let exponent = prop_oneof![
        Just(0_u16),
        Just(1),
        Just(0x7ffe),
        0x3ff0_u16..0x4010,
        0_u16..0x7fff
    ];
    let significand = prop_oneof![Just(0_u64), Just(u64::MAX), any::<u64>()];
    (any::<bool>(), exponent, significand).prop_map(|(negative, exponent, significand)| {
        let integer = if exponent == 0 { 0 } else { 1 << 63 };
        let value = Float {
            negative,
            exponent,
            significand: significand & (u64::MAX >> 1) | integer,
        };
        value.to_bits()
    })
}

fn any_round() -> impl Strategy<Value = (Round, rustc_apfloat::Round)> {
    prop_oneof![
        Just((Round::Nearest, rustc_apfloat::Round::NearestTiesToEven)),
        Just((Round::Down, rustc_apfloat::Round::TowardNegative)),
        Just((Round::Up, rustc_apfloat::Round::TowardPositive)),
        Just((Round::Zero, rustc_apfloat::Round::TowardZero)),
    ]
}

/// The other implementation's flags as ours.
fn flags(status: Status) -> u16 {
    [
        (Status::INVALID_OP, flag::INVALID),
        (Status::DIV_BY_ZERO, flag::ZERO_DIVIDE),
        (Status::INEXACT, flag::PRECISION),
    ]
    .into_iter()
    .fold(0, |flags, (theirs, ours)| {
        flags | if status.contains(theirs) { ours } else { 0 }
    })
}

/// Value and flags. Overflow and underflow are left out: the other implementation reports an overflow only where the
/// result is infinite, and no underflow where it is rounded up to a normal number. All NaNs that come of numbers
/// are one.
fn theirs(result: StatusAnd<X87DoubleExtended>) -> (u128, u16) {
    let bits = if result.value.is_nan() {
        INDEFINITE
    } else {
        result.value.to_bits()
    };
    (bits, flags(result.status))
}

fn ours(outcome: Outcome) -> (u128, u16) {
    let compared = flag::INVALID | flag::ZERO_DIVIDE | flag::PRECISION;
    (outcome.value.to_bits(), outcome.flags & compared)
}

fn extended(bits: u128) -> X87DoubleExtended {
    X87DoubleExtended::from_bits(bits)
}

proptest! {
    #[test]
    fn add_agrees_with_another_implementation(
        a in any_number(), b in any_number(), (round, other) in any_round(),
    ) {
        let expected = extended(a).add_r(extended(b), other);
        prop_assert_eq!(ours(add(float(a), float(b), &rounding(round))), theirs(expected));
    }

    #[test]
    fn subtract_agrees_with_another_implementation(
        a in any_number(), b in any_number(), (round, other) in any_round(),
    ) {
        let expected = extended(a).sub_r(extended(b), other);
        prop_assert_eq!(ours(subtract(float(a), float(b), &rounding(round))), theirs(expected));
    }

    #[test]
    fn multiply_agrees_with_another_implementation(
        a in any_number(), b in any_number(), (round, other) in any_round(),
    ) {
        let expected = extended(a).mul_r(extended(b), other);
        prop_assert_eq!(ours(multiply(float(a), float(b), &rounding(round))), theirs(expected));
    }

    #[test]
    fn divide_agrees_with_another_implementation(
        a in any_number(), b in any_number(), (round, other) in any_round(),
    ) {
        let expected = extended(a).div_r(extended(b), other);
        prop_assert_eq!(ours(divide(float(a), float(b), &rounding(round))), theirs(expected));
    }

    #[test]
    fn square_root_of_an_exact_square_is_exact(root in 1_u64..1 << 32) {
        let number = |value: u64| super::super::convert::from_magnitude(false, value);

        prop_assert_eq!(square_root(number(root * root), &nearest()), Outcome::exact(number(root)));
    }

    #[test]
    fn remainder_is_what_is_left_of_small_integers(a in any::<i32>(), b in 1_i32..) {
        let number = |value: i32| super::super::from_integer(value.into());
        let outcome = remainder(number(a), number(b), Remainder::Truncated, &nearest());
        let quotient = (a / b).unsigned_abs();
        let codes = [(1, flag::C1), (2, flag::C3), (4, flag::C0)];
        let expected = codes.into_iter().fold(0, |all, (bit, code)| all | if quotient & bit != 0 { code } else { 0 });

        prop_assert_eq!(outcome.value.with_sign(false), number((a % b).abs()));
        prop_assert_eq!(outcome.flags, expected);
    }
}

/// 1/3 with a control word's precision.
fn third(control: u16) -> u128 {
    divide(float(ONE), float(THREE), &Context::of(control))
        .value
        .to_bits()
}

#[test]
fn divide_obeys_precision_control() {
    assert_eq!(third(0x37f), 0x3ffd_aaaa_aaaa_aaaa_aaab);
    assert_eq!(third(0x27f), 0x3ffd_aaaa_aaaa_aaaa_a800);
    assert_eq!(third(0x07f), 0x3ffd_aaaa_ab00_0000_0000);
    assert_eq!(third(0x17f), 0x3ffd_aaaa_aaaa_aaaa_aaab);
}

#[test]
fn divide_obeys_rounding_control_and_tells_of_it() {
    let up = |round| {
        let outcome = divide(float(ONE), float(THREE), &rounding(round));
        (outcome.value.significand as u8, outcome.flags)
    };

    assert_eq!(up(Round::Nearest), (0xab, flag::PRECISION | flag::C1));
    assert_eq!(up(Round::Up), (0xab, flag::PRECISION | flag::C1));
    assert_eq!(up(Round::Down), (0xaa, flag::PRECISION));
    assert_eq!(up(Round::Zero), (0xaa, flag::PRECISION));
}

#[test]
fn divide_by_zero_comes_before_a_denormal_dividend() {
    let outcome = divide(float(SMALLEST), Float::ZERO, &nearest());

    assert_eq!(
        (outcome.value, outcome.flags),
        (Float::INFINITY, flag::ZERO_DIVIDE)
    );
}

#[test]
fn multiply_unmasked_overflow_moves_the_exponent() {
    let context = Context::of(0x37f & !flag::OVERFLOW);

    let outcome = multiply(float(LARGEST), float(TWO), &context);

    let exponent = 0x7fff - 24576;
    assert_eq!(outcome.value, Float::positive(exponent, u64::MAX));
    assert_eq!(outcome.flags, flag::OVERFLOW);
}

#[test]
fn multiply_unmasked_underflow_moves_the_exponent() {
    let context = Context::of(0x37f & !flag::UNDERFLOW);
    let half = Float::positive(0x3ffe, 1 << 63);

    let outcome = multiply(float(SMALLEST_NORMAL), half, &context);

    assert_eq!(outcome.value, Float::positive(24576, 1 << 63));
    assert_eq!(outcome.flags, flag::UNDERFLOW);
}

#[test]
fn multiply_tiny_exact_product_is_no_masked_underflow() {
    let half = Float::positive(0x3ffe, 1 << 63);

    let outcome = multiply(float(SMALLEST_NORMAL), half, &nearest());

    assert_eq!(outcome, Outcome::exact(Float::positive(0, 1 << 62)));
}

#[test]
fn multiply_tiny_product_rounded_up_to_a_normal_number_is_an_underflow() {
    let half = Float::positive(0x3ffe, 1 << 63);
    let below_two = Float::positive(1, u64::MAX);

    let outcome = multiply(below_two, half, &nearest());

    assert_eq!(outcome.value, float(SMALLEST_NORMAL));
    assert_eq!(outcome.flags, flag::UNDERFLOW | flag::PRECISION | flag::C1);
}

#[test]
fn add_unmasked_denormal_operand_computes_nothing() {
    let context = Context::of(0x37f & !flag::DENORMAL);

    assert_eq!(add(float(SMALLEST), float(ONE), &context).flags, flag::DENORMAL);
}

#[test]
fn add_of_nans_gives_the_larger_significand() {
    let sum = |a, b| {
        let outcome = add(float(a), float(b), &nearest());
        (outcome.value.to_bits(), outcome.flags)
    };
    let (small, large) = (0x7fff_c000_0000_0000_0001, 0xffff_c000_0000_0000_0002);
    let signaling = 0x7fff_9000_0000_0000_0000;

    assert_eq!(sum(small, large), (large, 0));
    assert_eq!(sum(large, small), (large, 0));
    // Of a signaling and a quiet one the quiet one, of a signaling one and a number itself, quieted.
    assert_eq!(sum(signaling, small), (small, flag::INVALID));
    assert_eq!(sum(ONE, signaling), (signaling | 1 << 62, flag::INVALID));
}

#[test]
fn add_of_what_is_no_number_is_invalid() {
    let unnormal = 0x3fff_0000_0000_0000_0001;

    assert_eq!(add(float(unnormal), float(ONE), &nearest()), Outcome::invalid());
    assert_eq!(
        subtract(float(INFINITY), float(INFINITY), &nearest()),
        Outcome::invalid()
    );
}

#[test]
fn square_root_of_two_is_rounded_to_nearest() {
    let outcome = square_root(float(TWO), &nearest());

    assert_eq!(outcome.value.to_bits(), 0x3fff_b504_f333_f9de_6484);
    assert_eq!(outcome.flags, flag::PRECISION);
}

#[test]
fn square_root_of_a_negative_number_is_invalid_but_for_zero() {
    assert_eq!(
        square_root(Float::ONE.with_sign(true), &nearest()),
        Outcome::invalid()
    );
    let zero = Float::ZERO.with_sign(true);
    assert_eq!(square_root(zero, &nearest()), Outcome::exact(zero));
}

#[test]
fn compare_orders_numbers_and_tells_of_those_without_order() {
    let codes = |a, b, signals| compare(float(a), float(b), signals, &nearest());
    let unordered = flag::C3 | flag::C2 | flag::C0;

    assert_eq!(codes(ONE, TWO, true), flag::C0);
    assert_eq!(codes(TWO, ONE, true), 0);
    assert_eq!(codes(0, 0x8000 << 64, true), flag::C3);
    assert_eq!(codes(ONE, INDEFINITE, true), unordered | flag::INVALID);
    assert_eq!(codes(ONE, INDEFINITE, false), unordered);
}

#[test]
fn remainder_nearest_rounds_the_quotient_to_even() {
    let number = super::super::from_integer;
    let left = |a, b| remainder(number(a), number(b), Remainder::Nearest, &nearest()).value;

    assert_eq!(left(5, 3), number(-1));
    assert_eq!(left(3, 2), number(-1));
    assert_eq!(left(5, 2), number(1));
    assert_eq!(left(1, 4), number(1));
}

#[test]
fn remainder_of_far_exponents_takes_more_steps() {
    let far = Float::positive(0x3fff + 100, 1 << 63);

    let outcome = remainder(far, float(THREE), Remainder::Truncated, &nearest());

    assert_eq!(outcome.flags, flag::C2);
    // 2^100 less a multiple of 3 * 2^n, with the exponents 99 apart before and 64 at most after.
    assert!(outcome.value.exponent < far.exponent - 32);
}

#[test]
fn scale_by_more_than_exponents_have_overflows() {
    let far = super::super::from_integer(1 << 40);

    let outcome = scale(Float::ONE, far, &nearest());

    assert_eq!(outcome.value, Float::INFINITY);
    assert_eq!(outcome.flags, flag::OVERFLOW | flag::PRECISION | flag::C1);
}

#[test]
fn scale_truncates_its_second_operand() {
    let minus_one_and_a_half = Float::positive(0x3fff, 3 << 62).with_sign(true);

    assert_eq!(
        scale(float(TWO), minus_one_and_a_half, &nearest()).value,
        Float::ONE
    );
}

#[test]
fn extract_takes_a_denormal_apart() {
    let (exponent, significand) = extract(float(SMALLEST), &nearest());

    assert_eq!(exponent.value, super::super::from_integer(-16445));
    assert_eq!(exponent.flags, flag::DENORMAL);
    assert_eq!(significand, Float::ONE);
}

#[test]
fn extract_of_zero_divides_by_zero() {
    let (exponent, significand) = extract(Float::ZERO, &nearest());

    assert_eq!(exponent.value, Float::INFINITY.with_sign(true));
    assert_eq!(exponent.flags, flag::ZERO_DIVIDE);
    assert_eq!(significand, Float::ZERO);
}
