//! Port I/O.

use crate::cpu::{Cpu, flags};
use crate::exception::Exception;
use crate::testing::system::*;

fn written(machine: &Machine) -> Vec<(u16, u64, usize)> {
    machine.ports.written.lock().unwrap().clone()
}

#[test]
fn in_and_out_of_every_width_reach_the_device() {
    let mut machine = Machine::long();
    (machine.cpu.gpr[Cpu::RDX], machine.cpu.gpr[Cpu::RAX]) = (0x5_1234, 0x1_89ab_cdef);
    // `out 0x10,al`, `out dx,ax`, `out dx,eax`, `in al,0x10`, `in ax,dx`, `in eax,dx`.
    machine.run(&[0xe6, 0x10]).unwrap();
    machine.run(&[0x66, 0xef]).unwrap();
    machine.run(&[0xef]).unwrap();
    let expected = [(0x10, 0xef, 1), (0x1234, 0xcdef, 2), (0x1234, 0x89ab_cdef, 4)];
    assert_eq!(written(&machine), expected);
    machine.run(&[0xe4, 0x10]).unwrap();
    assert_eq!(machine.cpu.gpr[Cpu::RAX], 0x1_89ab_cd10);
    machine.run(&[0x66, 0xed]).unwrap();
    assert_eq!(machine.cpu.gpr[Cpu::RAX], 0x1_89ab_1234);
    machine.run(&[0xed]).unwrap();
    assert_eq!(machine.cpu.gpr[Cpu::RAX], 0x1234);
}

/// A machine at level 3 whose task may use the ports with a clear bit in `map`, from 0x40 on.
fn with_map(map: u8, limit: u32) -> Machine {
    let mut machine = Machine::long().at_level_3();
    machine.set_quad(TSS + 102, 0x68 | 0xffff << 16);
    machine.set_quad(TSS + 0x68 + 8, 0xffff_ff00 | u64::from(map));
    machine.cpu.tr.limit = limit;
    machine
}

#[test]
fn programs_reach_the_ports_of_their_tasks_map() {
    // `in al,imm8` or `in ax,imm8` and what comes of it.
    let cases: [(&[u8], _); 5] = [
        (&[0xe4, 0x40], Ok(())),
        (&[0xe4, 0x42], Err(Exception::PROTECTION)),
        (&[0x66, 0xe5, 0x40], Ok(())),
        (&[0x66, 0xe5, 0x41], Err(Exception::PROTECTION)),
        (&[0x66, 0xe5, 0x47], Err(Exception::PROTECTION)),
    ];
    for (code, expected) in cases {
        assert_eq!(with_map(0b0000_0100, 0x80).run(code), expected, "{code:x?}");
    }
}

#[test]
fn ports_beyond_the_tasks_map_are_closed() {
    // The map has two bytes for every access, even of one port.
    assert_eq!(with_map(0, 0x71).run(&[0xe4, 0x40]), Ok(()));
    assert_eq!(with_map(0, 0x70).run(&[0xe4, 0x40]), Err(Exception::PROTECTION));
    assert_eq!(with_map(0, 0x66).run(&[0xe4, 0x40]), Err(Exception::PROTECTION));
}

#[test]
fn io_privilege_level_opens_all_ports() {
    let mut machine = Machine::long().at_level_3();
    assert_eq!(machine.run(&[0xe4, 0x40]), Err(Exception::PROTECTION));
    machine.cpu.rflags |= flags::IOPL;
    assert_eq!(machine.run(&[0xe4, 0x40]), Ok(()));
}

#[test]
fn outs_repeated_writes_one_element_after_another() {
    let mut machine = Machine::long();
    machine.set_quad(DATA, 0x4444_3333_2222_1111);
    machine.cpu.gpr[Cpu::RDX] = 0x20;
    (machine.cpu.gpr[Cpu::RSI], machine.cpu.gpr[Cpu::RCX]) = (DATA, 3);
    // `rep outsw`.
    machine.run(&[0xf3, 0x66, 0x6f]).unwrap();
    assert_eq!(
        written(&machine),
        [(0x20, 0x1111, 2), (0x20, 0x2222, 2), (0x20, 0x3333, 2)]
    );
    assert_eq!(
        (machine.cpu.gpr[Cpu::RSI], machine.cpu.gpr[Cpu::RCX]),
        (DATA + 6, 0)
    );
    assert_eq!(machine.cpu.rip, CODE + 3);
}

#[test]
fn ins_downwards_moves_down() {
    let mut machine = Machine::long();
    (machine.cpu.gpr[Cpu::RDX], machine.cpu.gpr[Cpu::RDI]) = (0x1234, DATA + 4);
    machine.cpu.rflags |= flags::DF;
    // `insd`.
    machine.run(&[0x6d]).unwrap();
    assert_eq!(machine.number(DATA + 4, 4), 0x1234);
    assert_eq!(machine.cpu.gpr[Cpu::RDI], DATA);
}

#[test]
fn ins_to_where_nothing_can_be_stored_reads_no_port() {
    let mut machine = Machine::long();
    machine.cpu.gpr[Cpu::RDI] = 0x8000_0000_0000;
    assert_eq!(machine.run(&[0x6c]), Err(Exception::PROTECTION));
    assert_eq!(machine.ports.reads(), 0);
}

#[test]
fn repeated_many_times_lets_interrupts_in() {
    let mut machine = Machine::long();
    machine.cpu.gpr[Cpu::RSI] = DATA;
    machine.cpu.gpr[Cpu::RCX] = 3000;
    // `rep outsb`, entered again until it is done.
    for left in [1976, 952] {
        machine.run(&[0xf3, 0x6e]).unwrap();
        assert_eq!((machine.cpu.gpr[Cpu::RCX], machine.cpu.rip), (left, CODE));
    }
    machine.run(&[0xf3, 0x6e]).unwrap();
    assert_eq!((machine.cpu.gpr[Cpu::RCX], machine.cpu.rip), (0, CODE + 2));
    assert_eq!(written(&machine).len(), 3000);
}

#[test]
fn repeated_zero_times_does_nothing_even_where_ports_are_closed() {
    let mut machine = Machine::long().at_level_3();
    machine.cpu.gpr[Cpu::RCX] = 0;
    assert_eq!(machine.run(&[0xf3, 0x6e]), Ok(()));
}
