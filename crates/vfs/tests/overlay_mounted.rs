//! The overlay with the Linux kernel of this machine as its client (see `support` for what that needs).

mod shell;
mod support;

use std::fs::File;
use std::io::{Read, Seek, Write};
use std::sync::Arc;

use rustix::fs::{Mode, OFlags, openat};
use shell::shell;
use support::Mounted;
use vfs::{FileKind, MemoryTreeBuilder, Overlay, OverlayOptions};

/// A small image: `/dir/{a,hard,sub/deep}`, `/link -> dir/a`, `/big` of 3 MiB.
fn image() -> Arc<vfs::MemoryTree> {
    let mut tree = MemoryTreeBuilder::new().expect("a memfd");
    let dir = tree.add(1, b"dir", FileKind::Directory, 0o755);
    let file = tree
        .add_file(dir, b"a", 0o644, b"from the image\n")
        .expect("stored");
    tree.link(dir, b"hard", file);
    let sub = tree.add(dir, b"sub", FileKind::Directory, 0o755);
    tree.add_file(sub, b"deep", 0o600, b"deep\n").expect("stored");
    tree.add_symlink(1, b"link", b"dir/a");
    let big: Vec<u8> = (0..3_u32 << 18).flat_map(u32::to_le_bytes).collect();
    tree.add_file(1, b"big", 0o644, &big).expect("stored");
    Arc::new(tree.build())
}

fn mounted() -> Mounted {
    let overlay = Overlay::new(image(), &OverlayOptions::default()).expect("an overlay");
    Mounted::new(Arc::new(overlay))
}

#[test]
fn image_read_through_links_shows_its_contents() {
    let mounted = mounted();

    let seen = shell(
        mounted.path(),
        "cat $T/link; stat -c '%h %s %a' $T/dir $T/dir/a $T/dir/hard; ls $T",
    );

    assert_eq!(
        seen,
        "from the image\n3 4096 755\n2 15 644\n2 15 644\nbig\ndir\nlink\n"
    );
}

#[test]
fn copy_up_of_hard_link_changes_both_names() {
    let mounted = mounted();

    let seen = shell(
        mounted.path(),
        "I=$(stat -c %i $T/dir/a); echo more >>$T/dir/hard; cat $T/dir/a; rm $T/dir/hard;
         stat -c %h $T/dir/a; test $I = $(stat -c %i $T/dir/a)",
    );

    assert_eq!(seen, "from the image\nmore\n1\n");
}

#[test]
fn one_byte_in_a_big_file_copies_one_block() {
    let mounted = mounted();

    let used = shell(
        mounted.path(),
        "U=$(stat -f -c %f $T); printf X | dd of=$T/big bs=1 seek=1000000 conv=notrunc status=none; sync -f $T/big
         echo $((U - $(stat -f -c %f $T))); tail -c 4 $T/big | od -An -tx1; dd if=$T/big bs=1 skip=999999 count=3 status=none | od -An -tx1",
    );

    assert_eq!(used, "2\n ff ff 0b 00\n 00 58 d0\n");
}

#[test]
fn renamed_image_directory_keeps_its_entries() {
    let mounted = mounted();

    let seen = shell(
        mounted.path(),
        "mkdir $T/new; mv $T/dir $T/new/moved; cat $T/new/moved/sub/deep; stat -c %h $T $T/new; find $T | wc -l
         ! mv $T/new $T/new/moved/sub 2>/dev/null; rm -r $T/new/moved/sub; stat -c %h $T/new/moved; ls $T/new/moved",
    );

    assert_eq!(seen, "deep\n3\n3\n9\n2\na\nhard\n");
}

#[test]
fn real_programs_copy_pack_and_remove_a_tree() {
    let mounted = mounted();

    shell(
        mounted.path(),
        "cp -a /usr/include $T/copy; diff -r --no-dereference /usr/include $T/copy
         tar -C $T -cf $T/packed.tar copy; mkdir $T/out; tar -C $T/out -xpf $T/packed.tar
         diff -r --no-dereference $T/copy $T/out/copy
         (cd $T/copy && find . -printf '%p %y %m %n %s %T@ %l\\n' | sed '/ d /s/ [0-9]* [0-9.]* $//' | sort) >/tmp/vfs-a.$$
         (cd /usr/include && find . -printf '%p %y %m %n %s %T@ %l\\n' | sed '/ d /s/ [0-9]* [0-9.]* $//' | sort) >/tmp/vfs-b.$$
         diff /tmp/vfs-a.$$ /tmp/vfs-b.$$; rm /tmp/vfs-a.$$ /tmp/vfs-b.$$
         rm -rf $T/copy $T/out $T/packed.tar; test $(ls $T | wc -l) = 3",
    );
}

#[test]
fn space_of_removed_files_comes_back() {
    let mounted = mounted();

    let seen = shell(
        mounted.path(),
        "F=$(stat -f -c '%f %d' $T); for i in 1 2 3; do head -c 5000000 /dev/urandom >$T/f$i; done; mkdir $T/d
         rm -r $T/f1 $T/f2 $T/f3 $T/d; sync -f $T; echo 2 >/proc/sys/vm/drop_caches; sleep 0.2
         set -- $F; set -- $(($1 - $(stat -f -c %f $T))) $(($2 - $(stat -f -c %d $T))); test $1 -le 1; echo $2",
    );

    // The root directory itself is changed now.
    assert_eq!(seen, "1\n");
}

#[test]
fn ownership_and_modes_follow_linux() {
    let mounted = mounted();

    let seen = shell(
        mounted.path(),
        "umask 022; mkdir $T/g; chgrp 42 $T/g; chmod 2775 $T/g; mkdir $T/g/d; : >$T/g/f
         stat -c '%a %g' $T/g/d $T/g/f
         : >$T/s; chmod 6755 $T/s; chown 7:8 $T/s; stat -c '%a %u %g' $T/s
         chmod 6755 $T/s; chmod 4777 $T/s; setpriv --reuid 5 --clear-groups sh -c \"echo x >>$T/s\"; stat -c %a $T/s
         mkfifo $T/p; mknod $T/c c 1 3; stat -c '%F %t %T' $T/p $T/c; head -c 2 $T/c | wc -c",
    );

    assert_eq!(
        seen,
        "2755 42\n644 42\n755 7 8\n777\nfifo 0 0\ncharacter special file 1 3\n0\n"
    );
}

#[test]
fn databases_and_shared_mappings_work() {
    let mounted = mounted();

    shell(
        mounted.path(),
        r#"cd $T; python3 - <<'END'
import mmap, os, sqlite3, subprocess
db = sqlite3.connect('db'); db.execute('pragma journal_mode=wal'); db.execute('create table t(a integer primary key, b blob)')
for i in range(300):
    db.execute('insert into t values(?, ?)', (i, os.urandom(3000)))
    if i % 50 == 0: db.commit()
db.execute('delete from t where a % 3 = 0'); db.commit(); db.execute('vacuum')
assert db.execute('pragma integrity_check').fetchone() == ('ok',); db.close()
with open('big', 'r+b') as f:
    m = mmap.mmap(f.fileno(), 0); m[5000:5006] = b'mapped'; m.flush(); m.close()
    f.seek(4998); assert f.read(10)[2:8] == b'mapped'
fd = os.open('.', os.O_TMPFILE | os.O_RDWR, 0o600); os.write(fd, b'nameless')
subprocess.check_call(['ln', '-L', f'/proc/{os.getpid()}/fd/{fd}', 'named']); assert open('named').read() == 'nameless'
os.close(fd); assert os.stat('named').st_nlink == 1
os.makedirs('x/y/z'); os.rename('x', 'x2'); os.removedirs('x2/y/z')
d = os.open('dir', os.O_RDONLY); before = set(os.listdir(d)); open('dir/late', 'w').close(); assert set(os.listdir(d)) - before == {'late'}
END
        rm $T/db $T/named"#,
    );
}

#[test]
fn large_directory_is_made_listed_and_removed() {
    let mounted = mounted();

    let seen = shell(
        mounted.path(),
        "mkdir $T/many; cd $T/many; seq 20000 | xargs touch; ls -U | wc -l; find . -type f -newer $T/dir/a | wc -l
         rm -r $T/many; ls $T | wc -l",
    );

    assert_eq!(seen, "20000\n20000\n3\n");
}

#[test]
fn compiler_builds_and_runs_a_program() {
    let mounted = mounted();

    let seen = shell(
        mounted.path(),
        "cd $T; printf '#include <stdio.h>\nint main(){puts(\"built\");return 0;}' >p.c; cc -O -o p p.c; ./p; cp p q; strip q; ./q",
    );

    assert_eq!(seen, "built\nbuilt\n");
}

/// A program that has a removed file and directories open notices nothing.
#[test]
fn overlay_that_moves_to_another_server_under_open_files_goes_on() {
    let mounted = mounted();
    shell(
        mounted.path(),
        "mkdir -p $T/new/deep; cd $T/new/deep; i=0; while [ $i -lt 3000 ]; do : >file-$i; i=$((i+1)); done
         mv $T/dir/sub $T/new; rm $T/dir/hard; ln $T/dir/a $T/new/again; truncate -s 1T $T/sparse
         echo end >>$T/sparse; printf x | dd of=$T/big bs=1 seek=5000 conv=notrunc 2>/dev/null; mkfifo $T/new/fifo",
    );
    let path = |name: &str| mounted.path().join(name);
    let mut removed = File::options()
        .read(true)
        .write(true)
        .create_new(true)
        .open(path("removed"))
        .expect("made");
    removed.write_all(b"before ").expect("written");
    removed.sync_all().expect("synced");
    std::fs::remove_file(path("removed")).expect("removed");
    let mut listing = std::fs::read_dir(path("new/deep")).expect("a directory");
    let begun = listing.by_ref().take(1000).count();
    let inside = File::open(path("new/sub")).expect("a directory");
    let before = shell(mounted.path(), "cd $T; ls -lRi . | sort; cksum big");

    let overlay = Arc::new(Overlay::new(image(), &OverlayOptions::default()).expect("an overlay"));
    let saved = mounted.move_to(overlay.clone());

    // The removed file, the end of the sparse one and a block of the large one.
    assert_eq!(saved, 3 * 4096);
    removed.write_all(b"after").expect("written");
    let mut contents = String::new();
    removed.rewind().expect("rewound");
    removed.read_to_string(&mut contents).expect("read");
    assert_eq!(contents, "before after");
    assert_eq!(begun + listing.count(), 3000);
    let deep = openat(&inside, "deep", OFlags::RDONLY, Mode::empty()).expect("opened");
    assert_eq!(std::io::read_to_string(File::from(deep)).expect("read"), "deep\n");
    assert_eq!(
        shell(mounted.path(), "cd $T; ls -lRi . | sort; cksum big"),
        before
    );
    // The same to a kernel that has seen nothing before.
    let fresh = Mounted::new(overlay);
    assert_eq!(shell(fresh.path(), "cd $T; ls -lRi . | sort; cksum big"), before);
    shell(
        mounted.path(),
        "test \"$(tail -c 4 $T/sparse)\" = end; test ! -e $T/dir/hard; cmp $T/dir/a $T/new/again; rm -r $T/new $T/dir",
    );
}
