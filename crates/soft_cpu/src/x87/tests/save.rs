//! `FXSAVE`, the `XSAVE` feature set, and XCR0.

use hypervisor::x86_64::find_leaf;

use crate::cpu::{Cpu, control as cr};
use crate::exception::Exception;
use crate::testing::x87::{Bench, DATA};

const FXSAVE: [u8; 3] = [0x0f, 0xae, 0x07];
const FXSAVE64: [u8; 4] = [0x48, 0x0f, 0xae, 0x07];
const FXRSTOR64: [u8; 4] = [0x48, 0x0f, 0xae, 0x0f];
const XSAVE64: [u8; 4] = [0x48, 0x0f, 0xae, 0x27];
const XSAVEOPT64: [u8; 4] = [0x48, 0x0f, 0xae, 0x37];
const XSAVEC64: [u8; 4] = [0x48, 0x0f, 0xc7, 0x27];
const XSAVES64: [u8; 4] = [0x48, 0x0f, 0xc7, 0x2f];
const XRSTOR64: [u8; 4] = [0x48, 0x0f, 0xae, 0x2f];
const XRSTORS64: [u8; 4] = [0x48, 0x0f, 0xc7, 0x1f];
const XGETBV: [u8; 3] = [0x0f, 0x01, 0xd0];
const XSETBV: [u8; 3] = [0x0f, 0x01, 0xd1];

const XSTATE_BV: u64 = 512;
const XCOMP_BV: u64 = 520;

/// A processor whose state is initial in no component, with memory that is 0xcc but for a clean header.
fn used() -> Bench {
    let mut bench = Bench::long();
    bench.set_data(0, &[0xcc; 1024]);
    bench.set_data(XSTATE_BV, &[0; 64]);
    bench.cpu.x87.status = 0x3800;
    bench.cpu.x87.tags = 0x80;
    bench.cpu.x87.registers[0] = 0x3fff_8000_0000_0000_0000;
    for (number, register) in bench.cpu.vector.registers.iter_mut().enumerate() {
        register.0 = [1, 2, 3, 4].map(|part| part + 16 * number as u64);
    }
    bench
}

fn clear_vectors(bench: &mut Bench) {
    bench.cpu.vector.registers = Default::default();
}

#[test]
fn fxsave_writes_the_legacy_layout_and_leaves_the_rest() {
    let mut bench = used();

    bench.run(&FXSAVE64).unwrap();

    assert_eq!(bench.data(0, 8), [0x7f, 0x03, 0x00, 0x38, 0x80, 0, 0, 0]);
    assert_eq!(bench.data(24, 8), [0x80, 0x1f, 0, 0, 0xff, 0xff, 0, 0]);
    assert_eq!(bench.quad(32), 0x8000_0000_0000_0000);
    assert_eq!(bench.quad(40), 0x3fff);
    assert_eq!(bench.quad(160), 1);
    assert_eq!(bench.quad(160 + 15 * 16 + 8), 2 + 16 * 15);
    assert_eq!(bench.data(416, 96), [0xcc; 96]);
}

#[test]
fn fxsave_shows_pointers_only_while_an_exception_is_pending() {
    let mut bench = used();
    let x87 = &mut bench.cpu.x87;
    (x87.opcode, x87.instruction_pointer, x87.data_pointer) = (0x475, 0x7fff_1234_5678, 0x7fff_8765_4321);
    (x87.code_selector, x87.data_selector) = (0x33, 0x2b);
    bench.run(&FXSAVE64).unwrap();
    assert_eq!(bench.data(6, 18), [0; 18]);

    bench.cpu.x87.status |= 0x8084;
    bench.run(&FXSAVE64).unwrap();
    assert_eq!(bench.data(6, 2), [0x75, 0x04]);
    assert_eq!(bench.quad(8), 0x7fff_1234_5678);

    bench.run(&FXSAVE).unwrap();
    assert_eq!(bench.quad(8), 0x33_1234_5678);
    assert_eq!(bench.quad(16), 0x2b_8765_4321);
}

#[test]
fn fxsave_misaligned_is_a_protection_fault() {
    let mut bench = used();
    bench.cpu.gpr[Cpu::RDI] = DATA + 8;

    assert_eq!(bench.run(&FXSAVE64), Err(Exception::PROTECTION));
}

#[test]
fn fxsave_after_task_switch_is_no_math() {
    let mut bench = used();
    bench.cpu.cr0 |= cr::CR0_TS;

    assert_eq!(bench.run(&FXSAVE64), Err(Exception::NO_MATH));
}

#[test]
fn fxsave_in_32_bit_code_writes_eight_registers() {
    let mut bench = Bench::protected();
    bench.set_data(0, &[0xcc; 512]);

    bench.run(&FXSAVE).unwrap();

    assert_eq!(bench.data(160, 128), [0; 128]);
    assert_eq!(bench.data(288, 128), [0xcc; 128]);
}

#[test]
fn fxsave_then_fxrstor_gives_everything_back() {
    let mut bench = used();
    bench.run(&FXSAVE64).unwrap();
    let (x87, vector) = (bench.cpu.x87.clone(), bench.cpu.vector.clone());
    bench.cpu.x87 = Default::default();
    for register in &mut bench.cpu.vector.registers {
        (register.0[0], register.0[1]) = (0, 0);
    }

    bench.run(&FXRSTOR64).unwrap();

    assert_eq!(bench.cpu.x87, x87);
    assert_eq!(bench.cpu.vector.registers, vector.registers);
}

#[test]
fn fxrstor_all_ones_drops_bits_that_do_not_exist() {
    let mut bench = used();
    bench.set_data(0, &[0xff; 24]);
    bench.set_data(24, &0x1f80_u32.to_le_bytes());

    bench.run(&FXRSTOR64).unwrap();

    let x87 = &bench.cpu.x87;
    assert_eq!((x87.control, x87.status, x87.opcode), (0x1f7f, 0x7f7f, 0x7ff));
}

#[test]
fn fxrstor_unmasked_flag_becomes_pending() {
    let mut bench = used();
    bench.set_data(0, &[0x40, 0, 0x04, 0]);
    bench.set_data(8, &0x1234_5678_9abc_def0_u64.to_le_bytes());
    bench.set_data(24, &0x1f80_u32.to_le_bytes());

    bench.run(&FXRSTOR64).unwrap();

    assert_eq!(bench.cpu.x87.status, 0x8084);
    assert_eq!(bench.cpu.x87.instruction_pointer, 0x0034_5678_9abc_def0);
}

#[test]
fn fxrstor_reserved_bit_of_mxcsr_is_a_protection_fault_and_changes_nothing() {
    let mut bench = used();
    bench.set_data(24, &0x1_1f80_u32.to_le_bytes());
    let before = bench.cpu.x87.clone();

    assert_eq!(bench.run(&FXRSTOR64), Err(Exception::PROTECTION));
    assert_eq!(bench.cpu.x87, before);
}

#[test]
fn xsave_writes_requested_components_and_says_which_are_in_use() {
    let mut bench = used();
    bench.request(u64::MAX);

    bench.run(&XSAVE64).unwrap();

    assert_eq!((bench.quad(XSTATE_BV), bench.quad(XCOMP_BV)), (7, 0));
    assert_eq!(bench.quad(576), 3);
    assert_eq!(bench.quad(576 + 15 * 16 + 8), 4 + 16 * 15);
    assert_eq!(bench.data(832, 8), [0xcc; 8]);
}

#[test]
fn xsave_keeps_bits_of_components_that_were_not_requested() {
    let mut bench = used();
    bench.set_data(XSTATE_BV, &[0xff; 64]);
    bench.request(1);
    bench.cpu.x87 = Default::default();

    bench.run(&XSAVE64).unwrap();

    assert_eq!(
        (bench.quad(XSTATE_BV), bench.quad(XCOMP_BV)),
        (u64::MAX - 1, u64::MAX)
    );
    assert_eq!(bench.data(0, 2), [0x7f, 0x03]);
    assert_eq!(bench.data(24, 8), [0xcc; 8]);
    assert_eq!(bench.data(160, 8), [0xcc; 8]);
}

#[test]
fn xsave_of_avx_alone_writes_mxcsr() {
    let mut bench = used();
    bench.request(4);

    bench.run(&XSAVE64).unwrap();

    assert_eq!(bench.data(24, 4), [0x80, 0x1f, 0, 0]);
    assert_eq!(bench.data(0, 4), [0xcc; 4]);
    assert_eq!(bench.data(160, 8), [0xcc; 8]);
}

#[test]
fn xsaveopt_skips_initial_components_but_not_mxcsr() {
    let mut bench = used();
    clear_vectors(&mut bench);
    bench.cpu.vector.mxcsr = 0x1fa0;
    bench.request(7);

    bench.run(&XSAVEOPT64).unwrap();

    assert_eq!(bench.quad(XSTATE_BV), 1);
    assert_eq!(bench.data(24, 4), [0xa0, 0x1f, 0, 0]);
    assert_eq!(bench.data(160, 8), [0xcc; 8]);
    assert_eq!(bench.data(576, 8), [0xcc; 8]);
}

#[test]
fn xsavec_counts_mxcsr_as_sse_state() {
    let mut bench = used();
    clear_vectors(&mut bench);
    bench.cpu.vector.mxcsr = 0x1fa0;
    bench.request(7);

    bench.run(&XSAVEC64).unwrap();

    assert_eq!((bench.quad(XSTATE_BV), bench.quad(XCOMP_BV)), (3, 1 << 63 | 7));
    assert_eq!(bench.data(160, 256), [0; 256]);
    assert_eq!(bench.data(576, 8), [0xcc; 8]);
}

#[test]
fn xsaves_at_level_three_is_a_protection_fault() {
    let mut bench = used();
    bench.cpu.mode.cpl = 3;
    bench.request(7);

    assert_eq!(bench.run(&XSAVES64), Err(Exception::PROTECTION));
    assert_eq!(bench.run(&XRSTORS64), Err(Exception::PROTECTION));
}

#[test]
fn xsave_misaligned_is_a_protection_fault() {
    let mut bench = used();
    bench.cpu.gpr[Cpu::RDI] = DATA + 16;
    bench.request(7);

    assert_eq!(bench.run(&XSAVE64), Err(Exception::PROTECTION));
}

#[test]
fn xsave_without_osxsave_is_undefined() {
    let mut bench = used();
    bench.cpu.cr4 &= !cr::CR4_OSXSAVE;

    assert_eq!(bench.run(&XSAVE64), Err(Exception::UNDEFINED));
}

#[test]
fn xrstor_of_what_xsave_wrote_gives_everything_back() {
    let mut bench = used();
    bench.request(7);
    bench.run(&XSAVE64).unwrap();
    let (x87, registers) = (bench.cpu.x87.clone(), bench.cpu.vector.registers);
    bench.cpu.x87 = Default::default();
    clear_vectors(&mut bench);

    bench.run(&XRSTOR64).unwrap();

    assert_eq!(bench.cpu.x87, x87);
    assert_eq!(bench.cpu.vector.registers, registers);
}

#[test]
fn xrstors_of_what_xsaves_wrote_gives_everything_back() {
    let mut bench = used();
    bench.cpu.vector.mxcsr = 0x1fa0;
    bench.request(7);
    bench.run(&XSAVES64).unwrap();
    let (x87, registers) = (bench.cpu.x87.clone(), bench.cpu.vector.registers);
    bench.cpu.x87 = Default::default();
    bench.cpu.vector = Default::default();

    bench.run(&XRSTORS64).unwrap();

    assert_eq!(bench.cpu.x87, x87);
    assert_eq!(bench.cpu.vector.registers, registers);
    assert_eq!(bench.cpu.vector.mxcsr, 0x1fa0);
}

#[test]
fn xrstor_of_absent_components_initializes_them() {
    let mut bench = used();
    bench.set_data(24, &0x1f90_u32.to_le_bytes());
    bench.request(7);

    bench.run(&XRSTOR64).unwrap();

    assert_eq!(bench.cpu.x87, Default::default());
    assert_eq!(bench.cpu.vector.registers, [Default::default(); 16]);
    // In the standard format MXCSR is loaded all the same.
    assert_eq!(bench.cpu.vector.mxcsr, 0x1f90);
}

#[test]
fn xrstor_compacted_without_sse_initializes_mxcsr() {
    let mut bench = used();
    bench.cpu.features = crate::cpu::Features::of(&bench.cpu.cpuid);
    bench.cpu.vector.mxcsr = 0x1fa0;
    bench.set_data(XCOMP_BV, &(1_u64 << 63 | 7).to_le_bytes());
    bench.request(2);

    bench.run(&XRSTOR64).unwrap();

    assert_eq!(bench.cpu.vector.mxcsr, 0x1f80);
    assert_eq!(bench.cpu.vector.registers[3].0, [0, 0, 3 + 16 * 3, 4 + 16 * 3]);
}

#[test]
fn xrstor_leaves_components_that_were_not_requested() {
    let mut bench = used();
    let before = bench.cpu.vector.registers;
    bench.request(1);

    bench.run(&XRSTOR64).unwrap();

    assert_eq!(bench.cpu.x87, Default::default());
    assert_eq!(bench.cpu.vector.registers, before);
}

/// What `XRSTOR64` makes of a header.
fn restore(xstate_bv: u64, xcomp_bv: u64, rest: u8) -> Result<(), Exception> {
    let mut bench = used();
    bench.set_data(24, &0x1f80_u32.to_le_bytes());
    bench.set_data(XSTATE_BV, &xstate_bv.to_le_bytes());
    bench.set_data(XCOMP_BV, &xcomp_bv.to_le_bytes());
    bench.set_data(XCOMP_BV + 8, &[rest]);
    bench.request(7);
    bench.run(&XRSTOR64)
}

#[test]
fn xrstor_header_with_a_reserved_bit_is_a_protection_fault() {
    let refused = Err(Exception::PROTECTION);

    assert_eq!(restore(7, 0, 0), Ok(()));
    assert_eq!(restore(8, 0, 0), refused);
    assert_eq!(restore(7, 1, 0), refused);
    assert_eq!(restore(7, 0, 1), refused);
    assert_eq!(restore(3, 1 << 63 | 3, 0), Ok(()));
    assert_eq!(restore(3, 1 << 63 | 3, 1), refused);
    assert_eq!(restore(7, 1 << 63 | 3, 0), refused);
    assert_eq!(restore(3, 1 << 63 | 0xb, 0), refused);
}

#[test]
fn xrstors_of_the_standard_format_is_a_protection_fault() {
    let mut bench = used();
    bench.request(7);

    assert_eq!(bench.run(&XRSTORS64), Err(Exception::PROTECTION));
}

#[test]
fn xgetbv_shows_xcr0_and_what_of_it_is_in_use() {
    let mut bench = used();
    bench.cpu.x87 = Default::default();
    bench.cpu.gpr[Cpu::RAX] = u64::MAX;
    bench.run(&XGETBV).unwrap();
    assert_eq!((bench.cpu.gpr[Cpu::RAX], bench.cpu.gpr[Cpu::RDX]), (7, 0));

    bench.cpu.gpr[Cpu::RCX] = 1;
    bench.run(&XGETBV).unwrap();
    assert_eq!(bench.cpu.gpr[Cpu::RAX], 6);

    bench.cpu.gpr[Cpu::RCX] = 2;
    assert_eq!(bench.run(&XGETBV), Err(Exception::PROTECTION));
}

fn set_xcr0(value: u64) -> Result<u64, Exception> {
    let mut bench = used();
    bench.request(value);
    bench.run(&XSETBV).map(|()| bench.cpu.xcr0)
}

#[test]
fn xsetbv_takes_only_what_belongs_together() {
    let refused = Err(Exception::PROTECTION);

    assert_eq!(set_xcr0(1), Ok(1));
    assert_eq!(set_xcr0(3), Ok(3));
    assert_eq!(set_xcr0(7), Ok(7));
    assert_eq!(set_xcr0(2), refused);
    assert_eq!(set_xcr0(5), refused);
    assert_eq!(set_xcr0(0xf), refused);
    assert_eq!(set_xcr0(1 << 32 | 1), refused);
}

#[test]
fn area_ends_where_cpuid_says() {
    let bench = used();
    let avx = find_leaf(&bench.cpu.cpuid, 0xd, 2).unwrap();

    assert_eq!((avx.ebx, avx.ebx + avx.eax), (576, 832));
}
