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
}

impl Tester {
    /// Compares the host with each of `tiers`.
    ///
    /// # Errors
    /// A host that cannot be the oracle: it takes Linux on a processor of x86-64-v3.
    pub fn new(tiers: &[Tiers]) -> Result<Self> {
        let harness = Harness::new()?;
        let guests = tiers
            .iter()
            .map(|&tiers| Ok((tiers, Guest::new(&harness, tiers)?)));
        Ok(Self {
            guests: guests.collect::<Result<_>>()?,
            native: Native::start(&harness)?,
            generator: Generator::new(),
            harness,
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
            for (guest, index) in self.disagreements(&cases)? {
                if found.len() < most {
                    let seed = first.wrapping_add((start + index) as u64);
                    found.push(self.shortest(seed, &cases[index], guest)?);
                }
            }
            if found.len() >= most {
                break;
            }
        }
        Ok(found)
    }

    /// Guests and cases that differ from the host.
    fn disagreements(&mut self, cases: &[Case]) -> Result<Vec<(usize, usize)>> {
        let batch = Batch::new(cases, self.harness.done);
        let native = self.native.run(&batch)?;
        let mut found = Vec::new();
        for (number, (_, guest)) in self.guests.iter_mut().enumerate() {
            let soft = guest.run(&batch)?;
            let pairs = native.chunks_exact(BLOCK_LEN).zip(soft.chunks_exact(BLOCK_LEN));
            for (index, (native, soft)) in pairs.enumerate() {
                if native != soft && !compared(&cases[index], native, soft).is_empty() {
                    found.push((number, index));
                }
            }
        }
        Ok(found)
    }

    fn differences(&mut self, case: &Case, guest: usize) -> Result<Vec<String>> {
        let batch = Batch::new(std::slice::from_ref(case), self.harness.done);
        let native = self.native.run(&batch)?;
        let soft = self.guests[guest].1.run(&batch)?;
        ensure!(
            native.len() == BLOCK_LEN,
            "the child answered with another number of cases"
        );
        Ok(compared(case, &native, &soft))
    }

    /// Leaves out what is not needed for a difference.
    fn shortest(&mut self, seed: u64, case: &Case, guest: usize) -> Result<Difference> {
        let mut case = case.clone();
        for item in (0..case.items.len()).rev() {
            let shorter = case.without(item);
            if !self.differences(&shorter, guest)?.is_empty() {
                case = shorter;
            }
        }
        let differences = self.differences(&case, guest)?;
        let last = case
            .instructions()
            .into_iter()
            .rfind(|one| one.code() != iced_x86::Code::Nopd);
        let tiers = self.guests[guest].0;
        let kind = last.map_or_else(String::new, |instruction| format!("{:?}", instruction.code()));
        let text = format!("seed {seed} {tiers:?}\n{}", report::describe(&case, &differences));
        Ok(Difference {
            seed,
            tiers,
            kind,
            text,
        })
    }
}

fn compared(case: &Case, native: &[u8], soft: &[u8]) -> Vec<String> {
    let [mut native, mut soft] = [native, soft].map(Block::from_bytes);
    native.complete();
    soft.complete();
    differences(case, &native, &soft)
}
