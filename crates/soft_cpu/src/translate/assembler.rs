//! Host machine code, byte by byte: the few instructions that surround the guest's own.
//!
//! Encodings: Intel SDM vol. 2, chapter 2.

/// A host register by its number in encodings.
pub(super) type Reg = u8;

pub(super) const RAX: Reg = 0;
pub(super) const RDX: Reg = 2;
pub(super) const RBX: Reg = 3;
pub(super) const RSP: Reg = 4;
pub(super) const RBP: Reg = 5;
pub(super) const RSI: Reg = 6;
pub(super) const RDI: Reg = 7;

/// Second operand of an arithmetic instruction: the `/digit` of opcodes 81 and 83, and bits 5 to 3 of the others.
#[derive(Clone, Copy)]
pub(super) enum Alu {
    Add = 0,
    Or = 1,
    And = 4,
    Xor = 6,
    Cmp = 7,
}

/// Conditions of `Jcc`, by the low bits of their opcodes.
#[derive(Clone, Copy)]
pub(super) enum Condition {
    AboveOrEqual = 3,
    Equal = 4,
    NotEqual = 5,
    Above = 7,
}

/// A forward jump whose target is not known yet: where its 32-bit displacement is.
#[derive(Clone, Copy)]
#[must_use]
pub(super) struct Forward(usize);

/// Code while it is made. It is for one address and cannot be moved.
pub(super) struct Assembler {
    /// Where the first byte will be executed.
    base: u64,
    bytes: Vec<u8>,
}

impl Assembler {
    pub(super) fn new(base: u64) -> Self {
        Self {
            base,
            bytes: Vec::with_capacity(1024),
        }
    }

    /// The address of what comes next.
    pub(super) fn here(&self) -> u64 {
        self.base + self.bytes.len() as u64
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Appends bytes as they are.
    pub(super) fn raw(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    fn imm32(&mut self, value: i32) {
        self.raw(&value.to_le_bytes());
    }

    fn rex(&mut self, wide: bool, reg: Reg, index: Reg, rm: Reg) {
        let rex = 0x40 | u8::from(wide) << 3 | (reg >> 3) << 2 | (index >> 3) << 1 | rm >> 3;
        if rex != 0x40 {
            self.bytes.push(rex);
        }
    }

    /// `op reg, rm` between registers.
    fn registers(&mut self, wide: bool, opcode: u8, reg: Reg, rm: Reg) {
        self.rex(wide, reg, 0, rm);
        self.raw(&[opcode, 0xc0 | (reg & 7) << 3 | rm & 7]);
    }

    /// ModRM, SIB and displacement of `[base + index + displacement]`, index without scale.
    fn memory(&mut self, reg: Reg, base: Reg, index: Option<Reg>, displacement: i32) {
        let index = index.unwrap_or(RSP);
        // RBP and R13 as base have no form without a displacement.
        let mode: u8 = match displacement {
            0 if base & 7 != RBP => 0,
            -128..=127 => 1,
            _ => 2,
        };
        self.raw(&[mode << 6 | (reg & 7) << 3 | 4, (index & 7) << 3 | base & 7]);
        match mode {
            0 => {}
            1 => self.bytes.push(displacement as u8),
            _ => self.imm32(displacement),
        }
    }

    /// `opcode reg, [base + index + displacement]`, or the other way round, as the opcode says.
    fn with_memory(
        &mut self,
        wide: bool,
        opcode: &[u8],
        reg: Reg,
        base: Reg,
        index: Option<Reg>,
        displacement: i32,
    ) {
        self.rex(wide, reg, index.unwrap_or(0), base);
        self.raw(opcode);
        self.memory(reg, base, index, displacement);
    }

    /// `mov to, from`.
    pub(super) fn mov(&mut self, to: Reg, from: Reg) {
        self.registers(true, 0x89, from, to);
    }

    /// `mov to, from` of 32 bits: clears the upper half.
    pub(super) fn mov32(&mut self, to: Reg, from: Reg) {
        self.registers(false, 0x89, from, to);
    }

    /// `mov to, value` in its shortest form.
    pub(super) fn mov_imm(&mut self, to: Reg, value: u64) {
        if let Ok(value) = u32::try_from(value) {
            self.rex(false, 0, 0, to);
            self.bytes.push(0xb8 | to & 7);
            self.raw(&value.to_le_bytes());
        } else if let Ok(value) = i32::try_from(value as i64) {
            self.rex(true, 0, 0, to);
            self.raw(&[0xc7, 0xc0 | to & 7]);
            self.imm32(value);
        } else {
            self.rex(true, 0, 0, to);
            self.bytes.push(0xb8 | to & 7);
            self.raw(&value.to_le_bytes());
        }
    }

    /// `mov to, [base + displacement]`.
    pub(super) fn load(&mut self, to: Reg, base: Reg, displacement: i32) {
        self.with_memory(true, &[0x8b], to, base, None, displacement);
    }

    /// `mov to, [base + index]`.
    pub(super) fn load_indexed(&mut self, to: Reg, base: Reg, index: Reg, displacement: i32) {
        self.with_memory(true, &[0x8b], to, base, Some(index), displacement);
    }

    /// `movzx to, word [base + displacement]`.
    pub(super) fn load16(&mut self, to: Reg, base: Reg, displacement: i32) {
        self.with_memory(false, &[0x0f, 0xb7], to, base, None, displacement);
    }

    /// `mov to, dword [base + displacement]`.
    pub(super) fn load32(&mut self, to: Reg, base: Reg, displacement: i32) {
        self.with_memory(false, &[0x8b], to, base, None, displacement);
    }

    /// `mov [base + displacement], from`.
    pub(super) fn store(&mut self, base: Reg, displacement: i32, from: Reg) {
        self.with_memory(true, &[0x89], from, base, None, displacement);
    }

    /// `mov word [base + displacement], from`.
    pub(super) fn store16(&mut self, base: Reg, displacement: i32, from: Reg) {
        self.bytes.push(0x66);
        self.with_memory(false, &[0x89], from, base, None, displacement);
    }

    /// `mov dword [base + displacement], from`.
    pub(super) fn store32(&mut self, base: Reg, displacement: i32, from: Reg) {
        self.with_memory(false, &[0x89], from, base, None, displacement);
    }

    /// `mov dword [base + displacement], value`.
    pub(super) fn store_imm32(&mut self, base: Reg, displacement: i32, value: u32) {
        self.with_memory(false, &[0xc7], 0, base, None, displacement);
        self.imm32(value as i32);
    }

    /// `lea to, [base + index * scale + displacement]`, of 64 bits or of 32.
    pub(super) fn lea(
        &mut self,
        wide: bool,
        to: Reg,
        base: Option<Reg>,
        index: Option<(Reg, u32)>,
        displacement: i32,
    ) {
        let (index_reg, scale) = index.map_or((RSP, 1), |(reg, scale)| (reg, scale));
        let scale = scale.trailing_zeros() as u8;
        self.rex(wide, to, index.map_or(0, |(reg, _)| reg), base.unwrap_or(0));
        self.bytes.push(0x8d);
        match base {
            Some(base) => {
                let mode: u8 = match displacement {
                    0 if base & 7 != RBP => 0,
                    -128..=127 => 1,
                    _ => 2,
                };
                self.raw(&[
                    mode << 6 | (to & 7) << 3 | 4,
                    scale << 6 | (index_reg & 7) << 3 | base & 7,
                ]);
                match mode {
                    0 => {}
                    1 => self.bytes.push(displacement as u8),
                    _ => self.imm32(displacement),
                }
            }
            None => {
                self.raw(&[(to & 7) << 3 | 4, scale << 6 | (index_reg & 7) << 3 | 5]);
                self.imm32(displacement);
            }
        }
    }

    /// `op reg, value`.
    pub(super) fn alu_imm(&mut self, wide: bool, op: Alu, reg: Reg, value: i32) {
        self.rex(wide, 0, 0, reg);
        if let Ok(short) = i8::try_from(value) {
            self.raw(&[0x83, 0xc0 | (op as u8) << 3 | reg & 7, short as u8]);
        } else {
            self.raw(&[0x81, 0xc0 | (op as u8) << 3 | reg & 7]);
            self.imm32(value);
        }
    }

    /// `op reg, [base + index + displacement]`.
    pub(super) fn alu_memory(&mut self, op: Alu, reg: Reg, base: Reg, index: Option<Reg>, displacement: i32) {
        self.with_memory(true, &[(op as u8) << 3 | 3], reg, base, index, displacement);
    }

    /// `op [base + displacement], reg`.
    pub(super) fn alu_to_memory(&mut self, op: Alu, base: Reg, displacement: i32, reg: Reg) {
        self.with_memory(true, &[(op as u8) << 3 | 1], reg, base, None, displacement);
    }

    /// `test reg, value`, the value sign-extended.
    pub(super) fn test_imm(&mut self, reg: Reg, value: i32) {
        self.rex(true, 0, 0, reg);
        self.raw(&[0xf7, 0xc0 | reg & 7]);
        self.imm32(value);
    }

    /// `op reg, other`.
    pub(super) fn alu(&mut self, wide: bool, op: Alu, reg: Reg, other: Reg) {
        self.registers(wide, (op as u8) << 3 | 3, reg, other);
    }

    /// `cmp dword [base + displacement], value`.
    pub(super) fn cmp32_memory(&mut self, base: Reg, displacement: i32, value: i8) {
        self.with_memory(false, &[0x83], Alu::Cmp as u8, base, None, displacement);
        self.bytes.push(value as u8);
    }

    /// `shr reg, count` of 32 bits.
    pub(super) fn shr32(&mut self, reg: Reg, count: u8) {
        self.rex(false, 0, 0, reg);
        self.raw(&[0xc1, 0xe8 | reg & 7, count]);
    }

    /// `shl reg, count` of 32 bits.
    pub(super) fn shl32(&mut self, reg: Reg, count: u8) {
        self.rex(false, 0, 0, reg);
        self.raw(&[0xc1, 0xe0 | reg & 7, count]);
    }

    /// `sar reg, count` of 64 bits.
    pub(super) fn sar(&mut self, reg: Reg, count: u8) {
        self.rex(true, 0, 0, reg);
        self.raw(&[0xc1, 0xf8 | reg & 7, count]);
    }

    /// `sar reg, 63`.
    pub(super) fn sign(&mut self, wide: bool, reg: Reg) {
        self.rex(wide, 0, 0, reg);
        self.raw(&[0xc1, 0xf8 | reg & 7, if wide { 63 } else { 31 }]);
    }

    /// `test reg, value` of the low eight bits.
    pub(super) fn test8(&mut self, reg: Reg, value: u8) {
        // A REX prefix always, so that no register number means AH to BH.
        self.raw(&[0x40 | reg >> 3, 0xf6, 0xc0 | reg & 7, value]);
    }

    /// `test reg, reg`.
    pub(super) fn test(&mut self, wide: bool, reg: Reg) {
        self.registers(wide, 0x85, reg, reg);
    }

    /// `jcc` to somewhere later.
    pub(super) fn jcc_forward(&mut self, condition: Condition) -> Forward {
        self.raw(&[0x0f, 0x80 | condition as u8, 0, 0, 0, 0]);
        Forward(self.bytes.len() - 4)
    }

    /// `jcc` with the guest's own condition, by the low bits of its opcode.
    pub(super) fn jcc_number(&mut self, condition: u8) -> Forward {
        self.raw(&[0x0f, 0x80 | condition & 15, 0, 0, 0, 0]);
        Forward(self.bytes.len() - 4)
    }

    /// `jmp` to somewhere later.
    pub(super) fn jmp_forward(&mut self) -> Forward {
        self.raw(&[0xe9, 0, 0, 0, 0]);
        Forward(self.bytes.len() - 4)
    }

    /// Makes a forward jump land here.
    pub(super) fn land(&mut self, jump: Forward) {
        let distance = (self.bytes.len() - jump.0 - 4) as u32;
        self.bytes[jump.0..jump.0 + 4].copy_from_slice(&distance.to_le_bytes());
    }

    /// `jmp` to an address within 2 GiB.
    pub(super) fn jmp(&mut self, target: u64) {
        self.bytes.push(0xe9);
        self.relative(target);
    }

    /// `call` of an address within 2 GiB.
    pub(super) fn call(&mut self, target: u64) {
        self.bytes.push(0xe8);
        self.relative(target);
    }

    /// A number between instructions.
    pub(super) fn data(&mut self, value: u32) {
        self.raw(&value.to_le_bytes());
    }

    fn relative(&mut self, target: u64) {
        let from = self.here() + 4;
        self.imm32(target.wrapping_sub(from) as i32);
    }

    /// `jmp [base + displacement]`, with an index where given.
    pub(super) fn jmp_memory(&mut self, base: Reg, index: Option<Reg>, displacement: i32) {
        self.with_memory(false, &[0xff], 4, base, index, displacement);
    }

    /// `call reg`.
    pub(super) fn call_register(&mut self, reg: Reg) {
        self.rex(false, 0, 0, reg);
        self.raw(&[0xff, 0xd0 | reg & 7]);
    }

    pub(super) fn push(&mut self, reg: Reg) {
        self.rex(false, 0, 0, reg);
        self.bytes.push(0x50 | reg & 7);
    }

    pub(super) fn pop(&mut self, reg: Reg) {
        self.rex(false, 0, 0, reg);
        self.bytes.push(0x58 | reg & 7);
    }

    /// `pop qword [base + displacement]`; the address is that after RSP has moved.
    pub(super) fn pop_memory(&mut self, base: Reg, displacement: i32) {
        self.with_memory(false, &[0x8f], 0, base, None, displacement);
    }

    pub(super) fn ret(&mut self) {
        self.bytes.push(0xc3);
    }

    /// `ldmxcsr [base + displacement]`.
    pub(super) fn ldmxcsr(&mut self, base: Reg, displacement: i32) {
        self.with_memory(false, &[0x0f, 0xae], 2, base, None, displacement);
    }

    /// `stmxcsr [base + displacement]`.
    pub(super) fn stmxcsr(&mut self, base: Reg, displacement: i32) {
        self.with_memory(false, &[0x0f, 0xae], 3, base, None, displacement);
    }

    /// `vmovups ymm, [rsp + displacement]` or back; `movups` of the low half where the host has no AVX.
    pub(super) fn vector(&mut self, avx: bool, store: bool, register: u8, displacement: i32) {
        let opcode = if store { 0x11 } else { 0x10 };
        if avx {
            let high = if register >= 8 { 0 } else { 0x80 };
            self.raw(&[0xc5, high | 0x7c, opcode]);
            self.memory(register, RSP, None, displacement);
        } else {
            self.with_memory(false, &[0x0f, opcode], register, RSP, None, displacement);
        }
    }

    /// `vzeroupper`.
    pub(super) fn vzeroupper(&mut self) {
        self.raw(&[0xc5, 0xf8, 0x77]);
    }
}
