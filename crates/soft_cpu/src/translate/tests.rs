//! Small programs, interpreted and translated.

use std::sync::Arc;

use guest_memory::{GuestMemory, WriteObserver};
use hypervisor::x86_64::Activity;

use crate::apic::Interconnect;
use crate::cpu::Cpu;
use crate::exec::Exec;
use crate::memory::Memory;
use crate::testing::{NoDevices, flat_cpu64};

const CODE: u64 = 0x1_0000;
const STACK: u64 = 0x8_0000;

/// Runs 64-bit code until `HLT`, on a processor that `prepare` changes first; gives that processor.
fn run_on(code: &[u8], prepare: impl FnOnce(&mut Cpu)) -> Box<Cpu> {
    let ram = GuestMemory::anonymous(&[(0, 16 << 20)]).unwrap();
    let nobody: Arc<dyn WriteObserver> = Arc::new(Interconnect::default());
    ram.observe_writes(&nobody);
    let memory = Memory::default().with(&ram, false);
    memory.ram().write(CODE, code);
    let mut cpu = flat_cpu64(crate::system::offered_leaves(), CODE);
    cpu.gpr[Cpu::RSP] = STACK;
    prepare(&mut cpu);
    let mut exec = Exec {
        cpu: &mut cpu,
        memory: &memory,
        io: &NoDevices,
    };
    while exec.cpu.activity == Activity::Running {
        exec.cpu.apic.attention().take();
        if let Err(exception) = exec.run_hot_block() {
            panic!("{exception:x?} at {}", exec.describe());
        }
    }
    cpu
}

/// The registers after code that is translated after it was interpreted `hot` times.
fn run(code: &[u8], hot: u32) -> [u64; 16] {
    run_on(code, |cpu| cpu.translations.hot = hot).gpr
}

fn both(code: &[u8]) -> [u64; 16] {
    let interpreted = run(code, u32::MAX);
    let translated = run(code, 0);
    assert_eq!(interpreted, translated);
    translated
}

#[test]
fn loop_over_memory_sums_up() {
    use iced_x86::code_asm::*;
    let mut a = CodeAssembler::new(64).unwrap();
    let mut top = a.create_label();
    a.mov(ecx, 1000).unwrap();
    a.xor(eax, eax).unwrap();
    a.xor(r15d, r15d).unwrap();
    a.set_label(&mut top).unwrap();
    a.add(eax, ecx).unwrap();
    a.mov(dword_ptr(0x20000), eax).unwrap();
    a.mov(r14d, dword_ptr(0x20000)).unwrap();
    a.adc(r15, 3).unwrap();
    a.push(r14).unwrap();
    a.pop(rbx).unwrap();
    a.dec(ecx).unwrap();
    a.jnz(top).unwrap();
    a.hlt().unwrap();
    let registers = both(&a.assemble(CODE).unwrap());
    assert_eq!(registers[0], 500_500);
    assert_eq!(registers[3], 500_500);
    assert_eq!(registers[14], 500_500);
    assert_eq!(registers[15], 3000);
}

/// Code that changes an instruction behind it, then the one that is next: the new ones are executed.
#[test]
fn store_into_own_block_is_executed_at_once() {
    use iced_x86::code_asm::*;
    let mut a = CodeAssembler::new(64).unwrap();
    let mut top = a.create_label();
    a.mov(ecx, 50).unwrap();
    a.xor(eax, eax).unwrap();
    a.set_label(&mut top).unwrap();
    // The immediate of the addition, one byte behind the store.
    a.mov(byte_ptr(CODE + 17), cl).unwrap();
    a.add(ebx, 1).unwrap();
    a.dec(ecx).unwrap();
    a.jnz(top).unwrap();
    a.hlt().unwrap();
    let code = a.assemble(CODE).unwrap();
    let addition = code.windows(2).position(|bytes| bytes == [0x83, 0xc3]).unwrap();
    let mut patched = code.clone();
    patched[addition - 4..addition].copy_from_slice(&(CODE as u32 + addition as u32 + 2).to_le_bytes());

    assert_eq!(both(&patched)[3], (1..=50).sum::<u64>());
}

/// More code than fits, run twice: it is forgotten, made again, and never exceeds its limit.
#[test]
fn code_memory_that_is_full_is_emptied_and_filled_anew() {
    use iced_x86::code_asm::*;
    const LIMIT: usize = 16 * 1024;
    let mut a = CodeAssembler::new(64).unwrap();
    let mut again = a.create_label();
    a.mov(ecx, 3).unwrap();
    a.set_label(&mut again).unwrap();
    for number in 0..600 {
        let mut next = a.create_label();
        a.add(rax, number).unwrap();
        a.jmp(next).unwrap();
        a.set_label(&mut next).unwrap();
    }
    a.dec(ecx).unwrap();
    a.jnz(again).unwrap();
    a.hlt().unwrap();
    let code = a.assemble(CODE).unwrap();

    let cpu = run_on(&code, |cpu| {
        (cpu.translations.hot, cpu.translations.limit) = (0, LIMIT)
    });

    assert_eq!(cpu.gpr[Cpu::RAX], 3 * (0..600).sum::<u64>());
    let used = cpu.translations.arena.as_ref().unwrap().used();
    assert!((1..=LIMIT).contains(&used));
}
