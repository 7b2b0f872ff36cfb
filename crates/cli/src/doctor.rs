//! `cc doctor`: one line about each CPU backend.

use anyhow::Result;

use crate::args::Common;
use crate::print;

/// Prints the report; the exit status is 0 where some backend can be used, else 1.
pub(crate) fn doctor(common: &Common) -> Result<u8> {
    let reports = crumblecracker::doctor(&common.library()?);
    let usable = reports.iter().any(|report| report.usable);
    let lines = reports.into_iter().map(|report| {
        let verdict = if report.usable { "usable" } else { "not usable" };
        format!("{}: {verdict}: {}\n", report.name, report.sentence)
    });
    let written = print::text(&lines.collect::<String>());
    Ok(if usable { written } else { 1 })
}
