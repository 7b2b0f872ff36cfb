//! Which guest instructions run as themselves on the host.

use std::sync::LazyLock;

use iced_x86::{Code, CpuidFeature, EncodingKind, FlowControl, Instruction, Mnemonic, OpKind, Register};

use crate::cpu::{Mode, VectorMode};

/// What the host's processor has beyond x86-64's first version.
struct HostFeatures(Vec<CpuidFeature>);

static HOST: LazyLock<HostFeatures> = LazyLock::new(|| {
    use CpuidFeature as F;
    let found = [
        (F::SSE3, is_x86_feature_detected!("sse3")),
        (F::SSSE3, is_x86_feature_detected!("ssse3")),
        (F::SSE4_1, is_x86_feature_detected!("sse4.1")),
        (F::SSE4_2, is_x86_feature_detected!("sse4.2")),
        (F::POPCNT, is_x86_feature_detected!("popcnt")),
        (F::LZCNT, is_x86_feature_detected!("lzcnt")),
        (F::MOVBE, is_x86_feature_detected!("movbe")),
        (F::BMI1, is_x86_feature_detected!("bmi1")),
        (F::BMI2, is_x86_feature_detected!("bmi2")),
        (F::ADX, is_x86_feature_detected!("adx")),
        (F::CMPXCHG16B, is_x86_feature_detected!("cmpxchg16b")),
        (F::AES, is_x86_feature_detected!("aes")),
        (F::PCLMULQDQ, is_x86_feature_detected!("pclmulqdq")),
        (F::SHA, is_x86_feature_detected!("sha")),
        (F::AVX, is_x86_feature_detected!("avx")),
        (F::AVX2, is_x86_feature_detected!("avx2")),
        (F::FMA, is_x86_feature_detected!("fma")),
        (F::F16C, is_x86_feature_detected!("f16c")),
    ];
    HostFeatures(
        found
            .into_iter()
            .filter(|(_, there)| *there)
            .map(|(feature, _)| feature)
            .collect(),
    )
});

/// Their names.
pub(super) fn host_features() -> String {
    format!("{:?}", HOST.0)
}

/// Whether vector registers have 256 bits on this host.
pub(super) fn host_has_avx() -> bool {
    HOST.0.contains(&CpuidFeature::AVX)
}

fn host_runs(feature: CpuidFeature) -> bool {
    use CpuidFeature as F;
    match feature {
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
        | F::SSE
        | F::SSE2 => true,
        _ => HOST.0.contains(&feature),
    }
}

/// Whether `instruction` can be executed by the host with other registers and another address in it, as far as
/// its kind is concerned.
pub(super) fn runs_as_itself(instruction: &Instruction, mode: Mode) -> bool {
    instruction.flow_control() == FlowControl::Next
        && !instruction.is_privileged()
        && !instruction.is_stack_instruction()
        && !instruction.is_save_restore_instruction()
        && matches!(instruction.encoding(), EncodingKind::Legacy | EncodingKind::VEX)
        && instruction
            .cpuid_features()
            .iter()
            .all(|&feature| host_runs(feature))
        && !is_special(instruction.mnemonic())
        // Its operand in memory is wider than it says, on some hosts.
        && instruction.code() != Code::Movsxd_r16_rm16
        && (0..instruction.op_count()).all(|index| plain_operand(instruction, index))
        && vector_allowed(instruction, mode)
        && !addresses_by_bit_offset(instruction)
}

/// Whether `instruction` runs as itself without an access to memory, so that nothing can come between it and the next.
pub(super) fn only_computes(instruction: &Instruction, mode: Mode) -> bool {
    let memory = (0..instruction.op_count()).any(|operand| instruction.op_kind(operand) == OpKind::Memory);
    runs_as_itself(instruction, mode) && (!memory || instruction.mnemonic() == Mnemonic::Lea)
}

/// What touches state that is not in host registers while translated code runs, faults where the guest must not
/// see it, or has its operand where only it knows.
fn is_special(mnemonic: Mnemonic) -> bool {
    use Mnemonic as M;
    matches!(
        mnemonic,
        M::Cpuid
            | M::Rdtsc
            | M::Rdtscp
            | M::Rdpid
            | M::Rdpmc
            | M::Xgetbv
            | M::Cld
            | M::Std
            | M::Cli
            | M::Sti
            | M::Clac
            | M::Stac
            | M::Xlatb
            | M::Div
            | M::Idiv
            | M::Bound
            | M::Leave
            | M::Enter
            | M::Ldmxcsr
            | M::Stmxcsr
            | M::Vldmxcsr
            | M::Vstmxcsr
            | M::Maskmovq
            | M::Maskmovdqu
            | M::Vmaskmovdqu
            | M::Vmaskmovps
            | M::Vmaskmovpd
            | M::Vpmaskmovd
            | M::Vpmaskmovq
            | M::Rdfsbase
            | M::Rdgsbase
            | M::Wrfsbase
            | M::Wrgsbase
            | M::Clflush
            | M::Clflushopt
            | M::Clwb
            | M::Rdrand
            | M::Rdseed
            | M::Sgdt
            | M::Sidt
            | M::Sldt
            | M::Str
            | M::Smsw
            | M::Lar
            | M::Lsl
            | M::Verr
            | M::Verw
            | M::Lds
            | M::Les
            | M::Lfs
            | M::Lgs
            | M::Lss
            | M::Emms
            | M::Wait
            | M::Ud0
            | M::Ud1
            | M::Ud2
            | M::INVALID
            | M::Serialize
            | M::Arpl
    )
}

fn plain_operand(instruction: &Instruction, index: u32) -> bool {
    match instruction.op_kind(index) {
        OpKind::Register => {
            let register = instruction.op_register(index);
            register.is_gpr() || register.is_xmm() || register.is_ymm()
        }
        OpKind::Memory => {
            let gpr_or_none = |register: Register| register == Register::None || register.is_gpr();
            let ip_relative = instruction.is_ip_rel_memory_operand();
            (ip_relative || gpr_or_none(instruction.memory_base())) && gpr_or_none(instruction.memory_index())
        }
        OpKind::Immediate8
        | OpKind::Immediate8_2nd
        | OpKind::Immediate16
        | OpKind::Immediate32
        | OpKind::Immediate64
        | OpKind::Immediate8to16
        | OpKind::Immediate8to32
        | OpKind::Immediate8to64
        | OpKind::Immediate32to64 => true,
        _ => false,
    }
}

/// What needs vector state though no operand may say so: a conversion from memory to a general register rounds by
/// MXCSR, and raises the exceptions that it does not mask.
fn uses_vectors_unseen(mnemonic: Mnemonic) -> bool {
    use Mnemonic as M;
    matches!(
        mnemonic,
        M::Vzeroupper
            | M::Vzeroall
            | M::Cvtss2si
            | M::Cvtsd2si
            | M::Cvttss2si
            | M::Cvttsd2si
            | M::Vcvtss2si
            | M::Vcvtsd2si
            | M::Vcvttss2si
            | M::Vcvttsd2si
    )
}

/// Whether the host needs the guest's vector registers or MXCSR for it.
pub(super) fn uses_vectors(instruction: &Instruction) -> bool {
    let touches = |register: Register| register.is_xmm() || register.is_ymm();
    uses_vectors_unseen(instruction.mnemonic())
        || (0..instruction.op_count()).any(|index| {
            instruction.op_kind(index) == OpKind::Register && touches(instruction.op_register(index))
        })
}

fn vector_allowed(instruction: &Instruction, mode: Mode) -> bool {
    let vex = instruction.encoding() == EncodingKind::VEX;
    match (uses_vectors(instruction), vex) {
        (false, _) => true,
        (true, false) => mode.vector != VectorMode::Handlers,
        (true, true) => mode.vector == VectorMode::Avx && host_has_avx(),
    }
}

/// `BT` and its like with a register offset reach memory far from their operand.
fn addresses_by_bit_offset(instruction: &Instruction) -> bool {
    use Mnemonic as M;
    matches!(instruction.mnemonic(), M::Bt | M::Bts | M::Btr | M::Btc)
        && instruction.op0_kind() == OpKind::Memory
        && instruction.op1_kind() == OpKind::Register
}

/// The alignment that the host would demand of the memory operand with an exception; 1 where none.
pub(super) fn alignment(instruction: &Instruction, size: usize) -> u8 {
    use Mnemonic as M;
    let mnemonic = instruction.mnemonic();
    if instruction.encoding() == EncodingKind::VEX {
        let aligned = matches!(
            mnemonic,
            M::Vmovaps | M::Vmovapd | M::Vmovdqa | M::Vmovntps | M::Vmovntpd | M::Vmovntdq | M::Vmovntdqa
        );
        return if aligned { size as u8 } else { 1 };
    }
    let free = matches!(
        mnemonic,
        M::Movups
            | M::Movupd
            | M::Movdqu
            | M::Lddqu
            | M::Pcmpistri
            | M::Pcmpistrm
            | M::Pcmpestri
            | M::Pcmpestrm
    );
    if size == 16 && !free { 16 } else { 1 }
}
