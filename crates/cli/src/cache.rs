//! `cc cache ls`, `cc cache prune`, `cc cache verify`.

use std::time::SystemTime;

use anyhow::Result;
use crumblecracker::CachedSnapshot;
use indicatif::{HumanBytes, HumanDuration};

use crate::FAILED;
use crate::args::{CacheRequest, Common};
use crate::images::short;
use crate::print;

/// Sees to the snapshots of booted guests.
pub(crate) fn cache(common: &Common, request: &CacheRequest) -> Result<u8> {
    let cache = common.library()?.snapshot_cache();
    match request {
        CacheRequest::Ls => {
            let rows: Vec<_> = cache
                .entries()?
                .iter()
                .map(|entry| row(short(&entry.key), entry))
                .collect();
            let headings = ["SNAPSHOT", "CPU", "MEMORY", "CPUS", "SIZE", "LAST USED"];
            Ok(print::text(&print::table(headings, &rows)))
        }
        CacheRequest::Prune { keep } => {
            let removed = cache.prune(keep.saturating_mul(1 << 20))?;
            let freed = removed.iter().map(|entry| entry.bytes).sum();
            let lines: String = removed
                .iter()
                .map(|entry| format!("{}\n", short(&entry.key)))
                .collect();
            Ok(print::text(&format!("{lines}{} freed\n", HumanBytes(freed))))
        }
        CacheRequest::Verify => {
            let damaged = cache.verify()?;
            for (key, reason) in &damaged {
                print::error_line(&format!("removed {}: {reason}", short(key)));
            }
            Ok(if damaged.is_empty() { 0 } else { FAILED })
        }
    }
}

/// A line of a list of snapshots: name, CPU profile or else backend, memory, CPUs, size, age.
pub(crate) fn row(name: String, entry: &CachedSnapshot) -> [String; 6] {
    let known = |name: &str| entry.identity.get(name).cloned();
    let says = |name: &str| known(name).unwrap_or("-".to_owned());
    let age = SystemTime::now().duration_since(entry.used).unwrap_or_default();
    [
        name,
        known("cpu").unwrap_or_else(|| says("backend")),
        says("memory"),
        says("vcpus"),
        HumanBytes(entry.bytes).to_string(),
        format!("{} ago", HumanDuration(age)),
    ]
}
