//! Locked accesses over the end of a page, on several vCPUs at once.

use std::sync::Arc;

use guest_memory::{Bytes, GuestAddress, GuestMemory};
use hypervisor::x86_64::CpuState;
use hypervisor::{GuestIo, Kick, VmConfig};
use soft_cpu::Tiers;

const PML4: u64 = 0x1000;
const PDPT: u64 = 0x2000;
const CODE: u64 = 0x3000;
/// The upper half of a number of 32 bits whose lower half is on the page before.
const UPPER: u64 = 0x9000;
const CODE_SELECTOR: u16 = 8;
const DATA_SELECTOR: u16 = 16;
/// How often each vCPU adds one to it: together less than it can hold.
const TIMES: u32 = 20_000;

/// `lock add dword [rsi], 0x10000`, over the end of the page.
const SPLIT: &[u8] = &[0xf0, 0x81, 0x06, 0x00, 0x00, 0x01, 0x00];
/// `lock inc word [rdi]`, of the upper half alone: translated code does it by itself.
const WHOLE: &[u8] = &[0xf0, 0x66, 0xff, 0x07];

/// Stops the vCPU that writes to any port.
struct Stop(Arc<dyn Kick>);

impl GuestIo for Stop {
    fn mmio_read(&self, _gpa: u64, _data: &mut [u8]) {}
    fn mmio_write(&self, _gpa: u64, _data: &[u8]) {}
    fn port_read(&self, _port: u16, _data: &mut [u8]) {}
    fn port_write(&self, _port: u16, _data: &[u8]) {
        self.0.kick();
    }
    fn eoi(&self, _vector: u8) {}
}

/// `instruction`, as often as it is due, then a write to a port.
fn program(instruction: &[u8]) -> Vec<u8> {
    let back = -(instruction.len() as i8 + 4);
    // mov ecx, TIMES; ...; dec ecx; jnz; out 0xf4, al; hlt
    let mut code = vec![0xb9];
    code.extend(TIMES.to_le_bytes());
    code.extend(instruction);
    code.extend([0xff, 0xc9, 0x75, back as u8, 0xe6, 0xf4, 0xf4]);
    code
}

/// In 64-bit code at `rip`.
fn state(rip: u64) -> CpuState {
    let mut state = CpuState::reset(0);
    state.enter_long_mode(rip, PML4, CODE_SELECTOR, DATA_SELECTOR);
    state.general.gpr[6] = UPPER - 2;
    state.general.gpr[7] = UPPER;
    state
}

/// What is in the upper half when each vCPU has run one of `instructions`.
fn count(tiers: Tiers, instructions: &[&[u8]]) -> u16 {
    let memory = GuestMemory::anonymous(&[(0, 0x1_0000)]).unwrap();
    // Present, writable; a page of 1 GiB.
    memory.write_obj(PDPT | 3, GuestAddress(PML4)).unwrap();
    memory.write_obj(0x83_u64, GuestAddress(PDPT)).unwrap();
    let hypervisor = soft_cpu::open_with(tiers);
    let vm = hypervisor
        .create_vm(&VmConfig {
            vcpus: instructions.len() as u32,
            ioapic_lines: 0,
        })
        .unwrap();
    vm.map_ram(&memory, false).unwrap();
    let mut vcpus = Vec::new();
    for (number, instruction) in (0..).zip(instructions) {
        let at = CODE + u64::from(number) * 0x1000;
        memory
            .write_slice(&program(instruction), GuestAddress(at))
            .unwrap();
        let mut vcpu = vm.create_vcpu(number, &hypervisor.capabilities().cpuid).unwrap();
        vcpu.set_state(&state(at)).unwrap();
        vcpus.push(vcpu);
    }
    std::thread::scope(|scope| {
        for vcpu in &mut vcpus {
            let io = Stop(vcpu.kicker());
            scope.spawn(move || vcpu.run(&io).unwrap());
        }
    });
    memory.read_obj(GuestAddress(UPPER)).unwrap()
}

#[test]
fn locked_add_over_the_end_of_a_page_no_other_update_is_lost() {
    let tiers = [Tiers::Interpreter, Tiers::TranslateAtOnce];

    let counts = tiers.map(|tiers| count(tiers, &[SPLIT, WHOLE, SPLIT]));

    assert_eq!(counts, [3 * TIMES as u16; 2]);
}
