//! Against the machine's own Debian mirror: real signatures, indexes, packages and kernel.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Read;
use std::path::Path;
use std::process::Command;

use oci::Platform;
use oci::debian::{Archive, ArchiveOptions, DebReference, Keyring, MirrorConfig, Refresh};

fn archive(cache: &Path) -> Archive {
    let explicit = std::env::var("CC_DEBIAN_MIRROR").ok();
    let mirror = MirrorConfig {
        explicit,
        ..MirrorConfig::default()
    };
    Archive::open(ArchiveOptions {
        cache: cache.join("debian"),
        mirror,
        keyring: Keyring::debian(),
    })
    .unwrap()
}

fn closure(archive: &Archive, reference: &str, refresh: Refresh) -> Vec<String> {
    let reference: DebReference = reference.parse().unwrap();
    let packages = archive
        .closure(&reference, &Platform::linux("amd64"), refresh, &())
        .unwrap();
    packages.into_iter().map(|package| package.name).collect()
}

/// The layer of a reference, unpacked by the system's own tar.
fn unpacked(archive: &Archive, reference: &str) -> (tempfile::TempDir, Vec<u8>) {
    let reference: DebReference = reference.parse().unwrap();
    let packages = archive
        .closure(&reference, &Platform::linux("amd64"), Refresh::WhenStale, &())
        .unwrap();
    let mut tar = Vec::new();
    archive
        .write_layer(&packages, &mut tar, Refresh::WhenStale, &())
        .unwrap();
    let root = tempfile::tempdir().unwrap();
    let file = root.path().join("layer.tar");
    fs::write(&file, &tar).unwrap();
    let folder = root.path().join("root");
    fs::create_dir(&folder).unwrap();
    let status = Command::new("tar")
        .arg("-xpf")
        .arg(&file)
        .arg("-C")
        .arg(&folder)
        .status()
        .unwrap();
    assert!(status.success());
    // What the guest's devtmpfs would have.
    let null = Command::new("mknod")
        .arg(folder.join("dev/null"))
        .args(["c", "1", "3"])
        .status()
        .unwrap();
    assert!(null.success());
    (root, tar)
}

/// Output of a command inside an unpacked image; needs root, as the package tests of this project do.
fn output_in(root: &Path, command: &[&str]) -> String {
    let output = Command::new("/usr/sbin/chroot")
        .arg(root.join("root"))
        .args(command)
        .env("PATH", "/usr/sbin:/usr/bin")
        .output()
        .unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "{command:?}: {}", text(&output.stderr));
    text(&output.stdout)
}

#[test]
fn debian_archive_image_of_a_userland_does_real_work() {
    let cache = tempfile::tempdir().unwrap();
    let archive = archive(cache.path());
    let (root, _) = unpacked(
        &archive,
        "deb:bash,coreutils,python3-minimal,perl-base,ca-certificates",
    );
    assert_eq!(
        output_in(root.path(), &["/bin/bash", "-c", "echo $((6*7)) | cat"]),
        "42\n"
    );
    assert_eq!(
        output_in(root.path(), &["/usr/bin/python3", "-c", "print(2**100)"]),
        format!("{}\n", 1u128 << 100)
    );
    assert_eq!(
        output_in(root.path(), &["/usr/bin/perl", "-e", "print 7*6"]),
        "42"
    );
    assert_eq!(output_in(root.path(), &["/bin/sh", "-c", "id -un"]), "root\n");
    let bundle = fs::read_to_string(root.path().join("root/etc/ssl/certs/ca-certificates.crt")).unwrap();
    assert!(bundle.matches("-----BEGIN CERTIFICATE-----").count() > 50);
}

#[test]
fn debian_archive_busybox_alone_has_a_shell() {
    let cache = tempfile::tempdir().unwrap();
    let archive = archive(cache.path());
    assert_eq!(
        closure(&archive, "deb:busybox-static", Refresh::WhenStale),
        ["busybox-static"]
    );
    let (root, tar) = unpacked(&archive, "deb:busybox-static");
    assert_eq!(output_in(root.path(), &["/bin/sh", "-c", "echo ok"]), "ok\n");
    assert_eq!(tar, unpacked(&archive, "deb:busybox-static").1);
}

#[test]
fn debian_archive_second_time_needs_no_network() {
    let cache = tempfile::tempdir().unwrap();
    let first = closure(&archive(cache.path()), "deb:bash,coreutils", Refresh::WhenStale);
    assert!(
        first.contains(&"libc6".to_owned()) && first.contains(&"libtinfo6".to_owned()),
        "{first:?}"
    );
    assert_eq!(
        closure(&archive(cache.path()), "deb:coreutils,bash", Refresh::Never),
        first
    );
}

#[test]
fn debian_archive_unknown_package_and_suite_are_named() {
    let cache = tempfile::tempdir().unwrap();
    let archive = archive(cache.path());
    let failure = |reference: &str| {
        let reference: DebReference = reference.parse().unwrap();
        let platform = Platform::linux("amd64");
        archive
            .closure(&reference, &platform, Refresh::WhenStale, &())
            .unwrap_err()
            .to_string()
    };
    assert!(failure("deb:coreutil").contains("did you mean `coreutils`"));
    assert!(failure("deb:nosuchsuite/bash").contains("answered 404"));
}

/// What apt would install on an empty system, from the same archives.
fn apt_closure(folder: &Path, archive: &Archive, packages: &str) -> Vec<String> {
    let mirror = archive.mirror();
    let groups = [
        (&mirror.main, "stable"),
        (&mirror.updates, "stable-updates"),
        (&mirror.security, "stable-security"),
    ];
    let lines = groups.iter().filter_map(|(addresses, suite)| {
        Some(format!("deb [trusted=yes] {} {suite} main\n", addresses.first()?))
    });
    fs::create_dir_all(folder.join("state/lists/partial")).unwrap();
    fs::create_dir_all(folder.join("cache/archives/partial")).unwrap();
    fs::write(folder.join("status"), "").unwrap();
    fs::write(folder.join("sources.list"), lines.collect::<String>()).unwrap();
    let apt = |arguments: &[&str]| {
        let path = |name: &str| folder.join(name).to_str().unwrap().to_owned();
        let options = [
            format!("Dir::State={}", path("state")),
            format!("Dir::State::status={}", path("status")),
            format!("Dir::Cache={}", path("cache")),
            format!("Dir::Etc::SourceList={}", path("sources.list")),
            "Dir::Etc::SourceParts=/dev/null".to_owned(),
            "Dir::Etc::PreferencesParts=/dev/null".to_owned(),
            "APT::Install-Recommends=0".to_owned(),
            "APT::Architecture=amd64".to_owned(),
        ];
        let mut command = Command::new("apt-get");
        command.args(options.iter().flat_map(|option| ["-o", option.as_str()]));
        let output = command.args(arguments).output().unwrap();
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8(output.stdout).unwrap()
    };
    // Once for all requests.
    if !folder.join("updated").exists() {
        apt(&["update"]);
        fs::write(folder.join("updated"), "").unwrap();
    }
    let mut arguments = vec!["-s", "install"];
    arguments.extend(packages.split(','));
    let planned = apt(&arguments);
    let names = planned
        .lines()
        .filter_map(|line| line.strip_prefix("Inst ")?.split(' ').next());
    names
        .map(str::to_owned)
        .collect::<BTreeSet<_>>()
        .into_iter()
        .collect()
}

#[test]
fn debian_archive_closures_are_those_of_apt() {
    let cache = tempfile::tempdir().unwrap();
    let archive = archive(cache.path());
    for packages in [
        "bash,coreutils",
        "bash,coreutils,python3-minimal",
        "git,python3",
        "ca-certificates,curl,perl",
        "nginx",
        "gcc",
        "openssh-server",
        "postgresql,vim",
    ] {
        let ours = closure(&archive, &format!("deb:{packages}"), Refresh::WhenStale);
        assert_eq!(
            ours,
            apt_closure(&cache.path().join("apt"), &archive, packages),
            "{packages}"
        );
    }
}

#[test]
fn debian_archive_large_closure_finds_its_libraries() {
    let cache = tempfile::tempdir().unwrap();
    let archive = archive(cache.path());
    let (root, _) = unpacked(&archive, "deb:git,python3");
    let script = "import json, ssl, sqlite3, lzma; print('ok')";
    assert_eq!(
        output_in(root.path(), &["/usr/bin/python3", "-c", script]),
        "ok\n"
    );
    assert!(output_in(root.path(), &["/usr/bin/git", "--version"]).starts_with("git version"));
}

#[test]
fn debian_archive_kernel_is_complete_and_modules_are_ordered() {
    let cache = tempfile::tempdir().unwrap();
    let archive = archive(cache.path());
    let kernel = archive
        .kernel(&Platform::linux("amd64"), Refresh::WhenStale, &())
        .unwrap();
    assert!(kernel.version.ends_with("-cloud-amd64"), "{}", kernel.version);
    let mut head = [0; 0x206];
    fs::File::open(&kernel.image)
        .unwrap()
        .read_exact(&mut head)
        .unwrap();
    assert_eq!(&head[0x202..], b"HdrS");
    assert!(
        fs::read_to_string(&kernel.config)
            .unwrap()
            .contains("CONFIG_VIRTIO_FS=y")
    );
    let modules = kernel
        .modules_closure(&["virtio_net", "vsock", "virtio-mmio", "kvm_amd"])
        .unwrap();
    let places: BTreeMap<&str, usize> = modules
        .iter()
        .enumerate()
        .map(|(place, module)| (module.name.as_str(), place))
        .collect();
    assert!(places["failover"] < places["net_failover"] && places["net_failover"] < places["virtio_net"]);
    assert!(places["kvm"] < places["kvm_amd"]);
    assert_eq!(places.len(), modules.len());
    assert!(modules.iter().all(|module| module.bytes.starts_with(b"\x7fELF")));
    let again = archive
        .kernel(&Platform::linux("amd64"), Refresh::Never, &())
        .unwrap();
    assert_eq!((again.version, again.digest), (kernel.version, kernel.digest));
}

/// dpkg itself is the oracle of version order.
#[test]
fn debian_archive_versions_are_ordered_as_dpkg_orders_them() {
    let pieces = [
        "", "0", "1", "10", "09", "a", "b", "Z", "~", "+", ".", "-", "~~", "rc1", "1:", "0:", "+b2",
        "deb13u1",
    ];
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let mut next = |below: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state % below as u64) as usize
    };
    let mut version = || {
        let tail: String = (0..next(6)).map(|_| pieces[next(14)]).collect();
        format!("{}{}{tail}", ["", "", "1:", "2:"][next(4)], next(3))
    };
    let mut pairs = BTreeSet::new();
    while pairs.len() < 400 {
        let pair = (version(), version());
        // dpkg refuses a version that ends with an empty revision.
        if !pair.0.ends_with('-') && !pair.1.ends_with('-') {
            pairs.insert(pair);
        }
    }
    let script = "while read -r a b; do for op in lt eq gt; do \
                  if dpkg --compare-versions \"$a\" $op \"$b\"; then echo $op; fi; done; done";
    let input: String = pairs.iter().map(|(a, b)| format!("{a} {b}\n")).collect();
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), input).unwrap();
    let output = Command::new("sh")
        .arg("-c")
        .arg(script)
        .stdin(fs::File::open(file.path()).unwrap())
        .output()
        .unwrap();
    let oracle = String::from_utf8(output.stdout).unwrap();
    let ours: Vec<&str> = pairs
        .iter()
        .map(|(a, b)| match oci::debian::compare_versions(a, b) {
            std::cmp::Ordering::Less => "lt",
            std::cmp::Ordering::Equal => "eq",
            std::cmp::Ordering::Greater => "gt",
        })
        .collect();
    for ((pair, ours), oracle) in pairs.iter().zip(&ours).zip(oracle.lines()) {
        assert_eq!(*ours, oracle, "{pair:?}");
    }
    assert_eq!(ours.len(), oracle.lines().count());
}
