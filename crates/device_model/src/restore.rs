//! What devices check of a state that comes from a file.

use saved_state::Error;

/// That a restored value is one its device can have, `what` naming it.
///
/// # Errors
/// [`Error::Value`] where it is not.
pub fn require(possible: bool, what: &'static str) -> Result<(), Error> {
    possible.then_some(()).ok_or(Error::Value(what))
}
