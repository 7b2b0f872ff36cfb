//! Pulls from Debian's registry: what arrives is what umoci unpacks, and what may go wrong does no harm.

mod support;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use oci::{Error, Image, Platform, Puller, Store};
use support::compare::assert_same;
use support::proxy::Proxy;
use support::{Disk, Layout, Registry, run};

const POSIX: &[&str] = &["--format=posix", "--xattrs", "--xattrs-include=*", "--sparse"];
const GNU: &[&str] = &["--format=gnu", "--sparse"];
/// Incompressible bytes of a big layer.
const BIG: u64 = 24 << 20;

const LOWER: &str = r#"
    mkdir -p etc usr/bin usr/lib var/empty gone/deep opaque/deep mixed dev tmp
    chmod 1777 tmp; chmod 0700 var/empty
    echo root > etc/passwd; chmod 0640 etc/passwd; chown 12:3456789 etc/passwd
    echo lower > opaque/lower; echo lower > opaque/deep/lower; echo x > gone/deep/x; echo x > mixed/lower
    ln -s usr/lib lib; ln -s /etc/passwd absolute; ln -s ../../../../outside up; ln -s missing dangling
    ln etc/passwd usr/passwd; ln etc/passwd hard
    mknod dev/null c 1 3; mknod dev/loop b 259 70000; mkfifo dev/pipe; chmod 4755 usr/bin
    echo suid > usr/bin/su; chmod 6755 usr/bin/su
    setfattr -n user.plain -v value etc/passwd; setfattr -n user.binary -v 0x000a3dff usr/bin/su
    setfattr -n security.capability -v 0x0100000200200000000000000000000000000000 usr/bin/su
    setfattr -n user.dir -v on-a-directory var
    name=$(printf 'long%.0s' $(seq 60)); mkdir -p $name/$name; echo deep > $name/$name/$name
    ln -s $name/$name/$name to-long; ln $name/$name/$name hard-to-long
    truncate -s 3M usr/sparse; printf middle | dd of=usr/sparse bs=1 seek=1500000 conv=notrunc 2>/dev/null
    truncate -s 1M usr/holes; : > usr/empty; head -c 4096 /dev/zero > usr/zeros
    head -c 300000 /dev/urandom > usr/random; printf 'a\nb' > "usr/new
line"
    touch -h -d '2001-02-03 04:05:06.123456789' lib usr/random etc; touch -d '1960-01-01 00:00:00' usr/empty
"#;

const UPPER: &str = r#"
    mkdir -p opaque mixed usr replaced etc
    : > .wh.gone; : > opaque/.wh..wh..opq; echo upper > opaque/upper
    : > mixed/.wh.lower; echo upper > mixed/upper; : > usr/.wh.nothing
    : > etc/.wh.passwd; echo new > usr/passwd
    for i in $(seq 60); do echo $i > usr/many-$i; done
    name=$(printf 'gnu-long%.0s' $(seq 30)); mkdir $name; echo y > $name/$name; ln -s $name/$name gnu-link
"#;

const TOP: &str = r#"
    mkdir -p lib-is-now usr/lib
    echo through > usr/lib/file; : > .wh.lib; echo file-now > dangling; mkdir absolute; echo in > absolute/x
"#;

/// An image of everything layers can hold.
fn rich(layout: &Layout, tag: &str) {
    layout.create(tag);
    layout.add_layer(tag, POSIX, LOWER);
    layout.add_layer(tag, GNU, UPPER);
    layout.add_layer(tag, POSIX, TOP);
}

/// An image whose one layer does not compress.
fn big(layout: &Layout, tag: &str) {
    layout.create(tag);
    layout.add_layer(tag, GNU, &format!("head -c {BIG} /dev/urandom > big"));
}

fn puller(folder: &Path, host: &str) -> Puller {
    let store = Store::open(&folder.join("store")).unwrap();
    Puller::new(store)
        .insecure_registries(vec![host.into()])
        .docker_config(folder.join("docker.json"))
}

fn pull(folder: &Path, host: &str, name: &str) -> Result<Image, Error> {
    puller(folder, host).pull(&name.parse().unwrap())
}

/// Waits for what comes soon, or fails with its absence.
fn wait_for(absence: &str, came: impl Fn() -> bool) {
    let start = Instant::now();
    while !came() {
        assert!(start.elapsed() < Duration::from_secs(60), "{absence}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn is_empty(folder: &Path) -> bool {
    fs::read_dir(folder).unwrap().next().is_none()
}

/// Nothing half-made is left in a store, and no name.
fn assert_nothing_left(folder: &Path) {
    for name in ["names", "images", "staging", "layers-1"] {
        assert!(is_empty(&folder.join("store").join(name)), "{name} is not empty");
    }
}

#[test]
fn pull_of_everything_is_what_umoci_unpacks() {
    let (registry, layout, folder) = (
        Registry::start(false),
        Layout::new(),
        tempfile::tempdir().unwrap(),
    );
    rich(&layout, "rich");
    let name = registry.push(&layout, "rich", &[]);
    let image = pull(folder.path(), &registry.host, &name).unwrap();
    assert_same(&image.open_index().unwrap(), &layout.unpack("rich"));
    assert_eq!(image.name(), name);
}

#[test]
fn pull_of_zstd_layers_is_what_umoci_unpacks() {
    let (registry, layout, folder) = (
        Registry::start(false),
        Layout::new(),
        tempfile::tempdir().unwrap(),
    );
    rich(&layout, "zstd");
    let name = registry.push(
        &layout,
        "zstd",
        &["--dest-compress-format=zstd", "--dest-compress"],
    );
    let raw = run(
        "skopeo",
        &[
            "inspect",
            "--raw",
            "--tls-verify=false",
            &format!("docker://{name}"),
        ],
    );
    assert!(raw.contains("zstd"), "{raw}");
    let image = pull(folder.path(), &registry.host, &name).unwrap();
    assert_same(&image.open_index().unwrap(), &layout.unpack("zstd"));
}

#[test]
fn pull_by_digest_and_again_finds_the_same_image() {
    let (registry, layout, folder) = (
        Registry::start(false),
        Layout::new(),
        tempfile::tempdir().unwrap(),
    );
    big(&layout, "big");
    let name = registry.push(&layout, "big", &[]);
    let proxy = Proxy::start(&registry.host);
    let name = name.replace(&registry.host, &proxy.host);
    let first = pull(folder.path(), &proxy.host, &name).unwrap();
    let fetched = proxy.traffic.received.load(Ordering::SeqCst);
    let by_digest = format!("{}/test/image@{}", proxy.host, first.manifest_digest().unwrap());
    let second = pull(folder.path(), &proxy.host, &by_digest).unwrap();
    assert_eq!(first.id(), second.id());
    assert!(
        proxy.traffic.received.load(Ordering::SeqCst) - fetched < 1 << 20,
        "the layer came again"
    );
    let found = puller(folder.path(), &proxy.host);
    drop(found);
    let store = Store::open(&folder.path().join("store")).unwrap();
    assert_eq!(store.images().unwrap().len(), 2);
    assert!(store.image(&name, &Platform::host()).unwrap().is_some());
}

#[test]
fn pull_configuration_is_what_umoci_set() {
    let (registry, layout, folder) = (
        Registry::start(false),
        Layout::new(),
        tempfile::tempdir().unwrap(),
    );
    layout.create("config");
    layout.add_layer("config", POSIX, "echo x > x");
    let options = [
        "--config.entrypoint=/bin/sh",
        "--config.entrypoint=-c",
        "--config.cmd=true",
        "--config.env=A=b c",
    ];
    layout.configure("config", &options);
    let options = [
        "--config.user=1:users",
        "--config.workingdir=/w",
        "--config.label=k=v",
        "--config.stopsignal=SIGINT",
    ];
    layout.configure("config", &options);
    layout.configure(
        "config",
        &["--config.exposedports=80/tcp", "--config.volume=/data"],
    );
    let name = registry.push(&layout, "config", &[]);
    let image = pull(folder.path(), &registry.host, &name).unwrap();
    let config = image.config();
    assert_eq!(config.entrypoint, ["/bin/sh", "-c"]);
    assert_eq!(config.cmd, ["true"]);
    assert!(config.env.contains(&"A=b c".to_owned()));
    assert_eq!(
        (config.user.as_str(), config.working_dir.as_str()),
        ("1:users", "/w")
    );
    assert_eq!(config.labels["k"], "v");
    assert_eq!(
        (config.exposed_ports.clone(), config.volumes.clone()),
        (vec!["80/tcp".into()], vec!["/data".into()])
    );
    assert_eq!(config.stop_signal.as_deref(), Some("SIGINT"));
}

#[test]
fn pull_with_password_needs_the_right_one() {
    let (registry, layout, folder) = (Registry::start(true), Layout::new(), tempfile::tempdir().unwrap());
    layout.create("private");
    layout.add_layer("private", POSIX, "echo x > x");
    let name = registry.push(&layout, "private", &["--dest-creds=user:secret"]);
    let with = |json: &str| {
        fs::write(folder.path().join("docker.json"), json).unwrap();
        pull(folder.path(), &registry.host, &name)
    };
    let host = &registry.host;
    assert!(matches!(with("{}"), Err(Error::Unauthorized { .. })));
    let wrong = with(&format!(
        r#"{{"auths":{{"{host}":{{"username":"user","password":"guess"}}}}}}"#
    ));
    assert!(matches!(wrong, Err(Error::Unauthorized { .. })));
    assert_nothing_left(folder.path());
    // user:secret
    with(&format!(
        r#"{{"auths":{{"{host}":{{"auth":"dXNlcjpzZWNyZXQ="}}}}}}"#
    ))
    .unwrap();
}

#[test]
fn pull_with_credential_helper_asks_it() {
    let (registry, layout, folder) = (Registry::start(true), Layout::new(), tempfile::tempdir().unwrap());
    layout.create("helped");
    layout.add_layer("helped", POSIX, "echo x > x");
    let name = registry.push(&layout, "helped", &["--dest-creds=user:secret"]);
    let program = folder.path().join("docker-credential-test");
    let host = &registry.host;
    let script = format!(
        "#!/bin/sh\n[ \"$1\" = get ] && read server && [ \"$server\" = {host} ] &&\n\
         echo '{{\"ServerURL\":\"{host}\",\"Username\":\"user\",\"Secret\":\"secret\"}}'\n"
    );
    fs::write(&program, script).unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    fs::write(
        folder.path().join("docker.json"),
        format!(r#"{{"credHelpers":{{"{host}":"test"}}}}"#),
    )
    .unwrap();
    let path = format!("{}:{}", folder.path().display(), std::env::var("PATH").unwrap());
    let mut child = child_pull(folder.path(), host, &name, &path);
    assert!(child.wait().unwrap().success());
}

#[test]
fn pull_by_https_of_plain_registry_names_the_way_out() {
    let (registry, folder) = (Registry::start(false), tempfile::tempdir().unwrap());
    let error = pull(folder.path(), "other:1", &format!("{}/x", registry.host)).unwrap_err();
    assert!(error.to_string().contains("--insecure-registry"), "{error:?}");
}

#[test]
fn pull_of_unknown_things_names_them() {
    let (registry, folder) = (Registry::start(false), tempfile::tempdir().unwrap());
    let name = format!("{}/no/such:image", registry.host);
    let error = pull(folder.path(), &registry.host, &name).unwrap_err();
    assert!(
        matches!(&error, Error::NotFound(found) if *found == name),
        "{error}"
    );
    let error = pull(folder.path(), "127.0.0.1:1", "127.0.0.1:1/x").unwrap_err();
    assert!(
        matches!(&error, Error::Unreachable { registry, .. } if registry == "127.0.0.1:1"),
        "{error}"
    );
}

#[test]
fn pull_of_damaged_or_truncated_layer_is_refused() {
    let (registry, layout) = (Registry::start(false), Layout::new());
    big(&layout, "bad");
    let name = registry.push(&layout, "bad", &[]);
    let digest = layout.layer_digest("bad", 0);
    let file = registry.blob_file(&digest);
    let sound = fs::read(&file).unwrap();
    let damage = |change: &dyn Fn(&mut Vec<u8>)| {
        let folder = tempfile::tempdir().unwrap();
        let mut bytes = sound.clone();
        change(&mut bytes);
        fs::write(&file, &bytes).unwrap();
        let error = pull(folder.path(), &registry.host, &name).unwrap_err();
        assert!(error.to_string().contains(&digest), "{error:?}");
        assert_nothing_left(folder.path());
        error
    };
    let middle = sound.len() / 2;
    let error = damage(&|bytes| bytes[middle] ^= 1);
    assert!(matches!(error, Error::DigestMismatch { .. }), "{error}");
    let error = damage(&|bytes| bytes.truncate(middle));
    assert!(matches!(error, Error::SizeMismatch { .. }), "{error:?}");
}

/// Pulls to a disk that is full, and again when there is room.
fn assert_full_disk_does_no_harm(mount: impl Fn(&Path) -> Disk) {
    let (registry, layout, folder) = (
        Registry::start(false),
        Layout::new(),
        tempfile::tempdir().unwrap(),
    );
    big(&layout, "full");
    let name = registry.push(&layout, "full", &[]);
    let disk = mount(&folder.path().join("store"));
    let ballast = disk.fill("80m");

    let error = pull(folder.path(), &registry.host, &name).unwrap_err();

    assert!(matches!(error, Error::DiskFull { .. }), "{error:?}");
    assert_nothing_left(folder.path());
    assert!(is_empty(&folder.path().join("store/partial")));
    fs::remove_file(ballast).unwrap();
    let image = pull(folder.path(), &registry.host, &name).unwrap();
    assert_same(&image.open_index().unwrap(), &layout.unpack("full"));
}

#[test]
fn pull_to_full_memory_disk_leaves_nothing_and_works_once_there_is_room() {
    assert_full_disk_does_no_harm(|path| Disk::tmpfs(path, "96m"));
}

#[test]
fn pull_to_full_disk_with_direct_writes_leaves_nothing_and_works_once_there_is_room() {
    assert_full_disk_does_no_harm(|path| Disk::ext4(path, "104m"));
}

#[test]
fn pull_over_broken_connection_continues() {
    let (registry, layout, folder) = (
        Registry::start(false),
        Layout::new(),
        tempfile::tempdir().unwrap(),
    );
    big(&layout, "cut");
    let proxy = Proxy::start(&registry.host);
    let name = registry
        .push(&layout, "cut", &[])
        .replace(&registry.host, &proxy.host);
    proxy.traffic.cut_after.store(BIG / 2, Ordering::SeqCst);
    pull(folder.path(), &proxy.host, &name).unwrap();
    assert_eq!(proxy.traffic.resumptions.load(Ordering::SeqCst), 1);
    assert!(proxy.traffic.received.load(Ordering::SeqCst) < BIG + BIG / 4);
}

#[test]
fn pull_killed_in_the_middle_is_resumed() {
    let (registry, layout, folder) = (
        Registry::start(false),
        Layout::new(),
        tempfile::tempdir().unwrap(),
    );
    big(&layout, "kill");
    let proxy = Proxy::start(&registry.host);
    let name = registry
        .push(&layout, "kill", &[])
        .replace(&registry.host, &proxy.host);
    proxy.traffic.pause_ms.store(5, Ordering::SeqCst);
    let mut child = child_pull(folder.path(), &proxy.host, &name, &std::env::var("PATH").unwrap());
    wait_for("the child does not pull", || {
        proxy.traffic.received.load(Ordering::SeqCst) >= BIG / 2
    });
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(is_empty(&folder.path().join("store/names")));
    proxy.traffic.pause_ms.store(0, Ordering::SeqCst);
    let before = proxy.traffic.received.load(Ordering::SeqCst);
    let image = pull(folder.path(), &proxy.host, &name).unwrap();
    assert_same(&image.open_index().unwrap(), &layout.unpack("kill"));
    assert_eq!(proxy.traffic.resumptions.load(Ordering::SeqCst), 1);
    assert!(
        proxy.traffic.received.load(Ordering::SeqCst) - before < BIG * 3 / 4,
        "it began anew"
    );
    // What the killed process was making is swept.
    assert!(is_empty(&folder.path().join("store/staging")) && is_empty(&folder.path().join("store/partial")));
}

#[test]
fn pull_killed_in_the_middle_of_a_fast_layer_does_no_harm() {
    let (registry, layout, folder) = (
        Registry::start(false),
        Layout::new(),
        tempfile::tempdir().unwrap(),
    );
    big(&layout, "kill");
    let proxy = Proxy::start(&registry.host);
    let name = registry
        .push(&layout, "kill", &[])
        .replace(&registry.host, &proxy.host);
    proxy.traffic.hold_after.store(BIG / 2, Ordering::SeqCst);
    let mut child = child_pull(folder.path(), &proxy.host, &name, &std::env::var("PATH").unwrap());
    wait_for("the child does not pull", || {
        proxy.traffic.received.load(Ordering::SeqCst) > BIG / 2
    });
    child.kill().unwrap();
    child.wait().unwrap();
    for name in ["names", "images", "layers-1"] {
        assert!(is_empty(&folder.path().join("store").join(name)), "{name}");
    }
    assert!(!is_empty(&folder.path().join("store/staging")));
    proxy.traffic.hold_after.store(0, Ordering::SeqCst);

    let image = pull(folder.path(), &proxy.host, &name).unwrap();

    assert_same(&image.open_index().unwrap(), &layout.unpack("kill"));
    assert!(is_empty(&folder.path().join("store/staging")) && is_empty(&folder.path().join("store/partial")));
}

#[test]
fn pull_of_two_images_at_once_fetches_their_common_layer_once() {
    let (registry, layout, folder) = (
        Registry::start(false),
        Layout::new(),
        tempfile::tempdir().unwrap(),
    );
    big(&layout, "first");
    run("umoci", &["tag", "--image", &layout.image("first"), "second"]);
    layout.add_layer("first", POSIX, "echo 1 > one");
    layout.add_layer("second", POSIX, "echo 2 > two");
    let proxy = Proxy::start(&registry.host);
    let names = ["first", "second"].map(|tag| {
        registry
            .push(&layout, tag, &[])
            .replace(&registry.host, &proxy.host)
    });

    let images = std::thread::scope(|scope| {
        let pulls = names
            .each_ref()
            .map(|name| scope.spawn(|| pull(folder.path(), &proxy.host, name).unwrap()));
        pulls.map(|pull| pull.join().unwrap())
    });

    for (image, tag) in images.iter().zip(["first", "second"]) {
        assert_same(&image.open_index().unwrap(), &layout.unpack(tag));
    }
    assert!(
        proxy.traffic.received.load(Ordering::SeqCst) < BIG * 3 / 2,
        "the layer came more than once"
    );
}

#[test]
fn pull_by_two_processes_and_threads_fetches_once() {
    let (registry, layout, folder) = (
        Registry::start(false),
        Layout::new(),
        tempfile::tempdir().unwrap(),
    );
    big(&layout, "both");
    let proxy = Proxy::start(&registry.host);
    let name = registry
        .push(&layout, "both", &[])
        .replace(&registry.host, &proxy.host);
    proxy.traffic.pause_ms.store(1, Ordering::SeqCst);
    let path = std::env::var("PATH").unwrap();
    let mut children: Vec<Child> = (0..2)
        .map(|_| child_pull(folder.path(), &proxy.host, &name, &path))
        .collect();
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| pull(folder.path(), &proxy.host, &name).unwrap());
        }
    });
    assert!(children.iter_mut().all(|child| child.wait().unwrap().success()));
    assert!(
        proxy.traffic.received.load(Ordering::SeqCst) < BIG * 3 / 2,
        "the layer came more than once"
    );
}

#[test]
fn pull_of_changed_tag_drops_what_it_meant() {
    let (registry, layout, folder) = (
        Registry::start(false),
        Layout::new(),
        tempfile::tempdir().unwrap(),
    );
    big(&layout, "tag");
    let name = registry.push(&layout, "tag", &[]);
    let old = pull(folder.path(), &registry.host, &name).unwrap();
    let in_use = old.open_index().unwrap();
    layout.create("other");
    layout.add_layer("other", POSIX, "echo new > new");
    let new = registry.push(&layout, "other", &[]);
    let source = ["copy", "-q", "--src-tls-verify=false", "--dest-tls-verify=false"];
    run(
        "skopeo",
        &[
            &source[..],
            &[&format!("docker://{new}"), &format!("docker://{name}")],
        ]
        .concat(),
    );
    let new = pull(folder.path(), &registry.host, &name).unwrap();
    assert_ne!(old.id(), new.id());
    let store = Store::open(&folder.path().join("store")).unwrap();
    let layers = || {
        fs::read_dir(folder.path().join("store/layers-1"))
            .unwrap()
            .count()
    };
    assert_eq!((store.images().unwrap().len(), layers()), (1, 2));
    drop(in_use);
    assert_eq!(store.collect_garbage().unwrap().layers, 1);
    assert_eq!(layers(), 1);
}

/// Runs `child_pulls` of this very program as a process of its own.
fn child_pull(folder: &Path, host: &str, name: &str, path: &str) -> Child {
    let mut child = Command::new(std::env::current_exe().unwrap());
    child
        .args(["--exact", "child_pulls", "--ignored", "--nocapture"])
        .stdout(Stdio::null());
    child
        .env("OCI_TEST_FOLDER", folder)
        .env("OCI_TEST_HOST", host)
        .env("OCI_TEST_NAME", name)
        .env("PATH", path);
    child.spawn().unwrap()
}

#[test]
#[ignore = "the other process of tests above"]
fn child_pulls() {
    let set = |name: &str| std::env::var(name).unwrap();
    pull(
        Path::new(&set("OCI_TEST_FOLDER")),
        &set("OCI_TEST_HOST"),
        &set("OCI_TEST_NAME"),
    )
    .unwrap();
}
