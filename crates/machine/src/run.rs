//! Running: one thread per vCPU, and how a machine ends.

use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use chipset::pm::{PowerControl, PowerRequest};
use hypervisor::{GuestIo, Kick, StopReason, Vcpu};
use tracing::debug;

use crate::Error;

/// How a machine ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The guest switched itself off.
    PoweredOff,
    /// The guest asked for a reset; machines are not reset but made anew.
    Reset,
    /// Triple fault: the guest's kernel lost control.
    TripleFault,
    /// [`crate::MachineHandle::stop`] was called, or the machine dropped.
    Stopped,
    /// The CPU backend gave up; the sentence says at what.
    Failed(String),
}

/// Who decides that a machine ends: the first word counts, whoever says it. Clones are the same signal.
#[derive(Clone, Default)]
pub(crate) struct EndSignal {
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    outcome: Mutex<Option<Outcome>>,
    changed: Condvar,
}

impl EndSignal {
    /// Says how the machine ended. Later words are not heard.
    pub(crate) fn end(&self, outcome: Outcome) {
        self.shared
            .outcome
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get_or_insert(outcome);
        self.shared.changed.notify_all();
    }

    /// Waits for the end, at most `timeout` where given; `None` when the machine goes on.
    pub(crate) fn wait(&self, timeout: Option<Duration>) -> Option<Outcome> {
        let outcome = self.shared.outcome.lock().unwrap_or_else(PoisonError::into_inner);
        let changed = &self.shared.changed;
        let goes_on = |outcome: &mut Option<Outcome>| outcome.is_none();
        let outcome = match timeout {
            None => changed
                .wait_while(outcome, goes_on)
                .unwrap_or_else(PoisonError::into_inner),
            Some(timeout) => {
                changed
                    .wait_timeout_while(outcome, timeout, goes_on)
                    .unwrap_or_else(PoisonError::into_inner)
                    .0
            }
        };
        outcome.clone()
    }
}

impl PowerControl for EndSignal {
    fn request(&self, request: PowerRequest) {
        debug!(?request, "the guest asked for power control");
        self.end(match request {
            PowerRequest::PowerOff => Outcome::PoweredOff,
            PowerRequest::Reset => Outcome::Reset,
        });
    }
}

/// Just too short for a large page, which the host could else give to the first byte touched.
const STACK_LEN: usize = 0x1f_0000;

/// A thread that executes guest code; it gives its vCPU back.
type VcpuThread = JoinHandle<Box<dyn Vcpu>>;

/// The threads that execute guest code.
pub(crate) struct VcpuThreads {
    threads: Vec<(VcpuThread, Arc<dyn Kick>)>,
    stopping: Arc<Mutex<bool>>,
}

impl VcpuThreads {
    /// Starts every vCPU. Each runs until [`VcpuThreads::stop`] or until it reports an end.
    pub(crate) fn start(
        vcpus: Vec<Box<dyn Vcpu>>,
        io: &Arc<dyn GuestIo>,
        end: &EndSignal,
    ) -> Result<Self, Error> {
        let mut all = Self {
            threads: Vec::new(),
            stopping: Arc::default(),
        };
        for (index, vcpu) in vcpus.into_iter().enumerate() {
            let kicker = vcpu.kicker();
            let (io, end, stopping) = (io.clone(), end.clone(), all.stopping.clone());
            let thread = std::thread::Builder::new()
                .name(format!("vcpu{index}"))
                .stack_size(STACK_LEN)
                .spawn(move || run_vcpu(vcpu, &*io, &end, &stopping))
                .map_err(Error::Thread);
            match thread {
                Ok(thread) => all.threads.push((thread, kicker)),
                Err(error) => {
                    drop(all.stop());
                    return Err(error);
                }
            }
        }
        Ok(all)
    }

    /// Stops every vCPU, waits for its thread and gives them back in order; one whose thread panicked is missing.
    pub(crate) fn stop(&mut self) -> Vec<Box<dyn Vcpu>> {
        *self.stopping.lock().unwrap_or_else(PoisonError::into_inner) = true;
        for (_, kicker) in &self.threads {
            kicker.kick();
        }
        // A panic of a thread has been the machine's end already.
        let joined = self.threads.drain(..).map(|(thread, _)| thread.join());
        joined.filter_map(Result::ok).collect()
    }
}

/// Ends a machine one of whose CPUs nobody runs any more.
struct EndOnPanic<'a>(&'a EndSignal);

impl Drop for EndOnPanic<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.end(Outcome::Failed("a CPU's thread panicked".to_owned()));
        }
    }
}

/// Runs a vCPU until it is asked to stop, or until it reports an end. Gives it back.
fn run_vcpu(
    mut vcpu: Box<dyn Vcpu>,
    io: &dyn GuestIo,
    end: &EndSignal,
    stopping: &Mutex<bool>,
) -> Box<dyn Vcpu> {
    let _guard = EndOnPanic(end);
    let outcome = loop {
        let stopped = vcpu.run(io);
        if *stopping.lock().unwrap_or_else(PoisonError::into_inner) {
            return vcpu;
        }
        break match stopped {
            Ok(StopReason::Kicked) => continue,
            Ok(StopReason::Halted) => Outcome::Failed("a CPU halted for good".to_owned()),
            Ok(StopReason::Shutdown) => Outcome::TripleFault,
            Ok(StopReason::Failed(what)) => Outcome::Failed(what),
            Err(error) => Outcome::Failed(error.to_string()),
        };
    };
    end.end(outcome);
    vcpu
}

#[cfg(test)]
mod tests {
    use hypervisor::Error as BackendError;
    use hypervisor::x86_64::CpuState;

    use super::*;

    struct Panics;

    impl Kick for Panics {
        fn kick(&self) {}
    }

    impl Vcpu for Panics {
        fn run(&mut self, _io: &dyn GuestIo) -> Result<StopReason, BackendError> {
            panic!("for the test")
        }
        fn kicker(&self) -> Arc<dyn Kick> {
            Arc::new(Self)
        }
        fn state(&mut self) -> Result<CpuState, BackendError> {
            Err(BackendError::Unsupported("state"))
        }
        fn set_state(&mut self, _state: &CpuState) -> Result<(), BackendError> {
            Err(BackendError::Unsupported("state"))
        }
    }

    struct Nothing;

    impl GuestIo for Nothing {
        fn mmio_read(&self, _gpa: u64, _data: &mut [u8]) {}
        fn mmio_write(&self, _gpa: u64, _data: &[u8]) {}
        fn port_read(&self, _port: u16, _data: &mut [u8]) {}
        fn port_write(&self, _port: u16, _data: &[u8]) {}
        fn eoi(&self, _vector: u8) {}
    }

    #[test]
    fn cpu_thread_that_panics_ends_the_machine() {
        let end = EndSignal::default();
        let io: Arc<dyn GuestIo> = Arc::new(Nothing);
        let mut threads = VcpuThreads::start(vec![Box::new(Panics)], &io, &end).unwrap();

        let outcome = end.wait(None);
        threads.stop();

        assert_eq!(
            outcome,
            Some(Outcome::Failed("a CPU's thread panicked".to_owned()))
        );
    }

    #[test]
    fn end_signal_first_word_counts_for_all_who_wait() {
        let end = EndSignal::default();
        assert_eq!(end.wait(Some(Duration::ZERO)), None);
        let waiting = end.clone();
        let waiter = std::thread::spawn(move || waiting.wait(None));
        end.request(PowerRequest::Reset);
        end.end(Outcome::Stopped);
        assert_eq!(waiter.join().unwrap(), Some(Outcome::Reset));
        assert_eq!(end.wait(None), Some(Outcome::Reset));
    }
}
