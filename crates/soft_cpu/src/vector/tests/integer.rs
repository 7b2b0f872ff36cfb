use super::{bench, register, xmm};
use crate::cpu::flags;

/// An instruction with the prefix 66, `xmm0, xmm1`.
fn prefixed(opcode: u8, a: u128, b: u128) -> u128 {
    xmm(&[0x66, 0x0f, opcode, 0xc1], a, b)
}

#[test]
fn paddsb_saturates_both_ways() {
    assert_eq!(prefixed(0xec, 0x007f_8001, 0x0001_ff01), 0x007f_8002);
}

#[test]
fn psubusb_stops_at_zero() {
    assert_eq!(prefixed(0xd8, 0x10_05, 0x01_06), 0x0f_00);
}

#[test]
fn pavgb_rounds_up() {
    assert_eq!(prefixed(0xe0, 0xff_02, 0xfe_01), 0xff_02);
}

#[test]
fn pmaddwd_of_the_smallest_words_wraps() {
    assert_eq!(prefixed(0xf5, 0x8000_8000, 0x8000_8000), 0x8000_0000);
}

#[test]
fn pmaddubsw_saturates() {
    assert_eq!(xmm(&[0x66, 0x0f, 0x38, 0x04, 0xc1], 0xffff, 0x7f7f), 0x7fff);
}

#[test]
fn pmulhrsw_rounds_and_wraps_only_for_minus_one_squared() {
    let result = xmm(&[0x66, 0x0f, 0x38, 0x0b, 0xc1], 0x8000_4000, 0x8000_0001);
    assert_eq!(result, 0x8000_0001);
}

#[test]
fn psadbw_sums_each_half() {
    let result = prefixed(0xf6, u128::from_le_bytes([9; 16]), u128::from_le_bytes([10; 16]));
    assert_eq!(result, 8 << 64 | 8);
}

#[test]
fn packuswb_takes_words_as_signed() {
    assert_eq!(prefixed(0x67, 0x8000_0100_007f, 0), 0x00_ff_7f);
}

#[test]
fn packssdw_puts_the_second_source_above() {
    assert_eq!(prefixed(0x6b, 0x8000_0000, 0x7fff_ffff), 0x7fff << 64 | 0x8000);
}

#[test]
fn punpckhbw_interleaves_upper_halves() {
    let result = prefixed(0x68, 0x11 << 64, 0x22 << 64);
    assert_eq!(result, 0x2211);
}

#[test]
fn pshufb_clears_where_the_sign_is_set() {
    let control = 0x80_0f_00;
    let result = xmm(&[0x66, 0x0f, 0x38, 0x00, 0xc1], 0xaa << 120 | 0xbb, control);
    assert_eq!(result & 0xff_ffff, 0x00_aabb);
}

#[test]
fn palignr_beyond_the_second_source_takes_from_the_first() {
    let result = xmm(&[0x66, 0x0f, 0x3a, 0x0f, 0xc1, 17], 0x1122, 0x3344);
    assert_eq!(result, 0x11);
}

#[test]
fn palignr_beyond_both_sources_is_zero() {
    assert_eq!(xmm(&[0x66, 0x0f, 0x3a, 0x0f, 0xc1, 32], u128::MAX, u128::MAX), 0);
}

#[test]
fn psllw_by_a_count_beyond_the_width_is_zero() {
    assert_eq!(prefixed(0xf1, u128::MAX, 1 << 32), 0);
    assert_eq!(prefixed(0xf1, u128::MAX, 1 << 64), u128::MAX);
}

#[test]
fn psraw_by_a_count_beyond_the_width_leaves_signs() {
    assert_eq!(prefixed(0xe1, 0x8000_7fff, 100), 0xffff_0000);
}

#[test]
fn pslldq_shifts_bytes() {
    assert_eq!(xmm(&[0x66, 0x0f, 0x73, 0xf8, 15], 0x1122, 0), 0x22 << 120);
}

#[test]
fn vpsllvd_counts_each_lane_by_itself() {
    // vpsllvd xmm0, xmm0, xmm1
    let result = xmm(&[0xc4, 0xe2, 0x79, 0x47, 0xc1], 1 << 32 | 1, 32 << 32 | 4);
    assert_eq!(result, 16);
}

#[test]
fn mpsadbw_compares_one_block_with_eight_places() {
    let a = u128::from_le_bytes(std::array::from_fn(|index| index as u8));
    let result = xmm(&[0x66, 0x0f, 0x3a, 0x42, 0xc1, 0], a, 0x0302_0100);
    assert_eq!(
        result.to_le_bytes(),
        [0, 0, 4, 0, 8, 0, 12, 0, 16, 0, 20, 0, 24, 0, 28, 0]
    );
}

#[test]
fn phminposuw_finds_the_first_of_the_smallest() {
    let a = 0x0005_0003_0009_0003_ffff_ffff_ffff_ffff;
    assert_eq!(xmm(&[0x66, 0x0f, 0x38, 0x41, 0xc1], 0, a), 4 << 16 | 3);
}

#[test]
fn vperm2i128_can_swap_and_clear() {
    // vperm2i128 ymm0, ymm0, ymm1, 0x83
    let mut bench = bench(&[[1, 2, 3, 4], [5, 6, 7, 8]]);
    bench.run(&[0xc4, 0xe3, 0x7d, 0x46, 0xc1, 0x83]).unwrap();
    assert_eq!(register(&bench, 0), [7, 8, 0, 0]);
}

#[test]
fn vpermd_takes_its_order_from_the_first_source() {
    // vpermd ymm0, ymm0, ymm1
    let mut bench = bench(&[[7, 0, 1 << 32, 0], [0x11_0000_0010, 0, 0, 0x17_0000_0000]]);
    bench.run(&[0xc4, 0xe2, 0x7d, 0x36, 0xc1]).unwrap();
    assert_eq!(
        register(&bench, 0),
        [0x10_0000_0017, 0x10_0000_0010, 0x11_0000_0010, 0x10_0000_0010]
    );
}

#[test]
fn pblendvb_is_told_by_xmm0() {
    // pblendvb xmm1, xmm2
    let mut bench = bench(&[[0x80, 0, 0, 0], [0x1111, 0, 0, 0], [0x2222, 0, 0, 0]]);
    bench.run(&[0x66, 0x0f, 0x38, 0x10, 0xca]).unwrap();
    assert_eq!(register(&bench, 1)[0], 0x1122);
}

#[test]
fn ptest_tells_emptiness_and_containment() {
    // ptest xmm0, xmm1
    let mut bench = bench(&[[0xf0, 0, 0, 0], [0x30, 0, 0, 0]]);
    bench.cpu.rflags |= flags::STATUS;
    bench.run(&[0x66, 0x0f, 0x38, 0x17, 0xc1]).unwrap();
    assert_eq!(bench.cpu.rflags & flags::STATUS, flags::CF);
}
