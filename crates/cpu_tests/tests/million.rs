//! A million cases from one seed, in every tier.

use cpu_tests::Tiers;
use cpu_tests::fuzz::Tester;

#[test]
fn million_cases_native_and_soft_agree() {
    let mut tester = Tester::new(&[Tiers::Interpreter, Tiers::TranslateAtOnce]).unwrap();

    let found = tester.run(1, 1_000_000, 1).unwrap();

    let texts: Vec<String> = found.into_iter().map(|difference| difference.text).collect();
    assert!(texts.is_empty(), "{}", texts.concat());
}
