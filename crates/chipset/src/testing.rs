//! What tests of several devices share.

use proptest::prelude::*;
use saved_state::{Error, Unit};

/// Bytes that are changed, each by its place and to a value.
pub(crate) type Changes = Vec<(prop::sample::Index, u8)>;

pub(crate) fn changes() -> impl Strategy<Value = Changes> {
    prop::collection::vec(any::<(prop::sample::Index, u8)>(), 0..3)
}

/// That a device refuses `unit` with these changes or then has just that state, and refuses bytes that are `foreign`.
/// `restored` gives the state of a new device that has taken a unit over.
pub(crate) fn refused_or_faithful(
    mut unit: Unit,
    changes: Changes,
    foreign: Vec<u8>,
    restored: impl Fn(&Unit) -> Result<Unit, Error>,
) -> Result<(), TestCaseError> {
    for (at, value) in changes {
        *at.get_mut(&mut unit.bytes) = value;
    }
    let again = restored(&unit);
    prop_assert!(again.is_err() || again.unwrap() == unit);
    let foreign = Unit {
        schema: 1,
        bytes: foreign,
    };
    prop_assert!(restored(&foreign).is_err());
    Ok(())
}
