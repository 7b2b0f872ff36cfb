//! The exception handler in 32-bit code, and the way from one mode to another.

use iced_x86::code_asm::{
    AsmMemoryOperand, CodeAssembler, al, byte_ptr, cr0, cr2, cr3, cr4, ds, dword_ptr, dx, eax, ecx, edi, edx,
    es, esi, esp, ptr, ss, word_ptr,
};
use iced_x86::{BlockEncoderOptions, Code, IcedError, Instruction};

use crate::exceptions;
use crate::hostile::part::{self, word};
use crate::hostile::place::{
    END_PORT, FRAME, KERNEL_CS, KERNEL_SS, NARROW_HANDLER, NARROW_IDTR, NEXT_PART, NEXT_RECORD, PARTS_LEFT,
    RECORD_LEN, SWITCH_STACK_TOP, WIDE_IDTR,
};
use crate::hostile::setting::bit;

const EFER: u32 = 0xc000_0080;
/// Of what `PUSHAD` pushes, EDI is the lowest: it is the ninth of the registers in [`FRAME`].
const FRAME_EDI: i32 = FRAME as i32 + 9 * 8;
const REGISTERS: i32 = 8;
/// What the handler pushes behind `PUSHAD`: ES, DS, CR0, CR2.
const ABOVE_PUSHAD: i32 = 4 * 4;

/// Its code, which begins with the way to the next part, and where it begins for each vector. `arrival` is where parts
/// in IA-32e mode are gone on with.
pub(super) fn assemble(arrival: u64) -> Result<(Vec<u8>, Vec<u64>), IcedError> {
    let mut a = CodeAssembler::new(32)?;
    switch(&mut a, arrival)?;
    let mut common = a.create_label();
    let entries = exceptions::entries(&mut a, common)?;
    a.set_label(&mut common)?;
    write_record(&mut a)?;
    let mut over = a.create_label();
    a.dec(dword_ptr(PARTS_LEFT as i32))?;
    a.js(over)?;
    a.jmp(NARROW_HANDLER)?;
    a.set_label(&mut over)?;
    a.mov(edx, u32::from(END_PORT))?;
    a.out(dx, al)?;
    a.hlt()?;
    let result = a.assemble_options(
        NARROW_HANDLER,
        BlockEncoderOptions::RETURN_NEW_INSTRUCTION_OFFSETS,
    )?;
    let addresses = entries.iter().map(|label| result.label_ip(label));
    let addresses = addresses.collect::<Result<_, _>>()?;
    Ok((result.inner.code_buffer, addresses))
}

/// What `IRET` finds comes last; whether SS and ESP are among that depends on what was interrupted.
fn write_record(a: &mut CodeAssembler) -> Result<(), IcedError> {
    a.pushad()?;
    a.push(es)?;
    a.push(ds)?;
    a.mov(eax, u32::from(KERNEL_SS))?;
    a.mov(ds, eax)?;
    a.mov(es, eax)?;
    a.mov(eax, cr0)?;
    a.push(eax)?;
    a.mov(eax, cr2)?;
    a.push(eax)?;
    a.cld()?;
    for index in 0..REGISTERS {
        a.mov(eax, ptr(esp + (ABOVE_PUSHAD + index * 4)))?;
        a.mov(dword_ptr(FRAME_EDI + index * 8), eax)?;
        a.mov(dword_ptr(FRAME_EDI + index * 8 + 4), 0)?;
    }
    // The stack may begin anywhere in its segment.
    a.mov(edi, ptr(NEXT_RECORD as i32))?;
    a.mov(esi, esp)?;
    a.mov(ecx, RECORD_LEN as u32 / 4)?;
    a.db(&[SS_PREFIX])?;
    a.rep().movsd()?;
    a.mov(ptr(NEXT_RECORD as i32), edi)
}

const SS_PREFIX: u8 = 0x36;

/// One word of the part that ESI points to.
fn field(word: usize) -> AsmMemoryOperand {
    ptr(esi + word as i32 * 8)
}

/// From any mode in which pages of the kernel lie where they are in physical memory, to the next part.
fn switch(a: &mut CodeAssembler, arrival: u64) -> Result<(), IcedError> {
    a.mov(eax, u32::from(KERNEL_SS))?;
    a.mov(ds, eax)?;
    a.mov(ss, eax)?;
    a.mov(esp, SWITCH_STACK_TOP as u32)?;
    a.mov(eax, cr0)?;
    a.and(eax, !bit::PG as u32 as i32)?;
    a.mov(cr0, eax)?;
    a.mov(esi, ptr(NEXT_PART as i32))?;
    a.mov(eax, field(word::CR4))?;
    a.mov(cr4, eax)?;
    a.mov(ecx, EFER)?;
    a.mov(eax, field(word::EFER))?;
    a.xor(edx, edx)?;
    a.wrmsr()?;
    a.mov(eax, field(word::CR3))?;
    a.mov(cr3, eax)?;
    a.mov(eax, field(word::CR0))?;
    a.mov(cr0, eax)?;
    let mut narrow = a.create_label();
    a.test(dword_ptr(esi + word::EFER as i32 * 8), bit::LME as i32)?;
    a.jz(narrow)?;
    a.lidt(ptr(WIDE_IDTR as i32))?;
    a.mov(es, word_ptr(esi + word::ES as i32 * 8))?;
    a.mov(ds, word_ptr(esi + word::DS as i32 * 8))?;
    a.push(i32::from(KERNEL_CS))?;
    a.push(arrival as i32)?;
    a.add_instruction(Instruction::with(Code::Retfd))?;
    a.set_label(&mut narrow)?;
    arrive(a)
}

fn arrive(a: &mut CodeAssembler) -> Result<(), IcedError> {
    a.lidt(ptr(NARROW_IDTR as i32))?;
    a.add(dword_ptr(NEXT_PART as i32), part::WORDS as i32 * 8)?;
    let (mut inner, mut ready) = (a.create_label(), a.create_label());
    a.test(byte_ptr(esi + word::CS as i32 * 8), 3)?;
    a.jz(inner)?;
    a.push(dword_ptr(esi + word::SS as i32 * 8))?;
    a.push(dword_ptr(esi + word::RSP as i32 * 8))?;
    a.jmp(ready)?;
    a.set_label(&mut inner)?;
    a.mov(esp, field(word::RSP))?;
    a.set_label(&mut ready)?;
    for word in [word::FLAGS, word::CS, word::RIP] {
        a.push(dword_ptr(esi + word as i32 * 8))?;
    }
    for index in (0..REGISTERS).rev() {
        a.push(dword_ptr(FRAME_EDI + index * 8))?;
    }
    a.mov(es, word_ptr(esi + word::ES as i32 * 8))?;
    a.mov(ds, word_ptr(esi + word::DS as i32 * 8))?;
    a.popad()?;
    a.iretd()
}
