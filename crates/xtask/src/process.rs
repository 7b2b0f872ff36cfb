//! Child processes that outlive neither their handle nor this program.

use std::process::{Child, Command, Stdio};

/// A command that the kernel kills when this program ends, however it ends; without input and output.
///
/// The kernel watches the thread that starts it: that thread must stay as long as the child shall.
pub(crate) fn mortal(program: &str) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "--", program]);
    command.stdin(Stdio::null()).stdout(Stdio::null());
    command
}

/// A child that is killed when its handle is dropped.
pub(crate) struct Process(pub(crate) Child);

impl Drop for Process {
    fn drop(&mut self) {
        // A child that has ended already is no trouble.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
