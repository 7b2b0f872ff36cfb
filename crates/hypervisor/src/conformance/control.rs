//! CPUID, MSRs, kicks, shutdown.

use std::thread;
use std::time::Duration;

use super::guest::{Failure, Guest, Mode, Options, chain};
use super::recorder::Access;
use super::short::out;
use super::{Bench, Case, expect_trace, programs};
use crate::StopReason;
use crate::x86_64::{CpuProfile, CpuidLeaf};

pub(super) const CASES: &[Case] = &[
    Case {
        name: "cpuid_as_given",
        run: cpuid,
    },
    Case {
        name: "named_cpu_profiles_run",
        run: profiles,
    },
    Case {
        name: "msr_write_then_read",
        run: msr,
    },
    Case {
        name: "kick_before_run",
        run: kick_before_run,
    },
    Case {
        name: "kick_busy_loop",
        run: kick_busy_loop,
    },
    Case {
        name: "kick_many_times",
        run: kick_many_times,
    },
    Case {
        name: "kick_in_hlt",
        run: kick_in_hlt,
    },
    Case {
        name: "triple_fault_is_shutdown",
        run: triple_fault,
    },
];

/// The first leaf of the brand string.
const BRAND: u32 = 0x8000_0002;

fn cpuid(bench: &Bench<'_>) -> Result<Vec<Access>, Failure> {
    let brand = CpuidLeaf {
        leaf: BRAND,
        subleaf: None,
        eax: u32::from_le_bytes(*b"Crum"),
        ebx: u32::from_le_bytes(*b"ble "),
        ecx: u32::from_le_bytes(*b"Crac"),
        edx: u32::from_le_bytes(*b"ker "),
    };
    let mut leaves = bench.hypervisor.capabilities().cpuid.clone();
    leaves.retain(|leaf| leaf.leaf != BRAND);
    leaves.push(brand);
    let options = Options {
        cpuid: &leaves,
        vcpus: 1,
        log_dirty: false,
    };
    let trace = Guest::with(bench.hypervisor, Mode::Long, programs::CPUID, &options)?.run_to_end()?;
    let mut wanted: Vec<_> = [brand.eax, brand.ebx, brand.ecx, brand.edx]
        .iter()
        .map(|word| out(0x10, 4, (*word).into()))
        .collect();
    wanted.push(out(0x10, 1, 0));
    expect_trace(&trace, &wanted)?;
    Ok(trace)
}

/// Every profile that this host can show starts a guest.
fn profiles(bench: &Bench<'_>) -> Result<Vec<Access>, Failure> {
    let offered = &bench.hypervisor.capabilities().cpuid;
    let mut traces = Vec::new();
    for profile in CpuProfile::ALL {
        let Ok(leaves) = profile.apply(offered) else {
            continue;
        };
        let options = Options {
            cpuid: &leaves,
            vcpus: 1,
            log_dirty: false,
        };
        let trace = Guest::with(bench.hypervisor, Mode::Long, programs::PORTS, &options)?.run_to_end();
        traces.push(trace.map_err(|failure| format!("profile {profile}: {failure}"))?);
    }
    if traces.windows(2).all(|pair| pair[0] == pair[1]) {
        return Ok(traces.pop().unwrap_or_default());
    }
    Err("one program runs differently under another profile".to_owned())
}

fn msr(bench: &Bench<'_>) -> Result<Vec<Access>, Failure> {
    let trace = Guest::new(bench.hypervisor, Mode::Long, programs::MSR)?.run_to_end()?;
    expect_trace(
        &trace,
        &[
            out(0x10, 4, 0x8123_4567),
            out(0x10, 4, 0xffff_ffff),
            out(0x10, 4, 0x33),
        ],
    )?;
    Ok(trace)
}

/// The guest has done nothing when the kick is answered, and runs on at the next call.
fn kick_before_run(bench: &Bench<'_>) -> Result<Vec<Access>, Failure> {
    let mut guest = Guest::new(bench.hypervisor, Mode::Long, programs::PORTS)?;
    guest.vcpu.kicker().kick();
    let stopped = guest.run()?;
    if stopped != StopReason::Kicked || !guest.recorder.trace().is_empty() {
        return Err(format!(
            "a kicked CPU stopped with {stopped:?} after {:x?}",
            guest.recorder.trace()
        ));
    }
    let trace = guest.run_to_end()?;
    if trace.is_empty() {
        return Err("one kick stopped the CPU twice".to_owned());
    }
    Ok(trace)
}

/// Kicks `times` times, each after the one before has been answered, with nothing in between but the guest.
fn kick_repeatedly(guest: &mut Guest, times: u32, pause: Duration) -> Result<Vec<Access>, Failure> {
    for _ in 0..times {
        let kicker = guest.vcpu.kicker();
        let stopped = thread::scope(|scope| {
            scope.spawn(move || {
                thread::sleep(pause);
                kicker.kick();
            });
            guest.run()
        })?;
        if stopped != StopReason::Kicked {
            return Err(format!("stopped with {stopped:?}"));
        }
    }
    Ok(guest.recorder.trace())
}

fn kick_busy_loop(bench: &Bench<'_>) -> Result<Vec<Access>, Failure> {
    let mut guest = Guest::new(bench.hypervisor, Mode::Long, programs::SPIN)?;
    let rip = guest.vcpu.state().map_err(chain)?.general.rip;
    let trace = kick_repeatedly(&mut guest, 3, Duration::from_millis(20))?;
    super::expect("RIP", guest.vcpu.state().map_err(chain)?.general.rip, rip)?;
    Ok(trace)
}

/// Kicks that race with the entry into the guest: none may be lost.
fn kick_many_times(bench: &Bench<'_>) -> Result<Vec<Access>, Failure> {
    let mut guest = Guest::new(bench.hypervisor, Mode::Long, programs::SPIN)?;
    kick_repeatedly(&mut guest, 200, Duration::ZERO)
}

/// A CPU that sleeps with interrupts off: nothing but a kick can stop it.
fn kick_in_hlt(bench: &Bench<'_>) -> Result<Vec<Access>, Failure> {
    let mut guest = Guest::new(bench.hypervisor, Mode::Real, programs::SECOND)?;
    kick_repeatedly(&mut guest, 3, Duration::from_millis(20))
}

fn triple_fault(bench: &Bench<'_>) -> Result<Vec<Access>, Failure> {
    let mut guest = Guest::new(bench.hypervisor, Mode::Long, programs::TRIPLE_FAULT)?;
    match guest.run()? {
        StopReason::Shutdown => Ok(guest.recorder.trace()),
        other => Err(format!("stopped with {other:?}")),
    }
}
