//! `pull` of what should not be pulled: one line, exit status 125, nothing half-written.

mod support;

use std::fs;
use std::io::{self, BufRead, BufReader, Write};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Command;

use support::layout::{Layout, end, entry, is_empty};
use support::{Program, refusal, said};
use tar::EntryType as T;

/// Bytes of address space that a pull may take, in KiB: ulimit's unit.
const MEMORY_KIB: u32 = 2 << 20;

fn pull(image: &str) -> [&str; 3] {
    ["pull", "--no-kernel", image]
}

/// Nothing of an image is in a store.
fn assert_nothing_left(store: &Path) {
    for name in ["names", "images", "staging", "layers-1", "partial"] {
        assert!(is_empty(&store.join(name)), "{name} is not empty");
    }
}

/// Pulls in so much address space that a bomb would be felt.
fn pull_in_bounds(program: &Program, image: &str) -> Command {
    let script = format!("ulimit -v {MEMORY_KIB} && exec \"$@\"");
    program.command_under(&["sh", "-c", &script, "sh"], &pull(image))
}

/// An image of one layer with these entries, which have no content.
fn image_of(entries: &[(T, &str, &str)]) -> Layout {
    let write = |tar: &mut dyn Write| {
        for (kind, name, link) in entries {
            entry(tar, *kind, name, link, 0)?;
        }
        end(tar, 0)
    };
    Layout::new().layer(write).finish()
}

/// The address of a server that gives everybody the same answer, as long as the test lives.
fn server(answer: &'static str) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    std::thread::spawn(move || {
        for mut client in listener.incoming().flatten() {
            let head = BufReader::new(client.try_clone().unwrap()).lines();
            let _ = head
                .map_while(Result::ok)
                .take_while(|line| !line.is_empty())
                .count();
            // Whoever asked may be gone.
            let _ = client.write_all(answer.as_bytes());
        }
    });
    address
}

#[test]
fn pull_of_a_malicious_layer_names_the_entry() {
    let long = "d/".repeat(40);
    for (entries, part) in [
        (&[(T::Regular, "../outside", "")][..], "../outside"),
        (&[(T::Regular, "/../outside", "")], "leaves the root"),
        (&[(T::Link, "x", "../../etc/shadow")], "hard link out of the root"),
        (&[(T::Link, "x", "/etc/shadow")], "not there"),
        (
            &[(T::Symlink, "out", "../../.."), (T::Link, "x", "out/etc/shadow")],
            "not there",
        ),
        (&[(T::Symlink, "l", "l"), (T::Regular, "l/x", "")], "l/x"),
        (
            &[(T::Regular, "f", ""), (T::Regular, "f/x", "")],
            "through a file",
        ),
        (
            &[(T::Directory, &long, ""), (T::Regular, ".wh..", "")],
            "whiteout",
        ),
        (&[(T::Regular, "a\x1b[2J\nb/../..", "")], r"a\u{1b}[2J\nb"),
    ] {
        let (program, image) = (Program::new(), image_of(entries));

        let reason = program.refusal(&pull(&image.archive()));

        assert!(reason.contains(part), "{reason}");
        assert!(!reason.contains(char::is_control), "{reason:?}");
        assert_nothing_left(&program.store());
    }
}

#[test]
fn pull_of_a_damaged_or_truncated_layer_names_the_layer() {
    let (program, image) = (Program::new(), Layout::new().random_layer("f", 100_000).finish());
    let (digest, file) = image.layer_file(0);
    let sound = fs::read(&file).unwrap();
    let mut damaged = sound.clone();
    damaged[50_000] ^= 1;
    for (bytes, part) in [
        (&damaged[..], "damaged or forged"),
        (&sound[..50_000], "truncated"),
    ] {
        fs::write(&file, bytes).unwrap();

        let reason = program.refusal(&pull(&image.source()));

        assert!(reason.contains(&digest) && reason.contains(part), "{reason}");
        assert_nothing_left(&program.store());
    }

    fs::write(&file, sound).unwrap();
    assert_eq!(program.say(&pull(&image.source())).status, 0);
}

#[test]
fn pull_of_an_archive_cut_anywhere_is_refused() {
    let (program, image) = (Program::new(), Layout::new().random_layer("f", 100_000).finish());
    let source = image.archive();
    let file = PathBuf::from(source.strip_prefix("oci-archive:").unwrap());
    let whole = fs::read(&file).unwrap();
    for cut in [0, 100, 512, 5000, whole.len() / 2] {
        fs::write(&file, &whole[..cut]).unwrap();

        let reason = program.refusal(&pull(&source));

        assert!(reason.contains(file.to_str().unwrap()), "{cut}: {reason}");
        assert_nothing_left(&program.store());
    }
}

#[test]
fn pull_of_a_million_entries_works_in_bounded_memory() {
    let (program, image) = (
        Program::new(),
        Layout::new()
            .layer(|tar| {
                for number in 0..1_000_000 {
                    let name = format!("folder-{}/entry-{number}", number % 1000);
                    entry(tar, T::Regular, &name, "", 0)?;
                }
                end(tar, 0)
            })
            .finish(),
    );

    let said = said(&mut pull_in_bounds(&program, &image.archive()));

    assert_eq!((said.status, said.stderr.as_str()), (0, ""));
    assert_eq!(program.say(&["images"]).stdout.lines().count(), 2);
}

/// Writes an entry that is nothing but attributes, 900 kB of them.
fn attributes(tar: &mut dyn Write) -> io::Result<()> {
    let record = |name: &str| {
        let body = format!(" SCHILY.xattr.user.{name}={}\n", "v".repeat(60_000));
        // The length counts itself (POSIX.1-2017 pax, "pax Header Block").
        format!("{}{body}", body.len() + 5)
    };
    let records: String = ('a'..='o').map(|name| record(&name.to_string())).collect();
    let length = records.len() as u64;
    entry(tar, T::XHeader, "attributes", "", length)?;
    tar.write_all(records.as_bytes())?;
    tar.write_all(&vec![0; (length.next_multiple_of(512) - length) as usize])?;
    entry(tar, T::Regular, "f", "", 0)
}

#[test]
fn pull_of_a_bomb_is_refused_in_bounded_memory() {
    let bytes = Layout::new().layer(|tar| {
        let length = 1200 << 20;
        entry(tar, T::Regular, "zeros", "", length)?;
        io::copy(&mut io::Read::take(io::repeat(0), length), tar)?;
        end(tar, length)
    });
    let names = Layout::new().layer(|tar| {
        (0..700).try_for_each(|_| attributes(tar))?;
        end(tar, 0)
    });
    for (image, part) in [(bytes, "as bombs do"), (names, "names and attributes")] {
        let (program, image) = (Program::new(), image.finish());
        let (digest, file) = image.layer_file(0);
        assert!(fs::metadata(file).unwrap().len() < 4 << 20);

        let reason = refusal(&mut pull_in_bounds(&program, &image.archive()));

        assert!(reason.contains(&digest) && reason.contains(part), "{reason}");
        assert_nothing_left(&program.store());
    }
}

/// A file system that fills up soon; it is unmounted with the value.
struct SmallDisk {
    folder: tempfile::TempDir,
}

impl SmallDisk {
    fn new(size: &str) -> Self {
        let disk = Self {
            folder: tempfile::tempdir().unwrap(),
        };
        disk.mount(&format!("size={size}"));
        disk
    }

    fn grow(&self, size: &str) {
        self.mount(&format!("remount,size={size}"));
    }

    fn mount(&self, options: &str) {
        let mut mount = Command::new("mount");
        mount
            .args(["-t", "tmpfs", "-o", options, "none"])
            .arg(self.path());
        assert!(mount.status().unwrap().success(), "root can mount");
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // What stays mounted goes with the machine.
        let _ = Command::new("umount").arg(self.path()).status();
    }
}

#[test]
fn pull_to_a_full_disk_says_so_and_works_once_there_is_room() {
    let image = Layout::new()
        .random_layer("small", 3 << 20)
        .random_layer("large", 24 << 20)
        .finish();
    for source in [image.source(), image.archive()] {
        let (program, disk) = (Program::new(), SmallDisk::new("16m"));
        let cache = disk.path().to_str().unwrap();
        let words = ["pull", "--no-kernel", "--cache-dir", cache, &source];

        let reason = program.refusal(&words);

        assert!(
            reason.contains("the disk is full") && reason.contains("free some space"),
            "{reason}"
        );
        assert!(reason.contains(cache), "{reason}");
        assert_nothing_left(&disk.path().join("images"));

        disk.grow("64m");
        assert_eq!(program.say(&words).status, 0);
        let listed = program.say(&["images", "--quiet", "--cache-dir", cache]).stdout;
        assert_eq!(listed.trim_end(), source);
    }
}

#[test]
fn pull_into_a_folder_that_cannot_be_made_names_it() {
    let (program, image) = (Program::new(), image_of(&[(T::Regular, "f", "")]));

    let reason = program.refusal(&["pull", "--no-kernel", "--cache-dir", "/proc/x", &image.source()]);

    assert!(reason.contains("/proc/x"), "{reason}");
}

#[test]
fn pull_from_a_registry_nobody_answers_for_names_it() {
    let program = Program::new();
    for name in ["127.0.0.1:1/x", "registry.invalid/x"] {
        let reason = program.refusal(&pull(name));

        assert!(reason.contains(&name[..name.len() - 2]), "{reason}");
        assert_nothing_left(&program.store());
    }
}

#[test]
fn pull_that_a_registry_refuses_names_the_way_out() {
    for (answer, part) in [
        (
            "HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: Basic realm=\"x\"\r\nContent-Length: 0\r\n\r\n",
            "log in",
        ),
        ("HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n", "log in"),
        (
            "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n",
            "check the repository and the tag",
        ),
        (
            "HTTP/1.1 500 Oops\r\nContent-Length: 8\r\n\r\na\x1b[2J\nb\n",
            "HTTP status 500",
        ),
        ("SSH-2.0-OpenSSH\r\n", "cannot reach registry"),
    ] {
        let (program, address) = (Program::new(), server(answer));
        let name = format!("{address}/some/thing:tag");

        let reason = program.refusal(&["pull", "--no-kernel", "--insecure-registry", &address, &name]);

        assert!(reason.contains(&address) && reason.contains(part), "{reason}");
        assert!(!reason.contains(char::is_control), "{reason:?}");
        assert_nothing_left(&program.store());
    }
}

#[test]
fn pull_from_a_mirror_that_is_none_names_it() {
    let unsigned = server("HTTP/1.1 200 OK\r\nContent-Length: 15\r\n\r\nOrigin: Debian\n");
    let missing = server("HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n");
    for (address, part) in [
        ("127.0.0.1:1", "cannot reach the Debian mirror"),
        (&unsigned, "the signature"),
        (&missing, "answered 404"),
    ] {
        let program = Program::new();
        let mirror = format!("http://{address}/debian");

        let reason = refusal(
            program
                .command(&pull("deb:bash"))
                .env("CC_DEBIAN_MIRROR", &mirror),
        );

        assert!(reason.contains(&mirror) && reason.contains(part), "{reason}");
        assert_nothing_left(&program.store());
    }
}
