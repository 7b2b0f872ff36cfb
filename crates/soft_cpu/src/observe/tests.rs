//! Guests of a few instructions, watched.

use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread;

use guest_memory::GuestMemory;
use hypervisor::{StopReason, Vcpu, Vm, VmConfig};
use iced_x86::code_asm::*;

use super::{GuestStack, Observation, Sample, Samples, Trace, TraceKind, Undefined};
use crate::cpu::control;
use crate::open_observed;
use crate::testing::NoDevices;
use crate::testing::integer;

const TABLES: u64 = 0x1000;
const CODE: u64 = 0x1_0000;
const STACK: u64 = 0x8_0000;
/// Behind RAM, on the same page.
const DEVICE: u64 = 0x18_0000;

/// A vCPU at `code`, 64-bit code under one page of 2 MiB, and its VM.
fn vcpu(code: &[u8], observation: Observation) -> (Arc<dyn Vm>, Box<dyn Vcpu>) {
    let hypervisor = open_observed(observation);
    let config = VmConfig {
        vcpus: 1,
        ioapic_lines: 24,
    };
    let vm = hypervisor.create_vm(&config).unwrap();
    let ram = GuestMemory::anonymous(&[(0, 1 << 20)]).unwrap();
    let view = {
        let mut view = guest_memory::RamView::default();
        view.add(&ram);
        view
    };
    for (at, entry) in [(0, TABLES + 0x1003), (0x1000, TABLES + 0x2003), (0x2000, 0x83)] {
        assert!(view.store(TABLES + at, 8, entry));
    }
    assert!(view.write(CODE, code));
    vm.map_ram(&ram, false).unwrap();
    let mut vcpu = vm.create_vcpu(0, &hypervisor.capabilities().cpuid).unwrap();
    let mut state = vcpu.state().unwrap();
    state.enter_long_mode(CODE, TABLES, 8, 0x10);
    state.general.gpr[4] = STACK;
    vcpu.set_state(&state).unwrap();
    (vm, vcpu)
}

/// What is told of `code`, which ends in a triple fault.
fn traced(code: &[u8], kinds: &[TraceKind]) -> Vec<String> {
    let lines = Arc::new(Mutex::new(Vec::new()));
    let heard = lines.clone();
    let trace = Trace {
        kinds: kinds.to_vec(),
        lines: Arc::new(move |line| heard.lock().unwrap().push(line.to_string())),
    };
    let observation = Observation {
        trace: Some(trace),
        samples: None,
    };
    let (_vm, mut vcpu) = vcpu(code, observation);
    assert_eq!(vcpu.run(&NoDevices).unwrap(), StopReason::Shutdown);
    lines.lock().unwrap().clone()
}

/// 64-bit code that `write` writes.
fn assembled(write: impl FnOnce(&mut CodeAssembler)) -> Vec<u8> {
    let mut a = CodeAssembler::new(64).unwrap();
    write(&mut a);
    a.assemble(CODE).unwrap()
}

/// Counts to `rounds`, in blocks of three instructions.
fn counting(rounds: u32) -> Vec<u8> {
    assembled(|a| {
        let mut top = a.create_label();
        a.mov(ecx, rounds).unwrap();
        a.set_label(&mut top).unwrap();
        a.add(eax, 1).unwrap();
        a.dec(ecx).unwrap();
        a.jnz(top).unwrap();
        a.ud2().unwrap();
    })
}

#[test]
fn trace_blocks_of_a_hot_loop_are_all_told() {
    let lines = traced(&counting(1000), &[TraceKind::Blocks]);

    // The first comes from above the loop, the last holds `UD2` alone.
    assert_eq!(lines.len(), 1 + 999 + 1);
    assert_eq!(lines[0], "vcpu0 block rip=0x10000 cpl=0 bits=64 interpreted");
    assert_eq!(lines[999], "vcpu0 block rip=0x10005 cpl=0 bits=64 translated");
}

#[test]
fn trace_instructions_are_disassembled() {
    let lines = traced(&counting(20), &[TraceKind::Instructions]);

    assert_eq!(lines.len(), 1 + 20 * 3 + 1);
    assert_eq!(lines[1], "vcpu0 instruction rip=0x10005 cpl=0 add eax,0x1");
    assert_eq!(lines[61], "vcpu0 instruction rip=0x1000e cpl=0 ud2");
}

/// Interpreted and translated, the access is told with the address of the instruction that made it.
#[test]
fn trace_exits_tell_accesses_with_their_instruction() {
    let code = assembled(|a| {
        let mut top = a.create_label();
        a.mov(ecx, 30).unwrap();
        a.set_label(&mut top).unwrap();
        a.out(0x80, al).unwrap();
        a.mov(dword_ptr(DEVICE), ebx).unwrap();
        a.dec(ecx).unwrap();
        a.jnz(top).unwrap();
        a.ud2().unwrap();
    });

    let lines = traced(&code, &[TraceKind::Exits]);

    assert_eq!(lines.len(), 2 * 30 + 1);
    let port = "vcpu0 exit port-write port=0x80 size=1 value=0x0 rip=0x10005";
    let mmio = "vcpu0 exit mmio-write address=0x180000 size=4 value=0x0 rip=0x10007";
    for pair in lines.chunks_exact(2) {
        assert_eq!(pair, [port, mmio]);
    }
    assert_eq!(lines[60], "vcpu0 exit shutdown rip=0x10012");
}

#[test]
fn trace_exceptions_tell_code_and_address() {
    let code = assembled(|a| {
        a.mov(rax, 0x4000_0000_u64).unwrap();
        a.mov(dword_ptr(rax), 1).unwrap();
    });

    let lines = traced(&code, &[TraceKind::Exceptions]);

    let first = "vcpu0 exception #PF vector=14 error=0x2 cr2=0x40000000 rip=0x1000a cpl=0";
    assert_eq!(lines[0], first);
    assert!(lines[lines.len() - 1].starts_with("vcpu0 exception #DF vector=8 error=0x0 rip=0x1000a"));
}

#[test]
fn trace_of_one_kind_tells_nothing_else() {
    let lines = traced(&counting(50), &[TraceKind::Exits]);

    assert_eq!(lines, ["vcpu0 exit shutdown rip=0x1000e"]);
}

#[test]
fn undefined_bytes_are_told_once_and_not_without_end() {
    let undefined = Undefined::default();

    let told = (0..2000_u16).filter(|number| undefined.is_new(&number.to_le_bytes()));

    assert_eq!(told.count(), 256);
    assert!(!undefined.is_new(&0_u16.to_le_bytes()));
}

/// What was heard: a sample with the eight bytes at its instruction, or that the vCPU was idle.
type Heard = Option<(Sample, Option<u64>)>;

struct Ear(Sender<Heard>);

impl Samples for Ear {
    fn busy(&self, sample: &Sample, stack: &dyn GuestStack) {
        // Who heard enough is gone.
        let _ = self.0.send(Some((*sample, stack.quad(sample.rip))));
    }

    fn idle(&self, _vcpu: u32, _milliseconds: u64) {
        let _ = self.0.send(None);
    }
}

/// The first of what is heard of `code` that `wanted` wants.
fn heard(code: &[u8], wanted: impl FnMut(&Heard) -> bool) -> Heard {
    let (sender, ear): (_, Receiver<Heard>) = channel();
    let observation = Observation {
        trace: None,
        samples: Some(Arc::new(Ear(sender))),
    };
    let (_vm, mut vcpu) = vcpu(code, observation);
    let kicker = vcpu.kicker();
    let running = thread::spawn(move || vcpu.run(&NoDevices).unwrap());
    let found = ear.iter().find(wanted).unwrap();
    kicker.kick();
    assert_eq!(running.join().unwrap(), StopReason::Kicked);
    found
}

#[test]
fn samples_of_a_busy_vcpu_tell_where_it_is() {
    let code = assembled(|a| {
        let mut top = a.create_label();
        a.mov(ebp, 0x1234).unwrap();
        a.set_label(&mut top).unwrap();
        a.jmp(top).unwrap();
    });

    let (sample, bytes) = heard(&code, |heard| heard.is_some_and(|(sample, _)| sample.rip != CODE)).unwrap();

    let place = (sample.rip, sample.cpl, sample.bits);
    assert_eq!(place, (CODE + 5, 0, 64));
    assert_eq!((sample.rsp, sample.rbp), (STACK, 0x1234));
    assert!(sample.milliseconds >= 1);
    assert_eq!(bytes, Some(0xfeeb));
}

#[test]
fn samples_of_a_vcpu_that_halts_become_idle() {
    let code = assembled(|a| {
        let mut top = a.create_label();
        a.mov(ecx, 100_000_000).unwrap();
        a.set_label(&mut top).unwrap();
        a.dec(ecx).unwrap();
        a.jnz(top).unwrap();
        a.hlt().unwrap();
    });
    let mut was_busy = false;

    let heard = heard(&code, |heard| {
        was_busy |= heard.is_some();
        was_busy && heard.is_none()
    });

    assert_eq!(heard, None);
    assert!(was_busy);
}

#[test]
fn quad_over_pages_is_put_together_and_leaves_no_mark() {
    const TABLE: u64 = integer::CODE + 0x9000;
    let mut machine = integer::Machine::new(32);
    machine.page_without(integer::STACK + 0x2000);
    let tables_before = machine.bytes(TABLE, 0x3000);
    machine.set_quad(integer::STACK + 0x0ffc, 0x0807_0605_0403_0201);
    let exec = machine.exec();

    let (whole, half, nowhere) = (
        exec.quad(integer::STACK + 0x0ffc),
        exec.quad(integer::STACK + 0x1ffc),
        exec.quad(0x7000_0000),
    );

    assert_eq!((whole, half, nowhere), (Some(0x0807_0605_0403_0201), None, None));
    assert_eq!(machine.bytes(TABLE, 0x3000), tables_before);
}

#[test]
fn quad_without_paging_is_physical() {
    let mut machine = integer::Machine::new(32);
    machine.set_quad(integer::DATA + 3, 77);

    assert_eq!(machine.cpu.cr0 & control::CR0_PG, 0);
    assert_eq!(machine.exec().quad(integer::DATA + 3), Some(77));
    assert_eq!(machine.exec().quad(integer::DATA + 0xfffc), None);
}
