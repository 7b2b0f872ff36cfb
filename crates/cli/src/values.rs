//! Values of options: sizes, times, shares.

use std::path::{Path, PathBuf, absolute};
use std::time::Duration;

use anyhow::{Context, Result};
use crumblecracker::Share;

/// The value of `--memory` in MiB, as [`size_mib`] has it.
pub(crate) fn memory_mib(text: &str) -> Result<u64, String> {
    match size_mib(text)? {
        0 => Err("no guest has that much memory".to_owned()),
        size => Ok(size),
    }
}

/// A size in MiB: a number, alone or with `M` or `G`, and `B` or `iB` where people like it.
pub(crate) fn size_mib(text: &str) -> Result<u64, String> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let factor = match unit.to_ascii_lowercase().as_str() {
        "" | "m" | "mb" | "mib" => 1,
        "g" | "gb" | "gib" => 1024,
        _ => return Err("a size is a number of MiB, or has M or G after the number".to_owned()),
    };
    let number: u64 = number
        .parse()
        .map_err(|_| "a size begins with a number".to_owned())?;
    number
        .checked_mul(factor)
        .ok_or_else(|| "nothing is that large".to_owned())
}

/// A time in seconds, with a fraction where wanted.
pub(crate) fn seconds(text: &str) -> Result<Duration, String> {
    let number: f64 = text
        .parse()
        .map_err(|_| "a time is a number of seconds".to_owned())?;
    match Duration::try_from_secs_f64(number) {
        Ok(time) if time > Duration::ZERO => Ok(time),
        _ => Err("a time is more than nothing and less than for ever".to_owned()),
    }
}

/// A value of `--volume`, before the host is asked about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct VolumeSpec {
    host: PathBuf,
    guest: String,
    read_only: bool,
}

/// Takes `HOST:GUEST[:ro|:rw]` apart. The host's path may have colons, the guest's not.
pub(crate) fn volume(text: &str) -> Result<VolumeSpec, String> {
    let (paths, read_only) = match text.rsplit_once(':') {
        Some((paths, "ro")) => (paths, true),
        Some((paths, "rw")) => (paths, false),
        _ => (text, false),
    };
    let (host, guest) = paths
        .rsplit_once(':')
        .filter(|(host, _)| !host.is_empty())
        .ok_or("a share is HOST:GUEST or HOST:GUEST:ro")?;
    if !guest.starts_with('/') {
        return Err(format!("the guest's path {guest:?} does not begin with /"));
    }
    Ok(VolumeSpec {
        host: host.into(),
        guest: guest.to_owned(),
        read_only,
    })
}

impl VolumeSpec {
    /// The share, with the host's path made absolute.
    ///
    /// # Errors
    /// A path that is not there.
    pub(crate) fn resolve(&self) -> Result<Share> {
        let refused = || format!("cannot share {}", self.host.display());
        let host = absolute(&self.host).with_context(refused)?;
        Path::metadata(&host).with_context(refused)?;
        Ok(Share {
            host,
            guest: self.guest.clone(),
            read_only: self.read_only,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_with_units_is_mib() {
        for (text, mib) in [
            ("512", 512),
            ("512M", 512),
            ("64mb", 64),
            ("2G", 2048),
            ("1GiB", 1024),
        ] {
            assert_eq!(memory_mib(text), Ok(mib), "{text}");
        }
    }

    #[test]
    fn memory_malformed_is_refused() {
        for text in [
            "",
            "M",
            "-1",
            "0",
            "0G",
            "1.5G",
            "5K",
            "18446744073709551615G",
            "99999999999999999999",
        ] {
            assert!(memory_mib(text).is_err(), "{text}");
        }
    }

    #[test]
    fn seconds_fraction_is_kept() {
        assert_eq!(seconds("1.5"), Ok(Duration::from_millis(1500)));
    }

    #[test]
    fn seconds_malformed_is_refused() {
        for text in ["", "0", "-1", "nan", "inf", "1e40", "5s"] {
            assert!(seconds(text).is_err(), "{text}");
        }
    }

    fn spec(host: &str, guest: &str, read_only: bool) -> VolumeSpec {
        VolumeSpec {
            host: host.into(),
            guest: guest.to_owned(),
            read_only,
        }
    }

    #[test]
    fn volume_modes_are_taken_off() {
        assert_eq!(volume("a/b:/data"), Ok(spec("a/b", "/data", false)));
        assert_eq!(volume("/a:/data:ro"), Ok(spec("/a", "/data", true)));
        assert_eq!(volume("/a:/data:rw"), Ok(spec("/a", "/data", false)));
    }

    #[test]
    fn volume_host_path_with_colon_is_kept() {
        assert_eq!(volume("/a:b:/data:ro"), Ok(spec("/a:b", "/data", true)));
    }

    #[test]
    fn volume_malformed_is_refused() {
        for text in ["", "/a", ":/a", "/a:", "/a:b", "/a:ro", "/a:/b:rx", ":ro"] {
            assert!(volume(text).is_err(), "{text}");
        }
    }

    #[test]
    fn volume_relative_host_path_becomes_absolute() {
        let share = volume("src:/data").unwrap().resolve().unwrap();

        assert_eq!(share.host, std::env::current_dir().unwrap().join("src"));
    }

    #[test]
    fn volume_missing_host_path_is_named() {
        let error = volume("not/there:/data").unwrap().resolve().unwrap_err();

        assert!(format!("{error:#}").contains("not/there"), "{error:#}");
    }
}
