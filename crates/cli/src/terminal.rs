//! The terminal this program stands in: its size, and raw mode that never outlives the program.

use std::io::{self, IsTerminal};
use std::panic;
use std::sync::{Mutex, MutexGuard, PoisonError};

use rustix::termios::{OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr};

/// The modes to go back to; `Some` while the terminal is raw.
static SAVED: Mutex<Option<Termios>> = Mutex::new(None);

fn saved() -> MutexGuard<'static, Option<Termios>> {
    SAVED.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Rows and columns of the terminal on standard input, output or error.
pub(crate) fn size() -> Option<(u16, u16)> {
    let size = tcgetwinsize(io::stdin())
        .or_else(|_| tcgetwinsize(io::stdout()))
        .or_else(|_| tcgetwinsize(io::stderr()))
        .ok()?;
    (size.ws_row > 0 && size.ws_col > 0).then_some((size.ws_row, size.ws_col))
}

/// Whether standard input is a terminal.
pub(crate) fn is_input() -> bool {
    io::stdin().is_terminal()
}

/// Whether standard output is a terminal.
pub(crate) fn is_output() -> bool {
    io::stdout().is_terminal()
}

/// The terminal on standard input hands on every key as it is while this lives.
pub(crate) struct Raw(());

impl Raw {
    /// Switches to raw mode.
    ///
    /// # Errors
    /// What the terminal says.
    pub(crate) fn enter() -> io::Result<Self> {
        let modes = tcgetattr(io::stdin())?;
        let mut raw = modes.clone();
        raw.make_raw();
        // Saved first: whatever happens from here on, somebody can go back.
        *saved() = Some(modes);
        let guard = Self(());
        tcsetattr(io::stdin(), OptionalActions::Drain, &raw)?;
        Ok(guard)
    }

    /// Switches to raw mode once more, after a shell has set its own modes while this program was stopped.
    pub(crate) fn enter_again(&self) {
        let mut modes = saved();
        let Ok(current) = tcgetattr(io::stdin()) else {
            return;
        };
        let mut raw = current.clone();
        raw.make_raw();
        if current.local_modes != raw.local_modes {
            *modes = Some(current);
        }
        // A terminal that is gone says so to whoever reads it.
        let _ = tcsetattr(io::stdin(), OptionalActions::Now, &raw);
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        restore();
    }
}

/// Whether the terminal is raw, so that a line must end with a carriage return too.
pub(crate) fn is_raw() -> bool {
    saved().is_some()
}

/// Goes back to the modes before raw mode, if it is on.
fn restore() {
    if let Some(modes) = saved().take() {
        // Nothing can be done about a terminal that is gone.
        let _ = tcsetattr(io::stdin(), OptionalActions::Now, &modes);
    }
}

/// Lets a panic go back to the terminal's own modes before it is told: where panics abort, nothing is dropped.
pub(crate) fn restore_on_panic() {
    let tell = panic::take_hook();
    panic::set_hook(Box::new(move |info| {
        restore();
        tell(info);
    }));
}
