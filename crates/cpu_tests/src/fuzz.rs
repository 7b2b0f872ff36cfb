//! Runs cases in both worlds until one of them differs.

use anyhow::{Result, ensure};
use soft_cpu::Tiers;

use crate::block::{BLOCK_LEN, Block};
use crate::case::{Batch, Case};
use crate::compare::differences;
use crate::generate::Generator;
use crate::guest::Guest;
use crate::harness::Harness;
use crate::layout::MAX_CASES;
use crate::native::Native;
use crate::report;

/// A case about which the worlds disagree.
pub struct Difference {
    /// What the case was made from.
    pub seed: u64,
    /// The tiers of the CPU in software that ran it.
    pub tiers: Tiers,
    /// Its last instruction, by its code's name: what differences can be counted by.
    pub kind: String,
    /// Instructions, inputs and outputs, for people.
    pub text: String,
}

/// Both worlds, ready to run.
pub struct Tester {
    harness: Harness,
    generator: Generator,
    native: Native,
    guests: Vec<(Tiers, Guest)>,
    deadly: usize,
}

/// How many cases may end the child before that is no accident.
const MOST_DEADLY: usize = 100;

impl Tester {
    /// Compares the host with each of `tiers`.
    ///
    /// # Errors
    /// A host that cannot be the oracle: it takes Linux on a processor of x86-64-v3.
    pub fn new(tiers: &[Tiers]) -> Result<Self> {
        Self::only(tiers, "")
    }

    /// Like [`Tester::new`], with those instructions whose name contains `name`: for a closer look.
    ///
    /// # Errors
    /// As above.
    pub fn only(tiers: &[Tiers], name: &str) -> Result<Self> {
        let harness = Harness::new()?;
        let guests = tiers
            .iter()
            .map(|&tiers| Ok((tiers, Guest::new(&harness, tiers)?)));
        Ok(Self {
            guests: guests.collect::<Result<_>>()?,
            native: Native::start(&harness)?,
            generator: Generator::new(name),
            harness,
            deadly: 0,
        })
    }

    /// Runs the cases of seeds `first` to `first + count - 1`; gives at most `most` differences, made as short as they
    /// get.
    ///
    /// # Errors
    /// A world that does not come to the end of a batch.
    pub fn run(&mut self, first: u64, count: usize, most: usize) -> Result<Vec<Difference>> {
        let mut found = Vec::new();
        for start in (0..count).step_by(MAX_CASES) {
            let len = MAX_CASES.min(count - start);
            let seeds = (0..len).map(|slot| first.wrapping_add((start + slot) as u64));
            let cases: Vec<Case> = seeds
                .clone()
                .enumerate()
                .map(|(slot, seed)| self.generator.case(seed, slot))
                .collect();
            for (guest, index, seen) in self.disagreements(&cases)? {
                if found.len() < most {
                    let seed = first.wrapping_add((start + index) as u64);
                    found.push(self.shortest(seed, &cases[index], guest, seen)?);
                }
            }
            if found.len() >= most {
                break;
            }
        }
        Ok(found)
    }

    /// Guests and cases that differ from the host, and in what.
    fn disagreements(&mut self, cases: &[Case]) -> Result<Vec<(usize, usize, Vec<String>)>> {
        let batch = Batch::new(cases, self.harness.done);
        let Ok(native) = self.native.run(&batch) else {
            self.native = Native::start(&self.harness)?;
            return self.disagreements_of_halves(cases);
        };
        let mut found = Vec::new();
        for number in 0..self.guests.len() {
            let soft = match self.guests[number].1.run(&batch) {
                Ok(soft) => soft,
                Err(error) if cases.len() == 1 => {
                    found.push((number, 0, vec![format!("{error:#}")]));
                    continue;
                }
                Err(_) => return self.disagreements_of_halves(cases),
            };
            let pairs = native.chunks_exact(BLOCK_LEN).zip(soft.chunks_exact(BLOCK_LEN));
            for (index, (native, soft)) in pairs.enumerate() {
                if native != soft {
                    let seen = compared(&cases[index], native, soft);
                    if !seen.is_empty() {
                        found.push((number, index, seen));
                    }
                }
            }
        }
        Ok(found)
    }

    /// After a world came to no end: narrows down which case it was. One that ends even the child says nothing: it
    /// destroyed the harness, or what the host's kernel wants of a process.
    fn disagreements_of_halves(&mut self, cases: &[Case]) -> Result<Vec<(usize, usize, Vec<String>)>> {
        let (first, second) = cases.split_at(cases.len() / 2);
        if first.is_empty() {
            self.deadly += 1;
            ensure!(self.deadly <= MOST_DEADLY, "too many cases end the native child");
            return Ok(Vec::new());
        }
        let mut found = self.disagreements(first)?;
        let others = self.disagreements(second)?;
        found.extend(
            others
                .into_iter()
                .map(|(guest, index, seen)| (guest, index + first.len(), seen)),
        );
        Ok(found)
    }

    /// None where the host has no answer.
    fn differences(&mut self, case: &Case, guest: usize) -> Result<Vec<String>> {
        let batch = Batch::new(std::slice::from_ref(case), self.harness.done);
        let Ok(native) = self.native.run(&batch) else {
            self.native = Native::start(&self.harness)?;
            return Ok(Vec::new());
        };
        Ok(match self.guests[guest].1.run(&batch) {
            Ok(soft) => compared(case, &native, &soft),
            Err(error) => vec![format!("{error:#}")],
        })
    }

    /// Leaves out what is not needed for a difference.
    fn shortest(
        &mut self,
        seed: u64,
        case: &Case,
        guest: usize,
        mut seen: Vec<String>,
    ) -> Result<Difference> {
        let mut case = case.clone();
        for item in (0..case.items.len()).rev() {
            let shorter = case.without(item);
            if !self.differences(&shorter, guest)?.is_empty() {
                case = shorter;
            }
        }
        let differences = self.differences(&case, guest)?;
        if differences.is_empty() {
            seen.insert(0, "only together with the cases before it:".into());
        } else {
            seen = differences;
        }
        let last = case
            .instructions()
            .into_iter()
            .rfind(|one| one.code() != iced_x86::Code::Nopd);
        let tiers = self.guests[guest].0;
        let kind = last.map_or_else(String::new, |instruction| format!("{:?}", instruction.code()));
        let text = format!("seed {seed} {tiers:?}\n{}", report::describe(&case, &seen));
        Ok(Difference {
            seed,
            tiers,
            kind,
            text,
        })
    }
}

/// Runs the cases of seeds `first` to `first + count - 1`, on as many threads as there are processors; each gives at
/// most `most` differences.
///
/// # Errors
/// As [`Tester::new`] and [`Tester::run`].
pub fn run_on_all_processors(
    tiers: &[Tiers],
    first: u64,
    count: usize,
    most: usize,
) -> Result<Vec<Difference>> {
    let found = crate::parallel::shares(first, count, |first, count| {
        Tester::new(tiers)?.run(first, count, most)
    })?;
    Ok(found.into_iter().flatten().collect())
}

fn compared(case: &Case, native: &[u8], soft: &[u8]) -> Vec<String> {
    let [mut native, mut soft] = [native, soft].map(Block::from_bytes);
    native.complete();
    soft.complete();
    differences(case, &native, &soft)
}
