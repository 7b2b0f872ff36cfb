//! RAM: code that changes, the dirty log, overlaps, doorbells.

use super::guest::{DATA_AREA, Failure, Guest, Mode, Options, RAM_LEN, chain};
use super::recorder::Access;
use super::short::{out, store};
use super::{Bench, Case, expect_trace, programs};
use crate::{DoorbellAddress, Error};
use guest_memory::GuestMemory;

pub(super) const CASES: &[Case] = &[
    Case {
        name: "self_modifying_code",
        run: self_modifying,
    },
    Case {
        name: "overlapping_ram_is_refused",
        run: overlap,
    },
    Case {
        name: "dirty_log",
        run: dirty_log,
    },
    Case {
        name: "mapped_ahead",
        run: mapped_ahead,
    },
    Case {
        name: "doorbells",
        run: doorbells,
    },
];

fn self_modifying(bench: &Bench<'_>) -> Result<Vec<Access>, Failure> {
    let trace = Guest::new(bench.hypervisor, Mode::Long, programs::SELF_MODIFYING)?.run_to_end()?;
    expect_trace(&trace, &[out(0x10, 1, 3), out(0x10, 1, 2), out(0x10, 1, 1)])?;
    Ok(trace)
}

fn overlap(bench: &Bench<'_>) -> Result<Vec<Access>, Failure> {
    let guest = Guest::new(bench.hypervisor, Mode::Long, programs::SPIN)?;
    let more = GuestMemory::anonymous(&[(RAM_LEN - 0x1000, 0x2000)]).map_err(chain)?;
    match guest.vm.map_ram(&more, false) {
        Err(Error::Overlap { other: 0, .. }) => Ok(Vec::new()),
        other => Err(format!("mapping over RAM gave {other:?}")),
    }
}

/// Page tables may be dirty too: the CPU sets accessed bits in them.
fn dirty_log(bench: &Bench<'_>) -> Result<Vec<Access>, Failure> {
    let capabilities = bench.hypervisor.capabilities();
    if !capabilities.dirty_log {
        return Ok(Vec::new());
    }
    let options = Options {
        cpuid: &capabilities.cpuid,
        vcpus: 1,
        log_dirty: true,
    };
    let mut guest = Guest::with(bench.hypervisor, Mode::Long, programs::DIRTY, &options)?;
    guest.vm.take_dirty_pages().map_err(chain)?;
    let trace = guest.run_to_end()?;
    let dirty = guest.vm.take_dirty_pages().map_err(chain)?;
    let [first, between, last] = [0, 0x1000, 0x2000].map(|offset| dirty.contains(&(DATA_AREA + offset)));
    if (first, between, last) != (true, false, true) {
        return Err(format!("the pages reported are {dirty:#x?}"));
    }
    let again = guest.vm.take_dirty_pages().map_err(chain)?;
    if again.is_empty() {
        Ok(trace)
    } else {
        Err(format!("pages are reported twice: {again:#x?}"))
    }
}

/// The guest does what it does otherwise, and pages beyond its RAM are refused.
fn mapped_ahead(bench: &Bench<'_>) -> Result<Vec<Access>, Failure> {
    let mut guest = Guest::new(bench.hypervisor, Mode::Long, programs::SELF_MODIFYING)?;
    let all = [0..RAM_LEN / 2, RAM_LEN / 2..RAM_LEN];
    let beyond = [0..0x1000, RAM_LEN..RAM_LEN + 0x1000];
    let maps_ahead = bench.hypervisor.capabilities().maps_ahead;
    for (pages, works) in [(&all, maps_ahead), (&beyond, false)] {
        let mapped = guest.vcpu.map_ahead(pages);
        if mapped.is_ok() != works {
            return Err(format!("mapping {pages:#x?} ahead gave {mapped:?}"));
        }
    }
    let trace = guest.run_to_end()?;
    expect_trace(&trace, &[out(0x10, 1, 3), out(0x10, 1, 2), out(0x10, 1, 1)])?;
    Ok(trace)
}

fn doorbells(bench: &Bench<'_>) -> Result<Vec<Access>, Failure> {
    if !bench.hypervisor.capabilities().doorbells {
        return Ok(Vec::new());
    }
    let mut guest = Guest::new(bench.hypervisor, Mode::Long, programs::DOORBELLS)?;
    let (any, five) = ((bench.new_doorbell)(), (bench.new_doorbell)());
    let device = 0xd000_0000;
    let at_any = DoorbellAddress {
        gpa: device,
        width: 4,
        value: None,
    };
    let at_five = DoorbellAddress {
        gpa: device + 0x10,
        width: 2,
        value: Some(5),
    };
    let any_guard = guest.vm.register_doorbell(at_any, any.clone()).map_err(chain)?;
    let five_guard = guest.vm.register_doorbell(at_five, five.clone()).map_err(chain)?;
    let trace = guest.run_to_end()?;
    expect_trace(&trace, &[store(device + 0x10, 2, 6)])?;
    if (any.take(), five.take()) != (true, true) {
        return Err("a doorbell was not rung".to_owned());
    }
    drop((any_guard, five_guard));
    let mut after = Guest::new(bench.hypervisor, Mode::Long, programs::DOORBELLS)?;
    let without = after.run_to_end()?;
    expect_trace(
        &without,
        &[
            store(device, 4, 7),
            store(device + 0x10, 2, 5),
            store(device + 0x10, 2, 6),
        ],
    )?;
    Ok(trace)
}
