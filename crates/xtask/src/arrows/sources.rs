//! Rules about single files: where `unsafe` and conditional compilation may stand, how long a file may be,
//! and what no file may say.

use std::collections::BTreeSet;
use std::fs;

use super::lexer::{code_of, words};

/// Crates that may use `unsafe`; each says why in its own documentation.
const UNSAFE_CRATES: &[&str] = &["host_os", "guest_memory", "native_cpu", "soft_cpu"];
/// The program that runs inside the guest: no host, no library under it, and its own architecture.
const GUEST_PROGRAM: &str = "crates/guest/program/";
/// Tests that call that program's functions, which take raw pointers.
const GUEST_PROGRAM_TESTS: &str = "crates/guest/tests/program_parts.rs";
/// Crates whose whole purpose is to differ from host to host, and tools that only run on one.
const HOST_CRATES: &[&str] = &["host_os", "native_cpu", "xtask", "vm_tests"];
/// Conditions that ask about the host.
const HOST_CONDITIONS: &[&str] = &["target_os", "target_family", "target_arch", "unix", "windows"];
/// Lines of a file that is no table.
const LONGEST: usize = 600;
/// What a longer file says in its first lines.
const TABLE_MARK: &str = "This file is a table";
/// Hosts of package archives and mirrors, in two halves so that this file passes its own check.
const REGISTRIES: &[(&str, &str)] = &[
    ("deb", "debian.org"),
    ("security", "debian.org"),
    ("ftp", "debian.org"),
    ("snapshot", "debian.org"),
    ("archive", "ubuntu.com"),
    ("index", "crates.io"),
    ("static", "crates.io"),
];

/// What is wrong with a Rust file; `path` is relative to the workspace, with `/`.
pub(super) fn check_rust(path: &str, source: &str) -> Vec<String> {
    let mut faults = Vec::new();
    let name = crate_of(path);
    let code = code_of(source);
    let in_guest = path.starts_with(GUEST_PROGRAM) || path == GUEST_PROGRAM_TESTS;
    let line_of = |at: usize| code[..at].matches('\n').count() + 1;
    if !UNSAFE_CRATES.contains(&name)
        && !in_guest
        && let Some((at, _)) = words(&code).find(|(_, word)| *word == "unsafe")
    {
        faults.push(format!(
            "{path}:{}: `unsafe` belongs in {} only",
            line_of(at),
            UNSAFE_CRATES.join(", ")
        ));
    }
    if !HOST_CRATES.contains(&name)
        && !in_guest
        && !path.split('/').any(|part| part == "sys" || part == "tests")
    {
        // Unit tests stand at the end of a file.
        let shipped = code.split("#[cfg(test)]\nmod ").next().unwrap_or(&code);
        faults.extend(host_conditions(shipped).map(|(at, condition)| {
            format!(
                "{path}:{}: cfg({condition}) belongs in host_os, native_cpu or a sys folder",
                line_of(at)
            )
        }));
    }
    let lines = source.lines().count();
    if lines > LONGEST && !source.lines().take(10).any(|line| line.contains(TABLE_MARK)) {
        faults.push(format!(
            "{path}: {lines} lines, over {LONGEST}; a table says \"{TABLE_MARK}\" in its first ten lines"
        ));
    }
    faults
}

/// What is wrong with a crate's Cargo.toml.
pub(super) fn check_manifest(path: &str, manifest: &str) -> Vec<String> {
    let table: Vec<&str> = manifest
        .lines()
        .map(str::trim)
        .skip_while(|line| *line != "[lints]")
        .take(2)
        .collect();
    if UNSAFE_CRATES.contains(&crate_of(path)) || table == ["[lints]", "workspace = true"] {
        return Vec::new();
    }
    vec![format!(
        "{path}: lacks `[lints]` `workspace = true`, which denies unsafe_code"
    )]
}

/// What is wrong with any text file: it names one of `hosts`.
pub(super) fn check_text(path: &str, text: &str, hosts: &BTreeSet<String>) -> Vec<String> {
    let mut faults = Vec::new();
    for (number, line) in (1..).zip(text.lines()) {
        for host in hosts.iter().filter(|host| line.contains(host.as_str())) {
            faults.push(format!("{path}:{number}: names the package host {host}"));
        }
    }
    faults
}

/// Hosts no file may name: well-known archives, and those of this machine's package sources.
pub(super) fn forbidden_hosts() -> BTreeSet<String> {
    let known = REGISTRIES.iter().map(|(host, domain)| format!("{host}.{domain}"));
    let folder = fs::read_dir("/etc/apt/sources.list.d")
        .into_iter()
        .flatten()
        .flatten();
    let files = folder
        .map(|entry| entry.path())
        .chain(["/etc/apt/sources.list".into()]);
    // A machine without apt has no such hosts.
    let texts = files.filter_map(|path| fs::read_to_string(path).ok());
    let own: Vec<String> = texts.flat_map(|text| hosts_of(&text)).collect();
    known.chain(own).collect()
}

/// The hosts of all URLs in a text.
fn hosts_of(text: &str) -> Vec<String> {
    let after_scheme = text.split("://").skip(1);
    let hosts = after_scheme.map(|rest| rest.split(['/', ' ', ':', '\n', '\t']).next().unwrap_or_default());
    hosts
        .filter(|host| host.contains('.'))
        .map(str::to_owned)
        .collect()
}

/// The host conditions of every `cfg(…)`, `cfg!(…)` and `cfg_attr(…)`, with the index they stand at.
fn host_conditions(code: &str) -> impl Iterator<Item = (usize, &str)> {
    let uses = words(code).filter(|(_, word)| matches!(*word, "cfg" | "cfg_attr"));
    uses.flat_map(|(at, _)| {
        let rest = &code[at..];
        let open = rest.find('(').unwrap_or(rest.len());
        let mut depth = 0;
        let end = rest[open..].find(|c| {
            depth += match c {
                '(' => 1,
                ')' => -1,
                _ => 0,
            };
            depth == 0
        });
        let inside = &rest[open..open + end.unwrap_or(0)];
        words(inside)
            .filter(|(_, word)| HOST_CONDITIONS.contains(word))
            .map(move |(index, word)| (at + open + index, word))
    })
}

fn crate_of(path: &str) -> &str {
    path.strip_prefix("crates/")
        .and_then(|rest| rest.split('/').next())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rust_unsafe_block_outside_the_named_crates_is_a_fault() {
        let source = "// unsafe is a word here\nfn f() { unsafe { g() } }\n";

        assert_eq!(
            check_rust("crates/vfs/src/lib.rs", source),
            ["crates/vfs/src/lib.rs:2: `unsafe` belongs in host_os, guest_memory, native_cpu, soft_cpu only"]
        );
        assert_eq!(check_rust("crates/host_os/src/lib.rs", source), [""; 0]);
        assert_eq!(check_rust("crates/guest/program/main.rs", source), [""; 0]);
        assert_eq!(check_rust("crates/guest/src/lib.rs", source).len(), 1);
    }

    #[test]
    fn rust_host_condition_outside_the_named_places_is_a_fault() {
        let source = "#[cfg(all(feature = \"x\", not(target_os = \"linux\")))]\nfn f() {}\nfn g() { if cfg!(unix) {} }\n";
        let faults = check_rust("crates/oci/src/lib.rs", source);

        assert_eq!(faults.len(), 2);
        assert!(faults[0].starts_with("crates/oci/src/lib.rs:1: cfg(target_os)"));
        assert!(faults[1].starts_with("crates/oci/src/lib.rs:3: cfg(unix)"));
        assert_eq!(check_rust("crates/vfs/src/sys/linux.rs", source), [""; 0]);
        assert_eq!(check_rust("crates/native_cpu/src/lib.rs", source), [""; 0]);
    }

    #[test]
    fn rust_unix_outside_cfg_or_in_tests_passes() {
        let source = "use std::os::unix::fs;\n#[cfg(feature = \"x\")]\nfn unix() {}\n#[cfg(test)]\nmod tests {\n#[cfg(unix)] fn f() {}\n}\n";

        assert_eq!(check_rust("crates/oci/src/lib.rs", source), [""; 0]);
    }

    #[test]
    fn rust_long_file_passes_only_as_a_table() {
        let long = "//\n".repeat(LONGEST + 1);

        assert_eq!(check_rust("crates/oci/src/lib.rs", &long).len(), 1);
        assert_eq!(
            check_rust("crates/oci/src/lib.rs", &format!("//! {TABLE_MARK}.\n{long}")),
            [""; 0]
        );
        assert_eq!(
            check_rust("crates/oci/src/lib.rs", &"//\n".repeat(LONGEST)),
            [""; 0]
        );
    }

    #[test]
    fn manifest_without_workspace_lints_is_a_fault() {
        assert_eq!(
            check_manifest(
                "crates/vfs/Cargo.toml",
                "[package]\n\n[lints]\nworkspace = true\n"
            ),
            [""; 0]
        );
        assert_eq!(
            check_manifest("crates/vfs/Cargo.toml", "[lints.rust]\nunsafe_code = \"allow\"\n").len(),
            1
        );
        assert_eq!(check_manifest("crates/host_os/Cargo.toml", ""), [""; 0]);
    }

    #[test]
    fn text_naming_a_forbidden_host_is_a_fault() {
        let hosts = BTreeSet::from(["mirror.invalid".to_owned()]);

        let faults = check_text("README.md", "a\nhttp://mirror.invalid/x\n", &hosts);

        assert_eq!(faults, ["README.md:2: names the package host mirror.invalid"]);
    }

    #[test]
    fn hosts_of_both_source_forms_are_found() {
        let text =
            "deb http://a.invalid/debian x main\nURIs: https://b.invalid:8080\nSigned-By: /usr/share/x\n";

        assert_eq!(hosts_of(text), ["a.invalid", "b.invalid"]);
    }
}
