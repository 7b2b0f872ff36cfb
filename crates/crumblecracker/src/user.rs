//! Whom a command runs as: names and numbers resolved by the image's own passwd and group.

use crate::{Error, Result};

/// A user as a process has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Credentials {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) groups: Vec<u32>,
    pub(crate) home: String,
}

/// The image's account files; hostile bytes, read line by line, what does not parse does not count.
#[derive(Default)]
pub(crate) struct Accounts {
    pub(crate) passwd: Vec<u8>,
    pub(crate) group: Vec<u8>,
}

struct PasswdEntry<'a> {
    name: &'a str,
    uid: u32,
    gid: u32,
    home: &'a str,
}

struct GroupEntry<'a> {
    name: &'a str,
    gid: u32,
    members: &'a str,
}

fn lines(file: &[u8]) -> impl Iterator<Item = &str> {
    file.split(|byte| *byte == b'\n')
        .filter_map(|line| std::str::from_utf8(line).ok())
}

impl Accounts {
    fn users(&self) -> impl Iterator<Item = PasswdEntry<'_>> {
        lines(&self.passwd).filter_map(|line| {
            let mut fields = line.split(':');
            let (name, _password) = (fields.next()?, fields.next()?);
            let (uid, gid) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
            let home = fields.nth(1).unwrap_or("/");
            Some(PasswdEntry { name, uid, gid, home })
        })
    }

    fn groups(&self) -> impl Iterator<Item = GroupEntry<'_>> {
        lines(&self.group).filter_map(|line| {
            let mut fields = line.split(':');
            let (name, _password) = (fields.next()?, fields.next()?);
            Some(GroupEntry {
                name,
                gid: fields.next()?.parse().ok()?,
                members: fields.next().unwrap_or(""),
            })
        })
    }

    /// Resolves `user[:group]`, names or numbers, as Docker does: empty is root; a number need not be in
    /// passwd; without a group the user's own and all that list it count; with one, that alone.
    pub(crate) fn resolve(&self, spec: &str) -> Result<Credentials> {
        let unknown = || Error::NoUser(spec.to_owned());
        let (user, group) = match spec.split_once(':') {
            Some((user, group)) => (user, Some(group)),
            None => (spec, None),
        };
        let user = if user.is_empty() { "0" } else { user };
        let number = user.parse::<u32>().ok();
        let entry = self
            .users()
            .find(|entry| entry.name == user || Some(entry.uid) == number);
        let (uid, own_gid, home) = match (&entry, number) {
            (Some(entry), _) => (entry.uid, entry.gid, entry.home),
            (None, Some(uid)) => (uid, 0, "/"),
            (None, None) => return Err(unknown()),
        };
        let home = if home.is_empty() { "/" } else { home }.to_owned();
        if let Some(group) = group.filter(|group| !group.is_empty()) {
            let by_name = self
                .groups()
                .find(|entry| entry.name == group)
                .map(|entry| entry.gid);
            let gid = by_name.or_else(|| group.parse().ok()).ok_or_else(unknown)?;
            return Ok(Credentials {
                uid,
                gid,
                groups: vec![gid],
                home,
            });
        }
        let name = entry.map_or("", |entry| entry.name);
        let lists_it =
            |entry: &GroupEntry<'_>| !name.is_empty() && entry.members.split(',').any(|m| m == name);
        let mut groups = vec![own_gid];
        groups.extend(
            self.groups()
                .filter(lists_it)
                .map(|entry| entry.gid)
                .filter(|gid| *gid != own_gid),
        );
        groups.truncate(guest_protocol::wire::MAX_GROUPS as usize);
        Ok(Credentials {
            uid,
            gid: own_gid,
            groups,
            home,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn accounts() -> Accounts {
        Accounts {
            passwd: b"root:x:0:0:root:/root:/bin/sh\nbroken\napp:x:1000:1001:,,,:/srv/app:/bin/sh\n\xff:x:1:1::/:\n"
                .to_vec(),
            group: b"root:x:0:\napp:x:1001:\naudio:x:29:other,app\nempty:x:70:\n".to_vec(),
        }
    }

    fn resolved(spec: &str) -> (u32, u32, Vec<u32>, String) {
        let found = accounts().resolve(spec).unwrap();
        (found.uid, found.gid, found.groups, found.home)
    }

    #[test]
    fn resolve_empty_is_root() {
        assert_eq!(resolved(""), (0, 0, vec![0], "/root".to_owned()));
    }

    #[test]
    fn resolve_name_brings_its_groups() {
        assert_eq!(
            resolved("app"),
            (1000, 1001, vec![1001, 29], "/srv/app".to_owned())
        );
        assert_eq!(resolved("1000"), resolved("app"));
    }

    #[test]
    fn resolve_explicit_group_counts_alone() {
        assert_eq!(resolved("app:empty"), (1000, 70, vec![70], "/srv/app".to_owned()));
        assert_eq!(resolved("7:8"), (7, 8, vec![8], "/".to_owned()));
        assert_eq!(resolved(":audio"), (0, 29, vec![29], "/root".to_owned()));
    }

    #[test]
    fn resolve_unknown_names_are_errors() {
        assert!(accounts().resolve("nobody").is_err());
        assert!(accounts().resolve("app:nobody").is_err());
    }
}
