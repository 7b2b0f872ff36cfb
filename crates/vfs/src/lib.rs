//! The FUSE server and its composable trees.
//!
//! A [`Server`] speaks FUSE over the bytes a virtio-fs device moves and serves one [`Tree`]: an [`Overlay`]
//! (what a guest changes, on top of a [`ReadOnlyTree`] such as an image) or a [`HostShare`] (a directory of
//! the host). Every tree is a device of its own; nothing is mounted inside a tree.
//!
//! **Knows:** the FUSE protocol and what Linux expects of a local file system.
//! **Must never know:** virtqueues and guest memory, image formats and registries, or who runs in the guest.
//! Every byte of a request is the guest's and hostile; nothing a guest sends makes this crate panic, follow
//! a path out of a share, or use more memory, files or disk than its options allow.

#![forbid(unsafe_code)]

mod attr;
mod error;
mod host_share;
mod memory_tree;
mod overlay;
pub mod protocol;
mod read_only;
mod saved;
mod server;
mod sync;
#[cfg(test)]
mod testing;
mod transfer;
mod tree;

pub use attr::{
    Attr, BLOCK_SIZE, CachePolicy, Entry, FileKind, FileSystemStatus, SetAttr, SetTime, Timestamp,
    device_number, device_parts,
};
pub use error::Error;
pub use host_share::{HostShare, HostShareOptions};
pub use memory_tree::{MemoryTree, MemoryTreeBuilder};
pub use overlay::{Overlay, OverlayOptions, Scratch};
pub use read_only::{Child, Content, Node, ReadOnlyTree};
pub use server::Server;
pub use transfer::{ReadBuffer, WriteSource};
pub use tree::{Caller, DirectoryBatch, DirectoryEntry, FileRef, NewFile, Opened, Tree, WriteKind};
