//! Cases from one seed, in every tier.

use cpu_tests::Tiers;
use cpu_tests::fuzz;

/// `cargo xtask fuzz-cpu` goes beyond.
const CASES: usize = 1_000_000;

#[test]
fn seeded_million_native_and_soft_agree() {
    let tiers = [Tiers::Interpreter, Tiers::TranslateAtOnce];

    let found = fuzz::run_on_all_processors(&tiers, 1, CASES, 1).unwrap();

    let texts: Vec<String> = found.into_iter().map(|difference| difference.text).collect();
    assert!(texts.is_empty(), "{}", texts.concat());
}
