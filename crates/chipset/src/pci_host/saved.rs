//! The state of the bridge itself. What functions decode follows from theirs.

use device_model::pci::SavedConfigSpace;
use saved_state::record;

pub(super) const SCHEMA: u16 = 1;

#[cfg(test)]
mod tests;

record! {
    /// The bridge, without the functions on its bus.
    pub(super) struct SavedPciHost {
        /// CONFIG_ADDRESS.
        1 address: u32,
        /// Function 00:00.0.
        2 bridge: SavedConfigSpace,
    }
}
