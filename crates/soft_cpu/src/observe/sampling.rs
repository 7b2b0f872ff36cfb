//! Where guest code is, looked at every millisecond.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use hypervisor::x86_64::Activity;

use crate::attention::{Attention, SAMPLE};
use crate::cpu::{Cpu, SegReg};
use crate::exec::Exec;
use crate::memory::{PAGE_OFFSET, PAGE_SIZE};

/// Time between two samples.
const PERIOD: Duration = Duration::from_millis(1);

/// Where a vCPU was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sample {
    /// Which one.
    pub vcpu: u32,
    /// For how many milliseconds this sample stands: more than one where it came late.
    pub milliseconds: u64,
    /// Privilege level, 0 to 3.
    pub cpl: u8,
    /// Width of code: 16, 32 or 64.
    pub bits: u8,
    /// Linear address of the next instruction.
    pub rip: u64,
    /// Stack pointer.
    pub rsp: u64,
    /// What programs built with frame pointers keep their frame's address in.
    pub rbp: u64,
    /// Bases of GS, in use and kept by `SWAPGS`: one of them is the operating system's own.
    pub gs_bases: [u64; 2],
}

/// The memory of a guest as a sampled vCPU sees it.
pub trait GuestStack {
    /// The eight bytes at a linear address, little endian; `None` where there is no RAM. Nothing notices the look: no
    /// fault, no mark in a page table, no device.
    fn quad(&self, linear: u64) -> Option<u64>;
}

/// Who hears the samples, from every vCPU's thread.
pub trait Samples: Send + Sync {
    /// A vCPU executes guest code.
    fn busy(&self, sample: &Sample, stack: &dyn GuestStack);
    /// A vCPU waits in `HLT`, or is not run, for so many milliseconds.
    fn idle(&self, vcpu: u32, milliseconds: u64);
}

/// One vCPU's side: what it was asked for, and whom it tells.
pub(crate) struct Sampled {
    vcpu: u32,
    samples: Arc<dyn Samples>,
    /// Milliseconds since the last sample.
    due: AtomicU64,
    attention: Arc<Attention>,
}

/// The thread that asks. It ends with this.
pub(crate) struct Sampler {
    samples: Arc<dyn Samples>,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    wake: Condvar,
}

#[derive(Default)]
struct State {
    vcpus: Vec<Arc<Sampled>>,
    stopping: bool,
}

impl Sampler {
    /// Starts it.
    ///
    /// # Errors
    /// The host's, where it gives no thread.
    pub(crate) fn start(samples: Arc<dyn Samples>) -> std::io::Result<Self> {
        let shared = Arc::new(Shared::default());
        let asks = shared.clone();
        let thread = std::thread::Builder::new()
            .name("sampler".to_owned())
            .spawn(move || asks.ask_until_stopped())?;
        Ok(Self {
            samples,
            shared,
            thread: Some(thread),
        })
    }

    /// Samples one more vCPU.
    pub(crate) fn add(&self, vcpu: u32, attention: Arc<Attention>) -> Arc<Sampled> {
        let sampled = Arc::new(Sampled {
            vcpu,
            samples: self.samples.clone(),
            due: AtomicU64::new(0),
            attention,
        });
        self.shared.lock().vcpus.push(sampled.clone());
        sampled
    }
}

impl Drop for Sampler {
    fn drop(&mut self) {
        self.shared.lock().stopping = true;
        self.shared.wake.notify_all();
        if let Some(thread) = self.thread.take() {
            // It has nothing to say.
            let _ = thread.join();
        }
    }
}

impl fmt::Debug for Sampler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sampler").finish_non_exhaustive()
    }
}

impl Shared {
    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn ask_until_stopped(&self) {
        let mut asked = Instant::now();
        let mut state = self.lock();
        while !state.stopping {
            let left = PERIOD.saturating_sub(asked.elapsed());
            if !left.is_zero() {
                let waited = self.wake.wait_timeout(state, left);
                state = waited.unwrap_or_else(PoisonError::into_inner).0;
                continue;
            }
            // This thread sleeps too long on a busy host: then one sample stands for all that time.
            let periods = (asked.elapsed().as_micros() / PERIOD.as_micros()) as u64;
            asked += PERIOD * u32::try_from(periods).unwrap_or(u32::MAX);
            state.vcpus.iter().for_each(|vcpu| vcpu.ask(periods));
        }
    }
}

impl Sampled {
    fn ask(&self, milliseconds: u64) {
        if self.attention.is_outside() {
            self.samples.idle(self.vcpu, milliseconds);
        } else {
            self.due.fetch_add(milliseconds, Ordering::Relaxed);
            self.attention.post(SAMPLE);
        }
    }
}

impl Exec<'_> {
    /// [`SAMPLE`] was asked.
    #[cold]
    pub(crate) fn take_sample(&mut self) {
        let Some(sampled) = self.cpu.sampled.clone() else {
            return;
        };
        let milliseconds = sampled.due.swap(0, Ordering::Relaxed);
        if self.cpu.activity != Activity::Running {
            sampled.samples.idle(sampled.vcpu, milliseconds);
            return;
        }
        let cpu = &*self.cpu;
        let sample = Sample {
            vcpu: sampled.vcpu,
            milliseconds,
            cpl: cpu.cpl(),
            bits: cpu.mode.bits,
            rip: self.code_base().wrapping_add(cpu.rip),
            rsp: cpu.gpr[Cpu::RSP],
            rbp: cpu.gpr[Cpu::RBP],
            gs_bases: [cpu.segment(SegReg::Gs).base, cpu.msrs.kernel_gs_base],
        };
        sampled.samples.busy(&sample, self);
    }
}

impl GuestStack for Exec<'_> {
    fn quad(&self, linear: u64) -> Option<u64> {
        let mut bytes = [0; 8];
        let first = (PAGE_SIZE - (linear & PAGE_OFFSET)).min(8) as usize;
        let (low, high) = bytes.split_at_mut(first);
        let ram = self.memory.ram();
        let whole = ram.read(self.look_up(linear)?, low)
            && (high.is_empty() || ram.read(self.look_up(linear.wrapping_add(first as u64))?, high));
        whole.then(|| u64::from_le_bytes(bytes))
    }
}
