//! Interrupts and exceptions.

use std::sync::Arc;
use std::thread;

use super::guest::{DATA_AREA, Failure, Guest, Mode, Options, VECTOR, chain};
use super::recorder::{Access, Recorder};
use super::short::out;
use super::{Bench, Case, expect, expect_trace, programs};
use crate::{Msi, Vm};

pub(super) const CASES: &[Case] = &[
    Case {
        name: "msi_wakes_hlt",
        run: msi_wakes_hlt,
    },
    Case {
        name: "level_interrupt_ends_with_eoi",
        run: level_interrupt,
    },
    Case {
        name: "edge_interrupt_ends_without_eoi",
        run: edge_interrupt,
    },
    Case {
        name: "local_apic_timer",
        run: timer,
    },
    Case {
        name: "second_processor_starts",
        run: second_processor,
    },
    Case {
        name: "exception_divide_error",
        run: |bench| exception(bench, programs::DIVIDE_BY_ZERO, 0, 0),
    },
    Case {
        name: "exception_undefined_opcode",
        run: |bench| exception(bench, programs::UNDEFINED, 6, 0),
    },
    Case {
        name: "exception_breakpoint",
        run: |bench| exception(bench, programs::BREAKPOINT, 3, 0),
    },
    Case {
        name: "exception_bad_selector",
        run: |bench| exception(bench, programs::BAD_SELECTOR, 13, 0x100),
    },
    Case {
        name: "exception_unknown_msr",
        run: |bench| exception(bench, programs::MSR_UNKNOWN, 13, 0),
    },
    Case {
        name: "page_fault_read_absent",
        run: |bench| page_fault(bench, programs::READ_ABSENT, 0, ABSENT),
    },
    Case {
        name: "page_fault_write_absent",
        run: |bench| page_fault(bench, programs::WRITE_ABSENT, 2, ABSENT),
    },
    Case {
        name: "page_fault_write_read_only",
        run: |bench| page_fault(bench, programs::WRITE_READ_ONLY, 3, 0x4020_0456),
    },
    Case {
        name: "page_fault_fetch_absent",
        run: |bench| page_fault(bench, programs::FETCH_ABSENT, 0x10, ABSENT),
    },
];

/// The address that the page-fault programs touch.
const ABSENT: u64 = 0x4000_0123;

/// To the local APIC with id 0, fixed delivery, edge (Intel SDM vol. 3, 11.11).
const EDGE: Msi = Msi {
    address: 0xfee0_0000,
    data: VECTOR as u32,
};
/// The same, level-triggered and asserted.
const LEVEL: Msi = Msi {
    address: 0xfee0_0000,
    data: 0xc000 | VECTOR as u32,
};

/// A guest whose word at port 0x11 makes `message` arrive.
fn interrupted(bench: &Bench<'_>, message: Msi) -> Result<Guest, Failure> {
    let mut guest = Guest::new(bench.hypervisor, Mode::Long, programs::INTERRUPT)?;
    let vm: Arc<dyn Vm> = guest.vm.clone();
    guest.react(
        0x11,
        Box::new(move || {
            // A message that does not arrive leaves the guest asleep, and that fails the case.
            let _ = vm.signal_msi(message);
        }),
    );
    Ok(guest)
}

fn msi_wakes_hlt(bench: &Bench<'_>) -> Result<Vec<Access>, Failure> {
    let trace = interrupted(bench, EDGE)?.run_to_end()?;
    expect_trace(
        &trace,
        &[out(0x11, 1, 0x11), out(0x40, 1, 0x40), out(0x12, 1, 0x12)],
    )?;
    Ok(trace)
}

fn level_interrupt(bench: &Bench<'_>) -> Result<Vec<Access>, Failure> {
    let mut guest = interrupted(bench, LEVEL)?;
    guest.vm.set_ioapic_route(5, Some(LEVEL)).map_err(chain)?;
    let trace = guest.run_to_end()?;
    let eoi = Access::Eoi { vector: VECTOR };
    expect_trace(
        &trace,
        &[out(0x11, 1, 0x11), out(0x40, 1, 0x40), eoi, out(0x12, 1, 0x12)],
    )?;
    Ok(trace)
}

/// The route is there, but what arrives is an edge: no device waits for its end.
fn edge_interrupt(bench: &Bench<'_>) -> Result<Vec<Access>, Failure> {
    let mut guest = interrupted(bench, EDGE)?;
    guest.vm.set_ioapic_route(5, Some(EDGE)).map_err(chain)?;
    let trace = guest.run_to_end()?;
    expect_trace(
        &trace,
        &[out(0x11, 1, 0x11), out(0x40, 1, 0x40), out(0x12, 1, 0x12)],
    )?;
    Ok(trace)
}

fn timer(bench: &Bench<'_>) -> Result<Vec<Access>, Failure> {
    let trace = Guest::new(bench.hypervisor, Mode::Long, programs::TIMER)?.run_to_end()?;
    expect_trace(&trace, &[out(0x40, 1, 0x40), out(0x10, 4, 0)])?;
    Ok(trace)
}

fn second_processor(bench: &Bench<'_>) -> Result<Vec<Access>, Failure> {
    let cpuid = &bench.hypervisor.capabilities().cpuid;
    let options = Options {
        cpuid,
        vcpus: 2,
        log_dirty: false,
    };
    let mut guest = Guest::with(bench.hypervisor, Mode::Long, programs::START_SECOND, &options)?;
    guest.place(0x2_1000, programs::SECOND)?;
    let mut second = guest.vm.create_vcpu(1, cpuid).map_err(chain)?;
    let kicker = second.kicker();
    let trace = thread::scope(|scope| {
        let other = scope.spawn(move || second.run(&Recorder::default()));
        let trace = guest.run_to_end();
        kicker.kick();
        match other.join() {
            Ok(Ok(_)) => trace,
            Ok(Err(error)) => Err(chain(error)),
            Err(_) => Err("the second processor's thread panicked".to_owned()),
        }
    })?;
    expect("the second processor's word", guest.ram(DATA_AREA)?, 0x1234)?;
    expect_trace(&trace, &[out(0x12, 1, 0x12)])?;
    Ok(trace)
}

fn exception(bench: &Bench<'_>, listing: &str, vector: u64, code: u64) -> Result<Vec<Access>, Failure> {
    let trace = Guest::new(bench.hypervisor, Mode::Long, listing)?.run_to_end()?;
    expect_trace(
        &trace[..trace.len().min(2)],
        &[out(0xe0, 1, vector), out(0xe1, 4, code)],
    )?;
    Ok(trace)
}

fn page_fault(bench: &Bench<'_>, listing: &str, code: u64, cr2: u64) -> Result<Vec<Access>, Failure> {
    let trace = Guest::new(bench.hypervisor, Mode::Long, listing)?.run_to_end()?;
    let wanted = [
        out(0xe0, 1, 14),
        out(0xe1, 4, code),
        out(0xe2, 4, cr2),
        out(0xe3, 4, 0),
    ];
    expect_trace(&trace, &wanted)?;
    Ok(trace)
}
