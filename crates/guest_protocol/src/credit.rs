//! The two ends of a stream's credit, for the host's side of every stream.

use crate::Error;
use crate::wire::{INITIAL_CREDIT, MAX_CREDIT, credit_due};

/// What the sender of a stream may still send.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SendCredit {
    available: u32,
}

impl SendCredit {
    /// The credit of a fresh stream.
    pub const fn new() -> Self {
        Self {
            available: INITIAL_CREDIT,
        }
    }

    /// The credit of a stream of which this much is left, as [`SendCredit::available`] said; `None` past [`MAX_CREDIT`].
    pub fn resumed(available: u32) -> Option<Self> {
        (available <= MAX_CREDIT).then_some(Self { available })
    }

    /// Bytes that may be sent now.
    pub const fn available(&self) -> u32 {
        self.available
    }

    /// Takes credit for up to `wanted` bytes and returns for how many it got it.
    pub fn take(&mut self, wanted: usize) -> usize {
        let granted = wanted.min(self.available as usize);
        // `granted` is at most `available`, so it fits.
        self.available -= granted as u32;
        granted
    }

    /// Adds what a Credit message granted; [`Error::CreditExceeded`] past [`MAX_CREDIT`].
    pub fn grant(&mut self, bytes: u32) -> Result<(), Error> {
        let sum = self.available.checked_add(bytes).filter(|sum| *sum <= MAX_CREDIT);
        self.available = sum.ok_or(Error::CreditExceeded)?;
        Ok(())
    }
}

impl Default for SendCredit {
    fn default() -> Self {
        Self::new()
    }
}

/// What the receiver of a stream has granted and not yet seen arrive, and what it owes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReceiveCredit {
    outstanding: u32,
    owed: u32,
}

impl ReceiveCredit {
    /// The credit of a fresh stream.
    pub const fn new() -> Self {
        Self {
            outstanding: INITIAL_CREDIT,
            owed: 0,
        }
    }

    /// The credit of a stream that goes on, from [`ReceiveCredit::outstanding`] and [`ReceiveCredit::owed`]; `None`
    /// past [`MAX_CREDIT`].
    pub fn resumed(outstanding: u32, owed: u32) -> Option<Self> {
        let known = outstanding <= MAX_CREDIT && owed <= MAX_CREDIT;
        known.then_some(Self { outstanding, owed })
    }

    /// What was granted and has not arrived.
    pub const fn outstanding(&self) -> u32 {
        self.outstanding
    }

    /// What was passed on and not granted anew yet.
    pub const fn owed(&self) -> u32 {
        self.owed
    }

    /// Counts `len` bytes that arrived; [`Error::CreditExceeded`] where the sender had no credit for them.
    pub fn received(&mut self, len: usize) -> Result<(), Error> {
        let len = u32::try_from(len).map_err(|_| Error::CreditExceeded)?;
        self.outstanding = self.outstanding.checked_sub(len).ok_or(Error::CreditExceeded)?;
        Ok(())
    }

    /// Counts `len` received bytes that were passed on. Returns the bytes to grant in a Credit message now,
    /// if it is time for one.
    pub fn consumed(&mut self, len: usize) -> Option<u32> {
        let owed = (self.owed as usize).saturating_add(len).min(MAX_CREDIT as usize);
        // `MAX_CREDIT` fits a u32.
        self.owed = owed as u32;
        let due = credit_due(self.owed);
        if due == 0 {
            return None;
        }
        self.owed = 0;
        self.outstanding = self.outstanding.saturating_add(due).min(MAX_CREDIT);
        Some(due)
    }
}

impl Default for ReceiveCredit {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn send_credit_taken_past_window_gives_only_what_is_there() {
        let mut credit = SendCredit::new();

        assert_eq!(credit.take(INITIAL_CREDIT as usize + 5), INITIAL_CREDIT as usize);
        assert_eq!(credit.take(1), 0);
    }

    #[test]
    fn send_credit_granted_past_maximum_is_refused() {
        let mut credit = SendCredit::new();

        assert_eq!(credit.grant(MAX_CREDIT), Err(Error::CreditExceeded));
    }

    #[test]
    fn receive_credit_bytes_past_window_are_refused() {
        let mut credit = ReceiveCredit::new();

        assert_eq!(credit.received(INITIAL_CREDIT as usize), Ok(()));
        assert_eq!(credit.received(1), Err(Error::CreditExceeded));
    }

    #[test]
    fn resumed_credit_is_what_it_was_and_never_past_the_maximum() {
        let mut sent = SendCredit::new();
        sent.take(5);
        let mut received = ReceiveCredit::new();
        received.received(7).unwrap();
        received.consumed(7);

        assert_eq!(SendCredit::resumed(sent.available()), Some(sent));
        let again = ReceiveCredit::resumed(received.outstanding(), received.owed());
        assert_eq!(again, Some(received));
        assert_eq!(SendCredit::resumed(MAX_CREDIT + 1), None);
        assert_eq!(ReceiveCredit::resumed(0, MAX_CREDIT + 1), None);
    }

    #[test]
    fn receive_credit_small_reads_are_returned_together() {
        let mut credit = ReceiveCredit::new();
        credit.received(INITIAL_CREDIT as usize).unwrap();

        assert_eq!(credit.consumed(INITIAL_CREDIT as usize / 4 - 1), None);
        assert_eq!(credit.consumed(1), Some(INITIAL_CREDIT / 4));
        assert_eq!(credit.received(INITIAL_CREDIT as usize / 4), Ok(()));
    }
}
