//! The guest's exception handlers: they leave in a block what Linux leaves in a signal's context.

use anyhow::{Context, Result};
use iced_x86::code_asm::{CodeAssembler, CodeLabel, al, qword_ptr, r15, rax};
use iced_x86::{BlockEncoderOptions, IcedError};

use crate::block::index;
use crate::guest::{USER_CS, USER_SS};
use crate::harness::{END_VECTOR, Harness, slot, store_extended, store_general};
use crate::layout::{CURRENT, SCRATCH, STACK_TOP};

const EXCEPTIONS: u8 = 32;
/// Those that push an error code (Intel SDM vol. 3, table 6-1).
const WITH_ERROR_CODE: [u8; 8] = [8, 10, 11, 12, 13, 14, 17, 21];
/// No device is there: any port ends the batch.
const END_PORT: i32 = 0x10;

/// Code, and which vector's handler begins where.
pub(crate) struct Stubs {
    pub(crate) code: Vec<u8>,
    pub(crate) vectors: Vec<(u8, u64)>,
}

/// Where each vector's handler begins: it pushes a zero where the processor pushes no error code, then the vector, and
/// goes on at `common`.
pub(crate) fn entries(a: &mut CodeAssembler, common: CodeLabel) -> Result<Vec<CodeLabel>, IcedError> {
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
    Ok(entries)
}

/// # Errors
/// None that its callers could do anything about.
pub(crate) fn assemble(at: u64, harness: &Harness) -> Result<Stubs> {
    stubs(at, harness).context("the exception handlers cannot be assembled")
}

fn stubs(at: u64, harness: &Harness) -> Result<Stubs, IcedError> {
    let mut a = CodeAssembler::new(64)?;
    let mut common = a.create_label();
    let mut labels = Vec::new();
    labels.extend((0..).zip(entries(&mut a, common)?));
    let mut end = a.create_label();
    a.set_label(&mut end)?;
    a.out(END_PORT, al)?;
    a.hlt()?;
    labels.push((END_VECTOR, end));

    a.set_label(&mut common)?;
    a.mov(qword_ptr(SCRATCH), r15)?;
    a.mov(r15, qword_ptr(CURRENT))?;
    store_general(&mut a)?;
    for (register, skipped) in [
        (index::VECTOR, false),
        (index::ERROR, false),
        (index::RIP, true),
        (index::FLAGS, false),
        (index::GENERAL[4], true),
    ] {
        a.pop(qword_ptr(r15 + slot(register)))?;
        // CS, SS.
        if skipped {
            a.pop(rax)?;
        }
    }
    a.mov(rax, iced_x86::code_asm::cr2)?;
    a.mov(qword_ptr(r15 + slot(index::CR2)), rax)?;
    store_extended(&mut a)?;
    a.push(i32::from(USER_SS))?;
    a.push(STACK_TOP as i32)?;
    a.push(0x202)?;
    a.push(i32::from(USER_CS))?;
    a.push(harness.finish as i32)?;
    a.iretq()?;

    let result = a.assemble_options(at, BlockEncoderOptions::RETURN_NEW_INSTRUCTION_OFFSETS)?;
    let addresses = labels
        .iter()
        .map(|(vector, label)| Ok((*vector, result.label_ip(label)?)));
    let vectors = addresses.collect::<Result<_, IcedError>>()?;
    Ok(Stubs {
        code: result.inner.code_buffer,
        vectors,
    })
}
