//! What every image has besides its packages: Debian's maintainer scripts would make these.

/// Folders of the root and their modes.
pub(crate) const FOLDERS: [(&str, u32); 24] = [
    ("dev", 0o755),
    ("etc", 0o755),
    ("home", 0o755),
    ("mnt", 0o755),
    ("opt", 0o755),
    ("proc", 0o755),
    ("root", 0o700),
    ("run", 0o755),
    ("run/lock", 0o1777),
    ("srv", 0o755),
    ("sys", 0o755),
    ("tmp", 0o1777),
    ("usr", 0o755),
    ("usr/bin", 0o755),
    ("usr/lib", 0o755),
    ("usr/local", 0o755),
    ("usr/local/bin", 0o755),
    ("usr/sbin", 0o755),
    ("usr/share", 0o755),
    ("var", 0o755),
    ("var/cache", 0o755),
    ("var/lib", 0o755),
    ("var/log", 0o755),
    ("var/tmp", 0o1777),
];

/// Links of the root: merged /usr, and what moved to /run.
pub(crate) const LINKS: [(&str, &str); 5] = [
    ("bin", "usr/bin"),
    ("lib", "usr/lib"),
    ("sbin", "usr/sbin"),
    ("var/lock", "/run/lock"),
    ("var/run", "/run"),
];

/// Users of Debian's package base-passwd: name, user id, group id, home. Only root has a shell.
const USERS: [(&str, u32, u32, &str); 18] = [
    ("root", 0, 0, "/root"),
    ("daemon", 1, 1, "/usr/sbin"),
    ("bin", 2, 2, "/bin"),
    ("sys", 3, 3, "/dev"),
    ("sync", 4, 65534, "/bin"),
    ("games", 5, 60, "/usr/games"),
    ("man", 6, 12, "/var/cache/man"),
    ("lp", 7, 7, "/var/spool/lpd"),
    ("mail", 8, 8, "/var/mail"),
    ("news", 9, 9, "/var/spool/news"),
    ("uucp", 10, 10, "/var/spool/uucp"),
    ("proxy", 13, 13, "/bin"),
    ("www-data", 33, 33, "/var/www"),
    ("backup", 34, 34, "/var/backups"),
    ("list", 38, 38, "/var/list"),
    ("irc", 39, 39, "/run/ircd"),
    ("_apt", 42, 65534, "/nonexistent"),
    ("nobody", 65534, 65534, "/nonexistent"),
];

/// Groups of base-passwd.
const GROUPS: [(&str, u32); 38] = [
    ("root", 0),
    ("daemon", 1),
    ("bin", 2),
    ("sys", 3),
    ("adm", 4),
    ("tty", 5),
    ("disk", 6),
    ("lp", 7),
    ("mail", 8),
    ("news", 9),
    ("uucp", 10),
    ("man", 12),
    ("proxy", 13),
    ("kmem", 15),
    ("dialout", 20),
    ("fax", 21),
    ("voice", 22),
    ("cdrom", 24),
    ("floppy", 25),
    ("tape", 26),
    ("sudo", 27),
    ("audio", 29),
    ("dip", 30),
    ("www-data", 33),
    ("backup", 34),
    ("operator", 37),
    ("list", 38),
    ("irc", 39),
    ("src", 40),
    ("shadow", 42),
    ("utmp", 43),
    ("video", 44),
    ("sasl", 45),
    ("plugdev", 46),
    ("staff", 50),
    ("games", 60),
    ("users", 100),
    ("nogroup", 65534),
];

/// Files that are written where no package brings them.
pub(crate) fn files(shell: Option<&str>) -> Vec<(&'static str, String)> {
    let passwd = USERS.iter().map(|(name, uid, gid, home)| {
        let shell = if *uid == 0 {
            shell.unwrap_or("/bin/sh")
        } else {
            "/usr/sbin/nologin"
        };
        format!("{name}:x:{uid}:{gid}:{name}:{home}:{shell}\n")
    });
    let group = GROUPS.iter().map(|(name, gid)| format!("{name}:x:{gid}:\n"));
    let nsswitch = "passwd: files\ngroup: files\nshadow: files\n\
                    hosts: files dns\nnetworks: files\nprotocols: files\nservices: files\n";
    let os_release = "PRETTY_NAME=\"Debian GNU/Linux\"\nNAME=\"Debian GNU/Linux\"\nID=debian\n";
    vec![
        ("etc/passwd", passwd.collect()),
        ("etc/group", group.collect()),
        ("etc/nsswitch.conf", nsswitch.to_owned()),
        ("etc/hosts", String::new()),
        ("etc/os-release", os_release.to_owned()),
    ]
}
