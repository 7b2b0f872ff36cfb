//! The layers of the design and the arrows between them.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result};

/// Dependencies by crate; both are named as their folders under `crates/` are.
pub(super) type Arrows = BTreeMap<String, BTreeSet<String>>;

/// Every crate, lowest layer first, with the crates it may use.
const LAYERS: &[(&str, &[&str])] = &[
    ("saved_state", &[]),
    ("host_os", &[]),
    ("rtg", &[]),
    ("guest_protocol", &[]),
    ("guest_memory", &["host_os"]),
    ("device_backends", &[]),
    ("guest", &["rtg", "guest_protocol"]),
    ("hypervisor", &["guest_memory", "saved_state"]),
    ("device_model", &["guest_memory", "saved_state", "host_os"]),
    (
        "native_cpu",
        &["hypervisor", "guest_memory", "saved_state", "host_os"],
    ),
    (
        "soft_cpu",
        &["hypervisor", "guest_memory", "saved_state", "host_os"],
    ),
    (
        "chipset",
        &["device_model", "device_backends", "guest_memory", "saved_state"],
    ),
    (
        "virtio",
        &["device_model", "device_backends", "guest_memory", "saved_state"],
    ),
    ("netstack", &["device_backends", "host_os"]),
    ("vfs", &["device_backends", "host_os", "saved_state"]),
    ("oci", &["host_os"]),
    (
        "machine",
        &[
            "saved_state",
            "host_os",
            "guest_protocol",
            "guest_memory",
            "device_backends",
            "guest",
            "hypervisor",
            "device_model",
            "native_cpu",
            "soft_cpu",
            "chipset",
            "virtio",
        ],
    ),
    (
        "crumblecracker",
        &[
            "saved_state",
            "host_os",
            "rtg",
            "guest_protocol",
            "guest_memory",
            "device_backends",
            "guest",
            "hypervisor",
            "device_model",
            "native_cpu",
            "soft_cpu",
            "chipset",
            "virtio",
            "netstack",
            "vfs",
            "oci",
            "machine",
        ],
    ),
    ("cli", &["crumblecracker"]),
    ("app", &["crumblecracker"]),
    ("cc", &["cli"]),
    ("vm_tests", &["crumblecracker"]),
    ("cpu_tests", &["guest_memory", "hypervisor", "soft_cpu"]),
    ("xtask", &[]),
];

/// Arrows that only a crate's own tests draw: the crate, what its tests use.
const TEST_ARROWS: &[(&str, &str)] = &[
    // The conformance suite runs against a backend itself, below the public library.
    ("vm_tests", "host_os"),
    ("vm_tests", "hypervisor"),
    ("vm_tests", "native_cpu"),
    ("vm_tests", "soft_cpu"),
    // Machines are captured and restored below the public library too, in the middle of a boot.
    ("vm_tests", "device_backends"),
    ("vm_tests", "guest"),
    ("vm_tests", "guest_protocol"),
    ("vm_tests", "machine"),
    ("vm_tests", "saved_state"),
];

/// What is wrong with the arrows that exist: `shipped` in libraries, programs and build scripts, `tests` in
/// dev-dependencies.
pub(super) fn check(shipped: &Arrows, tests: &Arrows) -> Vec<String> {
    let allowed: BTreeMap<&str, &[&str]> = LAYERS.iter().copied().collect();
    let mut faults = Vec::new();
    for (name, dependencies) in shipped {
        let Some(allowed) = allowed.get(name.as_str()) else {
            faults.push(format!(
                "crates/{name} has no layer: name it in crates/xtask/src/arrows/layers.rs"
            ));
            continue;
        };
        for dependency in dependencies.iter().filter(|one| !allowed.contains(&one.as_str())) {
            faults.push(format!("{name} -> {dependency}: not an arrow of the layers"));
        }
        for dependency in tests.get(name).into_iter().flatten() {
            let pair = (name.as_str(), dependency.as_str());
            if !allowed.contains(&pair.1) && !TEST_ARROWS.contains(&pair) {
                faults.push(format!(
                    "{name} -> {dependency} (in tests): not an arrow of the layers"
                ));
            }
        }
    }
    faults
}

/// Compares the picture in `document`, Markdown text, with the arrows that exist, both ways.
///
/// In its fenced blocks, a line `[L0] crate -> dep dep` or `crate -> -` is a crate and all its arrows; what
/// follows a `#` is a remark; other lines are passed over.
pub(super) fn check_picture(document: &str, shipped: &Arrows) -> Vec<String> {
    let drawn = picture(document);
    let mut faults = Vec::new();
    for (name, dependencies) in shipped {
        let Some(drawn) = drawn.get(name) else {
            faults.push(format!(
                "docs/architecture.md lacks {name}: a fenced line `{name} -> {}` is missing",
                words(dependencies)
            ));
            continue;
        };
        if drawn != dependencies {
            faults.push(format!(
                "docs/architecture.md draws `{name} -> {}`, but the arrows are `{name} -> {}`",
                words(drawn),
                words(dependencies)
            ));
        }
    }
    let unknown = drawn.keys().filter(|name| !shipped.contains_key(*name));
    faults.extend(unknown.map(|name| format!("docs/architecture.md draws {name}, which is no crate")));
    faults
}

fn picture(document: &str) -> Arrows {
    let mut arrows = Arrows::new();
    let mut fenced = false;
    for line in document.lines() {
        if line.trim_start().starts_with("```") {
            fenced = !fenced;
            continue;
        }
        let line = line.split('#').next().unwrap_or_default();
        let Some((left, right)) = line.split_once("->").filter(|_| fenced) else {
            continue;
        };
        if let Some(name) = left.split_whitespace().last() {
            let dependencies = right.split_whitespace().filter(|word| *word != "-");
            arrows.insert(name.to_owned(), dependencies.map(str::to_owned).collect());
        }
    }
    arrows
}

fn words(dependencies: &BTreeSet<String>) -> String {
    if dependencies.is_empty() {
        return "-".to_owned();
    }
    dependencies
        .iter()
        .map(String::as_str)
        .collect::<Vec<_>>()
        .join(" ")
}

/// Reads the arrows from `cargo metadata --no-deps --format-version 1`: those of libraries, programs and
/// build scripts, and those of tests.
///
/// # Errors
/// Where the text is not what cargo writes.
pub(super) fn from_metadata(json: &[u8]) -> Result<(Arrows, Arrows)> {
    let metadata: Metadata = serde_json::from_slice(json).context("cargo metadata's answer")?;
    let (mut shipped, mut tests) = (Arrows::new(), Arrows::new());
    for package in metadata.packages {
        let manifest = package.manifest_path.strip_suffix("/Cargo.toml");
        let name = folder(manifest.context("a manifest that is not Cargo.toml")?);
        shipped.entry(name.clone()).or_default();
        for dependency in package.dependencies {
            let Some(path) = dependency.path else { continue };
            let arrows = if dependency.kind.as_deref() == Some("dev") {
                &mut tests
            } else {
                &mut shipped
            };
            arrows.entry(name.clone()).or_default().insert(folder(&path));
        }
    }
    Ok((shipped, tests))
}

fn folder(path: &str) -> String {
    path.rsplit('/').next().unwrap_or(path).to_owned()
}

#[derive(serde::Deserialize)]
struct Metadata {
    packages: Vec<Package>,
}

#[derive(serde::Deserialize)]
struct Package {
    manifest_path: String,
    dependencies: Vec<Dependency>,
}

#[derive(serde::Deserialize)]
struct Dependency {
    /// Absent for what comes from a registry.
    path: Option<String>,
    /// Absent for a normal dependency, else "dev" or "build".
    kind: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arrows(pairs: &[(&str, &[&str])]) -> Arrows {
        let owned = |words: &[&str]| words.iter().map(|&word| word.to_owned()).collect();
        pairs
            .iter()
            .map(|(name, dependencies)| ((*name).to_owned(), owned(dependencies)))
            .collect()
    }

    #[test]
    fn check_arrow_of_the_table_passes() {
        let faults = check(&arrows(&[("virtio", &["device_model"])]), &Arrows::new());

        assert_eq!(faults, [""; 0]);
    }

    #[test]
    fn check_device_using_hypervisor_is_named() {
        let faults = check(&arrows(&[("virtio", &["hypervisor"])]), &Arrows::new());

        assert_eq!(faults, ["virtio -> hypervisor: not an arrow of the layers"]);
    }

    #[test]
    fn check_test_only_arrow_outside_the_table_is_named() {
        let faults = check(&arrows(&[("oci", &[])]), &arrows(&[("oci", &["vfs"])]));

        assert_eq!(faults, ["oci -> vfs (in tests): not an arrow of the layers"]);
    }

    #[test]
    fn check_crate_without_layer_is_named() {
        let faults = check(&arrows(&[("helpers", &[])]), &Arrows::new());

        assert_eq!(faults.len(), 1);
        assert!(faults[0].starts_with("crates/helpers has no layer"));
    }

    #[test]
    fn layers_every_arrow_points_to_a_lower_layer() {
        let order: Vec<&str> = LAYERS.iter().map(|(name, _)| *name).collect();

        for (index, (name, dependencies)) in LAYERS.iter().enumerate() {
            for dependency in *dependencies {
                assert!(order[..index].contains(dependency), "{name} -> {dependency}");
            }
        }
    }

    #[test]
    fn picture_equal_to_the_arrows_passes() {
        let document = "text a -> b\n```\nL0  host_os -> -   # the OS\nguest_memory -> host_os\nother\n```\n";

        let faults = check_picture(
            document,
            &arrows(&[("host_os", &[]), ("guest_memory", &["host_os"])]),
        );

        assert_eq!(faults, [""; 0]);
    }

    #[test]
    fn picture_missing_wrong_and_unknown_crates_are_named() {
        let document = "```\nguest_memory -> -\nrtg -> -\n```\n";

        let faults = check_picture(
            document,
            &arrows(&[("host_os", &[]), ("guest_memory", &["host_os"])]),
        );

        assert_eq!(
            faults,
            [
                "docs/architecture.md draws `guest_memory -> -`, but the arrows are `guest_memory -> host_os`",
                "docs/architecture.md lacks host_os: a fenced line `host_os -> -` is missing",
                "docs/architecture.md draws rtg, which is no crate",
            ]
        );
    }

    #[test]
    fn metadata_kinds_are_told_apart() {
        let json = br#"{"packages": [{"manifest_path": "/w/crates/vfs/Cargo.toml", "dependencies": [
            {"name": "x-host_os", "path": "/w/crates/host_os", "kind": null},
            {"name": "x-saved", "path": "/w/crates/saved_state", "kind": "build"},
            {"name": "x-oci", "path": "/w/crates/oci", "kind": "dev"},
            {"name": "serde", "kind": null}]}]}"#;

        let (shipped, tests) = from_metadata(json).unwrap();

        assert_eq!(shipped, arrows(&[("vfs", &["host_os", "saved_state"])]));
        assert_eq!(tests, arrows(&[("vfs", &["oci"])]));
    }
}
