//! The machine code around cases: what loads a block, what stores it, and what happens before and after a batch.

use anyhow::{Context, Result};
use iced_x86::code_asm::{
    AsmRegister64, CodeAssembler, ptr, qword_ptr, r8, r9, r10, r11, r12, r13, r14, r15, rax, rbp, rbx, rcx,
    rdi, rdx, rsi, rsp,
};
use iced_x86::code_asm::{eax, ecx, edi, edx};
use iced_x86::{BlockEncoderOptions, IcedError};

use crate::block::{BLOCK_LEN, NO_EXCEPTION, REGISTERS, WINDOWS, XSAVE_LEN, index};
use crate::layout::{
    AT_END, BATCH_LEN, BLOCKS, CODE, COUNT, CURRENT, LAST_WINDOW, LAST_WINDOW_LEN, RUNTIME, SCRATCH,
    SIGACTION, SIGSTACK, STACK_TOP, TARGET, WINDOW, WINDOW_LEN,
};

/// The harness's code for [`RUNTIME`] and its entry points.
pub(crate) struct Harness {
    pub(crate) code: Vec<u8>,
    /// The child starts here.
    pub(crate) start: u64,
    /// Runs the batch from [`CURRENT`] on.
    pub(crate) next_case: u64,
    /// A case's last jump goes here.
    pub(crate) done: u64,
    /// Goes on behind a case whose registers are stored.
    pub(crate) finish: u64,
    pub(crate) signal_handler: u64,
    /// What [`AT_END`] is in the child, and in the guest.
    pub(crate) child_end: u64,
    pub(crate) guest_end: u64,
}

/// The guest's way out, an interrupt gate.
pub(crate) const END_VECTOR: u8 = 0x80;

/// In the order of instruction encodings.
pub(crate) const GENERAL: [AsmRegister64; 16] = [
    rax, rcx, rdx, rbx, rsp, rbp, rsi, rdi, r8, r9, r10, r11, r12, r13, r14, r15,
];

/// A register's place in the block at R15.
pub(crate) fn slot(register: usize) -> i32 {
    (REGISTERS + register * 8) as i32
}

/// With the block's address in R15, stores all general registers but RSP, whose value that `r15` had is in
/// [`SCRATCH`].
pub(crate) fn store_general(a: &mut CodeAssembler) -> Result<(), IcedError> {
    for (number, register) in GENERAL
        .into_iter()
        .enumerate()
        .filter(|(number, _)| *number != 4 && *number != 15)
    {
        a.mov(qword_ptr(r15 + slot(index::GENERAL[number])), register)?;
    }
    a.mov(rax, qword_ptr(SCRATCH))?;
    a.mov(qword_ptr(r15 + slot(index::GENERAL[15])), rax)
}

/// Stores x87, SSE and AVX state into the block at R15.
pub(crate) fn store_extended(a: &mut CodeAssembler) -> Result<(), IcedError> {
    a.mov(eax, 7)?;
    a.xor(edx, edx)?;
    a.xsave64(ptr(r15))
}

impl Harness {
    /// # Errors
    /// None that its callers could do anything about.
    pub(crate) fn new() -> Result<Self> {
        assemble().context("the harness cannot be assembled")
    }
}

fn assemble() -> Result<Harness, IcedError> {
    let mut a = CodeAssembler::new(64)?;
    let [
        mut start,
        mut next_case,
        mut done,
        mut finish,
        mut signal_handler,
        mut child_end,
        mut guest_end,
    ] = std::array::from_fn(|_| a.create_label());
    a.set_label(&mut start)?;
    set_up_signals(&mut a)?;
    let mut read_batch = a.create_label();
    a.set_label(&mut read_batch)?;
    read(&mut a)?;
    a.jmp(next_case)?;

    a.set_label(&mut child_end)?;
    write(&mut a)?;
    a.jmp(read_batch)?;

    a.set_label(&mut guest_end)?;
    a.int(i32::from(END_VECTOR))?;

    a.set_label(&mut next_case)?;
    let mut some = a.create_label();
    a.mov(r15, qword_ptr(CURRENT))?;
    a.cmp(qword_ptr(COUNT), 0)?;
    a.jne(some)?;
    a.jmp(qword_ptr(AT_END))?;
    a.set_label(&mut some)?;
    load(&mut a)?;

    a.set_label(&mut done)?;
    store(&mut a)?;
    a.set_label(&mut finish)?;
    store_windows(&mut a)?;
    a.add(qword_ptr(CURRENT), BLOCK_LEN as i32)?;
    a.dec(qword_ptr(COUNT))?;
    a.jmp(next_case)?;

    a.set_label(&mut signal_handler)?;
    take_signal(&mut a)?;
    a.jmp(finish)?;

    let result = a.assemble_options(RUNTIME, BlockEncoderOptions::RETURN_NEW_INSTRUCTION_OFFSETS)?;
    Ok(Harness {
        start: result.label_ip(&start)?,
        next_case: result.label_ip(&next_case)?,
        done: result.label_ip(&done)?,
        finish: result.label_ip(&finish)?,
        signal_handler: result.label_ip(&signal_handler)?,
        child_end: result.label_ip(&child_end)?,
        guest_end: result.label_ip(&guest_end)?,
        code: result.inner.code_buffer,
    })
}

/// From the block at R15; then jumps to the case.
fn load(a: &mut CodeAssembler) -> Result<(), IcedError> {
    a.mov(rax, qword_ptr(r15 + slot(index::RIP)))?;
    a.mov(qword_ptr(TARGET), rax)?;
    a.lea(rsi, qword_ptr(r15 + WINDOWS as i32))?;
    for (window, len) in [(WINDOW, WINDOW_LEN), (LAST_WINDOW, LAST_WINDOW_LEN)] {
        a.mov(rdi, window)?;
        a.mov(ecx, (len / 8) as u32)?;
        a.rep().movsq()?;
    }
    a.mov(eax, 7)?;
    a.xor(edx, edx)?;
    a.xrstor64(ptr(r15))?;
    a.mov(rsp, STACK_TOP)?;
    a.push(qword_ptr(r15 + slot(index::FLAGS)))?;
    a.popfq()?;
    for (number, register) in GENERAL.into_iter().enumerate() {
        a.mov(register, qword_ptr(r15 + slot(index::GENERAL[number])))?;
    }
    a.jmp(qword_ptr(TARGET))
}

/// What a case left that came to its end.
fn store(a: &mut CodeAssembler) -> Result<(), IcedError> {
    a.mov(qword_ptr(SCRATCH), r15)?;
    a.mov(r15, qword_ptr(CURRENT))?;
    a.mov(qword_ptr(r15 + slot(index::GENERAL[4])), rsp)?;
    a.mov(rsp, STACK_TOP)?;
    a.pushfq()?;
    a.pop(qword_ptr(r15 + slot(index::FLAGS)))?;
    // Direction and alignment checks off.
    a.push(2)?;
    a.popfq()?;
    store_general(a)?;
    store_extended(a)?;
    a.mov(qword_ptr(r15 + slot(index::VECTOR)), NO_EXCEPTION as i32)?;
    a.mov(qword_ptr(r15 + slot(index::RIP)), 0)
}

fn store_windows(a: &mut CodeAssembler) -> Result<(), IcedError> {
    a.lea(rdi, qword_ptr(r15 + WINDOWS as i32))?;
    for (window, len) in [(WINDOW, WINDOW_LEN), (LAST_WINDOW, LAST_WINDOW_LEN)] {
        a.mov(rsi, window)?;
        a.mov(ecx, (len / 8) as u32)?;
        a.rep().movsq()?;
    }
    Ok(())
}

/// `rt_sigaction`, `sigaltstack`, `alarm`, `exit`.
mod call {
    pub(super) const READ: u32 = 0;
    pub(super) const WRITE: u32 = 1;
    pub(super) const SIGACTION: u32 = 13;
    pub(super) const ALARM: u32 = 37;
    pub(super) const EXIT: u32 = 60;
    pub(super) const SIGALTSTACK: u32 = 131;
}

/// SIGILL, SIGTRAP, SIGBUS, SIGFPE, SIGSEGV.
const SIGNALS: [u32; 5] = [4, 5, 7, 8, 11];
/// Seconds that a batch may take.
const PATIENCE: u32 = 60;

fn set_up_signals(a: &mut CodeAssembler) -> Result<(), IcedError> {
    a.mov(rdi, SIGSTACK)?;
    a.xor(rsi, rsi)?;
    a.mov(eax, call::SIGALTSTACK)?;
    a.syscall()?;
    for signal in SIGNALS {
        a.mov(edi, signal)?;
        a.mov(rsi, SIGACTION)?;
        a.xor(edx, edx)?;
        a.mov(r10, 8_u64)?;
        a.mov(eax, call::SIGACTION)?;
        a.syscall()?;
    }
    Ok(())
}

/// The number of cases and the length of the batch, then the batch; ends the process where there is none.
fn read(a: &mut CodeAssembler) -> Result<(), IcedError> {
    a.mov(rbx, COUNT)?;
    a.mov(rbp, 16_u64)?;
    transfer(a, call::READ)?;
    a.mov(edi, PATIENCE)?;
    a.mov(eax, call::ALARM)?;
    a.syscall()?;
    a.mov(rbx, CODE)?;
    a.mov(rbp, qword_ptr(BATCH_LEN))?;
    transfer(a, call::READ)?;
    a.mov(rax, BLOCKS)?;
    a.mov(qword_ptr(CURRENT), rax)
}

/// All blocks, up to the current one.
fn write(a: &mut CodeAssembler) -> Result<(), IcedError> {
    a.mov(rbx, BLOCKS)?;
    a.mov(rbp, qword_ptr(CURRENT))?;
    a.sub(rbp, rbx)?;
    transfer(a, call::WRITE)?;
    a.xor(edi, edi)?;
    a.mov(eax, call::ALARM)?;
    a.syscall()
}

/// RBP bytes at RBX, by standard input or output; ends the process when that ends.
fn transfer(a: &mut CodeAssembler, number: u32) -> Result<(), IcedError> {
    let (mut again, mut go_on) = (a.create_label(), a.create_label());
    a.set_label(&mut again)?;
    a.mov(edi, number)?;
    a.mov(rsi, rbx)?;
    a.mov(rdx, rbp)?;
    a.mov(eax, number)?;
    a.syscall()?;
    a.test(rax, rax)?;
    a.jg(go_on)?;
    a.xor(edi, edi)?;
    a.mov(eax, call::EXIT)?;
    a.syscall()?;
    a.set_label(&mut go_on)?;
    a.add(rbx, rax)?;
    a.sub(rbp, rax)?;
    a.jnz(again)
}

/// Copies what is in the `ucontext` at RDX: general registers, then the XSAVE area behind the pointer after them.
fn take_signal(a: &mut CodeAssembler) -> Result<(), IcedError> {
    const GREGS: i32 = 40;
    a.push(2)?;
    a.popfq()?;
    a.mov(r15, qword_ptr(CURRENT))?;
    a.lea(rsi, qword_ptr(rdx + GREGS))?;
    a.lea(rdi, qword_ptr(r15 + REGISTERS as i32))?;
    a.mov(ecx, ((WINDOWS - REGISTERS) / 8) as u32)?;
    a.rep().movsq()?;
    a.mov(rsi, qword_ptr(rsi - 8))?;
    a.mov(rdi, r15)?;
    a.mov(ecx, (XSAVE_LEN / 8) as u32)?;
    a.rep().movsq()
}
