//! Finding the machine's Debian mirror (sources.list(5)).
//!
//! Folders of apt's sources also hold other vendors' archives, some with Debian's suite names. What tells
//! the Debian archive apart here is a Debian suite with the component `main` and no key but Debian's own;
//! what proves it is the signature, which is checked when the archive is opened.

use std::path::{Path, PathBuf};

use super::apt_conf::{list, read_text};
use super::control;
use super::error::{Error, Result};

/// Where apt keeps its configuration.
pub const APT_FOLDER: &str = "/etc/apt";

/// Code names and class names of Debian's suites.
const SUITES: [&str; 15] = [
    "stable",
    "oldstable",
    "oldoldstable",
    "testing",
    "unstable",
    "experimental",
    "sid",
    "buster",
    "bullseye",
    "bookworm",
    "trixie",
    "forky",
    "duke",
    "rc-buggy",
    "proposed",
];

/// Where to look for a mirror.
#[derive(Clone, Debug)]
pub struct MirrorConfig {
    /// The address from the configuration or the environment; it goes before what apt knows.
    pub explicit: Option<String>,
    /// apt's folder, [`APT_FOLDER`] but in tests.
    pub apt_folder: PathBuf,
}

impl Default for MirrorConfig {
    fn default() -> MirrorConfig {
        MirrorConfig {
            explicit: None,
            apt_folder: APT_FOLDER.into(),
        }
    }
}

/// The Debian archive and what belongs to it, as addresses without a final slash, best first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Mirror {
    /// Archives with the suites themselves; never empty in what [`discover`] gives.
    pub main: Vec<String>,
    /// Archives with `<suite>-updates`.
    pub updates: Vec<String>,
    /// Archives with `<suite>-security`.
    pub security: Vec<String>,
    /// `Check-Valid-Until` of the entries themselves, where one says so.
    pub check_valid_until: Option<bool>,
    /// `Check-Date` of the entries themselves, where one says so.
    pub check_date: Option<bool>,
}

/// The mirror to use: the explicit one, else the Debian archive in apt's sources.
pub fn discover(config: &MirrorConfig) -> Result<Mirror> {
    if let Some(explicit) = config
        .explicit
        .as_deref()
        .map(str::trim)
        .filter(|text| !text.is_empty())
    {
        let main = base(explicit).ok_or_else(|| Error::BadMirror {
            mirror: explicit.to_owned(),
        })?;
        return Ok(Mirror {
            main: vec![main],
            ..Mirror::default()
        });
    }
    let mut entries = Vec::new();
    for file in source_files(&config.apt_folder)? {
        let Some(text) = read_text(&file)? else { continue };
        if file.extension().is_some_and(|extension| extension == "sources") {
            entries.extend(deb822_entries(&text));
        } else {
            entries.extend(text.lines().filter_map(one_line_entry));
        }
    }
    let mirror = choose(entries);
    if mirror.main.is_empty() {
        return Err(Error::NoMirror {
            looked_in: config.apt_folder.clone(),
        });
    }
    Ok(mirror)
}

fn source_files(apt_folder: &Path) -> Result<Vec<PathBuf>> {
    let mut files = vec![apt_folder.join("sources.list")];
    files.extend(
        list(&apt_folder.join("sources.list.d"))?
            .into_iter()
            .filter(|file| {
                file.extension()
                    .is_some_and(|ext| ext == "list" || ext == "sources")
            }),
    );
    Ok(files)
}

/// One entry of apt's sources that brings binary packages.
#[derive(Debug, Default, PartialEq, Eq)]
struct Entry {
    addresses: Vec<String>,
    suites: Vec<String>,
    components: Vec<String>,
    signed_by: String,
    check_valid_until: Option<bool>,
    check_date: Option<bool>,
}

/// `deb [option=value ...] uri suite component...`
fn one_line_entry(line: &str) -> Option<Entry> {
    let line = line.split('#').next()?.trim();
    let rest = line
        .strip_prefix("deb")
        .filter(|rest| rest.starts_with(char::is_whitespace))?
        .trim_start();
    let (options, rest) = match rest.strip_prefix('[') {
        Some(inside) => inside.split_once(']')?,
        None => ("", rest),
    };
    let mut words = rest.split_ascii_whitespace().map(str::to_owned);
    let mut entry = Entry {
        addresses: vec![words.next()?],
        suites: vec![words.next()?],
        components: words.collect(),
        ..Entry::default()
    };
    for (name, value) in options
        .split_ascii_whitespace()
        .filter_map(|option| option.split_once('='))
    {
        match name.trim_end_matches(['+', '-']).to_ascii_lowercase().as_str() {
            "signed-by" => entry.signed_by = value.to_owned(),
            "check-valid-until" => entry.check_valid_until = flag(value),
            "check-date" => entry.check_date = flag(value),
            _ => {}
        }
    }
    Some(entry)
}

/// The enabled paragraphs of a `.sources` file; one that cannot be read has none, as it is not ours to mend.
fn deb822_entries(text: &str) -> Vec<Entry> {
    let paragraphs = control::paragraphs(text).unwrap_or_default();
    let enabled = |paragraph: &control::Paragraph<'_>| {
        paragraph.get("Enabled").and_then(flag) != Some(false)
            && paragraph.words("Types").any(|kind| kind == "deb")
    };
    let owned = |words: &mut dyn Iterator<Item = &str>| words.map(str::to_owned).collect::<Vec<_>>();
    paragraphs
        .iter()
        .filter(|paragraph| enabled(paragraph))
        .map(|paragraph| Entry {
            addresses: owned(&mut paragraph.words("URIs")),
            suites: owned(&mut paragraph.words("Suites")),
            components: owned(&mut paragraph.words("Components")),
            signed_by: paragraph.get("Signed-By").unwrap_or_default().to_owned(),
            check_valid_until: paragraph.get("Check-Valid-Until").and_then(flag),
            check_date: paragraph.get("Check-Date").and_then(flag),
        })
        .collect()
}

fn flag(value: &str) -> Option<bool> {
    match value.to_ascii_lowercase().as_str() {
        "yes" | "true" | "1" | "on" => Some(true),
        "no" | "false" | "0" | "off" => Some(false),
        _ => None,
    }
}

/// Sorts the entries' addresses by what they are, the likeliest Debian archive first.
fn choose(entries: Vec<Entry>) -> Mirror {
    let mut ranked: Vec<(u8, Entry)> = entries
        .into_iter()
        .filter_map(|entry| Some((rank(&entry)?, entry)))
        .collect();
    ranked.sort_by_key(|(rank, _)| *rank);
    let mut mirror = Mirror::default();
    for (_, entry) in ranked {
        let before = mirror.main.len() + mirror.updates.len() + mirror.security.len();
        for address in entry.addresses.iter().filter_map(|address| base(address)) {
            for suite in &entry.suites {
                let Some(kind) = suite_kind(suite) else { continue };
                let group = match kind {
                    Kind::Main => &mut mirror.main,
                    Kind::Updates => &mut mirror.updates,
                    Kind::Security => &mut mirror.security,
                };
                if !group.contains(&address) {
                    group.push(address.clone());
                }
            }
        }
        if mirror.main.len() + mirror.updates.len() + mirror.security.len() > before {
            mirror.check_valid_until = mirror.check_valid_until.or(entry.check_valid_until);
            mirror.check_date = mirror.check_date.or(entry.check_date);
        }
    }
    mirror
}

/// How surely an entry is Debian's own, 0 being surest; `None` if it is not.
fn rank(entry: &Entry) -> Option<u8> {
    if !entry.components.iter().any(|component| component == "main") {
        return None;
    }
    let path_is_debians = entry.addresses.iter().any(|address| {
        let path = address.trim_end_matches('/');
        path.ends_with("/debian") || path.ends_with("/debian-security")
    });
    match (entry.signed_by.as_str(), path_is_debians) {
        (key, _) if key.contains("debian-archive") => Some(0),
        ("", true) => Some(1),
        ("", false) => Some(2),
        // A key of another vendor, or Debian's under another name: only the usual path speaks for the latter.
        (_, true) => Some(3),
        (_, false) => None,
    }
}

enum Kind {
    Main,
    Updates,
    Security,
}

fn suite_kind(suite: &str) -> Option<Kind> {
    let known = |name: &str| SUITES.contains(&name);
    if let Some(name) = suite.strip_suffix("-updates") {
        return known(name).then_some(Kind::Updates);
    }
    if let Some(name) = suite.strip_suffix("-security") {
        return known(name).then_some(Kind::Security);
    }
    known(suite).then_some(Kind::Main)
}

/// An http(s) address without its final slashes; `None` for other transports and placeholders.
fn base(address: &str) -> Option<String> {
    let rest = address
        .strip_prefix("http://")
        .or_else(|| address.strip_prefix("https://"))?;
    let odd = |c: char| c.is_whitespace() || c.is_control() || "$\"<>?#".contains(c);
    if rest.is_empty() || rest.starts_with('/') || rest.contains(odd) {
        return None;
    }
    Some(address.trim_end_matches('/').to_owned())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn apt(files: &[(&str, &str)]) -> (tempfile::TempDir, MirrorConfig) {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("sources.list.d")).unwrap();
        for (name, text) in files {
            fs::write(folder.path().join(name), text).unwrap();
        }
        let config = MirrorConfig {
            explicit: None,
            apt_folder: folder.path().into(),
        };
        (folder, config)
    }

    const VENDORS: &str = "deb [arch=amd64 signed-by=/etc/apt/keyrings/docker.asc] https://vendor.test/linux/debian bookworm stable
deb [signed-by=/usr/share/keyrings/ms.gpg] https://vendor.test/debian/12/prod bookworm main
deb https://vendor.test/apt nodistro main
deb-src http://mirror.test/src bookworm main
deb cdrom:[Debian 12]/ bookworm main
";

    #[test]
    fn sources_one_line_form_with_options_finds_debian_only() {
        let main = "# deb http://old.test/debian bookworm main
deb [ arch=amd64 check-valid-until=no ] http://mirror.test/debian/ bookworm main contrib # comment
deb http://mirror.test/debian bookworm-updates main
deb http://security.test/debian-security bookworm-security main\n";
        let (_folder, config) = apt(&[("sources.list", main), ("sources.list.d/a.list", VENDORS)]);
        let mirror = discover(&config).unwrap();
        assert_eq!(mirror.main, ["http://mirror.test/debian"]);
        assert_eq!(mirror.updates, ["http://mirror.test/debian"]);
        assert_eq!(mirror.security, ["http://security.test/debian-security"]);
        assert_eq!((mirror.check_valid_until, mirror.check_date), (Some(false), None));
    }

    #[test]
    fn sources_deb822_form_with_comments_and_lists_is_read() {
        let text =
            "# first\nEnabled: no\nTypes: deb\nURIs: http://off.test/debian\nSuites: trixie\nComponents: main

Types: deb deb-src
# a remark between fields
URIs: http://one.test/debian
# and inside one
  https://two.test/debian/
Suites: trixie trixie-updates
Components: main contrib
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg

Types: deb
URIs: https://vendor.test/debian
Suites: trixie
Components: main
Signed-By:
 -----BEGIN PGP PUBLIC KEY BLOCK-----
 .
 abc
 -----END PGP PUBLIC KEY BLOCK-----\n";
        let (_folder, config) = apt(&[("sources.list.d/debian.sources", text)]);
        let mirror = discover(&config).unwrap();
        assert_eq!(
            mirror.main[..2],
            ["http://one.test/debian", "https://two.test/debian"]
        );
        assert_eq!(
            mirror.updates,
            ["http://one.test/debian", "https://two.test/debian"]
        );
        assert!(mirror.security.is_empty());
    }

    #[test]
    fn sources_vendors_only_says_what_to_set() {
        let (_folder, config) = apt(&[("sources.list.d/a.list", VENDORS)]);
        let error = discover(&config).unwrap_err().to_string();
        assert!(
            error.contains("CC_DEBIAN_MIRROR") && error.contains("debian.mirror"),
            "{error}"
        );
    }

    #[test]
    fn sources_explicit_mirror_wins_and_must_be_http() {
        let (_folder, mut config) = apt(&[("sources.list", "deb http://apt.test/debian stable main\n")]);
        config.explicit = Some("https://mine.test/debian/".into());
        assert_eq!(discover(&config).unwrap().main, ["https://mine.test/debian"]);
        for bad in ["ftp://mine.test/debian", "mine.test", "http://", "http://a b/"] {
            config.explicit = Some(bad.into());
            assert!(matches!(discover(&config), Err(Error::BadMirror { .. })), "{bad}");
        }
    }

    proptest::proptest! {
        #[test]
        fn sources_of_random_lines_do_not_panic(line in "[a-z \\[\\]=#:/-]{0,50}") {
            one_line_entry(&format!("deb {line}"));
            deb822_entries(&line);
        }
    }
}
