//! Descriptor-table registers, and instructions that ask about descriptors without using them.

use iced_x86::{Code, Instruction, Mnemonic, OpKind};

use super::descriptors::{Descriptor, RPL, code_of, is_null, kind, null_segment};
use crate::cpu::{control, flags};
use crate::exception::Exception;
use crate::exec::{Exec, Handler, address_mask};
use crate::memory::{Access, is_canonical};

use hypervisor::x86_64::{Segment, SegmentAttributes as A, TableRegister};

pub(super) fn handler(instruction: &Instruction) -> Option<Handler> {
    let handler: Handler = match instruction.mnemonic() {
        Mnemonic::Lgdt => |exec, instruction| {
            exec.cpu.gdtr = exec.read_table_register(instruction)?;
            Ok(())
        },
        Mnemonic::Lidt => |exec, instruction| {
            exec.cpu.idtr = exec.read_table_register(instruction)?;
            Ok(())
        },
        Mnemonic::Sgdt => |exec, instruction| exec.write_table_register(instruction, exec.cpu.gdtr),
        Mnemonic::Sidt => |exec, instruction| exec.write_table_register(instruction, exec.cpu.idtr),
        Mnemonic::Lldt => lldt,
        Mnemonic::Ltr => ltr,
        Mnemonic::Sldt => |exec, instruction| exec.store_selector(instruction, exec.cpu.ldtr.selector),
        Mnemonic::Str => |exec, instruction| exec.store_selector(instruction, exec.cpu.tr.selector),
        Mnemonic::Lar => lar,
        Mnemonic::Lsl => lsl,
        Mnemonic::Verr => |exec, instruction| exec.verify(instruction, Access::Read),
        Mnemonic::Verw => |exec, instruction| exec.verify(instruction, Access::Write),
        Mnemonic::Arpl => arpl,
        _ => return None,
    };
    Some(handler)
}

fn lldt(exec: &mut Exec<'_>, instruction: &Instruction) -> Result<(), Exception> {
    exec.check_protected()?;
    exec.check_privilege()?;
    let selector = exec.selector_operand(instruction, 0)?;
    if is_null(selector) {
        exec.cpu.ldtr = null_segment(selector);
        return Ok(());
    }
    let (descriptor, upper) = exec.system_descriptor(selector, &[kind::LDT])?;
    exec.cpu.ldtr = system_segment(descriptor, upper, selector);
    Ok(())
}

fn ltr(exec: &mut Exec<'_>, instruction: &Instruction) -> Result<(), Exception> {
    exec.check_protected()?;
    exec.check_privilege()?;
    let selector = exec.selector_operand(instruction, 0)?;
    if is_null(selector) {
        return Err(Exception::PROTECTION);
    }
    let kinds: &[u32] = if exec.cpu.long_mode() {
        &[kind::TSS]
    } else {
        &[kind::TSS, kind::TSS16]
    };
    let (descriptor, upper) = exec.system_descriptor(selector, kinds)?;
    exec.mark_busy(descriptor)?;
    let mut segment = system_segment(descriptor, upper, selector);
    // Busy, as it is in the table now.
    segment.attributes |= A::from_bits_retain(2);
    exec.cpu.tr = segment;
    Ok(())
}

/// A system segment's register; `upper` holds the upper half of its base.
fn system_segment(descriptor: Descriptor, upper: u64, selector: u16) -> Segment {
    let mut segment = descriptor.segment(selector);
    segment.base |= upper << 32;
    segment
}

/// Access rights: the second doubleword of the descriptor without its base.
fn lar(exec: &mut Exec<'_>, instruction: &Instruction) -> Result<(), Exception> {
    const RIGHTS: u64 = 0x00ff_ff00;
    let long = exec.cpu.long_mode();
    let shown = |kind| match kind {
        kind::TSS | kind::TSS_BUSY | kind::LDT | kind::CALL_GATE => true,
        kind::TSS16 | kind::TSS16_BUSY | kind::CALL_GATE16 | kind::TASK_GATE => !long,
        _ => false,
    };
    let found = exec.ask(instruction, 1, shown)?;
    exec.answer(
        instruction,
        found.map(|descriptor| descriptor.bits >> 32 & RIGHTS),
    );
    Ok(())
}

fn lsl(exec: &mut Exec<'_>, instruction: &Instruction) -> Result<(), Exception> {
    let long = exec.cpu.long_mode();
    let shown = |kind| match kind {
        kind::TSS | kind::TSS_BUSY | kind::LDT => true,
        kind::TSS16 | kind::TSS16_BUSY => !long,
        _ => false,
    };
    let found = exec.ask(instruction, 1, shown)?;
    exec.answer(instruction, found.map(|descriptor| descriptor.limit().into()));
    Ok(())
}

/// Raises the RPL of a selector to that of another one.
fn arpl(exec: &mut Exec<'_>, instruction: &Instruction) -> Result<(), Exception> {
    exec.check_protected()?;
    let level = exec.gpr(instruction.op1_register()) & u64::from(RPL);
    let raised = |selector: u64| {
        let own = selector & u64::from(RPL);
        selector & !u64::from(RPL) | own.max(level)
    };
    let (old, new) = exec.update(instruction, 0, false, raised)?;
    exec.set_zero_flag(old != new);
    Ok(())
}

impl Exec<'_> {
    /// #UD in real mode.
    fn check_protected(&self) -> Result<(), Exception> {
        if self.protected() {
            Ok(())
        } else {
            Err(Exception::UNDEFINED)
        }
    }

    /// #GP where programs may not see the operating system's tables (CR4.UMIP).
    pub(super) fn check_user_mode_prevention(&self) -> Result<(), Exception> {
        if self.cpu.cr4 & control::CR4_UMIP != 0 {
            return self.check_privilege();
        }
        Ok(())
    }

    fn set_zero_flag(&mut self, on: bool) {
        self.cpu.rflags = self.cpu.rflags & !flags::ZF | if on { flags::ZF } else { 0 };
    }

    /// A selector: 16 bits, however wide the operand says it is.
    fn selector_operand(&mut self, instruction: &Instruction, index: u32) -> Result<u16, Exception> {
        if instruction.op_kind(index) == OpKind::Register {
            return Ok(self.gpr(instruction.op_register(index)) as u16);
        }
        let (segment, offset) = self.effective_address(instruction);
        Ok(self.load(segment, offset, 2)? as u16)
    }

    fn store_selector(&mut self, instruction: &Instruction, selector: u16) -> Result<(), Exception> {
        self.check_protected()?;
        self.check_user_mode_prevention()?;
        if instruction.op0_kind() == OpKind::Register {
            self.set_gpr(instruction.op0_register(), selector.into());
            return Ok(());
        }
        let (segment, offset) = self.effective_address(instruction);
        self.store(segment, offset, 2, selector.into())
    }

    /// The limit and base that `LGDT` and `LIDT` load. With 16-bit operands bases have 24 bits.
    fn read_table_register(&mut self, instruction: &Instruction) -> Result<TableRegister, Exception> {
        self.check_privilege()?;
        let (segment, offset) = self.effective_address(instruction);
        let limit = self.load(segment, offset, 2)? as u16;
        let at = self.base_field(instruction, offset);
        let base = if self.cpu.mode.bits == 64 {
            let base = self.load(segment, at, 8)?;
            if !is_canonical(base) {
                return Err(Exception::PROTECTION);
            }
            base
        } else {
            let narrow = matches!(instruction.code(), Code::Lgdt_m1632_16 | Code::Lidt_m1632_16);
            self.load(segment, at, 4)? & if narrow { 0xff_ffff } else { 0xffff_ffff }
        };
        Ok(TableRegister { base, limit })
    }

    fn write_table_register(
        &mut self,
        instruction: &Instruction,
        table: TableRegister,
    ) -> Result<(), Exception> {
        self.check_user_mode_prevention()?;
        let (segment, offset) = self.effective_address(instruction);
        let size = if self.cpu.mode.bits == 64 { 8 } else { 4 };
        let at = self.base_field(instruction, offset);
        let linear = self.linear(segment, at, size as u64, Access::Write)?;
        self.linear_probe(self.cpu.mode.set, linear, size as u64, Access::Write)?;
        self.store(segment, offset, 2, table.limit.into())?;
        self.store(segment, at, size, table.base)
    }

    /// The offset of the base behind the limit.
    fn base_field(&self, instruction: &Instruction, offset: u64) -> u64 {
        offset.wrapping_add(2) & address_mask(instruction, self.cpu.mode.bits)
    }

    /// A present descriptor of the GDT of one of `kinds`, with the upper half of its base.
    fn system_descriptor(&mut self, selector: u16, kinds: &[u32]) -> Result<(Descriptor, u64), Exception> {
        const LOCAL: u16 = 4;
        let refused = Exception::protection(code_of(selector));
        if selector & LOCAL != 0 {
            return Err(refused);
        }
        let descriptor = self.descriptor(selector, Exception::protection)?;
        if !descriptor.system().is_some_and(|kind| kinds.contains(&kind)) {
            return Err(refused);
        }
        let upper = if self.cpu.long_mode() {
            self.upper_half(selector)?.ok_or(refused)?
        } else {
            0
        };
        if !is_canonical(descriptor.base() | upper << 32) {
            return Err(refused);
        }
        if !descriptor.is_present() {
            return Err(Exception::not_present(code_of(selector)));
        }
        Ok((descriptor, upper & 0xffff_ffff))
    }

    /// The descriptor that operand `index` names, where the program may see it; of system descriptors the kinds
    /// that `shown` says.
    fn ask(
        &mut self,
        instruction: &Instruction,
        index: u32,
        shown: impl Fn(u32) -> bool,
    ) -> Result<Option<Descriptor>, Exception> {
        self.check_protected()?;
        let selector = self.selector_operand(instruction, index)?;
        if is_null(selector) {
            return Ok(None);
        }
        let Some(descriptor) = self.find_descriptor(selector)? else {
            return Ok(None);
        };
        if !descriptor.system().is_none_or(shown) {
            return Ok(None);
        }
        if self.cpu.long_mode() && descriptor.system().is_some() && self.upper_half(selector)?.is_none() {
            return Ok(None);
        }
        let level = self.cpu.cpl().max((selector & RPL) as u8);
        let visible = descriptor.is_conforming() || level <= descriptor.dpl();
        Ok(visible.then_some(descriptor))
    }

    /// ZF says whether there is an answer, and the first operand has it.
    fn answer(&mut self, instruction: &Instruction, value: Option<u64>) {
        if let Some(value) = value {
            self.set_gpr(instruction.op0_register(), value);
        }
        self.set_zero_flag(value.is_some());
    }

    /// `VERR` and `VERW`.
    fn verify(&mut self, instruction: &Instruction, access: Access) -> Result<(), Exception> {
        let found = self.ask(instruction, 0, |_| false)?;
        let allowed = found.is_some_and(|descriptor| match access {
            Access::Write => descriptor.is_writable_data(),
            _ => descriptor.is_readable(),
        });
        self.set_zero_flag(allowed);
        Ok(())
    }
}
