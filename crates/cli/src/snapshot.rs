//! `cc snapshot ls`, `cc snapshot rm`.

use anyhow::Result;

use crate::args::{Common, SnapshotRequest};
use crate::{cache, print};

/// Sees to guests that were put by.
pub(crate) fn snapshot(common: &Common, request: &SnapshotRequest) -> Result<u8> {
    let guests = common.library()?.saved_guests();
    match request {
        SnapshotRequest::Ls => {
            let rows: Vec<_> = guests
                .entries()?
                .iter()
                .map(|entry| cache::row(entry.key.clone(), entry))
                .collect();
            let headings = ["SNAPSHOT", "CPU", "MEMORY", "CPUS", "SIZE", "MADE"];
            Ok(print::text(&print::table(headings, &rows)))
        }
        SnapshotRequest::Rm { names } => {
            for name in names {
                guests.remove(name)?;
            }
            Ok(0)
        }
    }
}
