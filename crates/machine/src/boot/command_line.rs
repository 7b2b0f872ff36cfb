//! The kernel command line.

use std::fmt;

use crate::Error;
use crate::layout::COMMAND_LINE_MAX;

/// Words of a kernel command line, in order.
#[derive(Clone, Debug, Default)]
pub struct CommandLine {
    words: Vec<String>,
}

/// The words in the order in which they were given.
impl fmt::Display for CommandLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.words.join(" "))
    }
}

impl CommandLine {
    /// What every machine of this kind boots with. Each word saves a probe for hardware that is not there,
    /// or makes a failure end the machine at once.
    pub fn standard() -> Self {
        let words = [
            // A panic resets the machine, which ends it: the monitor reports the console's last lines.
            "panic=-1",
            // Before the virtio console is up, what the kernel has to say comes through the serial port,
            // without its driver and without its probes of ports that are not there.
            "earlyprintk=ttyS0",
            "8250.nr_uarts=0",
            "console=hvc0",
            "tsc=reliable",
            "no_timer_check",
            // Keyboard controller ports are absent.
            "i8042.noaux",
            "i8042.nokbd",
            "pci=lastbus=0",
            // The host supplies entropy through RDRAND and virtio-rng.
            "random.trust_cpu=on",
            // Grace periods wait for nothing on a machine that has just been born.
            "rcupdate.rcu_expedited=1",
            "cryptomgr.notests",
            // The same for two tests that this does not reach: that of an algorithm (which is there all the same),
            // and the jitter entropy source's of itself, a seventh of the boot. Without that source the kernel's
            // DRBGs are seeded from the random pool alone, as their own fallback has it.
            "initcall_blacklist=crypto_kdf108_init,jent_mod_init",
            "rdinit=/init",
        ];
        Self {
            words: words.map(str::to_owned).to_vec(),
        }
    }

    /// An empty line.
    pub fn empty() -> Self {
        Self::default()
    }

    /// Adds words, separated by blanks as a user gives them.
    pub fn push(&mut self, words: &str) {
        self.words
            .extend(words.split_ascii_whitespace().map(str::to_owned));
    }

    /// The bytes with their final NUL. Words that set how much the kernel says come first: the early console,
    /// as soon as it is named, tells everything from before, at two exits a character.
    ///
    /// # Errors
    /// [`Error::CommandLine`] where they are too long or hold a NUL.
    pub(crate) fn to_bytes(&self) -> Result<Vec<u8>, Error> {
        let (verbosity, others): (Vec<&str>, Vec<&str>) = self
            .words
            .iter()
            .map(String::as_str)
            .partition(|word| sets_verbosity(word));
        let mut bytes = [verbosity, others].concat().join(" ").into_bytes();
        if bytes.contains(&0) {
            return Err(Error::CommandLine("it holds a NUL character".to_owned()));
        }
        bytes.push(0);
        if bytes.len() > COMMAND_LINE_MAX {
            let excess = bytes.len() - COMMAND_LINE_MAX;
            return Err(Error::CommandLine(format!("it is {excess} bytes too long")));
        }
        Ok(bytes)
    }
}

/// Whether Linux takes `word` for how much goes to its consoles (kernel-parameters.txt).
fn sets_verbosity(word: &str) -> bool {
    matches!(word, "quiet" | "debug" | "ignore_loglevel") || word.starts_with("loglevel=")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn to_bytes_ends_with_nul_and_keeps_order() {
        let mut line = CommandLine::empty();
        line.push("a  b=3");
        line.push("x");
        assert_eq!(line.to_bytes().unwrap(), b"a b=3 x\0");
    }

    #[test]
    fn to_bytes_puts_verbosity_before_the_early_console() {
        let mut line = CommandLine::empty();
        line.push("earlyprintk=ttyS0 quiet x loglevel=7");
        assert_eq!(
            line.to_bytes().unwrap(),
            b"quiet loglevel=7 earlyprintk=ttyS0 x\0"
        );
    }

    #[test]
    fn to_bytes_too_long_or_with_nul_is_refused() {
        let mut line = CommandLine::standard();
        line.push(&"x".repeat(COMMAND_LINE_MAX));
        assert!(line.to_bytes().is_err());
        let mut line = CommandLine::empty();
        line.push("a\0b");
        assert!(line.to_bytes().is_err());
    }
}
