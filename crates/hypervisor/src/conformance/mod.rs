//! The conformance suite: tiny machine-code programs that any backend must run in the same way.
//!
//! Every case makes a VM of its own, runs one program and compares what reached [`crate::GuestIo`], RAM and
//! the CPU's state with what the architecture says. Its trace is kept, so that two backends can be compared
//! with each other beyond that.
//!
//! Measured where a case asks for less than the architecture gives: KVM nested in QEMU 7.2's emulated SVM
//! executes the old byte, once, when an instruction is modified by the one before it without a jump between
//! (`self_modifying_code` has the jump, as Intel's manual asks).

mod accesses;
mod control;
mod events;
mod guest;
mod loop_timing;
mod memory;
mod programs;
mod recorder;
mod state;

use std::sync::Arc;

use crate::{Doorbell, Hypervisor};
use guest::Failure;

pub use loop_timing::{CountedLoop, LoopTime};
pub use recorder::Access;

/// A doorbell that tells whether it was rung. The operating system's events are not this crate's, so whoever
/// runs the suite makes them.
pub trait TestDoorbell: Doorbell {
    /// Whether it was rung since the last call.
    fn take(&self) -> bool;
}

/// What a case runs on.
pub struct Bench<'a> {
    /// The backend under test.
    pub hypervisor: &'a dyn Hypervisor,
    /// Makes a doorbell with an event handle behind it.
    pub new_doorbell: &'a dyn Fn() -> Arc<dyn TestDoorbell>,
}

/// One program and what it must do.
pub struct Case {
    /// What it is about, as a test's name.
    pub name: &'static str,
    run: fn(&Bench<'_>) -> Result<Vec<Access>, Failure>,
}

/// How one case went.
#[derive(Clone, Debug)]
pub struct CaseResult {
    /// [`Case::name`].
    pub name: &'static str,
    /// What differed from the architecture; `None` where nothing did.
    pub failure: Option<String>,
    /// What the guest did, as far as it came.
    pub trace: Vec<Access>,
}

impl Case {
    /// Runs it.
    pub fn run(&self, bench: &Bench<'_>) -> CaseResult {
        let (failure, trace) = match (self.run)(bench) {
            Ok(trace) => (None, trace),
            Err(failure) => (Some(failure), Vec::new()),
        };
        CaseResult {
            name: self.name,
            failure,
            trace,
        }
    }
}

/// Every case, in the order in which they build on each other.
pub fn cases() -> impl Iterator<Item = &'static Case> {
    [
        accesses::CASES,
        control::CASES,
        events::CASES,
        memory::CASES,
        state::CASES,
    ]
    .into_iter()
    .flatten()
}

/// Runs every case.
pub fn run_all(bench: &Bench<'_>) -> Vec<CaseResult> {
    cases().map(|case| case.run(bench)).collect()
}

/// Runs the case of that name; returns what the guest did.
///
/// # Panics
/// With what differed, and where there is no such case: this is what a `#[test]` calls.
pub fn assert_passes(bench: &Bench<'_>, name: &str) -> Vec<Access> {
    let case = cases()
        .find(|case| case.name == name)
        .unwrap_or_else(|| panic!("no case is called {name}"));
    let CaseResult { failure, trace, .. } = case.run(bench);
    if let Some(failure) = failure {
        panic!("{name}: {failure}");
    }
    trace
}

/// Makes a `#[test]` of every case. The argument is a function that takes a case's name and calls
/// [`assert_passes`](crate::conformance::assert_passes) with the backend's bench.
#[macro_export]
macro_rules! conformance_tests {
    ($run:path) => {
        $crate::conformance_tests! { @each $run;
            real_mode_ports
            protected_mode_ports
            long_mode_ports
            protected_mode_mmio
            long_mode_mmio
            mmio_read_modify_write
            real_mode_segments
            mode_switch
            string_ports
            string_mmio
            straddle_ram_end
            locked_beside_mmio
            cpuid_as_given
            named_cpu_profiles_run
            msr_write_then_read
            kick_before_run
            kick_busy_loop
            kick_many_times
            kick_in_hlt
            triple_fault_is_shutdown
            msi_wakes_hlt
            level_interrupt_ends_with_eoi
            edge_interrupt_ends_without_eoi
            local_apic_timer
            second_processor_starts
            exception_divide_error
            exception_undefined_opcode
            exception_breakpoint
            exception_bad_selector
            exception_unknown_msr
            page_fault_read_absent
            page_fault_write_absent
            page_fault_write_read_only
            page_fault_fetch_absent
            self_modifying_code
            overlapping_ram_is_refused
            dirty_log
            mapped_ahead
            doorbells
            state_set_is_seen_by_the_guest
            state_set_then_get_registers
            state_set_then_get_extended
            state_set_then_get_lapic
            state_set_then_get_msrs
            state_set_then_get_pending_interrupt
            state_set_then_get_pending_exception
            state_set_then_get_shadow_of_mov_ss
            state_set_then_get_shadow_of_sti
            state_set_then_get_nmi
            state_set_then_get_activity
            state_moves_to_another_vm
        }
    };
    (@each $run:path; $($name:ident)*) => {
        $(#[test]
        fn $name() {
            $run(stringify!($name));
        })*

        #[test]
        fn every_case_of_the_suite_is_a_test() {
            let tests = [$(stringify!($name)),*];
            assert!($crate::conformance::cases().map(|case| case.name).eq(tests));
        }
    };
}

/// Fails a case where two values differ.
fn expect<T: PartialEq + std::fmt::LowerHex>(what: &str, got: T, wanted: T) -> Result<(), Failure> {
    if got == wanted {
        Ok(())
    } else {
        Err(format!("{what} is {got:#x}, not {wanted:#x}"))
    }
}

/// Fails a case at the first access that differs.
fn expect_trace(got: &[Access], wanted: &[Access]) -> Result<(), Failure> {
    let differ = |index: &usize| got.get(*index) != wanted.get(*index);
    match (0..got.len().max(wanted.len())).find(differ) {
        None => Ok(()),
        Some(index) => Err(format!(
            "access {index} is {:x?}, not {:x?}; all: {got:x?}",
            got.get(index),
            wanted.get(index)
        )),
    }
}

/// Short forms for the traces that cases expect.
mod short {
    use super::recorder::{Access, answer};

    pub(super) fn out(port: u16, width: u8, value: u64) -> Access {
        Access::PortWrite { port, width, value }
    }

    pub(super) fn input(port: u16, width: u8) -> Access {
        Access::PortRead {
            port,
            width,
            value: answer(port.into(), width),
        }
    }

    pub(super) fn load(gpa: u64, width: u8) -> Access {
        Access::MmioRead {
            gpa,
            width,
            value: answer(gpa, width),
        }
    }

    pub(super) fn store(gpa: u64, width: u8, value: u64) -> Access {
        Access::MmioWrite { gpa, width, value }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cases_have_distinct_names() {
        let names: std::collections::BTreeSet<_> = cases().map(|case| case.name).collect();
        assert_eq!(names.len(), cases().count());
    }

    #[test]
    fn expect_trace_names_the_first_difference() {
        let one = [short::out(1, 1, 1), short::out(2, 1, 1)];
        let other = [short::out(1, 1, 1), short::out(2, 1, 7)];

        let failure = expect_trace(&one, &other).unwrap_err();

        assert!(failure.starts_with("access 1 is"), "{failure}");
        assert!(expect_trace(&one, &one[..1]).is_err());
        assert_eq!(expect_trace(&one, &one), Ok(()));
    }
}
