//! Hostile page tables from one seed.

use cpu_tests::hostile::{self, Modes};

const CASES: usize = 8_000;
/// Each goes through several modes.
const MIXED_CASES: usize = 4_000;

#[test]
fn hostile_four_level_tables_tiers_agree_and_reach_nothing_but_ram() {
    let found = hostile::run_on_all_processors(Modes::Long, 1, CASES).unwrap();

    assert!(found.is_empty(), "{}", found.concat());
}

#[test]
fn hostile_tables_and_segments_of_all_modes_tiers_agree_and_reach_nothing_but_ram() {
    let found = hostile::run_on_all_processors(Modes::Mixed, 1, MIXED_CASES).unwrap();

    assert!(found.is_empty(), "{}", found.concat());
}
