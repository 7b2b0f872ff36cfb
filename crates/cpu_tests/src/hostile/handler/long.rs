//! The exception handler in 64-bit code.

use iced_x86::code_asm::{
    CodeAssembler, al, cr2, ptr, qword_ptr, r8, r9, r10, r11, r12, r13, r14, r15, rax, rbp, rbx, rcx, rdi,
    rdx, rsi, rsp,
};
use iced_x86::{BlockEncoderOptions, Code, IcedError, Instruction};

use crate::exceptions;
use crate::hostile::part;
use crate::hostile::place::{
    END_PORT, FRAME, HANDLER, KERNEL, KERNEL_CS32, NARROW_HANDLER, NEXT_PART, NEXT_RECORD, PARTS_LEFT,
    RECORD_LEN, SWITCH_STACK_TOP,
};

/// Words that `IRET` takes, the first of a part's.
const RETURN_WORDS: usize = 5;

/// The handler's code.
pub(super) struct Long {
    pub(super) code: Vec<u8>,
    /// Where it begins for each vector.
    pub(super) entries: Vec<u64>,
    /// Where a part in IA-32e mode is gone on with, whatever the mode was before.
    pub(super) arrival: u64,
}

/// Where programs are `mixed`, it leaves going on to the code at [`NARROW_HANDLER`].
pub(super) fn assemble(mixed: bool) -> Result<Long, IcedError> {
    let mut a = CodeAssembler::new(64)?;
    let mut common = a.create_label();
    let entries = exceptions::entries(&mut a, common)?;
    a.set_label(&mut common)?;
    write_record(&mut a)?;
    let (mut more, mut arrival) = (a.create_label(), a.create_label());
    a.dec(qword_ptr(r8 + PARTS_LEFT as i32))?;
    a.jns(more)?;
    a.mov(rdx, u64::from(END_PORT))?;
    a.out(iced_x86::code_asm::dx, al)?;
    a.hlt()?;
    a.set_label(&mut more)?;
    if mixed {
        a.mov(rsp, SWITCH_STACK_TOP)?;
        a.push(i32::from(KERNEL_CS32))?;
        a.push(NARROW_HANDLER as i32)?;
        a.add_instruction(Instruction::with(Code::Retfq))?;
    }
    // An instruction has one label at the most.
    a.nop()?;
    a.set_label(&mut arrival)?;
    a.mov(r8, KERNEL)?;
    a.lea(rsp, ptr(r8 + FRAME as i32))?;
    next_part(&mut a)?;
    let result = a.assemble_options(
        KERNEL + HANDLER,
        BlockEncoderOptions::RETURN_NEW_INSTRUCTION_OFFSETS,
    )?;
    let addresses = entries.iter().map(|label| result.label_ip(label));
    let addresses = addresses.collect::<Result<Vec<_>, _>>()?;
    Ok(Long {
        entries: addresses,
        arrival: result.label_ip(&arrival)?,
        code: result.inner.code_buffer,
    })
}

/// The order of registers in [`FRAME`], behind CR2.
const PUSHED: [iced_x86::code_asm::AsmRegister64; 16] = [
    r15, r14, r13, r12, r11, r10, r9, r8, rdi, rsi, rbp, rsp, rbx, rdx, rcx, rax,
];

/// The stack is always the same, so everything has a place there. Leaves [`KERNEL`] in R8.
fn write_record(a: &mut CodeAssembler) -> Result<(), IcedError> {
    for register in PUSHED.into_iter().rev() {
        a.push(register)?;
    }
    a.mov(rax, cr2)?;
    a.push(rax)?;
    a.cld()?;
    a.mov(r8, KERNEL)?;
    a.mov(rdi, qword_ptr(r8 + NEXT_RECORD as i32))?;
    a.mov(rsi, rsp)?;
    a.mov(rcx, RECORD_LEN / 8)?;
    a.rep().movsq()?;
    a.mov(qword_ptr(r8 + NEXT_RECORD as i32), rdi)
}

fn next_part(a: &mut CodeAssembler) -> Result<(), IcedError> {
    let frame = RECORD_LEN as i32 - RETURN_WORDS as i32 * 8;
    a.mov(rsi, qword_ptr(r8 + NEXT_PART as i32))?;
    a.lea(rdi, ptr(rsp + frame))?;
    a.mov(rcx, RETURN_WORDS as u64)?;
    a.rep().movsq()?;
    a.add(rsi, (part::WORDS - RETURN_WORDS) as i32 * 8)?;
    a.mov(qword_ptr(r8 + NEXT_PART as i32), rsi)?;
    a.pop(rax)?;
    for register in PUSHED {
        if register == rsp {
            a.lea(rsp, ptr(rsp + 8))?;
        } else {
            a.pop(register)?;
        }
    }
    a.lea(rsp, ptr(rsp + 16))?;
    a.iretq()
}
