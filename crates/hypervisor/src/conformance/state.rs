//! The state table: what is set is seen by the guest, and read back as it was set.

use super::guest::{Failure, Guest, Mode, chain};
use super::recorder::Access;
use super::short::out;
use super::{Bench, Case, expect, expect_trace, programs};
use crate::x86_64::{
    Activity, CpuState, LocalApic, PendingException, PendingInterrupt, Segment, TableRegister, msr,
};

pub(super) const CASES: &[Case] = &[
    Case {
        name: "state_set_is_seen_by_the_guest",
        run: seen_by_guest,
    },
    Case {
        name: "state_set_then_get_registers",
        run: |bench| round_trip(bench, registers),
    },
    Case {
        name: "state_set_then_get_extended",
        run: extended,
    },
    Case {
        name: "state_set_then_get_lapic",
        run: |bench| round_trip(bench, lapic),
    },
    Case {
        name: "state_set_then_get_msrs",
        run: |bench| round_trip(bench, msrs),
    },
    Case {
        name: "state_set_then_get_pending_interrupt",
        run: |bench| round_trip(bench, pending_interrupt),
    },
    Case {
        name: "state_set_then_get_pending_exception",
        run: |bench| round_trip(bench, pending_exception),
    },
    Case {
        name: "state_set_then_get_shadow_of_mov_ss",
        run: |bench| round_trip(bench, shadow_mov_ss),
    },
    Case {
        name: "state_set_then_get_shadow_of_sti",
        run: shadow_sti,
    },
    Case {
        name: "state_set_then_get_nmi",
        run: |bench| round_trip(bench, nmi),
    },
    Case {
        name: "state_set_then_get_activity",
        run: activity,
    },
    Case {
        name: "state_moves_to_another_vm",
        run: moves,
    },
];

const XMM3: usize = 3 * 16;

/// An SSE component whose XMM3 holds four times `word`.
fn sse_with_xmm3(word: u32) -> Vec<u8> {
    let mut component = vec![0; 256];
    component[XMM3..XMM3 + 16].copy_from_slice(&[word; 4].map(u32::to_le_bytes).concat());
    component
}

fn seen_by_guest(bench: &Bench<'_>) -> Result<Vec<Access>, Failure> {
    let mut guest = Guest::new(bench.hypervisor, Mode::Long, programs::SHOW_STATE)?;
    guest.change_state(|state| {
        state.general.gpr[15] = 0x1234_5678;
        state.extended.components.0.insert(1, sse_with_xmm3(0x0102_0304));
    })?;
    let trace = guest.run_to_end()?;
    expect_trace(
        &trace,
        &[
            out(0x10, 4, 0x1234_5678),
            out(0x10, 4, 0x0102_0304),
            out(0x10, 4, 0x0204_0608),
        ],
    )?;
    let state = guest.vcpu.state().map_err(chain)?;
    let xmm4 = state
        .extended
        .components
        .0
        .get(&1)
        .and_then(|sse| sse.get(4 * 16..4 * 16 + 4));
    if xmm4 == Some(&[8, 6, 4, 2]) {
        Ok(trace)
    } else {
        Err(format!("XMM4 is {xmm4:x?}"))
    }
}

/// The registers in which `got` is not `wanted`. Time runs on, so the counter is compared by a bound.
fn differences(got: &CpuState, wanted: &CpuState) -> Vec<String> {
    let mut names = got.differences(wanted);
    let ran_on = got.tsc >= wanted.tsc && got.tsc - wanted.tsc < 1 << 40;
    let current_count = format!("lapic[{:#x}]", LocalApic::TIMER_CURRENT * 16);
    names.retain(|name| !(name == "tsc" && ran_on) && *name != current_count);
    names
}

fn round_trip(bench: &Bench<'_>, change: fn(&mut CpuState)) -> Result<Vec<Access>, Failure> {
    let mut guest = Guest::new(bench.hypervisor, Mode::Long, programs::SPIN)?;
    let mut wanted = guest.vcpu.state().map_err(chain)?;
    change(&mut wanted);
    guest.vcpu.set_state(&wanted).map_err(chain)?;
    let got = guest.vcpu.state().map_err(chain)?;
    let names = differences(&got, &wanted);
    if names.is_empty() {
        Ok(Vec::new())
    } else {
        Err(format!("not as they were set: {}", names.join(", ")))
    }
}

fn registers(state: &mut CpuState) {
    for (register, number) in state.general.gpr.iter_mut().zip(1_u64..) {
        *register = number.wrapping_mul(0x1111_1111_1111_1111);
    }
    state.general.rip = 0xffff_ffff_8001_2345;
    // Carry, parity, zero, sign, overflow, identification.
    state.general.rflags = 0x20_08c7;
    let system = &mut state.system;
    system.fs = Segment {
        base: 0x7fff_1234_5678,
        ..Segment::flat_data(0)
    };
    system.gs = Segment {
        base: 0xffff_8800_1234_0000,
        ..Segment::flat_data(0)
    };
    system.tr = Segment::busy_tss(0x40, 0xffff_fe00_0000_3000, 0x206f);
    system.ldtr = Segment::ldt(0x28, 0x1234_0000, 0xffff);
    system.gdtr = TableRegister {
        base: 0xffff_fe00_0000_1000,
        limit: 0x7f,
    };
    system.idtr = TableRegister {
        base: 0xffff_fe00_0000_0000,
        limit: 0xfff,
    };
    system.cr2 = 0xdead_b000;
    system.cr8 = 3;
    state.lapic.registers[LocalApic::TPR] = 0x30;
    state.lapic.registers[LocalApic::PPR] = 0x30;
    state.debug.dr = [0x1000, 0x2000, 0x3000, 0x4000];
    // Breakpoint 0 was hit; breakpoints 0 and 1 are enabled.
    state.debug.dr6 = 0xffff_0ff1;
    state.debug.dr7 = 0x405;
    state.tsc = 0x1234_5678_9abc;
}

/// Every component that this host has at all, each with bytes of its own.
fn extended(bench: &Bench<'_>) -> Result<Vec<Access>, Failure> {
    let mut guest = Guest::new(bench.hypervisor, Mode::Long, programs::SPIN)?;
    let mut wanted = guest.vcpu.state().map_err(chain)?;
    wanted.xcr0 = supported_xcr0(bench) & 0xe7;
    wanted.extended.mxcsr = 0x1fa0;
    let x87 = x87_component();
    wanted.extended.components.0.insert(0, x87);
    wanted.extended.components.0.insert(1, sse_with_xmm3(0xa5a5_5a5a));
    for (component, len) in [(2, 256), (5, 64), (6, 512), (7, 1024)] {
        if wanted.xcr0 >> component & 1 != 0 {
            wanted
                .extended
                .components
                .0
                .insert(component, vec![0x30 + component as u8; len]);
        }
    }
    guest.vcpu.set_state(&wanted).map_err(chain)?;
    let names = differences(&guest.vcpu.state().map_err(chain)?, &wanted);
    if names.is_empty() {
        Ok(Vec::new())
    } else {
        Err(format!("not as they were set: {}", names.join(", ")))
    }
}

/// Control word 0x37f, and ST0 holding 1.0 with its tag.
fn x87_component() -> Vec<u8> {
    let mut component = vec![0; 160];
    component[..2].copy_from_slice(&0x037f_u16.to_le_bytes());
    // Top of stack 7, and register 7 valid.
    component[2..4].copy_from_slice(&0x3800_u16.to_le_bytes());
    component[4] = 0x80;
    component[32..42].copy_from_slice(&[0, 0, 0, 0, 0, 0, 0, 0x80, 0xff, 0x3f]);
    component
}

fn supported_xcr0(bench: &Bench<'_>) -> u64 {
    let cpuid = &bench.hypervisor.capabilities().cpuid;
    crate::x86_64::find_leaf(cpuid, 0xd, 0).map_or(3, |leaf| leaf.eax.into())
}

fn lapic(state: &mut CpuState) {
    let registers = &mut state.lapic.registers;
    registers[LocalApic::SPURIOUS] = 0x1ff;
    registers[LocalApic::TPR] = 0x20;
    registers[LocalApic::PPR] = 0x20;
    state.system.cr8 = 2;
    registers[LocalApic::LDR] = 0x0100_0000;
    registers[LocalApic::LVT_LINT0] = 0x0001_0700;
    registers[LocalApic::LVT_LINT1] = 0x0000_0400;
    registers[LocalApic::LVT_ERROR] = 0xfe;
    registers[LocalApic::LVT_TIMER] = 0x0001_00ec;
    registers[LocalApic::TIMER_DIVIDE] = 0xb;
    // Vector 0x51 waits, level-triggered; 0x62 waits, edge-triggered.
    registers[LocalApic::IRR + 2] = 1 << (0x51 - 0x40);
    registers[LocalApic::TMR + 2] = 1 << (0x51 - 0x40);
    registers[LocalApic::IRR + 3] = 1 << (0x62 - 0x60);
}

fn msrs(state: &mut CpuState) {
    let values = [
        (msr::PAT, 0x0007_0406_0007_0401),
        (msr::STAR, 0x0023_0010_0000_0000),
        (msr::LSTAR, 0xffff_ffff_8180_0000),
        (0xc000_0083, 0xffff_ffff_8180_1000),
        (0xc000_0084, 0x4_7700),
        (msr::KERNEL_GS_BASE, 0x7f12_3456_7000),
        (0xc000_0103, 7),
        (0x174, 0x10),
        // AMD's processors keep the lower half of these two: SYSENTER does not exist in their long mode.
        (0x175, 0xfe00_2000),
        (0x176, 0x8180_2000),
        (msr::MTRR_DEF_TYPE, 0xc06),
        (0x200, 0x8000_0000),
        (0x201, 0x7f_8000_0800),
        (0x250, 0x0606_0606_0606_0606),
    ];
    for (index, value) in values {
        // A profile without one of them has none to set.
        if let Some(slot) = state.msrs.get_mut(&index) {
            *slot = value;
        }
    }
}

fn pending_interrupt(state: &mut CpuState) {
    state.general.rflags |= 1 << 9;
    state.events.interrupt = Some(PendingInterrupt {
        vector: 0x40,
        software: false,
    });
}

fn pending_exception(state: &mut CpuState) {
    state.events.exception = Some(PendingException {
        vector: 13,
        error_code: Some(0x18),
        payload: None,
        injected: true,
    });
}

fn shadow_mov_ss(state: &mut CpuState) {
    state.events.shadow_mov_ss = true;
}

/// AMD's processors have one shadow for both causes (APM vol. 2, 15.21.5): it reads as the stricter one.
fn shadow_sti(bench: &Bench<'_>) -> Result<Vec<Access>, Failure> {
    let mut guest = Guest::new(bench.hypervisor, Mode::Long, programs::SPIN)?;
    guest.change_state(|state| {
        state.general.rflags |= 1 << 9;
        state.events.shadow_sti = true;
    })?;
    let events = guest.vcpu.state().map_err(chain)?.events;
    if events.shadow_sti != events.shadow_mov_ss {
        return Ok(Vec::new());
    }
    Err(format!("the shadow became {events:?}"))
}

fn nmi(state: &mut CpuState) {
    state.events.nmi_masked = true;
    state.events.nmi_pending = true;
}

fn activity(bench: &Bench<'_>) -> Result<Vec<Access>, Failure> {
    for activity in [
        Activity::Halted,
        Activity::WaitForInit,
        Activity::WaitForSipi,
        Activity::Running,
    ] {
        let mut guest = Guest::new(bench.hypervisor, Mode::Long, programs::SPIN)?;
        guest.change_state(|state| state.activity = activity)?;
        let got = guest.vcpu.state().map_err(chain)?.activity;
        if got != activity {
            return Err(format!("{activity:?} became {got:?}"));
        }
    }
    Ok(Vec::new())
}

/// A program is stopped in the middle, its CPU and RAM are carried to a new VM, and it goes on there.
fn moves(bench: &Bench<'_>) -> Result<Vec<Access>, Failure> {
    let mut first = Guest::new(bench.hypervisor, Mode::Long, programs::SHOW_STATE)?;
    first.change_state(|state| {
        state.general.gpr[15] = 0x77;
        state.extended.components.0.insert(1, sse_with_xmm3(9));
    })?;
    let kicker = first.vcpu.kicker();
    first.react(0x10, Box::new(move || kicker.kick()));
    first.run_to_end()?;
    let state = first.vcpu.state().map_err(chain)?;
    let mut second = Guest::new(bench.hypervisor, Mode::Long, programs::SHOW_STATE)?;
    second.vcpu.set_state(&state).map_err(chain)?;
    expect(
        "RIP",
        second.vcpu.state().map_err(chain)?.general.rip,
        state.general.rip,
    )?;
    let trace = second.run_to_end()?;
    expect_trace(&trace, &[out(0x10, 4, 9), out(0x10, 4, 18)])?;
    Ok(trace)
}
