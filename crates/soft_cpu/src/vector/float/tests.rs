//! Against the arithmetic of the host, which rounds to nearest.

use proptest::prelude::*;

use super::arithmetic::{add_slowly, divide_slowly, multiply_slowly, square_root_slowly};
use super::*;

/// MXCSR with every exception masked; and with the flag of inexact results set, which lets the host compute.
const MASKED: u32 = 0x1f80;
const SETTLED: u32 = MASKED | flag::PRECISION;

/// Numbers whose exponents are near each other, anywhere, or at the ends.
fn numbers() -> impl Strategy<Value = f64> {
    prop_oneof![
        any::<u64>().prop_map(f64::from_bits),
        (-40..40_i32, any::<u64>()).prop_map(|(exponent, fraction)| f64::from_bits(
            ((1023 + exponent) as u64) << 52 | fraction >> 12
        )),
        (-100..100_i32).prop_map(f64::from),
        any::<u64>().prop_map(|bits| f64::from_bits(bits & 0x801f_ffff_ffff_ffff)),
        Just(f64::MAX),
        Just(f64::INFINITY),
        Just(f64::MIN_POSITIVE),
    ]
}

/// The same number, where NaNs are all alike.
fn same(bits: u64, number: f64) -> bool {
    is_nan::<Double>(bits) && number.is_nan() || bits == number.to_bits()
}

fn same_single(bits: u64, number: f32) -> bool {
    is_nan::<Single>(bits) && number.is_nan() || bits == u64::from(number.to_bits())
}

proptest! {
    #[test]
    fn doubles_are_what_the_host_computes(a in numbers(), b in numbers()) {
        let mut environment = Environment::of(MASKED);
        let (x, y) = (a.to_bits(), b.to_bits());
        prop_assert!(same(add_slowly::<Double>(&mut environment, x, y), a + b));
        prop_assert!(same(multiply_slowly::<Double>(&mut environment, x, y), a * b));
        prop_assert!(same(divide_slowly::<Double>(&mut environment, x, y), a / b));
        prop_assert!(same(square_root_slowly::<Double>(&mut environment, x), a.sqrt()));
    }

    #[test]
    fn singles_are_what_the_host_computes(a in any::<u32>(), b in any::<u32>()) {
        let mut environment = Environment::of(MASKED);
        let (x, y) = (f32::from_bits(a), f32::from_bits(b));
        let (a, b) = (u64::from(a), u64::from(b));
        prop_assert!(same_single(add_slowly::<Single>(&mut environment, a, b), x + y));
        prop_assert!(same_single(multiply_slowly::<Single>(&mut environment, a, b), x * y));
        prop_assert!(same_single(divide_slowly::<Single>(&mut environment, a, b), x / y));
        prop_assert!(same_single(square_root_slowly::<Single>(&mut environment, a), x.sqrt()));
    }

    #[test]
    fn fused_operations_are_what_the_host_computes(a in numbers(), b in numbers(), c in numbers()) {
        let operands = [a, b, c].map(f64::to_bits);
        let result = multiply_add::<Double>(&mut Environment::of(MASKED), operands, operands);
        prop_assert!(same(result, a.mul_add(b, c)));
    }

    #[test]
    fn conversions_are_what_the_host_computes(a in numbers(), integer in any::<i64>()) {
        let mut environment = Environment::of(MASKED);
        prop_assert!(same_single(convert::<Double, Single>(&mut environment, a.to_bits()), a as f32));
        prop_assert!(same(from_integer::<Double>(&mut environment, integer), integer as f64));
        prop_assert!(same_single(from_integer::<Single>(&mut environment, integer), integer as f32));
        let rounded = round_to_integral::<Double>(&mut environment, a.to_bits(), Rounding::Nearest, true);
        prop_assert!(same(rounded, a.round_ties_even()));
        let floor = round_to_integral::<Double>(&mut environment, a.to_bits(), Rounding::Down, true);
        prop_assert!(same(floor, a.floor()));
    }

    #[test]
    fn rounding_up_and_down_enclose_the_nearest(a in numbers(), b in numbers()) {
        prop_assume!(a.is_finite() && b.is_finite() && (a * b).is_finite());
        let in_mode = |mode: u32| {
            let mut environment = Environment::of(MASKED | mode << 13);
            let bits = multiply::<Double>(&mut environment, a.to_bits(), b.to_bits());
            (f64::from_bits(bits), environment.outcome().0 & flag::PRECISION != 0)
        };
        let ((nearest, inexact), (down, _), (up, _)) = (in_mode(0), in_mode(1), in_mode(2));
        prop_assert!(down <= nearest && nearest <= up);
        prop_assert_eq!(down.to_bits() != up.to_bits(), inexact);
    }

    #[test]
    fn the_short_way_raises_no_flag_that_the_long_one_does_not(a in numbers(), b in numbers()) {
        type Operation = fn(&mut Environment, u64, u64) -> u64;
        const WAYS: [(Operation, Operation); 3] = [
            (add::<Double>, add_slowly::<Double>),
            (multiply::<Double>, multiply_slowly::<Double>),
            (divide::<Double>, divide_slowly::<Double>),
        ];
        for mxcsr in [MASKED, SETTLED] {
            for (short, long) in WAYS {
                let outcome = |operation: Operation| {
                    let mut environment = Environment::of(mxcsr);
                    let result = operation(&mut environment, a.to_bits(), b.to_bits());
                    (result, environment.outcome().0 | mxcsr & flag::PRECISION)
                };
                prop_assert_eq!(outcome(short), outcome(long));
            }
        }
    }
}
