//! Permission bits as the inode has them.

use std::fs::{File, Metadata, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt;

pub(crate) fn permission_bits(metadata: &Metadata) -> u32 {
    metadata.permissions().mode()
}

pub(crate) fn set_permission_bits(file: &File, bits: u32) -> io::Result<()> {
    file.set_permissions(Permissions::from_mode(bits))
}
