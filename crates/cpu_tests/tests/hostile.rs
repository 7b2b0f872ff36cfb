//! Hostile page tables from one seed.

use cpu_tests::hostile;

const CASES: usize = 8_000;

#[test]
fn hostile_page_tables_tiers_agree_and_reach_nothing_but_ram() {
    let found = hostile::run_on_all_processors(1, CASES).unwrap();

    assert!(found.is_empty(), "{}", found.concat());
}
