//! What a virtio notification costs a CPU: by an exit to this process, and by an event of the hypervisor.
//!
//! A guest stores to an address without memory behind it, again and again, and a thread sleeps until it is told. Each
//! way is measured in turn, five times; medians, nanoseconds a store.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use guest_memory::{Bytes, GuestAddress, GuestMemory};
use host_os::Event;
use hypervisor::{Doorbell, DoorbellAddress, GuestIo, Hypervisor, Kick, VmConfig};

type Failure = Box<dyn std::error::Error>;

/// Stores in one round.
const STORES: u32 = 2000;
const ROUNDS: usize = 5;
/// What the guest stores to, and where it says that it is done.
const BELL: u64 = 0x9000;
const DONE: u64 = 0xa000;
/// `mov ecx, STORES; again: mov [0x9000], ax; dec ecx; jnz again; mov [0xa000], ax; hlt`, 16-bit.
const CODE: [u8; 18] = {
    let [a, b, c, d] = STORES.to_le_bytes();
    [
        0x66, 0xb9, a, b, c, d, 0xa3, 0x00, 0x90, 0x66, 0x49, 0x75, 0xf9, 0xa3, 0x00, 0xa0, 0xf4, 0x90,
    ]
};

struct Io<'a> {
    bell: &'a (dyn Fn() + Sync),
    done: &'a AtomicBool,
    kick: Arc<dyn Kick>,
}

impl GuestIo for Io<'_> {
    fn mmio_read(&self, _gpa: u64, _data: &mut [u8]) {}
    fn mmio_write(&self, gpa: u64, _data: &[u8]) {
        match gpa {
            DONE => {
                self.done.store(true, Ordering::Release);
                self.kick.kick();
            }
            _ => (self.bell)(),
        }
    }
    fn port_read(&self, _port: u16, _data: &mut [u8]) {}
    fn port_write(&self, _port: u16, _data: &[u8]) {}
    fn eoi(&self, _vector: u8) {}
}

struct Bell(Event);

impl Doorbell for Bell {
    fn ring(&self) {
        self.0.signal();
    }
    fn event_handle(&self) -> Option<usize> {
        Some(self.0.raw_handle())
    }
}

/// Runs the guest once; how long a store takes.
fn round(
    hypervisor: &dyn Hypervisor,
    bell: &(dyn Fn() + Sync),
    event: Option<&Arc<Bell>>,
) -> Result<Duration, Failure> {
    let vm = hypervisor.create_vm(&VmConfig {
        vcpus: 1,
        ioapic_lines: 24,
    })?;
    let memory = GuestMemory::anonymous(&[(0, 0x9000)])?;
    memory.write_slice(&CODE, GuestAddress(0x1000))?;
    vm.map_ram(&memory, false)?;
    let mut vcpu = vm.create_vcpu(0, &hypervisor.capabilities().cpuid)?;
    let mut state = vcpu.state()?;
    state.system.cs.base = 0;
    state.system.cs.selector = 0;
    state.general.rip = 0x1000;
    vcpu.set_state(&state)?;
    let address = DoorbellAddress {
        gpa: BELL,
        width: 2,
        value: None,
    };
    let guard = event.map(|event| vm.register_doorbell(address, event.clone()));
    let guard = guard.transpose()?;
    let done = AtomicBool::new(false);
    let io = Io {
        bell,
        done: &done,
        kick: vcpu.kicker(),
    };
    let start = Instant::now();
    while !done.load(Ordering::Acquire) {
        vcpu.run(&io)?;
    }
    let took = start.elapsed() / STORES;
    drop(guard);
    Ok(took)
}

/// A sleeper told as device threads are.
#[derive(Default)]
struct Sleeper {
    raised: Mutex<(u64, bool)>,
    changed: Condvar,
    woken: AtomicU64,
}

impl Sleeper {
    fn raise(&self, stop: bool) {
        let mut raised = self.raised.lock().unwrap();
        raised.0 += 1;
        raised.1 |= stop;
        drop(raised);
        self.changed.notify_one();
    }

    fn run(&self) {
        let mut raised = self.raised.lock().unwrap();
        while !raised.1 {
            raised = self.changed.wait(raised).unwrap();
            self.woken.fetch_add(1, Ordering::Relaxed);
        }
    }
}

fn main() -> Result<(), Failure> {
    let hypervisor = native_cpu::open()?;
    let sleeper = Sleeper::default();
    let bell = Arc::new(Bell(Event::new()?));
    let stop = AtomicBool::new(false);
    let mut times: [Vec<Duration>; 4] = Default::default();
    let rings = AtomicU64::new(0);
    std::thread::scope(|scope| -> Result<(), Failure> {
        scope.spawn(|| sleeper.run());
        scope.spawn(|| {
            while !stop.load(Ordering::Acquire) {
                if bell.0.wait(None).is_ok() && bell.0.take() {
                    rings.fetch_add(1, Ordering::Relaxed);
                }
            }
        });
        for _ in 0..ROUNDS {
            times[0].push(round(&*hypervisor, &|| {}, None)?);
            times[1].push(round(&*hypervisor, &|| sleeper.raise(false), None)?);
            times[2].push(round(&*hypervisor, &|| bell.ring(), None)?);
            times[3].push(round(&*hypervisor, &|| {}, Some(&bell))?);
        }
        sleeper.raise(true);
        stop.store(true, Ordering::Release);
        bell.ring();
        Ok(())
    })?;
    let names = [
        "exit, nobody told",
        "exit, condition variable",
        "exit, event",
        "event of the hypervisor",
    ];
    for (name, times) in names.iter().zip(&mut times) {
        times.sort();
        println!(
            "{name}: {} ns ({}-{})",
            times[ROUNDS / 2].as_nanos(),
            times[0].as_nanos(),
            times[ROUNDS - 1].as_nanos()
        );
    }
    println!(
        "woken {} and {} times",
        sleeper.woken.into_inner(),
        rings.into_inner()
    );
    Ok(())
}
