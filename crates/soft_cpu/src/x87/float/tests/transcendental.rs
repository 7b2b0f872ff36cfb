//! Transcendental functions. What is expected was computed with 400 bits and rounded to nearest; trigonometric
//! arguments were reduced by pi with 66 bits, as the x87 does.

use super::super::{
    Float, Outcome, Round, arctangent, cosine, exponential, flag, logarithm, logarithm_plus_one, sine,
    tangent,
};
use super::{INFINITY, ONE, float, nearest, rounding};

/// Argument and result.
type Unary = (u128, u128);
/// `x`, `y` and result.
type Binary = (u128, u128, u128);

const SINES: [Unary; 6] = [
    (0xbf26_a6a3_a450_6513_270e, 0xbf26_a6a3_a450_6513_270e),
    (0xbfff_dd9d_c9f8_1818_e811, 0xbffe_fcb4_d83f_6da9_3b31),
    (0x4002_8999_50d8_36f6_75cc, 0x3ffe_bc04_88cc_cfe8_7098),
    (0xc01d_bd9c_1724_11e2_0b8f, 0x3ffb_94e6_f0f1_fad0_3f39),
    (0xc00d_d3ac_94af_0f21_ddb6, 0xbffe_ee2b_1cdf_35c4_5e83),
    (0x403d_a09f_76b5_a170_b338, 0xbffe_ff30_5b70_c371_6720),
];
const COSINES: [Unary; 6] = [
    (0x3f0f_95e6_0af5_93bd_04cf, 0x3fff_8000_0000_0000_0000),
    (0xbffc_8e81_973e_0bec_d7b0, 0x3ffe_fd86_65de_8db5_5f2c),
    (0x4000_a4ed_e6a4_6b4c_b242, 0xbffe_d845_f5bb_c8f8_6b1e),
    (0x4027_8f6d_0558_4ef8_aa38, 0xbffe_9874_b087_613d_9eb6),
    (0x4005_94e3_bf91_1a61_dbe2, 0x3ffe_9433_914f_4588_80ce),
    (0x403d_98f1_35d2_5f55_7203, 0xbffe_d475_e6af_619a_ec55),
];
const TANGENTS: [Unary; 6] = [
    (0x3f10_8f42_05b4_907a_70c3, 0x3f10_8f42_05b4_907a_70c3),
    (0x3ffe_881e_d162_ae2e_b154, 0x3ffe_9696_4040_0b94_0a04),
    (0xc000_95e7_61d1_7731_af10, 0x3fff_839f_05e6_222b_7efb),
    (0x401a_bf98_e277_4cbd_87ad, 0x3ffc_9dd2_bac7_d5f7_74b1),
    (0x4007_930d_6eaf_14f4_733f, 0xc000_a6f8_9e9a_6c59_38e8),
    (0xc03d_d7ee_05cd_e009_02c7, 0xbffe_a4b3_cfc4_aad4_8673),
];
const EXPONENTIALS: [Unary; 5] = [
    (0x3f49_faec_bd38_9be4_bcfc, 0x3f49_aded_83be_940f_dd51),
    (0xbffc_aa3a_f4d4_6b0a_18e8, 0xbffb_dee6_8142_3a22_6356),
    (0x3ffe_fd2c_af82_eeea_cbe2, 0x3ffe_fc19_195d_5ba2_d54b),
    (0xbffd_8ede_0d7a_c3ba_ea9e, 0xbffc_b414_86cf_49ac_eb06),
    (0x3fca_b1fe_e08f_5712_4242, 0x3fc9_f6c1_1ada_a002_93e4),
];
const LOGARITHMS: [Binary; 5] = [
    (
        0x3fff_cc01_1cdd_9474_031b,
        0xbff9_c51a_bd81_f1d6_9ed6,
        0xbff9_848b_4969_652d_f3fb,
    ),
    (
        0x3ffe_bb2d_420f_0f88_080b,
        0x4002_fe3b_890b_93f4_48b3,
        0xc001_e5b1_f7a2_986a_5739,
    ),
    (
        0x390b_b774_eb52_48db_40af,
        0xc002_85c6_af07_58d5_563d,
        0x400c_e879_0035_5be0_5f9e,
    ),
    (
        0x400a_9c65_3938_2b05_37e6,
        0xbff8_c4aa_eac1_37dc_76fb,
        0xbffc_8ac3_1149_915b_916d,
    ),
    (
        0x3f07_e415_479c_65dc_9f50,
        0x3fff_aa96_fb1a_14a0_f9e7,
        0xc007_a4b4_172a_55ee_7817,
    ),
];
const LOGARITHMS_PLUS_ONE: [Binary; 5] = [
    (
        0xbf47_a30d_977e_e225_7159,
        0x4000_b4d6_6a3a_4746_9a4d,
        0xbf49_a62b_7bd5_9c0b_0bbe,
    ),
    (
        0xbffb_e25a_7605_aec6_f024,
        0xbffb_953e_7c2a_26a2_c0bd,
        0x3ff8_c9be_c9ac_6efd_f471,
    ),
    (
        0xbff3_bbbb_e9ea_a894_8c89,
        0xc001_c343_5cc5_2eae_05cf,
        0x3ff6_ce9f_1dfc_e157_ad63,
    ),
    (
        0xbfc1_88da_f401_6b40_13ef,
        0xc001_f3fe_39c0_5190_88f5,
        0x3fc4_bc2e_196e_76db_367e,
    ),
    (
        0xbffb_e647_cb8f_74e6_9a5d,
        0x4002_8f2c_6ec8_cc41_69a3,
        0xbfff_c51a_fd6a_aa14_9e7b,
    ),
];
const ARCTANGENTS: [Binary; 5] = [
    (
        0xbfcc_9a81_682c_64e5_0cad,
        0xbffe_b0cb_c97d_0fef_7928,
        0xbfff_c90f_daa2_2168_de2c,
    ),
    (
        0xbffe_a98c_b3a5_70cc_ec31,
        0xc001_9a35_8ca0_0d75_985d,
        0xbfff_da8b_477a_9687_b641,
    ),
    (
        0xbffd_99f9_919c_895f_d7b3,
        0x4001_9200_339d_0687_39fa,
        0x3fff_d17c_96e2_cd69_5f2a,
    ),
    (
        0x3ff6_a268_aa87_2607_679d,
        0xbffd_dd39_d0a8_9a2e_f80f,
        0xbfff_c853_eb1e_df27_c9fc,
    ),
    (
        0xc013_fcf2_0724_d953_ee26,
        0x3fff_fbdc_968b_7afb_2c68,
        0x4000_c90f_d6a6_8491_f022,
    ),
];

fn results(table: &[Unary], compute: impl Fn(Float) -> Option<Outcome>) -> Vec<Unary> {
    let outcomes = table
        .iter()
        .map(|&(argument, _)| (argument, compute(float(argument)).unwrap()));
    outcomes
        .map(|(argument, outcome)| (argument, outcome.value.to_bits()))
        .collect()
}

fn binary_results(table: &[Binary], compute: impl Fn(Float, Float) -> Outcome) -> Vec<Binary> {
    let outcomes = table.iter().map(|&(x, y, _)| (x, y, compute(float(x), float(y))));
    outcomes
        .map(|(x, y, outcome)| (x, y, outcome.value.to_bits()))
        .collect()
}

#[test]
fn trigonometric_functions_are_rounded_to_nearest() {
    assert_eq!(results(&SINES, |a| sine(a, &nearest())), SINES);
    assert_eq!(results(&COSINES, |a| cosine(a, &nearest())), COSINES);
    assert_eq!(results(&TANGENTS, |a| tangent(a, &nearest())), TANGENTS);
}

#[test]
fn exponential_is_rounded_to_nearest() {
    assert_eq!(
        results(&EXPONENTIALS, |a| Some(exponential(a, &nearest()))),
        EXPONENTIALS
    );
}

#[test]
fn logarithms_are_rounded_to_nearest() {
    assert_eq!(
        binary_results(&LOGARITHMS, |x, y| logarithm(x, y, &nearest())),
        LOGARITHMS
    );
    assert_eq!(
        binary_results(&LOGARITHMS_PLUS_ONE, |x, y| logarithm_plus_one(x, y, &nearest())),
        LOGARITHMS_PLUS_ONE
    );
}

#[test]
fn arctangent_is_rounded_to_nearest() {
    assert_eq!(
        binary_results(&ARCTANGENTS, |x, y| arctangent(y, x, &nearest())),
        ARCTANGENTS
    );
}

#[test]
fn sine_of_pi_shows_the_66_bits_of_pi() {
    let pi = float(0x4000_c90f_daa2_2168_c235);

    assert_eq!(
        sine(pi, &nearest()).unwrap().value.to_bits(),
        0xbfbf_8000_0000_0000_0000
    );
}

#[test]
fn sine_of_a_tiny_angle_is_a_little_less() {
    let tiny = Float::positive(0x3000, 1 << 63);

    let down = sine(tiny, &rounding(Round::Down)).unwrap();

    assert_eq!(down.value, Float::positive(0x2fff, u64::MAX));
    assert_eq!(down.flags, flag::PRECISION);
}

#[test]
fn sine_beyond_what_is_reduced_is_not_computed() {
    let limit = Float::positive(0x3fff + 63, 1 << 63);

    assert_eq!(sine(limit, &nearest()), None);
    assert_eq!(cosine(Float::INFINITY, &nearest()), Some(Outcome::invalid()));
}

#[test]
fn arctangent_of_axes_and_corners_is_a_part_of_pi() {
    let angle = |y: u128, x: u128| arctangent(float(y), float(x), &nearest()).value.to_bits();
    let minus = 0x8000_u128 << 64;

    assert_eq!(angle(0, ONE), 0);
    assert_eq!(angle(minus, ONE), minus);
    assert_eq!(angle(0, minus), 0x4000_c90f_daa2_2168_c235);
    assert_eq!(angle(ONE, 0), 0x3fff_c90f_daa2_2168_c235);
    assert_eq!(angle(INFINITY, INFINITY), 0x3ffe_c90f_daa2_2168_c235);
    assert_eq!(angle(INFINITY, INFINITY | minus), 0x4000_96cb_e3f9_990e_91a8);
}

#[test]
fn logarithm_of_special_operands_is_exact_or_invalid() {
    let result = |x: Float, y: Float| logarithm(x, y, &nearest());
    let (zero, one, infinity) = (Float::ZERO, Float::ONE, Float::INFINITY);

    assert_eq!(result(one, one), Outcome::exact(zero));
    assert_eq!(
        result(zero, one),
        Outcome {
            value: infinity.with_sign(true),
            flags: flag::ZERO_DIVIDE
        }
    );
    assert_eq!(result(zero, zero), Outcome::invalid());
    assert_eq!(result(one.with_sign(true), one), Outcome::invalid());
    assert_eq!(result(one, infinity), Outcome::invalid());
    assert_eq!(
        result(infinity, one.with_sign(true)),
        Outcome::exact(infinity.with_sign(true))
    );
}

#[test]
fn logarithm_of_a_power_of_two_is_an_integer() {
    let thousand = Float::positive(0x3fff + 1000, 1 << 63);

    assert_eq!(
        logarithm(thousand, Float::ONE, &nearest()).value,
        super::super::from_integer(1000)
    );
}

#[test]
fn exponential_of_one_and_minus_one_is_exact() {
    let value = |a: Float| exponential(a, &nearest()).value;

    assert_eq!(value(Float::ONE), Float::ONE);
    assert_eq!(
        value(Float::ONE.with_sign(true)),
        Float::positive(0x3ffe, 1 << 63).with_sign(true)
    );
}
