//! One instruction out of bytes, and what its kind means for the block it is in.

use iced_x86::{
    Code, CpuidFeature, Decoder, DecoderOptions, FlowControl, Instruction, Mnemonic as M, OpKind, Register,
    RflagsBits,
};

use crate::cpu::Cpu;
use crate::{integer, system};

/// Near branches obey an operand-size prefix in 64-bit code, as AMD's processors have it; hints that no guest is
/// shown (CET, MPX, cache management) are the no-operations that older processors take them for.
const DECODER: u32 = DecoderOptions::AMD | DecoderOptions::FORCE_RESERVED_NOP;

impl Cpu {
    /// How this CPU takes code: `TZCNT` and `LZCNT` are `BSF` and `BSR` where they do not exist, whose prefix says nothing
    /// (Intel SDM vol. 2, TZCNT, LZCNT).
    pub(crate) fn decoder(&self) -> u32 {
        let without = |feature, option| if self.features.has(feature) { 0 } else { option };
        DECODER
            | without(CpuidFeature::BMI1, DecoderOptions::NO_MPFX_0FBC)
            | without(CpuidFeature::LZCNT, DecoderOptions::NO_MPFX_0FBD)
    }

    pub(super) fn decode(&self, bytes: &[u8], bits: u8, ip: u64) -> Instruction {
        let mut instruction = Decoder::with_ip(bits.into(), bytes, ip, self.decoder()).decode();
        if instruction.code() == Code::Pause && bits == 64 {
            return exchange_in_pause(bytes, instruction);
        }
        if matches!(instruction.mnemonic(), M::Bsf | M::Bsr) {
            // The host, on which it may run as itself, would take it for the other one.
            instruction.set_has_rep_prefix(false);
        }
        instruction
    }
}

/// REX.B makes an exchange with R8 out of `PAUSE`, as out of any other `NOP` of one byte (Intel SDM vol. 2, XCHG);
/// the decoder does not know.
fn exchange_in_pause(bytes: &[u8], pause: Instruction) -> Instruction {
    let prefixes = &bytes[..pause.len() - 1];
    let Some(&rex) = prefixes.last().filter(|rex| *rex & 0xf1 == 0x41) else {
        return pause;
    };
    let (code, extended, accumulator) = match (rex & 8 != 0, prefixes.contains(&0x66)) {
        (true, _) => (Code::Xchg_r64_RAX, Register::R8, Register::RAX),
        (false, true) => (Code::Xchg_r16_AX, Register::R8W, Register::AX),
        (false, false) => (Code::Xchg_r32_EAX, Register::R8D, Register::EAX),
    };
    // These operands suit this code: it cannot fail.
    let Ok(mut exchange) = Instruction::with2(code, extended, accumulator) else {
        return pause;
    };
    exchange.set_len(pause.len());
    exchange.set_next_ip(pause.next_ip());
    exchange
}

/// Whether what comes after `instruction` may have to be found anew: control went elsewhere, or it may have
/// changed how code is decoded or what may be accessed.
pub(super) fn ends_block(instruction: &Instruction) -> bool {
    !lets_interrupts_in(instruction)
        && (instruction.flow_control() != FlowControl::Next
            || instruction.is_privileged() && !goes_on(instruction)
            || instruction.rflags_modified() & RflagsBits::AC != 0
            || changes_vector_mode(instruction)
            || integer::ends_block(instruction)
            || system::ends_block(instruction))
}

/// Privileged instructions that leave code and memory as they are, or are noticed where they do not.
fn goes_on(instruction: &Instruction) -> bool {
    let reads_control = instruction.mnemonic() == M::Mov
        && instruction.op1_kind() == OpKind::Register
        && instruction.op1_register().is_cr();
    reads_control || matches!(instruction.mnemonic(), M::Cli | M::Swapgs | M::Rdmsr | M::Wrmsr)
}

/// Whether an interrupt may be let in behind `instruction`. Translated code does these without leaving, in most cases.
pub(super) fn lets_interrupts_in(instruction: &Instruction) -> bool {
    matches!(instruction.mnemonic(), M::Sti | M::Popf | M::Popfd | M::Popfq)
}

/// Instructions that set MXCSR or XCR0.
fn changes_vector_mode(instruction: &Instruction) -> bool {
    matches!(
        instruction.mnemonic(),
        M::Ldmxcsr
            | M::Vldmxcsr
            | M::Fxrstor
            | M::Fxrstor64
            | M::Xrstor
            | M::Xrstor64
            | M::Xrstors
            | M::Xrstors64
            | M::Xsetbv
    )
}
