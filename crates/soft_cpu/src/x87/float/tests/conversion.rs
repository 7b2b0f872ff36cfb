//! Other formats.

use proptest::prelude::*;

use super::super::{
    Context, Float, Outcome, Round, Width, flag, from_decimal, from_integer, from_memory, round_to_integral,
    to_decimal, to_integer, to_memory,
};
use super::{INDEFINITE, float, nearest};

/// What this host makes of a `f64` that becomes a `f32`.
fn narrowed(value: f64) -> u64 {
    (value as f32).to_bits().into()
}

proptest! {
    #[test]
    fn double_through_a_register_is_itself(bits in any::<u64>()) {
        let (value, _) = from_memory(bits, Width::Double);
        let quiet = if f64::from_bits(bits).is_nan() { 1 << 51 } else { 0 };

        prop_assert_eq!(to_memory(value, Width::Double, &nearest()).0, bits | quiet);
    }

    #[test]
    fn double_to_single_is_what_hosts_make_of_it(value in any::<f64>()) {
        let (wide, _) = from_memory(value.to_bits(), Width::Double);

        prop_assert_eq!(to_memory(wide, Width::Single, &nearest()).0, narrowed(value));
    }

    #[test]
    fn integer_through_a_register_is_itself(value in any::<i64>()) {
        prop_assert_eq!(to_integer(from_integer(value), 64, Round::Nearest), (value, 0));
    }

    #[test]
    fn decimal_through_a_register_is_itself(magnitude in 0_i64..1_000_000_000_000_000_000, negative: bool) {
        let value = from_integer(magnitude).with_sign(negative);
        let (bytes, flags) = to_decimal(value, &nearest());

        prop_assert_eq!(flags, 0);
        prop_assert_eq!(from_decimal(bytes), value);
    }
}

#[test]
fn from_memory_tells_of_a_denormal_and_normalizes_it() {
    assert_eq!(
        from_memory(1, Width::Single),
        (Float::positive(0x3fff - 149, 1 << 63), true)
    );
    assert_eq!(from_memory(0x3f80_0000, Width::Single), (Float::ONE, false));
}

#[test]
fn from_memory_keeps_a_signaling_nan() {
    let (value, _) = from_memory(0x7f80_0001, Width::Single);

    assert_eq!(value.to_bits(), 0x7fff_8000_0100_0000_0000);
}

#[test]
fn to_memory_overflow_gives_infinity_or_the_largest_number() {
    let large = Float::positive(0x3fff + 128, 1 << 63);
    let stored = |round| {
        let context = Context { round, ..nearest() };
        to_memory(large, Width::Single, &context)
    };
    let flags = flag::OVERFLOW | flag::PRECISION;

    assert_eq!(stored(Round::Nearest), (0x7f80_0000, flags | flag::C1));
    assert_eq!(stored(Round::Zero), (0x7f7f_ffff, flags));
    assert_eq!(stored(Round::Down), (0x7f7f_ffff, flags));
    assert_eq!(stored(Round::Up), (0x7f80_0000, flags | flag::C1));
}

#[test]
fn to_memory_tiny_number_becomes_denormal() {
    // 1.5 times the smallest single: halfway, to even.
    let tiny = Float::positive(0x3fff - 149, 3 << 62);
    let flags = flag::UNDERFLOW | flag::PRECISION | flag::C1;

    assert_eq!(to_memory(tiny, Width::Single, &nearest()), (2, flags));
}

#[test]
fn to_integer_rounds_as_told() {
    let two_and_a_half = Float::positive(0x4000, 5 << 61);
    let rounded = |value, round| to_integer(value, 32, round);

    assert_eq!(rounded(two_and_a_half, Round::Nearest), (2, flag::PRECISION));
    assert_eq!(
        rounded(two_and_a_half, Round::Up),
        (3, flag::PRECISION | flag::C1)
    );
    let negative = two_and_a_half.with_sign(true);
    assert_eq!(rounded(negative, Round::Down), (-3, flag::PRECISION | flag::C1));
    assert_eq!(rounded(negative, Round::Zero), (-2, flag::PRECISION));
}

#[test]
fn to_integer_out_of_range_is_invalid() {
    let limit = from_integer(0x8000);

    assert_eq!(to_integer(limit, 16, Round::Nearest), (-0x8000, flag::INVALID));
    assert_eq!(
        to_integer(limit.with_sign(true), 16, Round::Nearest),
        (-0x8000, 0)
    );
    assert_eq!(
        to_integer(float(INDEFINITE), 64, Round::Nearest),
        (i64::MIN, flag::INVALID)
    );
    assert_eq!(
        to_integer(Float::INFINITY, 32, Round::Nearest),
        (i32::MIN.into(), flag::INVALID)
    );
}

#[test]
fn to_decimal_of_too_much_is_indefinite() {
    let (bytes, flags) = to_decimal(from_integer(1_000_000_000_000_000_000), &nearest());

    assert_eq!((bytes, flags), (0xffff_c000_0000_0000_0000, flag::INVALID));
}

#[test]
fn to_decimal_has_a_digit_in_four_bits() {
    let (bytes, _) = to_decimal(from_integer(-1_234_567_890), &nearest());

    assert_eq!(bytes, 0x8000_0000_0012_3456_7890);
}

#[test]
fn round_to_integral_keeps_signs_and_large_numbers() {
    let rounded = |value| round_to_integral(value, &nearest());
    let minus_a_quarter = Float::positive(0x3ffd, 1 << 63).with_sign(true);
    let large = Float::positive(0x3fff + 63, u64::MAX);

    assert_eq!(rounded(minus_a_quarter).value, Float::ZERO.with_sign(true));
    assert_eq!(rounded(large), Outcome::exact(large));
    let almost_two_to_the_63rd = Float::positive(0x3fff + 62, u64::MAX);
    assert_eq!(
        rounded(almost_two_to_the_63rd).value,
        Float::positive(0x3fff + 63, 1 << 63)
    );
}
