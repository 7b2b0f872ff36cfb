//! The signed index of a suite, `InRelease` (Debian wiki, "RepositoryFormat").

use std::collections::HashMap;

use serde::{Deserialize, Serialize};

use super::apt_conf::AptConf;
use super::clearsign;
use super::control;
use super::date;
use super::error::{Error, Result};
use super::keyring::Keyring;
use super::sources::Mirror;
use crate::digest::Digest;

/// How far the clocks of mirror and machine may differ, in seconds (apt's `Acquire::Max-FutureTime`).
const MAX_FUTURE_SECONDS: i64 = 10;

/// Which dates of an index are checked, as apt's configuration says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct DatePolicy {
    pub(crate) check_valid_until: bool,
    pub(crate) check_date: bool,
}

impl DatePolicy {
    /// The mirror's own entry in apt's sources goes before apt's configuration; unset means checked.
    /// `Acquire::Check-Date "false"` switches off both, as in apt.
    pub(crate) fn new(conf: &AptConf, mirror: &Mirror) -> DatePolicy {
        let check_date = mirror
            .check_date
            .or(conf.flag("Acquire::Check-Date"))
            .unwrap_or(true);
        let check_valid_until = mirror
            .check_valid_until
            .or(conf.flag("Acquire::Check-Valid-Until"))
            .unwrap_or(true);
        DatePolicy {
            check_valid_until: check_valid_until && check_date,
            check_date,
        }
    }
}

/// A verified index.
#[derive(Clone, Debug)]
pub(crate) struct Release {
    /// Where it came from.
    pub(crate) url: String,
    pub(crate) summary: Summary,
    /// `None` where only the summary was read.
    files: Option<HashMap<String, (Digest, u64)>>,
}

/// What an index says of itself, without the files it lists.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Summary {
    /// Digest of the signed file.
    pub(crate) digest: Digest,
    /// `Suite` and `Codename`.
    names: [String; 2],
    /// Whether files can be fetched by their digest.
    pub(crate) by_hash: bool,
    date: String,
    valid_until: Option<String>,
}

impl Release {
    /// Verifies and reads an InRelease file. `now` is in seconds since 1970.
    pub(crate) fn open(url: &str, file: &[u8], keyring: &Keyring, now: i64) -> Result<Release> {
        let refused = |reason: String| Error::Signature {
            url: url.to_owned(),
            reason,
        };
        let message = std::str::from_utf8(file).map_err(|_| refused("it is not text".into()))?;
        let text = keyring.open(message, now).map_err(refused)?;
        parse(url, Digest::of(file), &text).map_err(|reason| Error::Index {
            what: url.to_owned(),
            reason,
        })
    }

    /// Reads an InRelease file that [`Release::open`] accepted before; its signatures are not looked at.
    pub(crate) fn reopen(url: &str, file: &[u8]) -> Option<Release> {
        let message = clearsign::read(std::str::from_utf8(file).ok()?).ok()?;
        parse(url, Digest::of(file), &message.text).ok()
    }

    /// An index whose [`Summary`] was kept when it was verified; which files it lists is not known.
    pub(crate) fn in_brief(url: &str, summary: Summary) -> Release {
        Release {
            url: url.to_owned(),
            summary,
            files: None,
        }
    }

    /// Whether it is known which files it lists.
    pub(crate) fn is_whole(&self) -> bool {
        self.files.is_some()
    }

    /// Refuses an index that is expired, from the future, or another suite's.
    pub(crate) fn check(&self, suite: &str, policy: DatePolicy, now: i64) -> Result<()> {
        let unusable = |reason: String| Error::Index {
            what: self.url.clone(),
            reason,
        };
        if !self.summary.names.iter().any(|name| name == suite) {
            let [name, code] = &self.summary.names;
            return Err(unusable(format!(
                "it is the index of {name} ({code}), not of {suite}"
            )));
        }
        let read = |text: &str| date::parse(text).ok_or_else(|| unusable(format!("`{text}` is not a date")));
        if policy.check_date && read(&self.summary.date)? > now + MAX_FUTURE_SECONDS {
            return Err(Error::NotYetValid {
                url: self.url.clone(),
                date: self.summary.date.clone(),
            });
        }
        match &self.summary.valid_until {
            Some(text) if policy.check_valid_until && read(text)? < now => Err(Error::Expired {
                url: self.url.clone(),
                valid_until: text.clone(),
            }),
            _ => Ok(()),
        }
    }

    /// When it was made, in seconds since 1970; 0 if that cannot be read.
    pub(crate) fn date(&self) -> i64 {
        date::parse(&self.summary.date).unwrap_or(0)
    }

    /// Digest and size in bytes of a file, by its path under the suite's folder.
    pub(crate) fn file(&self, path: &str) -> Option<(Digest, u64)> {
        self.files.as_ref()?.get(path).copied()
    }
}

fn parse(url: &str, digest: Digest, text: &str) -> std::result::Result<Release, String> {
    let paragraphs = control::paragraphs(text)?;
    let [fields] = paragraphs.as_slice() else {
        return Err(format!("it has {} paragraphs instead of one", paragraphs.len()));
    };
    let field = |name: &str| fields.get(name).unwrap_or_default().to_owned();
    let listed = fields.get("SHA256").ok_or("it lists no SHA256 digests")?;
    let mut files = HashMap::new();
    for line in control::lines(listed) {
        let words: Vec<&str> = line.split_ascii_whitespace().collect();
        let entry = match words.as_slice() {
            [hex, size, path] => format!("sha256:{hex}")
                .parse::<Digest>()
                .ok()
                .zip(size.parse().ok())
                .zip(Some(*path)),
            _ => None,
        };
        let ((digest, size), path) = entry.ok_or_else(|| {
            format!(
                "`{}` is not a file of its SHA256 list",
                line.chars().take(80).collect::<String>()
            )
        })?;
        files.insert(path.to_owned(), (digest, size));
    }
    if fields.get("Date").is_none() {
        return Err("it has no Date".into());
    }
    Ok(Release {
        url: url.to_owned(),
        summary: Summary {
            digest,
            names: [field("Suite"), field("Codename")],
            by_hash: fields.get("Acquire-By-Hash") == Some("yes"),
            date: field("Date"),
            valid_until: fields.get("Valid-Until").map(str::to_owned),
        },
        files: Some(files),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEX: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
    const CHECKED: DatePolicy = DatePolicy {
        check_valid_until: true,
        check_date: true,
    };
    const NOW: i64 = 1_000_000_000;

    fn release(extra: &str) -> std::result::Result<Release, String> {
        let text = format!(
            "Suite: stable\r\nCodename: trixie\r\nDate: Sun, 09 Sep 2001 01:46:40 UTC\r\n{extra}SHA256:\r\n {HEX} 0 main/x\r\n"
        );
        parse("http://mirror.test/InRelease", Digest::of(b""), &text)
    }

    #[test]
    fn release_parse_lists_files_by_digest() {
        let release = release("Acquire-By-Hash: yes\r\n").unwrap();
        assert_eq!(release.file("main/x"), Some((Digest::of(b""), 0)));
        assert_eq!(release.file("main/y"), None);
        assert!(release.summary.by_hash);
        assert_eq!(release.date(), NOW);
    }

    #[test]
    fn release_parse_without_sha256_is_refused() {
        let error = parse("u", Digest::of(b""), "Suite: stable\nDate: x\nMD5Sum:\n 00 1 a\n").unwrap_err();
        assert_eq!(error, "it lists no SHA256 digests");
        assert!(parse("u", Digest::of(b""), "SHA256:\n zz 1 a\n").is_err());
        assert!(parse("u", Digest::of(b""), "SHA256:\n\nSuite: x\n").is_err());
    }

    #[test]
    fn release_check_valid_until_obeys_policy() {
        let release = release("Valid-Until: Sun, 09 Sep 2001 01:46:39 UTC\r\n").unwrap();
        assert!(matches!(
            release.check("stable", CHECKED, NOW),
            Err(Error::Expired { .. })
        ));
        assert!(release.check("stable", CHECKED, NOW - 1).is_ok());
        let policy = DatePolicy {
            check_valid_until: false,
            check_date: true,
        };
        assert!(release.check("trixie", policy, NOW).is_ok());
    }

    #[test]
    fn release_check_future_date_obeys_policy() {
        let release = release("").unwrap();
        assert!(release.check("stable", CHECKED, NOW - MAX_FUTURE_SECONDS).is_ok());
        let early = NOW - MAX_FUTURE_SECONDS - 1;
        assert!(matches!(
            release.check("stable", CHECKED, early),
            Err(Error::NotYetValid { .. })
        ));
        let policy = DatePolicy {
            check_valid_until: true,
            check_date: false,
        };
        assert!(release.check("stable", policy, early).is_ok());
    }

    #[test]
    fn release_check_other_suite_is_refused() {
        assert!(matches!(
            release("").unwrap().check("bookworm", CHECKED, NOW),
            Err(Error::Index { .. })
        ));
    }

    #[test]
    fn date_policy_entry_goes_before_configuration() {
        let mut mirror = Mirror::default();
        let conf = AptConf::default();
        assert_eq!(DatePolicy::new(&conf, &mirror), CHECKED);
        mirror.check_valid_until = Some(false);
        assert!(!DatePolicy::new(&conf, &mirror).check_valid_until);
    }
}
