//! What a guest that was taken up has for itself, where it was asked for: its name in files, its machine id.

use std::fmt::Write as _;
use std::io::{self, ErrorKind};

use crate::fs::Fs;
use crate::{Error, Result};

const HOSTNAME: &str = "/etc/hostname";
const HOSTS: &str = "/etc/hosts";
const MACHINE_ID: &str = "/etc/machine-id";

/// The line of `/etc/hosts` with the guest's own name.
pub(crate) fn hosts_line(hostname: &str) -> String {
    format!("127.0.1.1\t{hostname}\n")
}

/// Writes `new` where files still say `old`. What the guest changed stays.
pub(crate) fn rename(fs: &Fs, old: &str, new: &str) -> Result<()> {
    let of_file = |hostname: &str| format!("{hostname}\n");
    replace(fs, HOSTNAME, |text| (text == of_file(old)).then(|| of_file(new)))?;
    replace(fs, HOSTS, |text| {
        text.contains(&hosts_line(old))
            .then(|| text.replace(&hosts_line(old), &hosts_line(new)))
    })
}

/// Draws a new machine id (machine-id(5)).
pub(crate) fn new_machine_id(fs: &Fs) -> Result<()> {
    let mut id = [0; 16];
    host_os::random_bytes(&mut id).map_err(|error| Error::Guest(error.to_string()))?;
    // As a UUID of version 4, which that page asks of new ones.
    id[6] = id[6] & 0x0f | 0x40;
    id[8] = id[8] & 0x3f | 0x80;
    let mut text = id.iter().fold(String::new(), |mut text, byte| {
        // Writing to a string cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    });
    text.push('\n');
    fs.write(MACHINE_ID, text).map_err(not_renewed(MACHINE_ID))
}

/// Changes a small text file of the guest. One that is gone, or is none, needs no change.
fn replace(fs: &Fs, path: &'static str, change: impl FnOnce(&str) -> Option<String>) -> Result<()> {
    let text = match fs.read_to_string(path) {
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::InvalidData) => return Ok(()),
        read => read.map_err(not_renewed(path))?,
    };
    match change(&text) {
        Some(changed) => fs.write(path, changed).map_err(not_renewed(path)),
        None => Ok(()),
    }
}

fn not_renewed(path: &'static str) -> impl FnOnce(io::Error) -> Error {
    move |error| Error::Guest(format!("its {path} cannot be renewed: {error}"))
}
