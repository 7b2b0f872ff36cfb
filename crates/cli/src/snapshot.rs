//! `cc snapshot create`, `cc snapshot ls`, `cc snapshot rm`.

use anyhow::Result;

use crate::args::{Common, SnapshotRequest};
use crate::{cache, print};

/// Sees to guests that were put by.
pub(crate) fn snapshot(common: &Common, request: &SnapshotRequest) -> Result<u8> {
    let library = common.library()?;
    let guests = library.saved_guests();
    match request {
        SnapshotRequest::Create { name, guest } => {
            library.instances().save(&library, guest, name)?;
            Ok(print::text(&format!("{name}\n")))
        }
        SnapshotRequest::Ls => {
            let rows: Vec<_> = guests
                .entries()?
                .iter()
                .map(|entry| cache::row(entry.key.clone(), entry))
                .collect();
            let headings = ["SNAPSHOT", "CPU", "MEMORY", "CPUS", "SIZE", "MADE"];
            Ok(print::text(&print::table(headings, &rows)))
        }
        SnapshotRequest::Flatten { names } => {
            for name in names {
                guests.flatten(name)?;
            }
            Ok(0)
        }
        SnapshotRequest::Rm { names } => {
            for name in names {
                guests.remove(name)?;
            }
            Ok(0)
        }
    }
}
