//! Registers of the I/O APIC (82093AA data sheet, section 3).

/// Bytes of address space.
pub(super) const LEN: u64 = 0x1000;

/// Memory-mapped: index of the register behind the window (3.1.1).
pub(super) const SELECT: u64 = 0x00;
/// Memory-mapped: the window (3.1.2).
pub(super) const WINDOW: u64 = 0x10;
/// Memory-mapped: takes the vector of an end of interrupt (version 0x20 and up).
pub(super) const EOI: u64 = 0x40;

/// Behind the window: identification, version, arbitration, redirection table (3.2).
pub(super) const ID: u8 = 0x00;
pub(super) const VERSION: u8 = 0x01;
pub(super) const ARBITRATION: u8 = 0x02;
pub(super) const REDIRECTION: u8 = 0x10;

/// Bits of the identification that exist (3.2.1).
pub(super) const ID_MASK: u8 = 0x0f;

/// The first version with an EOI register.
pub(super) const VERSION_WITH_EOI: u32 = 0x20;

/// Most entries the index register can name.
pub(super) const MAX_LINES: usize = 120;

/// Redirection entry (3.2.4).
pub(super) const LOGICAL: u64 = 1 << 11;
pub(super) const DELIVERY_STATUS: u64 = 1 << 12;
pub(super) const REMOTE_IRR: u64 = 1 << 14;
pub(super) const LEVEL: u64 = 1 << 15;
pub(super) const MASKED: u64 = 1 << 16;
/// Delivery status and remote IRR are not the guest's to write.
pub(super) const READ_ONLY: u64 = DELIVERY_STATUS | REMOTE_IRR;
/// The bits that exist: destination, extended destination (bits 49 to 55, as hypervisors offer it) and the low
/// 17 bits.
pub(super) const EXISTING: u64 = 0xfffe_0000_0001_ffff;

/// Interrupt message (Intel SDM volume 3, 12.11).
pub(super) const MESSAGE_ADDRESS: u64 = 0xfee0_0000;
pub(super) const MESSAGE_LOGICAL: u64 = 1 << 2;
pub(super) const MESSAGE_REDIRECTION_HINT: u64 = 1 << 3;
pub(super) const MESSAGE_ASSERT: u32 = 1 << 14;
pub(super) const MESSAGE_LEVEL: u32 = 1 << 15;
/// Delivery mode "lowest priority".
pub(super) const LOWEST_PRIORITY: u64 = 1;
