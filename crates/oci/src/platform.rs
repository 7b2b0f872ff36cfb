//! Platforms (OCI image specification, "Image Index", `platform`) and which manifest serves one.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// Operating system, architecture and variant an image is for, in Go's words (`linux`, `amd64`, `v8`).
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Platform {
    /// `linux` for everything this product runs.
    pub os: String,
    /// `amd64`, `arm64`, `riscv64`, `arm`, ….
    pub architecture: String,
    /// Variant of the architecture, `v7` or `v8`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub variant: Option<String>,
}

impl Platform {
    /// Linux on an architecture in Go's words.
    pub fn linux(architecture: &str) -> Platform {
        Platform {
            os: "linux".into(),
            architecture: architecture.into(),
            variant: None,
        }
    }

    /// Linux on the architecture this program was compiled for.
    pub fn host() -> Platform {
        Platform::linux(match std::env::consts::ARCH {
            "x86_64" => "amd64",
            "aarch64" => "arm64",
            "x86" => "386",
            "loongarch64" => "loong64",
            "powerpc64" => "ppc64le",
            other => other,
        })
    }

    /// How well an image for `offered` serves: `None` not at all, otherwise smaller is better.
    ///
    /// Without a wanted variant any will do, the plain one best; `arm64` and `arm64/v8` are the same.
    pub(crate) fn rank(&self, offered: &Platform) -> Option<u8> {
        if self.os != offered.os || self.architecture != offered.architecture {
            return None;
        }
        let (wanted, offered) = (self.normal_variant(), offered.normal_variant());
        match (wanted, offered) {
            (wanted, offered) if wanted == offered => Some(0),
            (None, Some(_)) => Some(2),
            (Some(_), None) => Some(1),
            _ => None,
        }
    }

    fn normal_variant(&self) -> Option<&str> {
        let variant = self.variant.as_deref().filter(|variant| !variant.is_empty());
        match (self.architecture.as_str(), variant) {
            ("arm64", Some("v8")) | ("amd64", Some("v1")) => None,
            (_, variant) => variant,
        }
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        match &self.variant {
            Some(variant) if !variant.is_empty() => write!(f, "/{variant}"),
            _ => Ok(()),
        }
    }
}

impl FromStr for Platform {
    type Err = Error;

    /// `os/architecture[/variant]`; `x86_64` and `aarch64` are taken for `amd64` and `arm64`.
    fn from_str(text: &str) -> Result<Platform> {
        let bad = || Error::BadPlatform(text.chars().take(120).collect());
        let mut parts = text.split('/');
        let mut part = || {
            let word = parts.next()?;
            let plain = word
                .bytes()
                .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"._-".contains(&b));
            Some(if plain && !word.is_empty() {
                Ok(word.to_owned())
            } else {
                Err(bad())
            })
        };
        let os = part().ok_or_else(bad)??;
        let architecture = match part().ok_or_else(bad)??.as_str() {
            "x86_64" | "x86-64" => "amd64".to_owned(),
            "aarch64" => "arm64".to_owned(),
            other => other.to_owned(),
        };
        let variant = part().transpose()?;
        if parts.next().is_some() {
            return Err(bad());
        }
        Ok(Platform {
            os,
            architecture,
            variant,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn platform(text: &str) -> Platform {
        text.parse().unwrap()
    }

    #[test]
    fn platform_parse_round_trips_and_normalises() {
        assert_eq!(platform("linux/arm/v7").to_string(), "linux/arm/v7");
        assert_eq!(platform("linux/x86_64"), Platform::linux("amd64"));
        assert_eq!(platform("linux/aarch64"), Platform::linux("arm64"));
    }

    #[test]
    fn platform_parse_malformed_is_refused() {
        for text in [
            "",
            "linux",
            "linux/",
            "/amd64",
            "linux/amd64/",
            "a/b/c/d",
            "Linux/amd64",
            "linux/am d64",
        ] {
            assert!(text.parse::<Platform>().is_err(), "{text}");
        }
    }

    #[test]
    fn platform_rank_prefers_exact_variant() {
        assert_eq!(platform("linux/arm64").rank(&platform("linux/arm64/v8")), Some(0));
        assert_eq!(platform("linux/arm/v7").rank(&platform("linux/arm/v7")), Some(0));
        assert_eq!(platform("linux/arm/v7").rank(&platform("linux/arm")), Some(1));
        assert_eq!(platform("linux/arm").rank(&platform("linux/arm/v6")), Some(2));
        assert_eq!(platform("linux/arm/v7").rank(&platform("linux/arm/v6")), None);
        assert_eq!(platform("linux/amd64").rank(&platform("linux/arm64")), None);
        assert_eq!(platform("linux/amd64").rank(&platform("windows/amd64")), None);
    }
}
