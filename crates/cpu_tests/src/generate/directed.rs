//! Families of cases that chance does not make up, or not often enough.

use iced_x86::{Instruction, OpKind};

use super::Generator;
use crate::layout::{CODE, CODE_LEN, DATA, WINDOW};
use crate::random::Random;

/// One case in so many is of these families.
pub(super) const SHARE: u64 = 8;
const FAMILIES: u64 = 5;
/// Where states are saved: behind it are 3 KiB that every case finds cleared.
const AREA: u32 = (DATA + 0x400) as u32;

/// Machine code that grows, and knows where it is.
struct Code {
    at: u64,
    bytes: Vec<u8>,
}

impl Code {
    fn here(&self) -> u64 {
        self.at + self.bytes.len() as u64
    }

    fn put(&mut self, bytes: &[u8]) {
        self.bytes.extend(bytes);
    }

    /// Room for a distance of 32 bits to a place that is not known yet.
    fn distance(&mut self) -> usize {
        self.put(&[0; 4]);
        self.bytes.len()
    }

    /// Makes the distance that ends at `end`, in an instruction with `behind` bytes more, lead to `target`.
    fn lead(&mut self, end: usize, behind: usize, target: u64) {
        let next = self.at + (end + behind) as u64;
        let distance = target.wrapping_sub(next) as u32;
        self.bytes[end - 4..end].copy_from_slice(&distance.to_le_bytes());
    }
}

/// The only item of the directed case of `seed`, if it is one and fits.
pub(super) fn item(generator: &Generator, seed: u64, slot: usize, random: &mut Random) -> Option<Vec<u8>> {
    if !seed.is_multiple_of(SHARE) {
        return None;
    }
    let number = seed / SHARE / FAMILIES;
    let mut code = Code {
        at: CODE + (slot * CODE_LEN) as u64,
        bytes: Vec::new(),
    };
    match seed / SHARE % FAMILIES {
        0 => shift(&mut code, number),
        1 => transfer(&mut code, generator, random)?,
        2 => modify(&mut code, generator, random)?,
        3 => save(&mut code, generator, random)?,
        _ => divide(&mut code, random),
    }
    (code.bytes.len() + super::RESERVED <= CODE_LEN).then_some(code.bytes)
}

/// Every shift and rotation of every width by every count from 0 to 65, as `number` goes on.
fn shift(code: &mut Code, number: u64) {
    const COUNTS: u64 = 66;
    let (count, rest) = (number % COUNTS, number / COUNTS);
    let (operation, rest) = (rest % 10, rest / 10);
    let (size, rest) = (rest % 4, rest / 4);
    let (by_register, memory) = (rest & 1 != 0, rest & 2 != 0);
    if by_register {
        // mov cl, count
        code.put(&[0xb1, count as u8]);
    }
    match size {
        1 => code.put(&[0x66]),
        3 => code.put(&[0x48]),
        _ => {}
    }
    // RAX, or what RBX points to; double shifts fill from RDX.
    let operand = if memory { 0x03 } else { 0xc0 };
    match operation {
        8 => code.put(&[0x0f, if by_register { 0xa5 } else { 0xa4 }, operand | 2 << 3]),
        9 => code.put(&[0x0f, if by_register { 0xad } else { 0xac }, operand | 2 << 3]),
        _ => {
            let wide = u8::from(size != 0);
            let opcode = if by_register { 0xd2 } else { 0xc0 };
            code.put(&[opcode | wide, operand | (operation as u8) << 3]);
        }
    }
    if !by_register {
        code.put(&[count as u8]);
    }
}

/// Calls and returns, jumps that no instruction names the target of, frames.
fn transfer(code: &mut Code, generator: &Generator, random: &mut Random) -> Option<()> {
    match random.below(6) {
        0 => {
            // enter 8..71, 0..3; …; leave
            code.put(&[0xc8, 8 + random.below(64) as u8, 0, random.below(4) as u8]);
            body(code, generator, random)?;
            code.put(&[0xc9]);
        }
        1 => {
            // push behind; ret; ud2
            code.put(&[0x68]);
            let push = code.here() + 4;
            let behind = push + 3;
            code.put(&(behind as u32).to_le_bytes());
            code.put(&[0xc3, 0x0f, 0x0b]);
        }
        2 => nowhere(code, random),
        kind => call(code, generator, random, kind)?,
    }
    Some(())
}

/// A call of what lies behind its caller, which returns.
fn call(code: &mut Code, generator: &Generator, random: &mut Random, kind: usize) -> Option<()> {
    let end = if kind == 3 {
        // call function
        code.put(&[0xe8]);
        code.distance()
    } else {
        // lea rax, function; then by RAX, or by what RBX points to
        code.put(&[0x48, 0x8d, 0x05]);
        let end = code.distance();
        if kind == 4 {
            code.put(&[0xff, 0xd0]);
        } else {
            code.put(&[0x48, 0x89, 0x03, 0xff, 0x13]);
        }
        end
    };
    body(code, generator, random)?;
    // jmp behind
    code.put(&[0xe9]);
    let over = code.distance();
    let function = code.here();
    code.lead(end, 0, function);
    // Nothing that could change where it returns to: what lies around this code is no case's.
    instruction(code, generator, random, |one| {
        !one.is_stack_instruction()
            && (0..one.op_count()).all(|operand| one.op_kind(operand) != OpKind::Memory)
    })?;
    if random.once_in(3) {
        code.put(&[0xc2, random.below(32) as u8, 0]);
    } else {
        code.put(&[0xc3]);
    }
    let here = code.here();
    code.lead(over, 0, here);
    Some(())
}

/// To where no code can be.
fn nowhere(code: &mut Code, random: &mut Random) {
    let targets = [
        0x8000_0000_0000,
        1 << 63,
        0xffff_7fff_ffff_ffff,
        0x7fff_ffff_f123,
        0xffff_8000_0000_0000,
        DATA,
        0x123,
    ];
    // mov rax, target
    code.put(&[0x48, 0xb8]);
    code.put(&u64::to_le_bytes(random.pick(&targets)));
    match random.below(4) {
        0 => code.put(&[0xff, 0xe0]),
        1 => code.put(&[0xff, 0xd0]),
        2 => code.put(&[0x50, 0xc3]),
        // Through memory.
        _ => code.put(&[0x48, 0x89, 0x03, 0xff, 0x23]),
    }
}

/// An instruction that leaves alone which flags others want.
fn body(code: &mut Code, generator: &Generator, random: &mut Random) -> Option<()> {
    instruction(code, generator, random, |_| true)
}

fn instruction(
    code: &mut Code,
    generator: &Generator,
    random: &mut Random,
    suits: impl Fn(&Instruction) -> bool,
) -> Option<()> {
    for _ in 0..40 {
        let at = code.here();
        let Some(bytes) = generator.plain(at, random) else {
            continue;
        };
        let instructions = crate::case::decode(&bytes, at);
        let quiet = instructions
            .iter()
            .all(|one| one.rflags_read() == 0 && !super::eligible::is_branch(one) && suits(one));
        if quiet && super::checked(&bytes, at, 0).is_some() {
            code.put(&bytes);
            return Some(());
        }
    }
    None
}

/// Code that changes itself, a little or a lot later, once or in circles.
fn modify(code: &mut Code, generator: &Generator, random: &mut Random) -> Option<()> {
    match random.below(5) {
        0 => {
            // mov dword [immediate], number; …; mov eax, immediate
            code.put(&[0xc7, 0x05]);
            let end = code.distance();
            code.put(&(random.next() as u32).to_le_bytes());
            if random.once_in(2) {
                body(code, generator, random)?;
            }
            code.put(&[0xb8]);
            let immediate = code.here();
            code.put(&[0; 4]);
            code.lead(end, 4, immediate);
        }
        1 => {
            // mov byte [opcode], SUB or CMP; …; add eax, immediate
            code.put(&[0xc6, 0x05]);
            let end = code.distance();
            code.put(&[random.pick(&[0x2d, 0x3d])]);
            if random.once_in(2) {
                body(code, generator, random)?;
            }
            let opcode = code.here();
            code.put(&[0x05, 0x21, 0x43, 0x65, 0x87]);
            code.lead(end, 1, opcode);
        }
        2 => {
            // mov cl, 3; again: add eax, immediate; add dword [immediate], number; dec cl; jnz again
            code.put(&[0xb1, 3]);
            let again = code.here();
            code.put(&[0x05]);
            let immediate = code.here();
            code.put(&(random.next() as u32).to_le_bytes());
            code.put(&[0x81, 0x05]);
            let end = code.distance();
            code.put(&(random.next() as u32).to_le_bytes());
            code.lead(end, 4, immediate);
            code.put(&[0xfe, 0xc9]);
            let back = again.wrapping_sub(code.here() + 2);
            code.put(&[0x75, back as u8]);
        }
        3 => {
            // lea rdi, behind; mov ecx, number; mov al, NOP; rep stosb; behind: as many bytes that would fault
            let count = 1 + random.below(24) as u8;
            code.put(&[0x48, 0x8d, 0x3d]);
            let end = code.distance();
            code.put(&[0xb9, count, 0, 0, 0, 0xb0, 0x90, 0xfc, 0xf3, 0xaa]);
            let behind = code.here();
            code.lead(end, 0, behind);
            code.put(&vec![0x06; count.into()]);
        }
        _ => {
            // movups xmm1, [nops]; movups [behind], xmm1; jmp behind; nops: …; behind: as many that would fault
            code.put(&[0x0f, 0x10, 0x0d]);
            let from = code.distance();
            code.put(&[0x0f, 0x11, 0x0d]);
            let to = code.distance();
            code.put(&[0xeb, 16]);
            let nops = code.here();
            code.put(&[0x90; 16]);
            let behind = code.here();
            code.put(&[0x06; 16]);
            code.lead(from, 0, nops);
            code.lead(to, 0, behind);
        }
    }
    Some(())
}

/// Saves state, changes what was saved, and restores it.
fn save(code: &mut Code, generator: &Generator, random: &mut Random) -> Option<()> {
    let extended = random.once_in(2);
    let wide = random.once_in(2);
    // Now and then without a save, or where it must not be.
    let area = AREA + if random.once_in(16) { 8 } else { 0 };
    if !random.once_in(6) {
        state(code, extended, wide, false, area, random);
    }
    for _ in 0..random.below(4) {
        let (offset, value) = change(random);
        // mov dword [area + offset], value
        code.put(&[0xc7, 0x04, 0x25]);
        code.put(&(AREA + offset).to_le_bytes());
        code.put(&value.to_le_bytes());
    }
    if random.once_in(2) {
        body(code, generator, random)?;
    }
    if random.once_in(3) {
        // What registers are saved as: mov esi, area + offset; mov edi, window; mov ecx, 12; cld; rep movsq
        let offset = random.pick(&[32, 64, 160, 224, 352, 576, 640, 768]);
        code.put(&[0xbe]);
        code.put(&(AREA + if extended { offset } else { offset % 320 + 32 }).to_le_bytes());
        code.put(&[0xbf]);
        code.put(&(WINDOW as u32).to_le_bytes());
        code.put(&[0xb9, 8, 0, 0, 0, 0xfc, 0xf3, 0x48, 0xa5]);
    }
    state(code, extended, wide, true, area, random);
    Some(())
}

/// `FXSAVE`, `FXRSTOR`, `XSAVE` or `XRSTOR`.
fn state(code: &mut Code, extended: bool, wide: bool, restores: bool, area: u32, random: &mut Random) {
    if extended {
        // mov eax, components; xor edx, edx
        code.put(&[
            0xb8,
            if random.once_in(2) {
                7
            } else {
                random.below(8) as u8
            },
            0,
            0,
            0,
        ]);
        code.put(&[0x31, 0xd2]);
    }
    if wide {
        code.put(&[0x48]);
    }
    let number = if extended { 4 } else { 0 } | u8::from(restores);
    code.put(&[0x0f, 0xae, 0x04 | number << 3, 0x25]);
    code.put(&area.to_le_bytes());
}

/// Something in a saved state, and what is put there.
fn change(random: &mut Random) -> (u32, u32) {
    let any = random.next() as u32;
    match random.below(6) {
        // Control and status; tags.
        0 => (0, any & 0x7f7f_1f3f | 0x3f),
        1 => (4, any & 0xff),
        // MXCSR: most of the time with every exception masked, seldom with bits that are reserved.
        2 => (
            24,
            any & 0xe07f | 0x1f80 | if random.once_in(8) { 1 << 18 } else { 0 },
        ),
        // Which components there are; what must be zero.
        3 => (512, any & if random.once_in(8) { 0x107 } else { 7 }),
        4 if random.once_in(4) => (520 + 4 * random.below(14) as u32, 1),
        _ => (32 + 4 * random.below(96) as u32, any),
    }
}

/// A division whose quotient is near the edge of what fits.
fn divide(code: &mut Code, random: &mut Random) {
    let size = random.below(4);
    let bits = 8 << size;
    let ones = u64::MAX >> (64 - bits);
    let edges = [
        0,
        1,
        ones,
        ones >> 1,
        (ones >> 1) + 1,
        ones - 1,
        ones + u64::from(bits < 64),
    ];
    let near = u128::from(random.pick(&edges))
        .wrapping_add(u128::from(random.next() % 3))
        .wrapping_sub(1);
    let divisor = match random.below(4) {
        0 => random.pick(&edges),
        1 => random.below(64) as u64,
        _ => random.next() >> random.below(64),
    } & ones;
    let rest = u128::from(if divisor == 0 { 0 } else { random.next() % divisor });
    let mut dividend = near.wrapping_mul(divisor.into()).wrapping_add(rest);
    if random.once_in(2) {
        dividend = dividend.wrapping_neg();
    }
    let divisor = if random.once_in(2) {
        divisor
    } else {
        divisor.wrapping_neg()
    };
    // mov rax, low; mov rdx, high; mov rcx, divisor
    let (low, high) = match size {
        0 => (dividend as u64, 0),
        3 => (dividend as u64, (dividend >> 64) as u64),
        _ => (dividend as u64 & ones, (dividend >> bits) as u64),
    };
    for (opcode, value) in [(0xb8, low), (0xba, high), (0xb9, divisor)] {
        code.put(&[0x48, opcode]);
        code.put(&value.to_le_bytes());
    }
    match size {
        1 => code.put(&[0x66]),
        3 => code.put(&[0x48]),
        _ => {}
    }
    // div or idiv, of RCX
    let signed = if random.once_in(2) { 0xf9 } else { 0xf1 };
    code.put(&[if size == 0 { 0xf6 } else { 0xf7 }, signed]);
}
