//! What a CPU is about to take, and whether it is executing at all.

use super::table::{compare_whole, register_group};

register_group! {
    /// Events on their way into the CPU, beyond what the local APIC holds.
    pub struct PendingEvents {
        /// An exception that is not yet delivered.
        1 exception: Option<PendingException>,
        /// An interrupt taken from the interrupt controller, or raised by `INT n`, and not yet delivered.
        2 interrupt: Option<PendingInterrupt>,
        /// The instruction before was `STI`: maskable interrupts wait for one more instruction.
        3 shadow_sti: bool,
        /// The instruction before loaded SS: interrupts and debug traps wait for one more instruction.
        4 shadow_mov_ss: bool,
        /// A non-maskable interrupt is being delivered.
        5 nmi_injected: bool,
        /// A non-maskable interrupt waits.
        6 nmi_pending: bool,
        /// Non-maskable interrupts are blocked until the next `IRET`.
        7 nmi_masked: bool,
    }
}

/// An exception between its cause and its handler.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PendingException {
    /// Which one, 0 to 31.
    pub vector: u8,
    /// What its handler will find on the stack.
    pub error_code: Option<u32>,
    /// What will be put into CR2 or DR6 on delivery, where that is still to be done.
    pub payload: Option<u64>,
    /// It already passed the point where a hypervisor could intercept it.
    pub injected: bool,
}

/// An interrupt between its acknowledgement and its handler.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PendingInterrupt {
    /// Which one.
    pub vector: u8,
    /// Raised by an instruction, not by the interrupt controller.
    pub software: bool,
}

/// What the CPU is doing (Intel SDM vol. 3, 9.4).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Activity {
    /// Executing instructions.
    #[default]
    Running,
    /// In `HLT`, until an interrupt.
    Halted,
    /// An application processor that waits for INIT.
    WaitForInit,
    /// INIT was received; waits for SIPI.
    WaitForSipi,
    /// SIPI was received with this vector: about to start at `vector << 12`.
    SipiReceived(u8),
}

compare_whole!(Option<PendingException>, Option<PendingInterrupt>, Activity);
