use super::{bench, register};
use crate::cpu::Cpu;
use crate::exception::Exception;
use crate::testing::vector::DATA;

/// The last address below the hole of 64-bit mode.
const END: u64 = 0x7fff_ffff_ffff;

#[test]
fn maskmovdqu_writes_chosen_bytes_only() {
    // maskmovdqu xmm0, xmm1
    let mut bench = bench(&[[0x8877_6655_4433_2211, 0, 0, 0], [0x8000_0000_8000_7f80, 0, 0, 0]]);
    bench.set_data(0, &[0xee; 16]);
    bench.run(&[0x66, 0x0f, 0xf7, 0xc1]).unwrap();
    assert_eq!(bench.data(0, 8), [0x11, 0xee, 0xee, 0x44, 0xee, 0xee, 0xee, 0x88]);
}

#[test]
fn vmaskmovps_load_does_not_fault_where_nothing_is_chosen() {
    // vmaskmovps xmm0, xmm1, [rdi]: only the first element is in canonical addresses.
    let mut bench = bench(&[[9; 4], [0x8000_0000, 0, 0, 0]]);
    bench.cpu.gpr[Cpu::RDI] = END - 3;
    bench.run(&[0xc4, 0xe2, 0x71, 0x2c, 0x07]).unwrap();
    assert_eq!(register(&bench, 0), [0xffff_ffff, 0, 0, 0]);
}

#[test]
fn vmaskmovps_load_of_a_bad_element_faults() {
    let mut bench = bench(&[[9; 4], [0x8000_0000_0000_0000, 0, 0, 0]]);
    bench.cpu.gpr[Cpu::RDI] = END - 3;
    let result = bench.run(&[0xc4, 0xe2, 0x71, 0x2c, 0x07]);
    assert_eq!(result, Err(Exception::PROTECTION));
    assert_eq!(register(&bench, 0), [9; 4]);
}

#[test]
fn vpmaskmovq_stores_chosen_elements_only() {
    // vpmaskmovq [rdi], ymm1, ymm0
    let mut bench = bench(&[[1, 2, 3, 4], [0, 1 << 63, 1, u64::MAX]]);
    bench.set_data(0, &[0; 32]);
    bench.run(&[0xc4, 0xe2, 0xf5, 0x8e, 0x07]).unwrap();
    let expected = [0, 2, 0, 4_u64].map(u64::to_le_bytes).concat();
    assert_eq!(bench.data(0, 32), expected);
}

#[test]
fn gather_loads_chosen_elements_and_clears_the_mask() {
    // vpgatherdd xmm0, [rdi + xmm1 * 4], xmm2
    let choice = 0x8000_0000_7fff_ffff;
    let mut bench = bench(&[
        [9; 4],
        [1 << 32 | 5, 0xffff_ffff, 0, 0],
        [choice, 0x8000_0000, 5, 5],
    ]);
    bench.set_data(0, &[0x10, 0, 0, 0, 0x11, 0, 0, 0, 0x12, 0, 0, 0]);
    bench.cpu.gpr[Cpu::RDI] = DATA + 4;
    bench.run(&[0xc4, 0xe2, 0x69, 0x90, 0x04, 0x8f]).unwrap();
    assert_eq!(register(&bench, 0), [0x12 << 32 | 9, 0x10, 0, 0]);
    assert_eq!(register(&bench, 2), [0; 4]);
}

#[test]
fn gather_that_faults_keeps_what_it_has() {
    // vpgatherdq ymm0, [rdi + xmm1 * 1], ymm2: the third element is not canonical.
    let bad = 0x7fff_ffff;
    let mut bench = bench(&[[9; 4], [8 << 32, bad, 0, 0], [u64::MAX; 4]]);
    bench.cpu.gpr[Cpu::RDI] = END - 0x4000_0000;
    let result = bench.run(&[0xc4, 0xe2, 0xed, 0x90, 0x04, 0x0f]);
    assert_eq!(result, Err(Exception::PROTECTION));
    assert_eq!(register(&bench, 0), [u64::MAX, u64::MAX, 9, 9]);
    assert_eq!(register(&bench, 2), [0, 0, u64::MAX, u64::MAX]);
}
