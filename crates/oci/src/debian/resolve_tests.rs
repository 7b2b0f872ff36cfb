use super::*;

/// A universe of one index; each package gets the file fields that every index has.
fn universe(packages: &[&str]) -> Universe {
    let file = "Filename: pool/x.deb\nSize: 1\nSHA256: \
                e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855\n";
    let text: String = packages
        .iter()
        .map(|package| format!("{}\n{file}\n", package.trim()))
        .collect();
    Universe {
        indexes: vec![("http://mirror.test/debian".into(), Index::new(text))],
        suite: "stable".into(),
        architecture: "amd64".into(),
    }
}

fn closure(universe: &Universe, names: &[&str]) -> Vec<String> {
    universe
        .resolve(names)
        .unwrap()
        .into_iter()
        .map(|chosen| chosen.name)
        .collect()
}

#[test]
fn resolve_dependencies_and_cycles_are_closed_over() {
    let universe = universe(&[
        "Package: a\nVersion: 1\nDepends: b:any (>= 1), c",
        "Package: b\nVersion: 1\nPre-Depends: d",
        "Package: c\nVersion: 1\nDepends: a",
        "Package: d\nVersion: 1",
        "Package: e\nVersion: 1",
    ]);
    assert_eq!(closure(&universe, &["a"]), ["a", "b", "c", "d"]);
    assert_eq!(
        universe.resolve(&["d"]).unwrap()[0].url,
        "http://mirror.test/debian/pool/x.deb"
    );
}

#[test]
fn resolve_newest_version_is_chosen_unless_another_is_needed() {
    let universe = universe(&[
        "Package: a\nVersion: 1",
        "Package: a\nVersion: 1.10",
        "Package: a\nVersion: 1.9",
        "Package: b\nVersion: 1\nDepends: a (= 1.9)",
    ]);
    assert_eq!(universe.resolve(&["a"]).unwrap()[0].version, "1.10");
    assert_eq!(universe.resolve(&["b"]).unwrap()[0].version, "1.9");
}

#[test]
fn resolve_alternatives_chosen_before_new_and_first_before_second() {
    let universe = universe(&[
        "Package: a\nVersion: 1\nDepends: x | y",
        "Package: x\nVersion: 1",
        "Package: y\nVersion: 1",
        "Package: b\nVersion: 1\nDepends: gone | y",
    ]);
    assert_eq!(closure(&universe, &["a"]), ["a", "x"]);
    assert_eq!(closure(&universe, &["a", "y"]), ["a", "y"]);
    assert_eq!(closure(&universe, &["b"]), ["b", "y"]);
}

#[test]
fn resolve_virtual_package_prefers_priority_and_version_must_be_provided() {
    let universe = universe(&[
        "Package: a\nVersion: 1\nDepends: awk",
        "Package: gawk\nVersion: 1\nPriority: optional\nProvides: awk",
        "Package: mawk\nVersion: 1\nPriority: required\nProvides: awk",
        "Package: v\nVersion: 1\nDepends: lib (>= 2)",
        "Package: old\nVersion: 9\nProvides: lib",
        "Package: new\nVersion: 9\nProvides: lib (= 2)",
    ]);
    assert_eq!(closure(&universe, &["a"]), ["a", "mawk"]);
    assert_eq!(closure(&universe, &["a", "gawk"]), ["a", "gawk"]);
    assert_eq!(closure(&universe, &["v"]), ["new", "v"]);
}

#[test]
fn resolve_conflicts_are_avoided_or_named() {
    let universe = universe(&[
        "Package: a\nVersion: 1\nConflicts: b",
        "Package: b\nVersion: 1",
        "Package: c\nVersion: 1\nDepends: b | d",
        "Package: d\nVersion: 1\nBreaks: e (<< 2)",
        "Package: e\nVersion: 1",
        "Package: self\nVersion: 1\nProvides: s\nConflicts: s",
    ]);
    assert_eq!(closure(&universe, &["a", "c"]), ["a", "c", "d"]);
    assert_eq!(closure(&universe, &["self"]), ["self"]);
    let both = universe.resolve(&["a", "b"]).unwrap_err().to_string();
    assert_eq!(both, "packages `b` and `a` conflict: ask for only one of them");
    assert!(matches!(
        universe.resolve(&["e", "d"]),
        Err(Error::Conflict { .. })
    ));
}

#[test]
fn resolve_unknown_package_offers_near_names() {
    let universe = universe(&[
        "Package: coreutils\nVersion: 1",
        "Package: bash\nVersion: 1",
        "Package: bash-static\nVersion: 1",
        "Package: zsh\nVersion: 1",
    ]);
    let error = universe.resolve(&["coreutil"]).unwrap_err().to_string();
    assert_eq!(
        error,
        "no package `coreutil` in Debian stable for amd64; did you mean `coreutils`?"
    );
    let error = universe.resolve(&["bsh"]).unwrap_err().to_string();
    assert!(error.ends_with("did you mean `bash`, `zsh`?"), "{error}");
    assert!(
        universe
            .resolve(&["qqqqqq"])
            .unwrap_err()
            .to_string()
            .ends_with("for amd64")
    );
}

#[test]
fn resolve_unsatisfied_dependency_names_who_and_what() {
    let universe = universe(&[
        "Package: a\nVersion: 1\nDepends: a, b (>= 2) | c:arm64",
        "Package: b\nVersion: 1",
    ]);
    let error = universe.resolve(&["a"]).unwrap_err().to_string();
    assert_eq!(
        error,
        "package `a` needs `b (>= 2)`, which no package of stable satisfies"
    );
}
