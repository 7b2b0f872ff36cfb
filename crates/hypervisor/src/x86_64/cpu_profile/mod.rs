//! CPU profiles: what processor a guest is shown.
//!
//! `host` shows what the backend offers. The named ones are processors of our own, the same on every host and backend
//! to the last bit: a level of the x86-64 psABI (section 3.1.1), what a kernel needs beside it, and nothing above, so
//! that a snapshot moves between hosts and between hardware and software. A backend that lacks a feature refuses the
//! profile.
//!
//! A named profile says nothing of the time-stamp counter's frequency, which hardware often cannot change: its guests
//! take the time from KVM's clock, which every backend shows, and set timers by the local APIC's count, which goes at
//! 1 GHz everywhere. Neither the invariant counter nor the deadline timer is shown.

mod carried;
mod features;
mod leaves;

use std::fmt;
use std::str::FromStr;

use super::{CpuState, CpuidLeaf};
use crate::Error;

/// What a guest is shown of its processor.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum CpuProfile {
    /// All that this host's backend offers.
    #[default]
    Host,
    /// x86-64-v2: up to SSE4.2 and POPCNT.
    X86_64V2,
    /// x86-64-v3: with AVX2, BMI and FMA.
    X86_64V3,
    /// x86-64-v4: with AVX-512.
    X86_64V4,
}

/// A level of the psABI.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Level {
    V2,
    V3,
    V4,
}

impl CpuProfile {
    /// Every profile, weakest portable one first.
    pub const ALL: [Self; 4] = [Self::X86_64V2, Self::X86_64V3, Self::X86_64V4, Self::Host];

    /// Its name, as options and snapshots spell it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Host => "host",
            Self::X86_64V2 => "x86-64-v2",
            Self::X86_64V3 => "x86-64-v3",
            Self::X86_64V4 => "x86-64-v4",
        }
    }

    fn level(self) -> Option<Level> {
        match self {
            Self::Host => None,
            Self::X86_64V2 => Some(Level::V2),
            Self::X86_64V3 => Some(Level::V3),
            Self::X86_64V4 => Some(Level::V4),
        }
    }

    /// Whether it is the same processor everywhere.
    pub fn is_portable(self) -> bool {
        self.level().is_some()
    }

    /// What a guest of this profile is shown by a backend that offers `offered`.
    ///
    /// # Errors
    /// [`Error::Profile`] with all that the backend lacks.
    pub fn apply(self, offered: &[CpuidLeaf]) -> Result<Vec<CpuidLeaf>, Error> {
        let Some(level) = self.level() else {
            return Ok(offered.to_vec());
        };
        let shown = leaves::shown(level);
        let mut lacks = features::missing(level, offered);
        lacks.extend(leaves::misplaced(&shown, offered));
        match lacks.is_empty() {
            true => Ok(shown),
            false => Err(Error::Profile {
                profile: self.name(),
                lacks,
            }),
        }
    }

    /// What a snapshot of a guest of this profile has of `state`: without what this backend alone has, which the guest
    /// never saw.
    ///
    /// # Errors
    /// [`Error::NotCarried`] with the names of all that was used and is not part of the profile.
    pub fn carried(self, state: CpuState) -> Result<CpuState, Error> {
        match self.level() {
            None => Ok(state),
            Some(level) => carried::carried(level, state).map_err(|what| Error::NotCarried {
                profile: self.name(),
                what,
            }),
        }
    }
}

impl Level {
    /// The state components that `XSAVE` may manage, as bits of XCR0: x87 and SSE, AVX, AVX-512.
    fn xcr0(self) -> u64 {
        match self {
            Self::V2 => 0x3,
            Self::V3 => 0x7,
            Self::V4 => 0xe7,
        }
    }
}

impl fmt::Display for CpuProfile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The profile's name is none that exists.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no CPU profile is called {0:?}; there are host, x86-64-v2, x86-64-v3 and x86-64-v4")]
pub struct UnknownProfile(pub String);

impl FromStr for CpuProfile {
    type Err = UnknownProfile;

    fn from_str(name: &str) -> Result<Self, UnknownProfile> {
        let found = Self::ALL.into_iter().find(|profile| profile.name() == name);
        found.ok_or_else(|| UnknownProfile(name.to_owned()))
    }
}

#[cfg(test)]
mod tests;
