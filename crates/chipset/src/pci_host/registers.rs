//! Configuration mechanisms and the bridge's own identity.

/// CONFIG_ADDRESS (PCI Local Bus 3.0, 3.2.2.3.2); taken only as a whole doubleword.
pub(super) const CONFIG_ADDRESS: u16 = 0xcf8;
/// CONFIG_DATA, four bytes.
pub(super) const CONFIG_DATA: u16 = 0xcfc;
pub(super) const CONFIG_LAST: u16 = 0xcff;

/// CONFIG_ADDRESS: cycles on CONFIG_DATA are configuration cycles.
pub(super) const ADDRESS_ENABLE: u32 = 1 << 31;
/// The bits of CONFIG_ADDRESS that exist.
pub(super) const ADDRESS_MASK: u32 = 0x80ff_fffc;

/// Enhanced configuration space of one bus (PCI Express Base 5.0, 7.2.2): 32 devices of 8 functions of 4 KiB.
pub(super) const ECAM_BUS_LEN: u64 = 1 << 20;

/// The identity under which emulators show a generic host bridge.
pub(super) const VENDOR: u16 = 0x1b36;
pub(super) const DEVICE: u16 = 0x0008;
/// Class "host bridge" (PCI Code and ID Assignment 1.11, 1.7).
pub(super) const CLASS_HOST_BRIDGE: u32 = 0x06_00_00;
