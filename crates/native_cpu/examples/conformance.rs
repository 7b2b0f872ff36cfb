//! Runs the conformance suite on this host's hardware virtualization: `conformance [PART-OF-A-NAME]`.
//!
//! Prints one line a case, and with `--trace` what each guest did; the exit status tells whether all passed.

use std::process::ExitCode;

use hypervisor::conformance::{Bench, cases};

fn main() -> Result<ExitCode, Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let with_trace = arguments.iter().any(|argument| argument == "--trace");
    let part = arguments
        .iter()
        .find(|argument| !argument.starts_with("--"))
        .map_or("", String::as_str);
    let hypervisor = native_cpu::open()?;
    let spare = native_cpu::event_doorbell()?;
    let new_doorbell = || native_cpu::event_doorbell().unwrap_or_else(|_| spare.clone());
    let bench = Bench {
        hypervisor: &*hypervisor,
        new_doorbell: &new_doorbell,
    };
    let report = native_cpu::probe(&std::env::temp_dir());
    println!("{}: usable: {}: {}", report.name, report.usable, report.sentence);
    let (mut passed, mut failed) = (0, 0);
    for case in cases().filter(|case| case.name.contains(part)) {
        let start = std::time::Instant::now();
        let result = case.run(&bench);
        let millis = start.elapsed().as_millis();
        match result.failure {
            None => {
                passed += 1;
                println!("pass {} ({millis} ms)", result.name);
            }
            Some(failure) => {
                failed += 1;
                println!("FAIL {} ({millis} ms): {failure}", result.name);
            }
        }
        if with_trace {
            println!("  {:x?}", result.trace);
        }
    }
    println!("{passed} passed, {failed} failed");
    Ok(ExitCode::from(u8::from(failed > 0)))
}
