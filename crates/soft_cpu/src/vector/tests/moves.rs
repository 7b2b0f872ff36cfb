use super::{bench, register, xmm};
use crate::cpu::Cpu;
use crate::exception::Exception;
use crate::testing::vector::DATA;

#[test]
fn movss_from_memory_clears_the_rest_of_128_bits() {
    let mut bench = bench(&[[1, 2, 3, 4]]);
    bench.set_data(0, &0x1122_3344_5566_7788_u64.to_le_bytes());
    bench.run(&[0xf3, 0x0f, 0x10, 0x07]).unwrap();
    assert_eq!(register(&bench, 0), [0x5566_7788, 0, 3, 4]);
}

#[test]
fn movss_between_registers_keeps_the_rest() {
    let result = xmm(&[0xf3, 0x0f, 0x10, 0xc1], u128::MAX, 0);
    assert_eq!(result, u128::MAX << 32);
}

#[test]
fn vmovsd_between_registers_takes_the_rest_from_the_first_source() {
    // vmovsd xmm0, xmm1, xmm2
    let mut bench = bench(&[[9; 4], [1, 2, 3, 4], [5, 6, 7, 8]]);
    bench.run(&[0xc5, 0xf3, 0x10, 0xc2]).unwrap();
    assert_eq!(register(&bench, 0), [5, 2, 0, 0]);
}

#[test]
fn movq_between_registers_clears_the_upper_quadword() {
    assert_eq!(xmm(&[0xf3, 0x0f, 0x7e, 0xc1], 0, u128::MAX), u64::MAX.into());
}

#[test]
fn movd_to_a_general_register_clears_its_upper_half() {
    // movd eax, xmm0
    let mut bench = bench(&[[0xffff_ffff_8000_0001, 0, 0, 0]]);
    bench.cpu.gpr[Cpu::RAX] = u64::MAX;
    bench.run(&[0x66, 0x0f, 0x7e, 0xc0]).unwrap();
    assert_eq!(bench.cpu.gpr[Cpu::RAX], 0x8000_0001);
}

#[test]
fn movups_over_a_boundary_is_stored_whole() {
    let mut bench = bench(&[[0x0706_0504_0302_0100, 0x0f0e_0d0c_0b0a_0908, 0, 0]]);
    bench.cpu.gpr[Cpu::RDI] = DATA + 0xffb;
    bench.run(&[0x0f, 0x11, 0x07]).unwrap();
    assert_eq!(bench.data(0xffb, 16), (0..16).collect::<Vec<u8>>());
}

#[test]
fn movntdq_misaligned_is_a_protection_fault() {
    let mut bench = bench(&[]);
    bench.cpu.gpr[Cpu::RDI] = DATA + 8;
    assert_eq!(bench.run(&[0x66, 0x0f, 0xe7, 0x07]), Err(Exception::PROTECTION));
}

#[test]
fn vmovaps_of_256_bits_must_be_aligned_to_32() {
    let mut bench = bench(&[]);
    bench.cpu.gpr[Cpu::RDI] = DATA + 16;
    assert_eq!(bench.run(&[0xc5, 0xfc, 0x28, 0x07]), Err(Exception::PROTECTION));
    bench.run(&[0xc5, 0xf8, 0x28, 0x07]).unwrap();
}

#[test]
fn pmovmskb_gathers_signs() {
    let mut bench = bench(&[[0x8000_0000_0000_0080, 0x80, 0, 0]]);
    bench.run(&[0x66, 0x0f, 0xd7, 0xc0]).unwrap();
    assert_eq!(bench.cpu.gpr[Cpu::RAX], 0x181);
}

#[test]
fn pmovsxbd_reads_four_bytes_at_any_address() {
    let mut bench = bench(&[]);
    bench.set_data(1, &[1, 0xff, 0x80, 0x7f]);
    bench.cpu.gpr[Cpu::RDI] = DATA + 1;
    bench.run(&[0x66, 0x0f, 0x38, 0x21, 0x07]).unwrap();
    assert_eq!(
        register(&bench, 0),
        [0xffff_ffff_0000_0001, 0x0000_007f_ffff_ff80, 0, 0]
    );
}

#[test]
fn pinsrw_and_pextrw_reach_any_word() {
    // pinsrw xmm0, eax, 5; pextrw ecx, xmm0, 5
    let mut bench = bench(&[[0; 4]]);
    bench.cpu.gpr[Cpu::RAX] = 0x1_2345;
    bench
        .run(&[0x66, 0x0f, 0xc4, 0xc0, 5, 0x66, 0x0f, 0xc5, 0xc8, 5])
        .unwrap();
    assert_eq!(register(&bench, 0), [0, 0x2345_0000, 0, 0]);
    assert_eq!(bench.cpu.gpr[Cpu::RCX], 0x2345);
}

#[test]
fn insertps_from_a_register_chooses_its_element_and_clears_others() {
    // insertps xmm0, xmm1, 0x98: element 2 to place 1, place 3 cleared.
    let result = xmm(
        &[0x66, 0x0f, 0x3a, 0x21, 0xc1, 0x98],
        0x4444_4444_3333_3333_2222_2222_1111_1111,
        0x8888_8888_7777_7777_6666_6666_5555_5555,
    );
    assert_eq!(result, 0x3333_3333_7777_7777_1111_1111);
}

#[test]
fn vbroadcastss_fills_all_lanes() {
    // vbroadcastss ymm0, [rdi]
    let mut bench = bench(&[]);
    bench.set_data(0, &[1, 2, 3, 4]);
    bench.run(&[0xc4, 0xe2, 0x7d, 0x18, 0x07]).unwrap();
    assert_eq!(register(&bench, 0), [0x0403_0201_0403_0201; 4]);
}

#[test]
fn vextracti128_clears_above_its_result() {
    // vextracti128 xmm0, ymm1, 1
    let mut bench = bench(&[[9; 4], [1, 2, 3, 4]]);
    bench.run(&[0xc4, 0xe3, 0x7d, 0x39, 0xc8, 1]).unwrap();
    assert_eq!(register(&bench, 0), [3, 4, 0, 0]);
}
