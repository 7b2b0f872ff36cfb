//! Cases from one seed, in every tier.

use cpu_tests::Tiers;
use cpu_tests::fuzz::Tester;

/// As many as are known to agree; `cargo xtask fuzz-cpu` goes beyond.
const CASES: usize = 60_000;

#[test]
fn seeded_cases_native_and_soft_agree() {
    let mut tester = Tester::new(&[Tiers::Interpreter, Tiers::TranslateAtOnce]).unwrap();

    let found = tester.run(1, CASES, 1).unwrap();

    let texts: Vec<String> = found.into_iter().map(|difference| difference.text).collect();
    assert!(texts.is_empty(), "{}", texts.concat());
}
