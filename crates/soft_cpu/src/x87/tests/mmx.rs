//! MMX. Packed results are those of an AMD processor.

use crate::cpu::{Cpu, control as cr};
use crate::exception::Exception;
use crate::testing::x87::{Bench, DATA};

/// What MM1, MM5 and MM3 hold.
const A: u64 = 0x80ff_7f01_8001_fffe;
const B: u64 = 0x0102_80ff_7fff_0003;

/// Instructions on MM1 and MM3, or on MM5 and an immediate, and the result.
const PACKED: &[(&str, &[u8], u64)] = &[
    ("paddb", &[0x0f, 0xfc, 0xcb], 0x8101_ff00_ff00_ff01),
    ("paddw", &[0x0f, 0xfd, 0xcb], 0x8201_0000_0000_0001),
    ("paddd", &[0x0f, 0xfe, 0xcb], 0x8202_0000_0001_0001),
    ("paddq", &[0x0f, 0xd4, 0xcb], 0x8202_0001_0001_0001),
    ("psubb", &[0x0f, 0xf8, 0xcb], 0x7ffd_ff02_0102_fffb),
    ("psubw", &[0x0f, 0xf9, 0xcb], 0x7ffd_fe02_0002_fffb),
    ("psubd", &[0x0f, 0xfa, 0xcb], 0x7ffc_fe02_0002_fffb),
    ("psubq", &[0x0f, 0xfb, 0xcb], 0x7ffc_fe02_0002_fffb),
    ("paddusb", &[0x0f, 0xdc, 0xcb], 0x81ff_ffff_ffff_ffff),
    ("paddusw", &[0x0f, 0xdd, 0xcb], 0x8201_ffff_ffff_ffff),
    ("psubusb", &[0x0f, 0xd8, 0xcb], 0x7ffd_0000_0100_fffb),
    ("psubusw", &[0x0f, 0xd9, 0xcb], 0x7ffd_0000_0002_fffb),
    ("paddsb", &[0x0f, 0xec, 0xcb], 0x8101_ff00_ff00_ff01),
    ("paddsw", &[0x0f, 0xed, 0xcb], 0x8201_0000_0000_0001),
    ("psubsb", &[0x0f, 0xe8, 0xcb], 0x80fd_7f02_8002_fffb),
    ("psubsw", &[0x0f, 0xe9, 0xcb], 0x8000_7fff_8000_fffb),
    ("pavgb", &[0x0f, 0xe0, 0xcb], 0x4181_8080_8080_8081),
    ("pavgw", &[0x0f, 0xe3, 0xcb], 0x4101_8000_8000_8001),
    ("pabsb", &[0x0f, 0x38, 0x1c, 0xcb], 0x0102_8001_7f01_0003),
    ("pabsw", &[0x0f, 0x38, 0x1d, 0xcb], 0x0102_7f01_7fff_0003),
    ("pabsd", &[0x0f, 0x38, 0x1e, 0xcb], 0x0102_80ff_7fff_0003),
    ("psignb", &[0x0f, 0x38, 0x08, 0xcb], 0x80ff_81ff_80ff_00fe),
    ("psignw", &[0x0f, 0x38, 0x09, 0xcb], 0x80ff_80ff_8001_fffe),
    ("psignd", &[0x0f, 0x38, 0x0a, 0xcb], 0x80ff_7f01_8001_fffe),
    ("psadbw", &[0x0f, 0xf6, 0xcb], 0x0000_0000_0000_0574),
    ("pand", &[0x0f, 0xdb, 0xcb], 0x0002_0001_0001_0002),
    ("pandn", &[0x0f, 0xdf, 0xcb], 0x0100_80fe_7ffe_0001),
    ("por", &[0x0f, 0xeb, 0xcb], 0x81ff_ffff_ffff_ffff),
    ("pxor", &[0x0f, 0xef, 0xcb], 0x81fd_fffe_fffe_fffd),
    ("pmullw", &[0x0f, 0xd5, 0xcb], 0x00fe_01ff_ffff_fffa),
    ("pmulhw", &[0x0f, 0xe5, 0xcb], 0xff80_c0fe_c000_ffff),
    ("pmulhuw", &[0x0f, 0xe4, 0xcb], 0x0082_3fff_3fff_0002),
    ("pmulhrsw", &[0x0f, 0x38, 0x0b, 0xcb], 0xff00_81fc_8002_0000),
    ("pmuludq", &[0x0f, 0xf4, 0xcb], 0x4000_7ffe_8007_fffa),
    ("pmaddwd", &[0x0f, 0xf5, 0xcb], 0xc07e_02fd_c000_fff9),
    ("pmaddubsw", &[0x0f, 0x38, 0x04, 0xcb], 0x027e_c07f_3f7f_02fa),
    ("pcmpeqb", &[0x0f, 0x74, 0xcb], 0x0000_0000_0000_0000),
    ("pcmpeqw", &[0x0f, 0x75, 0xcb], 0x0000_0000_0000_0000),
    ("pcmpeqd", &[0x0f, 0x76, 0xcb], 0x0000_0000_0000_0000),
    ("pcmpgtb", &[0x0f, 0x64, 0xcb], 0x0000_ffff_00ff_0000),
    ("pcmpgtw", &[0x0f, 0x65, 0xcb], 0x0000_ffff_0000_0000),
    ("pcmpgtd", &[0x0f, 0x66, 0xcb], 0x0000_0000_0000_0000),
    ("pmaxub", &[0x0f, 0xde, 0xcb], 0x80ff_80ff_80ff_fffe),
    ("pminub", &[0x0f, 0xda, 0xcb], 0x0102_7f01_7f01_0003),
    ("pmaxsw", &[0x0f, 0xee, 0xcb], 0x0102_7f01_7fff_0003),
    ("pminsw", &[0x0f, 0xea, 0xcb], 0x80ff_80ff_8001_fffe),
    ("packsswb", &[0x0f, 0x63, 0xcb], 0x7f80_7f03_807f_80fe),
    ("packuswb", &[0x0f, 0x67, 0xcb], 0xff00_ff03_00ff_0000),
    ("packssdw", &[0x0f, 0x6b, 0xcb], 0x7fff_7fff_8000_8000),
    ("punpcklbw", &[0x0f, 0x60, 0xcb], 0x7f80_ff01_00ff_03fe),
    ("punpcklwd", &[0x0f, 0x61, 0xcb], 0x7fff_8001_0003_fffe),
    ("punpckldq", &[0x0f, 0x62, 0xcb], 0x7fff_0003_8001_fffe),
    ("punpckhbw", &[0x0f, 0x68, 0xcb], 0x0180_02ff_807f_ff01),
    ("punpckhwd", &[0x0f, 0x69, 0xcb], 0x0102_80ff_80ff_7f01),
    ("punpckhdq", &[0x0f, 0x6a, 0xcb], 0x0102_80ff_80ff_7f01),
    ("pshufb", &[0x0f, 0x38, 0x00, 0xcb], 0xff01_0000_8000_fe80),
    ("phaddw", &[0x0f, 0x38, 0x01, 0xcb], 0x8201_8002_0000_7fff),
    ("phaddsw", &[0x0f, 0x38, 0x03, 0xcb], 0x8201_7fff_0000_8000),
    ("phaddd", &[0x0f, 0x38, 0x02, 0xcb], 0x8101_8102_0101_7eff),
    ("phsubw", &[0x0f, 0x38, 0x05, 0xcb], 0x7ffd_8004_fe02_7ffd),
    ("phsubsw", &[0x0f, 0x38, 0x07, 0xcb], 0x8000_8004_7fff_7ffd),
    ("phsubd", &[0x0f, 0x38, 0x06, 0xcb], 0x7efc_7f04_ff02_80fd),
    ("psllw 1", &[0x0f, 0x71, 0xf5, 0x01], 0x01fe_fe02_0002_fffc),
    ("psllw 64", &[0x0f, 0x71, 0xf5, 0x40], 0x0000_0000_0000_0000),
    ("psrlw 1", &[0x0f, 0x71, 0xd5, 0x01], 0x407f_3f80_4000_7fff),
    ("psrlw 64", &[0x0f, 0x71, 0xd5, 0x40], 0x0000_0000_0000_0000),
    ("psraw 1", &[0x0f, 0x71, 0xe5, 0x01], 0xc07f_3f80_c000_ffff),
    ("psraw 64", &[0x0f, 0x71, 0xe5, 0x40], 0xffff_0000_ffff_ffff),
    ("pslld 1", &[0x0f, 0x72, 0xf5, 0x01], 0x01fe_fe02_0003_fffc),
    ("pslld 64", &[0x0f, 0x72, 0xf5, 0x40], 0x0000_0000_0000_0000),
    ("psrld 1", &[0x0f, 0x72, 0xd5, 0x01], 0x407f_bf80_4000_ffff),
    ("psrld 64", &[0x0f, 0x72, 0xd5, 0x40], 0x0000_0000_0000_0000),
    ("psrad 1", &[0x0f, 0x72, 0xe5, 0x01], 0xc07f_bf80_c000_ffff),
    ("psrad 64", &[0x0f, 0x72, 0xe5, 0x40], 0xffff_ffff_ffff_ffff),
    ("psllq 1", &[0x0f, 0x73, 0xf5, 0x01], 0x01fe_fe03_0003_fffc),
    ("psllq 64", &[0x0f, 0x73, 0xf5, 0x40], 0x0000_0000_0000_0000),
    ("psrlq 1", &[0x0f, 0x73, 0xd5, 0x01], 0x407f_bf80_c000_ffff),
    ("psrlq 64", &[0x0f, 0x73, 0xd5, 0x40], 0x0000_0000_0000_0000),
];

/// A processor with those registers, physical register 3 on top of the stack.
fn bench() -> Bench {
    let mut bench = Bench::long();
    let x87 = &mut bench.cpu.x87;
    x87.status = 3 << 11;
    for (register, value) in [(1, A), (3, B), (5, A)] {
        x87.registers[(register + 8 - 3) & 7] = value.into();
    }
    bench
}

/// MM`register`, once the top of the stack is physical register 0.
fn mm(bench: &Bench, register: usize) -> u64 {
    assert_eq!(bench.cpu.x87.status & 0x3800, 0);
    bench.cpu.x87.registers[register] as u64
}

#[test]
fn packed_instructions_give_what_processors_give() {
    for &(name, code, expected) in PACKED {
        let mut bench = bench();

        bench.run(code).unwrap();

        let result = mm(&bench, if name.contains(' ') { 5 } else { 1 });
        assert_eq!(result, expected, "{name}");
    }
}

#[test]
fn mmx_instruction_makes_all_registers_valid_and_the_written_one_no_number() {
    let mut bench = bench();

    // PXOR MM1, MM3
    bench.run(&[0x0f, 0xef, 0xcb]).unwrap();

    let x87 = &bench.cpu.x87;
    assert_eq!((x87.status, x87.tags), (0, 0xff));
    assert_eq!(x87.registers[1], 0xffff << 64 | u128::from(A ^ B));
    assert_eq!(x87.registers[3], B.into());
}

#[test]
fn emms_empties_all_registers() {
    let mut bench = bench();

    bench.run(&[0x0f, 0x77]).unwrap();

    assert_eq!((bench.cpu.x87.status, bench.cpu.x87.tags), (0, 0));
}

#[test]
fn mmx_instruction_that_faults_leaves_the_stack_as_it_is() {
    let mut bench = bench();
    bench.cpu.gpr[Cpu::RDI] = 1 << 63;
    let before = bench.cpu.x87.clone();

    // PADDB MM1, [RDI]
    assert_eq!(bench.run(&[0x0f, 0xfc, 0x0f]), Err(Exception::PROTECTION));
    assert_eq!(bench.cpu.x87, before);
}

#[test]
fn mmx_instruction_reports_pending_exceptions_and_obeys_cr0() {
    let pxor = [0x0f, 0xef, 0xcb];
    let mut bench = bench();
    bench.cpu.x87.status |= 0x8084;
    assert_eq!(bench.run(&pxor), Err(Exception::X87));

    bench.cpu.cr0 |= cr::CR0_TS;
    assert_eq!(bench.run(&pxor), Err(Exception::NO_MATH));

    bench.cpu.cr0 |= cr::CR0_EM;
    assert_eq!(bench.run(&pxor), Err(Exception::UNDEFINED));
}

#[test]
fn transfers_move_between_registers_and_memory() {
    let mut bench = bench();

    // MOVD ECX, MM1; MOVQ [RDI], MM3; MOVQ2DQ XMM2, MM3; PMOVMSKB EAX, MM1; PEXTRW EDX, MM1, 2
    bench
        .run(&[
            0x0f, 0x7e, 0xc9, 0x0f, 0x7f, 0x1f, 0xf3, 0x0f, 0xd6, 0xd3, 0x0f, 0xd7, 0xc1, 0x0f, 0xc5, 0xd1, 2,
        ])
        .unwrap();

    assert_eq!(bench.cpu.gpr[Cpu::RCX], A & 0xffff_ffff);
    assert_eq!(bench.quad(0), B);
    assert_eq!(bench.cpu.vector.registers[2].0, [B, 0, 0, 0]);
    assert_eq!(bench.cpu.gpr[Cpu::RAX], 0b1100_1011);
    assert_eq!(bench.cpu.gpr[Cpu::RDX], 0x7f01);
}

#[test]
fn shuffles_take_words_and_bytes_by_number() {
    let mut bench = bench();

    // PSHUFW MM2, MM1, 0x1b; PALIGNR MM3, MM1, 6; PINSRW MM1, ECX, 3
    bench.cpu.gpr[Cpu::RCX] = 0x1_1234;
    bench
        .run(&[
            0x0f, 0x70, 0xd1, 0x1b, 0x0f, 0x3a, 0x0f, 0xd9, 6, 0x0f, 0xc4, 0xc9, 3,
        ])
        .unwrap();

    assert_eq!(mm(&bench, 2), 0xfffe_8001_7f01_80ff);
    assert_eq!(mm(&bench, 3), 0x80ff_7fff_0003_80ff);
    assert_eq!(mm(&bench, 1), 0x1234_7f01_8001_fffe);
}

#[test]
fn maskmovq_stores_selected_bytes_only() {
    let mut bench = bench();
    bench.set_data(0, &[0xcc; 8]);

    // MASKMOVQ MM3, MM1
    bench.run(&[0x0f, 0xf7, 0xd9]).unwrap();

    assert_eq!(bench.data(0, 8), [0x03, 0x00, 0xcc, 0x7f, 0xcc, 0xcc, 0x02, 0x01]);
    assert_eq!(bench.cpu.x87.tags, 0xff);
}

#[test]
fn conversions_round_by_mxcsr_and_set_its_flags() {
    let mut bench = bench();
    bench.cpu.vector.registers[1].0 = [0x4020_0000_bfc0_0000, 0, 0, 0];

    // CVTPS2PI MM3, XMM1: -1.5 and 2.5 to nearest; CVTTPS2PI MM4, XMM1
    bench.run(&[0x0f, 0x2d, 0xd9, 0x0f, 0x2c, 0xe1]).unwrap();

    assert_eq!(mm(&bench, 3), 0x0000_0002_ffff_fffe);
    assert_eq!(mm(&bench, 4), 0x0000_0002_ffff_ffff);
    assert_eq!(bench.cpu.vector.mxcsr, 0x1fa0);
}

#[test]
fn conversion_of_too_much_unmasked_is_a_simd_exception() {
    let mut bench = bench();
    bench.cpu.vector.registers[1].0 = [0x7f80_0000, 0, 0, 0];
    bench.cpu.vector.mxcsr = 0x1f00;

    assert_eq!(bench.run(&[0x0f, 0x2d, 0xd9]), Err(Exception::SIMD));
    assert_eq!(bench.cpu.vector.mxcsr, 0x1f01);
    // The x87 is turned all the same: seen on Zen.
    assert_eq!(mm(&bench, 3), B);

    bench.cpu.cr4 &= !cr::CR4_OSXMMEXCPT;
    assert_eq!(bench.run(&[0x0f, 0x2d, 0xd9]), Err(Exception::UNDEFINED));
}

#[test]
fn conversion_from_memory_has_no_regard_to_the_stack() {
    let mut bench = bench();
    bench.set_data(0, &[0xff, 0xff, 0xff, 0xff, 3, 0, 0, 0]);
    let before = bench.cpu.x87.clone();

    // CVTPI2PS XMM3, [RDI]; CVTPI2PD XMM4, [RDI]
    bench.run(&[0x0f, 0x2a, 0x1f, 0x66, 0x0f, 0x2a, 0x27]).unwrap();

    assert_eq!(bench.cpu.vector.registers[3].0[0], 0x4040_0000_bf80_0000);
    assert_eq!(
        bench.cpu.vector.registers[4].0[..2],
        [(-1.0_f64).to_bits(), 3.0_f64.to_bits()]
    );
    assert_eq!(bench.cpu.x87, before);
}

#[test]
fn conversion_of_misaligned_doubles_is_a_protection_fault() {
    let mut bench = bench();
    bench.cpu.gpr[Cpu::RDI] = DATA + 8;

    // CVTPD2PI MM3, [RDI]
    assert_eq!(bench.run(&[0x66, 0x0f, 0x2d, 0x1f]), Err(Exception::PROTECTION));
}
