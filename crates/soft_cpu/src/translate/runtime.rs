//! The three pieces of host code that every block shares: the way in, the way out, the way to a handler.
//!
//! While translated code runs, RSP is an address inside the [`Cpu`](crate::cpu::Cpu): behind room for what a signal
//! handler of the host may push. Everything written in Rust runs on the thread's own stack.

use super::assembler::{Alu, Assembler, Condition, RAX, RBP, RBX, RDI, RSI, RSP};
use super::eligible::host_has_avx;
use super::layout;
use super::registers::{T0, held};

/// Addresses of the shared pieces.
#[derive(Clone, Copy, Debug)]
pub(super) struct Runtime {
    /// `extern "sysv64" fn(cpu, code)`: runs translated code until it leaves.
    pub(super) enter: u64,
    /// Jumped to with everything in its place and RIP in `T0`: back to who called `enter`.
    pub(super) exit: u64,
    /// Called with everything in its place, the number of the exit that is taken behind the call: back to who called
    /// `enter`, who knows where that exit goes to.
    pub(super) exit_by: u64,
    /// Called with everything in its place, the numbers of a block and of an instruction in it behind the call: has a
    /// handler execute that, then returns behind the numbers, or leaves.
    pub(super) slow: u64,
    /// Called where guest vector registers and MXCSR are wanted in the host's and are not there. Keeps the flags.
    pub(super) load_vectors: u64,
}

/// What a handler says: the next instruction; back to who called `enter`.
pub(super) const GO_ON: u64 = 0;
pub(super) const LEAVE: u64 = 1;

/// Registers that a function of the System V ABI must keep.
const CALLEE_SAVED: [u8; 6] = [RBX, RBP, 12, 13, 14, 15];

impl Runtime {
    /// Assembles them for `base`. `handler` is the address of an `extern "sysv64" fn(cpu) -> u64` that is [`GO_ON`],
    /// [`LEAVE`], or the address of code to go on with.
    pub(super) fn assemble(base: u64, handler: u64) -> (Self, Vec<u8>) {
        let mut asm = Assembler::new(base);
        let enter = enter(&mut asm);
        let exit = asm.here();
        asm.store(RSP, layout::RIP, T0);
        store_guest(&mut asm);
        leave(&mut asm);
        let exit_by = exit_by(&mut asm);
        let slow = slow(&mut asm, handler);
        let load_vectors = load_vectors(&mut asm);
        let runtime = Self {
            enter,
            exit,
            exit_by,
            slow,
            load_vectors,
        };
        (runtime, asm.bytes().to_vec())
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

/// General registers from the `Cpu` to where translated code has them. Vector registers come when they are wanted.
fn load_guest(asm: &mut Assembler) {
    for (number, register) in held() {
        asm.load(register, RSP, layout::gpr(number));
    }
}

fn load_vectors(asm: &mut Assembler) -> u64 {
    let address = asm.here();
    let avx = host_has_avx();
    // The return address is where RSP points.
    const CPU: i32 = 8;
    asm.ldmxcsr(RSP, layout::MXCSR + CPU);
    for number in 0..16 {
        asm.vector(avx, false, number as u8, layout::vector(number) + CPU);
    }
    asm.store_imm32(RSP, layout::VECTORS_HELD + CPU, 1);
    asm.ret();
    address
}

/// Guest state from its registers into the `Cpu`, and vector registers as native code wants them.
fn store_guest(asm: &mut Assembler) {
    let avx = host_has_avx();
    for (number, register) in held() {
        asm.store(RSP, layout::gpr(number), register);
    }
    asm.cmp32_memory(RSP, layout::VECTORS_HELD, 0);
    let elsewhere = asm.jcc_forward(Condition::Equal);
    asm.store_imm32(RSP, layout::VECTORS_HELD, 0);
    for number in 0..16 {
        asm.vector(avx, true, number as u8, layout::vector(number));
    }
    asm.stmxcsr(RSP, layout::MXCSR);
    asm.ldmxcsr(RSP, layout::HOST_MXCSR);
    if avx {
        asm.vzeroupper();
    }
    asm.land(elsewhere);
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

/// With the return address in memory and everything else in its place: RSP is the `Cpu` again, guest state is in it, and
/// RAX the address of what is behind the call.
fn called(asm: &mut Assembler) {
    // Kept where `enter` keeps its target.
    asm.pop_memory(RSP, layout::TARGET);
    store_guest(asm);
    asm.load(RAX, RSP, layout::TARGET);
}

fn exit_by(asm: &mut Assembler) -> u64 {
    let address = asm.here();
    called(asm);
    asm.load32(RAX, RAX, 0);
    asm.store32(RSP, layout::LINK, RAX);
    leave(asm);
    address
}

fn slow(asm: &mut Assembler, handler: u64) -> u64 {
    let address = asm.here();
    called(asm);
    asm.load32(RDI, RAX, 0);
    asm.store32(RSP, layout::PLACE, RDI);
    asm.load32(RDI, RAX, 4);
    asm.store32(RSP, layout::OP, RDI);
    asm.lea(true, RAX, Some(RAX), None, 8);
    asm.store(RSP, layout::TARGET, RAX);
    asm.mov(RBX, RSP);
    asm.lea(true, RDI, Some(RSP), None, -layout::ROOM);
    asm.load(RSP, RSP, layout::NATIVE_RSP);
    asm.mov_imm(RAX, handler);
    asm.call_register(RAX);
    asm.mov(RSP, RBX);
    asm.test(true, RAX);
    let goes_on = asm.jcc_forward(Condition::Equal);
    asm.alu_imm(true, Alu::Cmp, RAX, LEAVE as i32);
    let elsewhere = asm.jcc_forward(Condition::NotEqual);
    leave(asm);
    asm.land(elsewhere);
    asm.store(RSP, layout::TARGET, RAX);
    asm.land(goes_on);
    load_guest(asm);
    asm.jmp_memory(RSP, None, layout::TARGET);
    address
}
