//! Compares the CPU in software with the host's processor.

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::time::{Duration, Instant, SystemTime};

use anyhow::Result;
use clap::{Parser, ValueEnum};
use cpu_tests::Tiers;
use cpu_tests::fuzz::Tester;
use cpu_tests::hostile::{Hostile, Modes};

/// Compares the CPU in software with the host's processor, case by case.
#[derive(Parser)]
struct Arguments {
    /// The first case; without it, the time.
    #[arg(long)]
    seed: Option<u64>,
    /// How many cases, unless a time is given.
    #[arg(long, default_value_t = 1_000_000)]
    cases: usize,
    /// Go on for so long, or until something differs.
    #[arg(long)]
    seconds: Option<u64>,
    /// Only this way of execution.
    #[arg(long, value_enum)]
    tier: Option<Tier>,
    /// How many differences are shown, each made as short as possible.
    #[arg(long, default_value_t = 1)]
    most: usize,
    /// Only instructions whose code's name contains this, as in `Vaddps`.
    #[arg(long, default_value = "")]
    only: String,
    /// Only hostile page tables, compared between tiers; the host has no part in it.
    #[arg(long)]
    hostile: bool,
    /// Show one difference for each kind of instruction, and how many there were.
    #[arg(long)]
    count: bool,
}

#[derive(Clone, Copy, ValueEnum)]
enum Tier {
    Interpreter,
    Translator,
    Adaptive,
}

/// Cases between two looks at the clock.
const STEP: usize = 1 << 14;
const HOSTILE_STEP: usize = 1 << 8;

fn main() -> ExitCode {
    match compare(&Arguments::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("cpu_tests: {error:#}");
            ExitCode::from(125)
        }
    }
}

/// Whether nothing differed.
fn compare(arguments: &Arguments) -> Result<bool> {
    let tiers = match arguments.tier {
        None => vec![Tiers::Interpreter, Tiers::TranslateAtOnce],
        Some(Tier::Interpreter) => vec![Tiers::Interpreter],
        Some(Tier::Translator) => vec![Tiers::TranslateAtOnce],
        Some(Tier::Adaptive) => vec![Tiers::Adaptive],
    };
    let now = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    let seed = arguments.seed.unwrap_or(now.as_nanos() as u64);
    if arguments.hostile {
        return hostile(arguments, seed);
    }
    let mut tester = Tester::only(&tiers, &arguments.only)?;
    let began = Instant::now();
    let (mut done, mut found) = (0, Vec::new());
    let limit = arguments.seconds.map(Duration::from_secs);
    while limit.map_or(done < arguments.cases, |limit| began.elapsed() < limit)
        && found.len() < arguments.most
    {
        let step = if limit.is_some() {
            STEP
        } else {
            STEP.min(arguments.cases - done)
        };
        found.extend(tester.run(seed.wrapping_add(done as u64), step, arguments.most - found.len())?);
        done += step;
    }
    let rate = done as f64 / began.elapsed().as_secs_f64();
    eprintln!(
        "cases from seed {seed}: {done}, each in {} tiers, {rate:.0} a second",
        tiers.len()
    );
    if arguments.count {
        let mut kinds: BTreeMap<&str, usize> = BTreeMap::new();
        for difference in &found {
            let seen = kinds.entry(&difference.kind).or_default();
            if *seen == 0 {
                print!("{}", difference.text);
            }
            *seen += 1;
        }
        kinds
            .iter()
            .for_each(|(kind, count)| println!("{count:6} {kind}"));
    } else {
        found.iter().for_each(|difference| print!("{}", difference.text));
    }
    Ok(found.is_empty())
}

/// Whether the tiers agreed.
fn hostile(arguments: &Arguments, seed: u64) -> Result<bool> {
    let mut worlds = [Hostile::new(Modes::Long)?, Hostile::new(Modes::Mixed)?];
    let began = Instant::now();
    let limit = arguments.seconds.map(Duration::from_secs);
    let mut done = 0;
    let mut found = None;
    while found.is_none() && limit.map_or(done < arguments.cases, |limit| began.elapsed() < limit) {
        let step = HOSTILE_STEP.min(if limit.is_some() {
            HOSTILE_STEP
        } else {
            arguments.cases - done
        });
        for world in &mut worlds {
            if found.is_none() {
                found = world.run(seed.wrapping_add(done as u64), step)?;
            }
        }
        done += step;
    }
    let rate = done as f64 / began.elapsed().as_secs_f64();
    eprintln!("hostile cases from seed {seed}: {done} of each kind, {rate:.0} a second");
    found.iter().for_each(|difference| println!("{difference}"));
    Ok(found.is_none())
}
