//! The exception handler: it writes down what happened, and goes on with the next part.

use iced_x86::code_asm::{
    CodeAssembler, al, cr2, ptr, qword_ptr, r8, r9, r10, r11, r12, r13, r14, r15, rax, rbp, rbx, rcx, rdi,
    rdx, rsi, rsp,
};
use iced_x86::{BlockEncoderOptions, IcedError};

use super::place::{END_PORT, HANDLER, KERNEL, NEXT_PART, NEXT_RECORD, PARTS_LEFT, RECORD_LEN};

/// Vectors with a handler.
pub(super) const EXCEPTIONS: u8 = 32;
/// Those that push an error code (Intel SDM vol. 3, table 6-1).
const WITH_ERROR_CODE: [u8; 8] = [8, 10, 11, 12, 13, 14, 17, 21];
/// Words of what [`super::place::PARTS`] holds for a part: RIP, CS, RFLAGS, RSP, SS.
pub(super) const PART_WORDS: usize = 5;

/// The handler's code, and where it begins for each vector.
pub(super) fn assemble() -> Result<(Vec<u8>, Vec<u64>), IcedError> {
    let mut a = CodeAssembler::new(64)?;
    let mut common = a.create_label();
    let mut entries = Vec::new();
    for vector in 0..EXCEPTIONS {
        let mut label = a.create_label();
        a.set_label(&mut label)?;
        if !WITH_ERROR_CODE.contains(&vector) {
            a.push(0)?;
        }
        a.push(i32::from(vector))?;
        a.jmp(common)?;
        entries.push(label);
    }
    a.set_label(&mut common)?;
    write_record(&mut a)?;
    let mut more = a.create_label();
    a.dec(qword_ptr(r8 + PARTS_LEFT as i32))?;
    a.jns(more)?;
    a.mov(rdx, u64::from(END_PORT))?;
    a.out(iced_x86::code_asm::dx, al)?;
    a.hlt()?;
    a.set_label(&mut more)?;
    next_part(&mut a)?;
    let result = a.assemble_options(
        KERNEL + HANDLER,
        BlockEncoderOptions::RETURN_NEW_INSTRUCTION_OFFSETS,
    )?;
    let addresses = entries.iter().map(|label| result.label_ip(label));
    let addresses = addresses.collect::<Result<_, _>>()?;
    Ok((result.inner.code_buffer, addresses))
}

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
    let frame = RECORD_LEN as i32 - PART_WORDS as i32 * 8;
    a.mov(rsi, qword_ptr(r8 + NEXT_PART as i32))?;
    a.lea(rdi, ptr(rsp + frame))?;
    a.mov(rcx, PART_WORDS as u64)?;
    a.rep().movsq()?;
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
