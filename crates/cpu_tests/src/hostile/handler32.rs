//! The exception handler of protected mode without long mode: as [`super::handler`], but parts in ring 0 keep their
//! stack, and general registers are what it leaves in them.

use iced_x86::code_asm::{
    CodeAssembler, al, cr2, ds, dword_ptr, dx, eax, ebx, ecx, edi, edx, es, esi, esp, ptr,
};
use iced_x86::{BlockEncoderOptions, IcedError};

use super::handler::{EXCEPTIONS, PART_WORDS, WITH_ERROR_CODE};
use super::place::{
    END_PORT, HANDLER, HANDLER_STACK_TOP, NEXT_PART, NEXT_RECORD, PARTS_LEFT, RECORD_WORDS_32, USER_SS,
};

/// The handler's code for a kernel at the linear address `kernel`, and where it begins for each vector.
pub(super) fn assemble(kernel: u64) -> Result<(Vec<u8>, Vec<u64>), IcedError> {
    let mut a = CodeAssembler::new(32)?;
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
    let kernel = kernel as u32;
    write_record(&mut a, kernel)?;
    let mut more = a.create_label();
    a.dec(dword_ptr(ebx + PARTS_LEFT as i32))?;
    a.jns(more)?;
    a.mov(edx, u32::from(END_PORT))?;
    a.out(dx, al)?;
    a.hlt()?;
    a.set_label(&mut more)?;
    next_part(&mut a)?;
    let result = a.assemble_options(
        u64::from(kernel) + HANDLER,
        BlockEncoderOptions::RETURN_NEW_INSTRUCTION_OFFSETS,
    )?;
    let addresses = entries.iter().map(|label| result.label_ip(label));
    let addresses = addresses.collect::<Result<_, _>>()?;
    Ok((result.inner.code_buffer, addresses))
}

/// Leaves the kernel's address in EBX, and flat segments.
fn write_record(a: &mut CodeAssembler, kernel: u32) -> Result<(), IcedError> {
    a.pushad()?;
    a.mov(eax, cr2)?;
    a.push(eax)?;
    // A part may have loaded anything.
    a.mov(eax, u32::from(USER_SS))?;
    a.mov(ds, eax)?;
    a.mov(es, eax)?;
    a.cld()?;
    a.mov(ebx, kernel)?;
    a.mov(edi, dword_ptr(ebx + NEXT_RECORD as i32))?;
    a.mov(esi, esp)?;
    a.mov(ecx, RECORD_WORDS_32 as u32)?;
    a.rep().movsd()?;
    a.mov(dword_ptr(ebx + NEXT_RECORD as i32), edi)
}

fn next_part(a: &mut CodeAssembler) -> Result<(), IcedError> {
    let word = |number: i32| dword_ptr(esi + number * 8);
    let (rip, cs, flags, rsp, ss) = (word(0), word(1), word(2), word(3), word(4));
    let mut user = a.create_label();
    a.mov(esi, dword_ptr(ebx + NEXT_PART as i32))?;
    a.add(dword_ptr(ebx + NEXT_PART as i32), PART_WORDS as i32 * 8)?;
    a.test(cs, 3)?;
    a.jne(user)?;
    a.mov(esp, rsp)?;
    for value in [flags, cs, rip] {
        a.push(value)?;
    }
    a.iretd()?;
    a.set_label(&mut user)?;
    a.lea(esp, ptr(ebx + HANDLER_STACK_TOP as i32))?;
    for value in [ss, rsp, flags, cs, rip] {
        a.push(value)?;
    }
    a.iretd()
}
