use super::{bench, register};
use crate::cpu::{Cpu, SegReg, control};
use crate::exception::Exception;
use crate::testing::vector::DATA;
use hypervisor::x86_64::Segment;

/// `paddd xmm0, xmm1`; `vpaddd xmm0, xmm1, xmm1`; the same with 256 bits.
const PADDD: &[u8] = &[0x66, 0x0f, 0xfe, 0xc1];
const VPADDD: &[u8] = &[0xc5, 0xf1, 0xfe, 0xc1];
const VPADDD_WIDE: &[u8] = &[0xc5, 0xf5, 0xfe, 0xc1];

#[test]
fn legacy_encoding_keeps_the_upper_half() {
    let mut bench = bench(&[[1, 2, 3, 4], [1, 1, 1, 1]]);
    bench.run(PADDD).unwrap();
    assert_eq!(register(&bench, 0), [2, 3, 3, 4]);
}

#[test]
fn vex_encoding_of_128_bits_clears_the_upper_half() {
    let mut bench = bench(&[[1, 2, 3, 4], [1, 1, 1, 1]]);
    bench.run(VPADDD).unwrap();
    assert_eq!(register(&bench, 0), [2, 2, 0, 0]);
}

#[test]
fn vex_encoding_of_256_bits_writes_all() {
    let mut bench = bench(&[[1, 2, 3, 4], [1, 1, 1, 1]]);
    bench.run(VPADDD_WIDE).unwrap();
    assert_eq!(register(&bench, 0), [2, 2, 2, 2]);
}

#[test]
fn legacy_encoding_without_os_support_is_undefined() {
    let mut bench = bench(&[]);
    bench.cpu.cr4 &= !control::CR4_OSFXSR;
    assert_eq!(bench.run(PADDD), Err(Exception::UNDEFINED));
    bench.run(VPADDD).unwrap();
}

#[test]
fn legacy_encoding_with_emulation_is_undefined_even_after_a_task_switch() {
    let mut bench = bench(&[]);
    bench.cpu.cr0 |= control::CR0_EM | control::CR0_TS;
    assert_eq!(bench.run(PADDD), Err(Exception::UNDEFINED));
}

#[test]
fn any_encoding_after_a_task_switch_reports_it() {
    let mut bench = bench(&[]);
    bench.cpu.cr0 |= control::CR0_TS;
    assert_eq!(bench.run(PADDD), Err(Exception::NO_MATH));
    assert_eq!(bench.run(VPADDD), Err(Exception::NO_MATH));
}

#[test]
fn vex_encoding_without_osxsave_is_undefined() {
    let mut bench = bench(&[]);
    bench.cpu.cr4 &= !control::CR4_OSXSAVE;
    assert_eq!(bench.run(VPADDD), Err(Exception::UNDEFINED));
    bench.run(PADDD).unwrap();
}

#[test]
fn vex_encoding_without_avx_state_is_undefined() {
    let mut bench = bench(&[]);
    bench.cpu.xcr0 = 3;
    assert_eq!(bench.run(VPADDD), Err(Exception::UNDEFINED));
}

#[test]
fn legacy_memory_operand_misaligned_is_a_protection_fault() {
    // paddd xmm0, [rdi]
    let mut bench = bench(&[[1, 2, 3, 4]]);
    bench.cpu.gpr[Cpu::RDI] = DATA + 8;
    assert_eq!(bench.run(&[0x66, 0x0f, 0xfe, 0x07]), Err(Exception::PROTECTION));
    assert_eq!(register(&bench, 0), [1, 2, 3, 4]);
}

#[test]
fn vex_memory_operand_may_be_misaligned() {
    // vpaddd ymm0, ymm0, [rdi]
    let mut bench = bench(&[[1, 2, 3, 4]]);
    bench.set_data(1, &[1; 32]);
    bench.cpu.gpr[Cpu::RDI] = DATA + 1;
    bench.run(&[0xc5, 0xfd, 0xfe, 0x07]).unwrap();
    assert_eq!(register(&bench, 0)[0], 0x0101_0101_0101_0102);
}

#[test]
fn ldmxcsr_loads_and_stmxcsr_stores() {
    let mut bench = bench(&[]);
    bench.set_data(0, &0xffff_u32.to_le_bytes());
    // ldmxcsr [rdi]; stmxcsr [rdi + 4]
    bench.run(&[0x0f, 0xae, 0x17, 0x0f, 0xae, 0x5f, 0x04]).unwrap();
    assert_eq!(bench.cpu.vector.mxcsr, 0xffff);
    assert_eq!(bench.data(4, 4), [0xff, 0xff, 0, 0]);
}

#[test]
fn ldmxcsr_of_reserved_bits_is_a_protection_fault_and_changes_nothing() {
    let mut bench = bench(&[]);
    bench.set_data(0, &0x1_1f80_u32.to_le_bytes());
    assert_eq!(bench.run(&[0x0f, 0xae, 0x17]), Err(Exception::PROTECTION));
    assert_eq!(bench.cpu.vector.mxcsr, 0x1f80);
}

#[test]
fn vzeroupper_keeps_lower_halves() {
    let mut bench = bench(&[[1; 4]; 16]);
    bench.run(&[0xc5, 0xf8, 0x77]).unwrap();
    assert_eq!(register(&bench, 0), [1, 1, 0, 0]);
    assert_eq!(register(&bench, 15), [1, 1, 0, 0]);
}

#[test]
fn vzeroall_outside_64_bit_mode_keeps_the_registers_that_mode_lacks() {
    let mut bench = bench(&[[1; 4]; 16]);
    bench.cpu.set_segment(SegReg::Cs, Segment::flat_code32(8));
    bench.run(&[0xc5, 0xfc, 0x77]).unwrap();
    assert_eq!(register(&bench, 7), [0; 4]);
    assert_eq!(register(&bench, 8), [1; 4]);
}
