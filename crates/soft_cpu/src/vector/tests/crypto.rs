//! Answers of FIPS 197, appendix A and B, and of products small enough to see.

use super::xmm;

/// `text` as it is written: first byte first.
fn block(text: u128) -> u128 {
    text.swap_bytes()
}

#[test]
fn aesenc_is_one_round_of_the_standards_example() {
    // FIPS 197, B: state and key at the start of rounds 1 and 2.
    let start = block(0x193d_e3be_a0f4_e22b_9ac6_8d2a_e9f8_4808);
    let key = block(0xa0fa_fe17_8854_2cb1_23a3_3939_2a6c_7605);
    let next = block(0xa49c_7ff2_689f_352b_6b5b_ea43_026a_5049);
    assert_eq!(xmm(&[0x66, 0x0f, 0x38, 0xdc, 0xc1], start, key), next);
}

#[test]
fn aesenclast_ends_the_standards_example() {
    let start = block(0xeb40_f21e_592e_3884_8ba1_13e7_1bc3_42d2);
    let key = block(0xd014_f9a8_c9ee_2589_e13f_0cc8_b663_0ca6);
    let end = block(0x3925_841d_02dc_09fb_dc11_8597_196a_0b32);
    assert_eq!(xmm(&[0x66, 0x0f, 0x38, 0xdd, 0xc1], start, key), end);
}

#[test]
fn aesdeclast_undoes_aesenclast() {
    let state = block(0x0011_2233_4455_6677_8899_aabb_ccdd_eeff);
    let encrypted = xmm(&[0x66, 0x0f, 0x38, 0xdd, 0xc1], state, 0);
    assert_eq!(xmm(&[0x66, 0x0f, 0x38, 0xdf, 0xc1], encrypted, 0), state);
}

#[test]
fn aesdec_undoes_the_middle_of_aesenc() {
    // The inverse round takes its columns mixed already: unmix what AESENC leaves, and decrypt that.
    let state = block(0x0011_2233_4455_6677_8899_aabb_ccdd_eeff);
    let encrypted = xmm(&[0x66, 0x0f, 0x38, 0xdc, 0xc1], state, 0);
    let unmixed = xmm(&[0x66, 0x0f, 0x38, 0xdb, 0xc1], 0, encrypted);
    assert_eq!(xmm(&[0x66, 0x0f, 0x38, 0xdf, 0xc1], unmixed, 0), state);
    let decrypted = xmm(&[0x66, 0x0f, 0x38, 0xde, 0xc1], encrypted, 0);
    let once_more = xmm(&[0x66, 0x0f, 0x38, 0xdf, 0xc1], encrypted, 0);
    assert_eq!(xmm(&[0x66, 0x0f, 0x38, 0xdb, 0xc1], 0, once_more), decrypted);
}

#[test]
fn aeskeygenassist_gives_the_words_of_the_standards_key() {
    // FIPS 197, A.1: the last word of the key, turned, substituted, with the first round constant.
    let key = block(0x2b7e_1516_28ae_d2a6_abf7_1588_09cf_4f3c);
    let result = xmm(&[0x66, 0x0f, 0x3a, 0xdf, 0xc1, 1], 0, key);
    assert_eq!((result >> 96) as u32, 0x8b84_eb01_u32.swap_bytes());
}

#[test]
fn pclmulqdq_multiplies_without_carries() {
    // (x + 1)^2 = x^2 + 1, of upper halves.
    let result = xmm(&[0x66, 0x0f, 0x3a, 0x44, 0xc1, 0x11], 3 << 64, 3 << 64);
    assert_eq!(result, 5);
}

#[test]
fn pclmulqdq_fills_127_bits() {
    let result = xmm(&[0x66, 0x0f, 0x3a, 0x44, 0xc1, 0x10], 1 << 63, 1 << 127);
    assert_eq!(result, 1 << 126);
}
