//! Clones are not twins: an identifier in RAM by which a guest's kernel learns that it is one, and draws other random
//! numbers than the others from then on.

use std::sync::Arc;

use chipset::ioapic::IoApic;
use device_backends::Entropy;
use device_model::InterruptLine;
use guest_memory::{Bytes, GuestAddress, GuestMemory};

use crate::{Error, layout};

/// The identifier of the machine's generation.
pub(crate) struct Generation {
    memory: GuestMemory,
    line: InterruptLine,
    entropy: Arc<dyn Entropy>,
}

impl Generation {
    pub(crate) fn new(memory: &GuestMemory, ioapic: &Arc<IoApic>, entropy: &Arc<dyn Entropy>) -> Self {
        Self {
            memory: memory.clone(),
            line: InterruptLine::new(ioapic.clone(), layout::GENERATION_LINE),
            entropy: entropy.clone(),
        }
    }

    /// Makes this a generation of its own. The guest does not run.
    ///
    /// # Errors
    /// [`Error::Entropy`].
    pub(crate) fn begin(&self) -> Result<(), Error> {
        let mut identifier = [0; 16];
        self.entropy.fill(&mut identifier).map_err(Error::Entropy)?;
        let place = GuestAddress(layout::VM_GENERATION_ID);
        self.memory
            .write_slice(&identifier, place)
            .map_err(|_| Error::BootLayout)
    }

    /// The same for a guest that has seen another one: it is told before it executes anything.
    ///
    /// # Errors
    /// As [`Generation::begin`].
    pub(crate) fn renew(&self) -> Result<(), Error> {
        self.begin()?;
        self.line.pulse();
        Ok(())
    }
}
