//! The host share with the Linux kernel of this machine as its client (see `support` for what that needs).

mod shell;
mod support;

use std::fs::File;
use std::io::{Read, Write};
use std::sync::Arc;

use shell::shell;
use support::Mounted;
use vfs::{HostShare, HostShareOptions};

/// A directory `shared` with a secret beside it, shared and mounted.
fn shared(read_only: bool) -> (tempfile::TempDir, Mounted) {
    let host = tempfile::tempdir().expect("a temporary directory");
    shell(
        host.path(),
        "mkdir -m 755 $T/shared $T/shared/sub; echo secret >$T/secret; echo hello >$T/shared/file",
    );
    let share = HostShare::new(&host.path().join("shared"), HostShareOptions { read_only }).expect("a share");
    (host, Mounted::new(Arc::new(share)))
}

#[test]
fn writes_of_the_guest_are_on_the_host_at_once() {
    let (host, mounted) = shared(false);

    shell(
        mounted.path(),
        "cat $T/file; printf abc >$T/new; printf def >>$T/new; mkdir $T/d; mv $T/new $T/d/moved",
    );

    let seen = shell(
        host.path(),
        "cat $T/shared/d/moved; stat -c ' %a %u' $T/shared/d/moved",
    );
    assert_eq!(seen, "abcdef 644 0\n");
}

#[test]
fn changes_of_the_host_are_seen_by_the_guest() {
    let (host, mounted) = shared(false);
    shell(mounted.path(), "cat $T/file; ls $T/sub");

    shell(host.path(), "echo changed >$T/shared/file; : >$T/shared/sub/new");

    assert_eq!(
        shell(mounted.path(), "sleep 1.1; cat $T/file; ls $T/sub"),
        "changed\nnew\n"
    );
}

#[test]
fn read_only_share_refuses_every_change() {
    let (host, mounted) = shared(true);

    shell(
        mounted.path(),
        "cat $T/file; for c in 'echo x >$T/file' 'echo x >$T/new' 'mkdir $T/d' 'rm $T/file' 'mv $T/file $T/b' 'ln $T/file $T/l' \
         'chmod 600 $T/file' 'chown 5 $T/file' 'touch $T/file' 'truncate -s 0 $T/file' 'ln -s a $T/s' 'mkfifo $T/p' 'rmdir $T/sub'
         do if (eval \"$c\") 2>$T/../vfs-error; then echo \"allowed: $c\"; exit 1; fi; done 2>/dev/null",
    );

    assert_eq!(
        shell(host.path(), "ls $T/shared; cat $T/shared/file"),
        "file\nsub\nhello\n"
    );
}

#[test]
fn symbolic_links_out_of_the_share_are_shown_but_lead_nowhere_else() {
    let (host, mounted) = shared(false);
    shell(
        host.path(),
        "ln -s $T/secret $T/shared/absolute; ln -s ../secret $T/shared/relative; ln -s .. $T/shared/up",
    );

    // The links are followed by the client's kernel, on its own side of the mount.
    let seen = shell(
        mounted.path(),
        "readlink $T/relative; ! cat $T/relative 2>/dev/null; ! cat $T/up/secret 2>/dev/null; ls $T/..  >/dev/null; echo done",
    );

    assert_eq!(seen, "../secret\ndone\n");
}

#[test]
fn devices_are_not_made_and_foreign_attributes_not_stored() {
    let (_host, mounted) = shared(false);

    shell(
        mounted.path(),
        "! mknod $T/c c 1 3 2>/dev/null; mkfifo $T/p; test -p $T/p
         python3 -c \"
import os
f='$T/file'
os.setxattr(f, b'user.a', b'value'); assert os.getxattr(f, b'user.a') == b'value'; assert os.listxattr(f) == ['user.a']
for n in (b'trusted.a', b'security.capability'):
    try: os.setxattr(f, n, b'x'*20); raise SystemExit(1)
    except OSError as e: assert e.errno in (95, 22), e
os.removexattr(f, b'user.a')\"",
    );
}

#[test]
fn open_file_outlives_its_name_and_a_full_cache_of_descriptors() {
    let (host, mounted) = shared(false);
    shell(
        host.path(),
        "mkdir $T/shared/many; i=0; while [ $i -lt 5000 ]; do : >$T/shared/many/$i; i=$((i+1)); done",
    );

    let seen = shell(
        mounted.path(),
        "ulimit -n 512; exec 3<>$T/file; rm $T/file; ls -l $T/many | wc -l; cat <&3; echo more >&3; ls -l $T/many >/dev/null; stat -L -c '%h %s' /proc/self/fd/3",
    );

    assert_eq!(seen, "5001\nhello\n0 11\n");
}

#[test]
fn real_programs_copy_and_remove_a_tree() {
    let (_host, mounted) = shared(false);

    shell(
        mounted.path(),
        "cp -a /usr/include/linux $T/copy; diff -r --no-dereference /usr/include/linux $T/copy
         tar -C $T -cf $T/p.tar copy; mkdir $T/out; tar -C $T/out -xpf $T/p.tar; diff -r --no-dereference $T/copy $T/out/copy
         rm -rf $T/copy $T/out $T/p.tar; test $(ls $T | wc -l) = 2",
    );
}

#[test]
fn share_that_moves_to_another_server_under_open_files_goes_on() {
    let (host, mounted) = shared(false);
    shell(
        host.path(),
        "cd $T/shared/sub; i=0; while [ $i -lt 3000 ]; do : >file-$i; i=$((i+1)); done; echo gone >$T/shared/gone",
    );
    let mut file = File::options()
        .read(true)
        .append(true)
        .open(mounted.path().join("file"))
        .expect("opened");
    let mut gone = File::open(mounted.path().join("gone")).expect("opened");
    std::fs::remove_file(mounted.path().join("gone")).expect("removed");
    let mut listing = std::fs::read_dir(mounted.path().join("sub")).expect("a directory");
    let begun = listing.by_ref().take(1000).count();

    let share = HostShare::new(&host.path().join("shared"), HostShareOptions::default()).expect("a share");
    let saved = mounted.move_to(Arc::new(share));

    assert_eq!(saved, 0, "contents are the host's");
    file.write_all(b"more\n").expect("written");
    assert_eq!(shell(host.path(), "cat $T/shared/file"), "hello\nmore\n");
    assert_eq!(begun + listing.count(), 3000);
    let mut bytes = Vec::new();
    let error = gone.read_to_end(&mut bytes).expect_err("it has no name");
    assert_eq!(
        error.raw_os_error(),
        Some(rustix::io::Errno::STALE.raw_os_error())
    );
    drop((file, gone));
    shell(mounted.path(), "cat $T/file; rm -r $T/sub; ls $T");
}
