//! Guests with a named CPU profile, which move between hardware and the CPU in software. Where there is no hardware they
//! move from one machine in software to the next.

use std::io::{BufRead, BufReader};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use crumblecracker::session::{Process, ProcessOutput};
use crumblecracker::{CpuProfile, Hypervisor, Instance, InstanceOptions, TakeUpOptions, open_backend};
use vm_tests::{Host, command, says};

/// The backend called so, with which this host's guests run, and the one in software.
fn backends(host: &Host) -> [Arc<dyn Hypervisor>; 2] {
    let software = open_backend(Some("soft"), &host.library).unwrap();
    [host.backend.clone(), software]
}

fn start(host: &Host, backend: &Arc<dyn Hypervisor>, cpu: CpuProfile) -> crumblecracker::Result<Instance> {
    let options = InstanceOptions {
        cpu,
        refresh: crumblecracker::Refresh::Never,
        boot_deadline: Duration::from_secs(240),
        ..InstanceOptions::default()
    };
    Instance::start(&host.library, &host.image, backend.clone(), &options, &())
}

/// Puts a guest by and ends it; it goes on under `backend`.
fn moved(
    host: &Host,
    instance: Instance,
    backend: &Arc<dyn Hypervisor>,
) -> crumblecracker::Result<(Instance, Vec<Process>)> {
    let guests = host.library.saved_guests();
    let name = format!("moves-{}-{:?}", std::process::id(), thread::current().id()).replace(['(', ')'], "");
    instance.save(&guests, &name)?;
    drop(instance);
    let taken_up = Instance::take_up(&guests, &name, backend.clone(), &TakeUpOptions::default());
    guests.remove(&name)?;
    taken_up
}

/// Counts to standard output, and to a file that stays open; waits by a timer, and watches that the clock never goes back.
const COUNTER: &str = "
mkfifo /never; exec 3>/log 4<>/never; n=0 last=0
while :; do
    n=$((n + 1)); echo $n >&3; echo $n
    read -t 0.01 -u 4
    read up _ </proc/uptime; up=$((10#${up/./}))
    ((up > last)) || { echo back from $last to $up; exit 9; }
    last=$up
done
";

/// Reads `count` numbers, one a line, each of which is one more than the one before, which was `last`; gives the last.
fn counting(output: &mut BufReader<ProcessOutput>, last: u64, count: u64) -> u64 {
    let mut numbers = output.lines().map(|line| line.unwrap());
    for expected in last + 1..=last + count {
        assert_eq!(numbers.next(), Some(expected.to_string()));
    }
    last + count
}

/// What the guest's kernel knows of its processor that programs ask for.
const PROCESSOR: &str =
    "while read -r line; do [[ $line != [mf]*:* || $line == *MHz* ]] || echo $line; done </proc/cpuinfo";

/// Has a guest with a counter in it, which runs under the first backend, go on under the others, one after the other; each
/// is said for how many numbers. The last is the one that is asked most, as software in emulated hardware is slow.
fn counter_goes_on(host: &Host, first: &Arc<dyn Hypervisor>, others: &[(&Arc<dyn Hypervisor>, u64)]) {
    let mut instance = start(host, first, CpuProfile::X86_64V3).unwrap();
    let mut counter = instance.spawn(&command(&["bash", "-c", COUNTER])).unwrap();
    let mut output = BufReader::new(counter.stdout.take().unwrap());
    let mut last = counting(&mut output, 0, 5);
    for &(other, count) in others {
        let (guest, mut processes) = moved(host, instance, other).unwrap();
        instance = guest;
        counter = processes.remove(0);
        counter.wait_started().unwrap().unwrap();
        output = BufReader::new(counter.stdout.take().unwrap());
        last = counting(&mut output, last, count);
    }
    counter.control().signal(9).unwrap();
    assert_eq!(counter.wait().unwrap().code(), 137);
    let log = says(&instance, "cat /log");
    let numbers = log.lines().map(|line| line.parse::<u64>().unwrap());
    assert!((1..).zip(numbers).all(|(expected, number)| expected == number));
    let processor = says(&instance, PROCESSOR);
    assert!(processor.contains("CrumbleCracker x86-64-v3"), "{processor}");
}

#[test]
fn guest_from_hardware_goes_on_in_software_and_back() {
    let host = Host::open().unwrap();
    let [hardware, software] = backends(&host);

    counter_goes_on(&host, &hardware, &[(&software, 5), (&hardware, 100)]);
}

/// In software it does not boot: it starts from the snapshot of one that booted on hardware, as the profile is the same.
#[test]
fn guest_from_software_goes_on_in_hardware() {
    let host = Host::open().unwrap();
    let [hardware, software] = backends(&host);
    drop(start(&host, &hardware, CpuProfile::X86_64V3).unwrap());

    counter_goes_on(&host, &software, &[(&hardware, 100)]);
}

#[test]
fn profile_that_cannot_be_shown_is_refused_with_what_is_missing() {
    let host = Host::open().unwrap();
    let [_, software] = backends(&host);

    let error = start(&host, &software, CpuProfile::X86_64V4)
        .map(drop)
        .unwrap_err();

    let text = format!("{:#}", anyhow::Error::from(error));
    let named = [
        "x86-64-v4",
        "AVX512F",
        "AVX512DQ",
        "AVX512CD",
        "AVX512BW",
        "AVX512VL",
    ];
    assert!(named.iter().all(|name| text.contains(name)), "{text}");
}

#[test]
fn guest_with_the_hosts_profile_stays_where_it_is() {
    let host = Host::open().unwrap();
    let [hardware, software] = backends(&host);
    let instance = start(&host, &hardware, CpuProfile::Host).unwrap();

    let ended = moved(&host, instance, &software);

    let refused = hardware.name() != software.name();
    let text = ended
        .map(drop)
        .map_err(|error| format!("{:#}", anyhow::Error::from(error)));
    let expected = "backend is kvm, not soft; time-stamp counter is unknown, not 1000000 kHz; CPUID leaf";
    assert_eq!(text.is_err_and(|text| text.contains(expected)), refused);
}
