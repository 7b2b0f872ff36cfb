//! Which instructions cases are made of.

use iced_x86::{Code, CpuidFeature, EncodingKind, FlowControl, Instruction, Mnemonic};

/// What instructions are about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Family {
    Integer,
    Sse,
    Avx,
    X87,
    Mmx,
}

impl Family {
    pub(super) const ALL: [Self; 5] = [Self::Integer, Self::Sse, Self::Avx, Self::X87, Self::Mmx];

    /// Of 100 instructions, those below this number and not below that of the family before are of this one.
    pub(super) fn share_ends(self) -> usize {
        match self {
            Self::Integer => 45,
            Self::Sse => 62,
            Self::Avx => 84,
            Self::X87 => 95,
            Self::Mmx => 100,
        }
    }
}

pub(super) fn family(code: Code) -> Option<Family> {
    use CpuidFeature as F;
    let info = code.op_code();
    let mut sample = Instruction::default();
    sample.set_code(code);
    if !info.is_instruction() || !info.mode64() || !instruction(&sample) || is_branch(&sample) {
        return None;
    }
    let features = code.cpuid_features();
    let has = |some: &[F]| features.iter().any(|feature| some.contains(feature));
    Some(
        if info.encoding() == EncodingKind::VEX && !has(&[F::BMI1, F::BMI2]) {
            Family::Avx
        } else if has(&[F::FPU, F::FPU287, F::FPU387]) {
            Family::X87
        } else if has(&[F::MMX]) {
            Family::Mmx
        } else if has(&[F::SSE, F::SSE2, F::SSE3, F::SSSE3, F::SSE4_1, F::SSE4_2]) {
            Family::Sse
        } else {
            Family::Integer
        },
    )
}

pub(super) fn is_branch(instruction: &Instruction) -> bool {
    instruction.flow_control() == FlowControl::ConditionalBranch
}

/// Whether an instruction can be part of a case.
pub(super) fn instruction(instruction: &Instruction) -> bool {
    let encoding = matches!(instruction.encoding(), EncodingKind::Legacy | EncodingKind::VEX);
    encoding
        && matches!(
            instruction.flow_control(),
            FlowControl::Next | FlowControl::ConditionalBranch
        )
        && instruction
            .cpuid_features()
            .iter()
            .all(|feature| of_the_profile(*feature))
        && !instruction.is_privileged()
        && !instruction.is_save_restore_instruction()
        && !depends_on_the_world(instruction.mnemonic())
        && !depends_on_the_vendor(instruction)
        && !is_open(instruction.mnemonic())
        && !is_approximate(instruction.mnemonic())
}

/// x86-64-v3: what both the host and the guest have.
fn of_the_profile(feature: CpuidFeature) -> bool {
    use CpuidFeature as F;
    matches!(
        feature,
        F::INTEL8086
            | F::INTEL186
            | F::INTEL286
            | F::INTEL386
            | F::INTEL486
            | F::X64
            | F::CX8
            | F::CMOV
            | F::MULTIBYTENOP
            | F::PAUSE
            | F::FPU
            | F::FPU287
            | F::FPU387
            | F::MMX
            | F::SSE
            | F::SSE2
            | F::SSE3
            | F::SSSE3
            | F::SSE4_1
            | F::SSE4_2
            | F::POPCNT
            | F::LZCNT
            | F::MOVBE
            | F::BMI1
            | F::BMI2
            | F::CMPXCHG16B
            | F::AVX
            | F::AVX2
            | F::FMA
            | F::F16C
    )
}

/// What tells one world from the other, leaves them for good, or changes what cases share: segment registers.
fn depends_on_the_world(mnemonic: Mnemonic) -> bool {
    use Mnemonic as M;
    matches!(
        mnemonic,
        M::Cpuid
            | M::Rdtsc
            | M::Lar
            | M::Lsl
            | M::Verr
            | M::Verw
            | M::Smsw
            | M::Sldt
            | M::Str
            | M::Sgdt
            | M::Sidt
            | M::In
            | M::Out
            | M::Insb
            | M::Insw
            | M::Insd
            | M::Outsb
            | M::Outsw
            | M::Outsd
            | M::Cli
            | M::Sti
            | M::Lfs
            | M::Lgs
            | M::Lss
            | M::Rdpmc
            | M::INVALID
    )
}

/// AMD's processors have PREFETCHW in memory only, Intel's do nothing with its register form. POPF can switch on
/// alignment checks, which processors make for vectors as they like (Intel SDM vol. 3, table 6-8).
fn depends_on_the_vendor(instruction: &Instruction) -> bool {
    use Code as C;
    matches!(
        instruction.code(),
        C::Reservednop_rm16_r16_0F0D
            | C::Reservednop_rm32_r32_0F0D
            | C::Reservednop_rm64_r64_0F0D
            | C::Popfq
            | C::Pause
    )
}

/// Known to differ from Zen in which of two exceptions comes first, and in what has changed by then: conversions into
/// MMX registers and stores of integers while invalid operations are not masked, and masked stores of bytes across
/// an absent page.
fn is_open(mnemonic: Mnemonic) -> bool {
    use Mnemonic as M;
    matches!(
        mnemonic,
        M::Cvtps2pi
            | M::Cvttps2pi
            | M::Cvtpd2pi
            | M::Cvttpd2pi
            | M::Cvtpi2ps
            | M::Fist
            | M::Fistp
            | M::Fisttp
            | M::Fbstp
            | M::Fst
            | M::Fstp
            | M::Vcvtps2ph
            | M::Maskmovq
            | M::Maskmovdqu
            | M::Vmaskmovdqu
    )
}

/// Approximations differ between processors of one vendor: only their error is defined (Intel SDM vol. 2, RCPPS,
/// RSQRTPS; vol. 1, 8.3.10 for transcendental instructions).
fn is_approximate(mnemonic: Mnemonic) -> bool {
    use Mnemonic as M;
    matches!(
        mnemonic,
        M::Rcpps
            | M::Rcpss
            | M::Rsqrtps
            | M::Rsqrtss
            | M::Vrcpps
            | M::Vrcpss
            | M::Vrsqrtps
            | M::Vrsqrtss
            | M::F2xm1
            | M::Fyl2x
            | M::Fyl2xp1
            | M::Fptan
            | M::Fpatan
            | M::Fsin
            | M::Fcos
            | M::Fsincos
    )
}
