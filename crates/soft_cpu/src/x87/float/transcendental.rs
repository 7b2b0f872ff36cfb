//! Transcendental functions (Intel SDM vol. 1, 8.3.7 to 8.3.10): within far less than a unit in the last place of
//! the exact result, so rounded as it is but for cases that nobody will meet.

use super::arithmetic::{multiply, settle};
use super::convert::from_integer;
use super::wide::{FIXED_ONE, Wide, alternating, increasing};
use super::{Class, Context, Float, Outcome, Parts, check, check_both, denormals, flag};

/// Half of pi as the x87 knows it, times `2^65`: 66 bits of pi (Intel SDM vol. 1, 8.3.8).
const HALF_PI_66: u128 = 0x3_243f_6a88_85a3_08d3;

/// A trigonometric argument: `angle`, at most a quarter of pi away from a multiple of half of pi.
struct Reduced {
    quadrant: u8,
    angle: Wide,
}

/// Divides by half of pi, exactly.
fn reduce(a: Parts) -> Reduced {
    if a.exponent < -1 {
        return Reduced {
            quadrant: 0,
            angle: Wide {
                negative: a.negative,
                exponent: a.exponent,
                significand: u128::from(a.significand) << 64,
            },
        };
    }
    let scaled = u128::from(a.significand) << (a.exponent + 2);
    let (mut quotient, mut rest) = (scaled / HALF_PI_66, scaled % HALF_PI_66);
    let mut negative = a.negative;
    if 2 * rest > HALF_PI_66 {
        (quotient, rest, negative) = (quotient + 1, HALF_PI_66 - rest, !negative);
    }
    let turns = quotient as u8;
    Reduced {
        quadrant: if a.negative { turns.wrapping_neg() } else { turns } & 3,
        angle: Wide::new(negative, 127 - 65, rest),
    }
}

/// Coefficients of series, as fixed-point numbers: reciprocals of `first`, and of each multiplied by the product of
/// the `step` numbers that follow.
const fn reciprocal_factorials<const N: usize>(first: u128, step: u128) -> [u128; N] {
    let mut coefficients = [FIXED_ONE; N];
    let (mut index, mut number) = (1, first);
    while index < N {
        coefficients[index] = coefficients[index - 1];
        let end = number + step;
        while number < end {
            number += 1;
            coefficients[index] /= number;
        }
        index += 1;
    }
    coefficients
}

/// Reciprocals of odd numbers.
const fn reciprocals_of_odd<const N: usize>() -> [u128; N] {
    let mut coefficients = [FIXED_ONE; N];
    let mut index = 1;
    while index < N {
        coefficients[index] /= 2 * index as u128 + 1;
        index += 1;
    }
    coefficients
}

/// As many as 126 bits have a use for.
const SINE: [u128; 17] = reciprocal_factorials(1, 2);
const COSINE: [u128; 18] = reciprocal_factorials(0, 2);
const EXPONENTIAL: [u128; 33] = reciprocal_factorials(1, 1);
const ARCTANGENT: [u128; 17] = reciprocals_of_odd();
const LOGARITHM: [u128; 27] = reciprocals_of_odd();

/// Sine of at most a quarter of pi: `x * (1 - x^2 / 3! + x^4 / 5! ...)`.
fn small_sine(angle: Wide) -> Wide {
    if angle.is_zero() {
        return angle;
    }
    // One unit less, because the result is never exact.
    let factor = alternating(angle.squared().to_fixed(), &SINE);
    angle.times(Wide::of_fixed(factor - 1))
}

/// Cosine of at most a quarter of pi: `1 - x^2 / 2! + x^4 / 4! ...`.
fn small_cosine(angle: Wide) -> Wide {
    Wide::of_fixed(alternating(angle.squared().to_fixed(), &COSINE) - 1)
}

/// Whether an argument is beyond what is reduced: the instruction sets C2 and does nothing.
fn out_of_range(a: Float) -> bool {
    a.class() == Class::Normal && a.parts().exponent >= 63
}

pub(in super::super) fn sine(a: Float, context: &Context) -> Option<Outcome> {
    trigonometric(a, context, Float::zero(a.negative), |reduced| {
        match reduced.quadrant {
            0 => small_sine(reduced.angle),
            1 => small_cosine(reduced.angle),
            2 => small_sine(reduced.angle).negated(),
            _ => small_cosine(reduced.angle).negated(),
        }
    })
}

pub(in super::super) fn cosine(a: Float, context: &Context) -> Option<Outcome> {
    trigonometric(a, context, Float::ONE, |reduced| match reduced.quadrant {
        0 => small_cosine(reduced.angle),
        1 => small_sine(reduced.angle).negated(),
        2 => small_cosine(reduced.angle).negated(),
        _ => small_sine(reduced.angle),
    })
}

pub(in super::super) fn tangent(a: Float, context: &Context) -> Option<Outcome> {
    trigonometric(a, context, Float::zero(a.negative), |reduced| {
        let (sine, cosine) = (small_sine(reduced.angle), small_cosine(reduced.angle));
        match reduced.quadrant {
            // A little more than the angle.
            0 | 2 if reduced.angle.exponent < -64 => reduced.angle,
            0 | 2 => sine.over(cosine),
            _ => cosine.over(sine).negated(),
        }
    })
}

fn trigonometric(
    a: Float,
    context: &Context,
    of_zero: Float,
    compute: impl FnOnce(Reduced) -> Wide,
) -> Option<Outcome> {
    if out_of_range(a) {
        return None;
    }
    Some(match (a.class(), check(a, context)) {
        (Class::Zero, _) => Outcome::exact(of_zero),
        (Class::Infinity, _) => Outcome::invalid(),
        (_, Err(outcome)) => outcome,
        (_, Ok(flags)) => compute(reduce(a.parts())).outcome(context).with(flags),
    })
}

/// Arctangents of eighths, from one to eight.
const ARCTANGENTS: [Wide; 8] = [
    Wide::constant(-4, 0xfead_d4d5_617b_6e32_c897_989f_3e88_8ef7),
    Wide::constant(-3, 0xfadb_afc9_6406_eb15_6dc7_9ef5_f7a2_17e5),
    Wide::constant(-2, 0xb7b0_ca0f_26f7_8473_8aa3_2122_dcfe_4483),
    Wide::constant(-2, 0xed63_382b_0dda_7b45_6fe4_45ec_bc3a_8d03),
    Wide::constant(-1, 0x8f00_5d5e_f7f5_9f9b_5c83_5e16_65c4_3747),
    Wide::constant(-1, 0xa4bc_7d19_34f7_0924_19a8_7f2a_457d_ac9e),
    Wide::constant(-1, 0xb805_3e2b_c231_9e73_cb2d_a552_10a4_443d),
    Wide::constant(-1, 0xc90f_daa2_2168_c234_c4c6_628b_80dc_1cd1),
];

/// Arctangent of a ratio of at most one.
fn small_arctangent(ratio: Wide) -> Wide {
    // The nearest eighth, and the arctangent of what is left: atan t = atan c + atan((t - c) / (1 + t c)).
    let eighths = (ratio.to_fixed() + (FIXED_ONE >> 4)) >> 123;
    let near = eighths
        .checked_sub(1)
        .and_then(|index| ARCTANGENTS.get(index as usize));
    let Some(near) = near else {
        return arctangent_series(ratio);
    };
    let eighth = Wide::new(false, 127 - 3, eighths);
    let rest = ratio
        .plus(eighth.negated())
        .over(Wide::ONE.plus(ratio.times(eighth)));
    if rest.is_zero() {
        *near
    } else {
        near.plus(arctangent_series(rest))
    }
}

/// `x - x^3 / 3 + x^5 / 5 ...` for at most a sixteenth.
fn arctangent_series(x: Wide) -> Wide {
    let factor = alternating(x.squared().to_fixed(), &ARCTANGENT);
    x.times(Wide::of_fixed(factor - 1))
}

/// The angle of the point (`x`, `y`) (Intel SDM vol. 2A, FPATAN).
pub(in super::super) fn arctangent(y: Float, x: Float, context: &Context) -> Outcome {
    settle!(check_both(y, x));
    let flags = settle!(denormals(&[y, x], context));
    let quarter = |eighths: i32| {
        Wide::PI
            .times(Wide::integer(eighths))
            .times(Wide::constant(-2, 1 << 127))
    };
    let angle = match (y.class(), x.class()) {
        (Class::Zero, _) if !x.negative => return Outcome::exact(Float::zero(y.negative)).with(flags),
        (Class::Zero, _) => Wide::PI,
        (Class::Infinity, Class::Infinity) if x.negative => quarter(3),
        (Class::Infinity, Class::Infinity) => quarter(1),
        (_, Class::Infinity) if x.negative => Wide::PI,
        (_, Class::Infinity) => return Outcome::exact(Float::zero(y.negative)).with(flags),
        (Class::Infinity, _) | (_, Class::Zero) => Wide::HALF_PI,
        _ => angle(Wide::of(y).with_sign(false), Wide::of(x)),
    };
    angle.with_sign(y.negative).outcome(context).with(flags)
}

/// The angle of a point above the axis.
fn angle(y: Wide, x: Wide) -> Wide {
    let run = x.with_sign(false);
    let steep = (y.exponent, y.significand) > (run.exponent, run.significand);
    match (steep, x.negative) {
        (false, false) => small_arctangent(y.over(run)),
        (false, true) => Wide::PI.plus(small_arctangent(y.over(run)).negated()),
        (true, false) => Wide::HALF_PI.plus(small_arctangent(run.over(y)).negated()),
        (true, true) => Wide::HALF_PI.plus(small_arctangent(run.over(y))),
    }
}

const MINUS_HALF: Float = Float::positive(Float::ONE.exponent - 1, Float::ONE.significand).with_sign(true);

/// `2^a - 1` for an `a` from -1 to 1; beyond that it is undefined, and AMD's processors give back `a`.
pub(in super::super) fn exponential(a: Float, context: &Context) -> Outcome {
    match a.class() {
        Class::Zero => return Outcome::exact(a),
        Class::Infinity if a.negative => return Outcome::exact(Float::ONE.with_sign(true)),
        Class::Infinity => return Outcome::exact(a),
        _ => {}
    }
    let flags = settle!(check(a, context));
    let parts = a.parts();
    if parts.exponent >= 0 {
        let one = a.with_sign(false) == Float::ONE;
        return match (one, a.negative) {
            // Exact, but computed: a little less than 1.
            (true, false) => Wide::constant(-1, u128::MAX).outcome(context),
            (true, true) => Outcome::exact(MINUS_HALF).with(flag::PRECISION),
            (false, _) => Outcome::exact(a).with(flag::PRECISION),
        };
    }
    let x = Wide::of(a).times(Wide::LN_2);
    // x * (1 + x / 2! + x^2 / 3! ...).
    let factor = if a.negative {
        alternating(x.to_fixed(), &EXPONENTIAL)
    } else {
        increasing(x.to_fixed(), &EXPONENTIAL)
    };
    x.times(Wide::of_fixed(factor)).outcome(context).with(flags)
}

/// Logarithm to base 2 of a positive number.
fn base_2(x: Wide) -> Wide {
    const ROOT_2: u128 = 0xb504_f333_f9de_6484_597d_89b3_754a_be9f;
    // A power of two times a number around one.
    let halve = x.significand > ROOT_2;
    let whole = x.exponent + i32::from(halve);
    let near_one = Wide::constant(-i32::from(halve), x.significand);
    let rest = near_one.plus(Wide::ONE.negated());
    if rest.is_zero() {
        return Wide::integer(whole);
    }
    Wide::integer(whole).plus(base_2_near_one(rest.over(near_one.plus(Wide::ONE))))
}

/// Logarithm to base 2 of `(1 + s) / (1 - s)`: `2 / ln 2 * (s + s^3 / 3 + s^5 / 5 ...)` for at most 0.18.
fn base_2_near_one(s: Wide) -> Wide {
    let factor = increasing(s.squared().to_fixed(), &LOGARITHM);
    s.times(Wide::of_fixed(factor)).times(Wide::TWO_LOG2_E)
}

/// `y * log2(x)` of finite numbers that are not zero.
fn times_base_2(x: Wide, y: Float, context: &Context) -> Outcome {
    if x.significand != Wide::ONE.significand {
        return base_2(x).times(Wide::of(y)).outcome(context);
    }
    // The logarithm is an integer. Processors call the product inexact, even where it is not.
    let product = multiply(y, from_integer(x.exponent.into()), context);
    let tiny = if product.value.exponent == 0 {
        flag::UNDERFLOW
    } else {
        0
    };
    product.with(flag::PRECISION | tiny)
}

/// `y * log2(x)`.
pub(in super::super) fn logarithm(x: Float, y: Float, context: &Context) -> Outcome {
    settle!(check_both(y, x));
    if x.negative && x.class() != Class::Zero {
        return Outcome::invalid();
    }
    let of_one = x == Float::ONE;
    match (x.class(), y.class()) {
        (Class::Zero, Class::Zero) | (Class::Infinity, Class::Zero) => return Outcome::invalid(),
        (_, Class::Infinity) if of_one => return Outcome::invalid(),
        _ => {}
    }
    let grows = x.exponent >= Float::ONE.exponent;
    let negative = y.negative ^ !grows;
    if x.class() == Class::Zero && y.class() != Class::Infinity {
        // That comes before a denormal factor.
        return Outcome::exact(Float::infinity(negative)).with(flag::ZERO_DIVIDE);
    }
    let flags = settle!(denormals(&[y, x], context));
    let outcome = match (x.class(), y.class()) {
        (Class::Zero, Class::Infinity) | (Class::Infinity, _) | (_, Class::Infinity) => {
            Outcome::exact(Float::infinity(negative))
        }
        (_, Class::Zero) => Outcome::exact(Float::zero(negative)),
        _ if of_one => Outcome::exact(Float::zero(y.negative)),
        _ => times_base_2(Wide::of(x), y, context),
    };
    outcome.with(flags)
}

/// `y * log2(x + 1)`.
pub(in super::super) fn logarithm_plus_one(x: Float, y: Float, context: &Context) -> Outcome {
    settle!(check_both(y, x));
    let negative = x.negative ^ y.negative;
    match (x.class(), y.class()) {
        (Class::Infinity, _) if x.negative => return Outcome::invalid(),
        (Class::Zero, Class::Infinity) | (Class::Infinity, Class::Zero) => return Outcome::invalid(),
        _ => {}
    }
    let flags = settle!(denormals(&[y, x], context));
    let outcome = match (x.class(), y.class()) {
        (Class::Infinity, _) | (_, Class::Infinity) => Outcome::exact(Float::infinity(negative)),
        (Class::Zero, _) | (_, Class::Zero) => Outcome::exact(Float::zero(negative)),
        // Near zero from `x` itself, of which `x + 1` would not hold all bits.
        _ if x.exponent < Float::ONE.exponent - 2 => {
            let x = Wide::of(x);
            let s = x.over(x.plus(Wide::integer(2)));
            base_2_near_one(s).times(Wide::of(y)).outcome(context)
        }
        _ => {
            let sum = Wide::of(x).plus(Wide::ONE);
            if sum.negative || sum.is_zero() {
                // Undefined; this is what AMD's processors do.
                Outcome::exact(x).with(flag::PRECISION)
            } else {
                times_base_2(sum, y, context)
            }
        }
    };
    outcome.with(flags)
}
