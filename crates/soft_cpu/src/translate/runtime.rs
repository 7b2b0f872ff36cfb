//! The three pieces of host code that every block shares: the way in, the way out, the way to a handler.
//!
//! While translated code runs, RSP is an address inside the [`Cpu`](crate::cpu::Cpu): behind room for what a signal
//! handler of the host may push. Everything written in Rust runs on the thread's own stack.

use super::assembler::{Assembler, Condition, RAX, RBP, RBX, RDI, RSI, RSP};
use super::eligible::host_has_avx;
use super::layout;
use super::registers::held;

/// Addresses of the shared pieces.
#[derive(Clone, Copy, Debug)]
pub(super) struct Runtime {
    /// `extern "sysv64" fn(cpu, code)`: runs translated code until it leaves.
    pub(super) enter: u64,
    /// Jumped to with everything in its place: back to who called `enter`.
    pub(super) exit: u64,
    /// Called with everything in its place: has a handler execute one instruction, then returns, or leaves.
    pub(super) slow: u64,
}

/// Registers that a function of the System V ABI must keep.
const CALLEE_SAVED: [u8; 6] = [RBX, RBP, 12, 13, 14, 15];

impl Runtime {
    /// Assembles them for `base`. `handler` is the address of an `extern "sysv64" fn(cpu) -> u64` that is 0 where
    /// translated code goes on.
    pub(super) fn assemble(base: u64, handler: u64) -> (Self, Vec<u8>) {
        let mut asm = Assembler::new(base);
        let enter = enter(&mut asm);
        let exit = asm.here();
        store_guest(&mut asm);
        leave(&mut asm);
        let slow = slow(&mut asm, handler);
        (Self { enter, exit, slow }, asm.bytes().to_vec())
    }
}

fn enter(asm: &mut Assembler) -> u64 {
    let address = asm.here();
    for register in CALLEE_SAVED {
        asm.push(register);
    }
    // Calls of the ABI are made with RSP a multiple of 16; this one came with 8 more, and six were pushed.
    asm.lea(true, RSP, Some(RSP), None, -8);
    asm.lea(true, RDI, Some(RDI), None, layout::ROOM);
    asm.store(RDI, layout::NATIVE_RSP, RSP);
    asm.store(RDI, layout::TARGET, RSI);
    asm.mov(RSP, RDI);
    load_guest(asm);
    asm.jmp_memory(RSP, None, layout::TARGET);
    address
}

/// Guest state from the `Cpu` into its registers.
fn load_guest(asm: &mut Assembler) {
    let avx = host_has_avx();
    asm.ldmxcsr(RSP, layout::MXCSR);
    for number in 0..16 {
        asm.vector(avx, false, number as u8, layout::vector(number));
    }
    for (number, register) in held() {
        asm.load(register, RSP, layout::gpr(number));
    }
}

/// Guest state from its registers into the `Cpu`, and vector registers as native code wants them.
fn store_guest(asm: &mut Assembler) {
    let avx = host_has_avx();
    for (number, register) in held() {
        asm.store(RSP, layout::gpr(number), register);
    }
    for number in 0..16 {
        asm.vector(avx, true, number as u8, layout::vector(number));
    }
    asm.stmxcsr(RSP, layout::MXCSR);
    asm.ldmxcsr(RSP, layout::HOST_MXCSR);
    if avx {
        asm.vzeroupper();
    }
}

/// Returns to who called `enter`; guest state is in the `Cpu`.
fn leave(asm: &mut Assembler) {
    asm.load(RSP, RSP, layout::NATIVE_RSP);
    asm.lea(true, RSP, Some(RSP), None, 8);
    for register in CALLEE_SAVED.into_iter().rev() {
        asm.pop(register);
    }
    asm.ret();
}

fn slow(asm: &mut Assembler, handler: u64) -> u64 {
    let address = asm.here();
    // The return address, so that RSP is the `Cpu` again. It is kept where `enter` keeps its target.
    asm.pop_memory(RSP, layout::TARGET);
    store_guest(asm);
    asm.mov(RBX, RSP);
    asm.lea(true, RDI, Some(RSP), None, -layout::ROOM);
    asm.load(RSP, RSP, layout::NATIVE_RSP);
    asm.mov_imm(RAX, handler);
    asm.call_register(RAX);
    asm.mov(RSP, RBX);
    asm.test(true, RAX);
    let goes_on = asm.jcc_forward(Condition::Equal);
    leave(asm);
    asm.land(goes_on);
    load_guest(asm);
    asm.jmp_memory(RSP, None, layout::TARGET);
    address
}
