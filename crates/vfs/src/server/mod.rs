//! The FUSE server: decodes requests once, asks the tree, encodes replies.

mod call;
mod directories;
mod files;
mod init;
mod names;
mod saved;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use device_backends::{FileService, ReplySink, RequestSource};
use rustix::io::Errno;

use self::call::Call;
pub(crate) use self::names::without_set_id;
use crate::protocol::{BatchForgetIn, ForgetIn, ForgetOne, opcode};
use crate::tree::Tree;

/// Serves one [`Tree`] to one guest over one virtio-fs device.
///
/// The server itself holds nothing but what FUSE_INIT settled: open files and uses of nodes are the tree's.
/// [`Server::save`] and [`Server::restore`] carry both to another server, whose guest notices nothing.
pub struct Server {
    tree: Arc<dyn Tree>,
    /// Flags settled by FUSE_INIT, with [`READY`]; 0 while there is no connection.
    connection: AtomicU64,
}

/// Set in [`Server::connection`] after FUSE_INIT; no flag of the protocol uses the bit.
const READY: u64 = 1 << 63;

impl Server {
    /// A server of `tree` that waits for FUSE_INIT.
    #[must_use]
    pub fn new(tree: Arc<dyn Tree>) -> Self {
        Self {
            tree,
            connection: AtomicU64::new(0),
        }
    }

    fn negotiated(&self, flag: u64) -> bool {
        self.connection.load(Ordering::Acquire) & flag != 0
    }

    /// Serves a request that has a reply; returns the length of what follows the reply's header.
    fn dispatch(&self, call: &mut Call<'_>) -> Result<usize, Errno> {
        if call.opcode() == opcode::INIT {
            return self.init(call);
        }
        if !self.negotiated(READY) {
            return Err(Errno::IO);
        }
        match call.opcode() {
            opcode::LOOKUP => self.lookup(call),
            opcode::GETATTR => self.getattr(call),
            opcode::STATX => self.statx(call),
            opcode::SETATTR => self.setattr(call),
            opcode::READLINK => self.readlink(call),
            opcode::SYMLINK => self.symlink(call),
            opcode::MKNOD => self.mknod(call),
            opcode::MKDIR => self.mkdir(call),
            opcode::UNLINK => self.unlink(call),
            opcode::RMDIR => self.rmdir(call),
            opcode::RENAME => self.rename(call),
            opcode::RENAME2 => self.rename2(call),
            opcode::LINK => self.link(call),
            opcode::CREATE => self.create(call),
            opcode::TMPFILE => self.tmpfile(call),
            opcode::OPEN => self.open(call),
            opcode::READ => self.read(call),
            opcode::WRITE => self.write(call),
            opcode::FLUSH => self.flush(call),
            opcode::FSYNC | opcode::FSYNCDIR => self.fsync(call),
            opcode::SYNCFS => self.tree.syncfs().map(|()| 0),
            opcode::RELEASE | opcode::RELEASEDIR => self.release(call),
            opcode::FALLOCATE => self.fallocate(call),
            opcode::LSEEK => self.lseek(call),
            opcode::COPY_FILE_RANGE => self.copy_file_range(call),
            opcode::STATFS => self.statfs(call),
            opcode::OPENDIR => self.opendir(call),
            opcode::READDIR => self.readdir(call),
            opcode::READDIRPLUS => self.readdirplus(call),
            opcode::GETXATTR => self.getxattr(call),
            opcode::LISTXATTR => self.listxattr(call),
            opcode::SETXATTR => self.setxattr(call),
            opcode::REMOVEXATTR => self.removexattr(call),
            // The kernel decides with default_permissions and then does not ask; ENOSYS says so for good.
            opcode::ACCESS => Err(Errno::NOSYS),
            opcode::DESTROY => {
                self.reset();
                Ok(0)
            }
            _ => Err(Errno::NOSYS),
        }
    }

    fn forget(&self, call: &Call<'_>) -> Result<(), Errno> {
        let forget: ForgetIn = call.arguments().take()?;
        self.tree.forget(call.node(), forget.nlookup);
        Ok(())
    }

    fn batch_forget(&self, call: &Call<'_>) -> Result<(), Errno> {
        let mut arguments = call.arguments();
        let head: BatchForgetIn = arguments.take()?;
        for _ in 0..head.count {
            // The request's own length ends the loop when the count is a lie.
            let one: ForgetOne = arguments.take()?;
            self.tree.forget(one.nodeid, one.nlookup);
        }
        Ok(())
    }
}

impl FileService for Server {
    fn handle(&self, request: &dyn RequestSource, reply: &mut dyn ReplySink) -> usize {
        let Some(mut call) = Call::new(request, reply) else {
            tracing::debug!(len = request.len(), "a FUSE request without a whole header");
            return 0;
        };
        let unanswered = match call.opcode() {
            opcode::FORGET => Some(self.forget(&call)),
            opcode::BATCH_FORGET => Some(self.batch_forget(&call)),
            // Every request is short enough to be finished; POSIX lets an interrupted call succeed.
            opcode::INTERRUPT => Some(Ok(())),
            _ => None,
        };
        if let Some(outcome) = unanswered {
            if let Err(error) = outcome {
                tracing::debug!(opcode = call.opcode(), %error, "a malformed FUSE request without a reply");
            }
            return 0;
        }
        if !call.can_reply() {
            return 0;
        }
        let outcome = self.dispatch(&mut call);
        if let Err(error) = outcome {
            tracing::trace!(opcode = call.opcode(), node = call.node(), %error, "FUSE request refused");
        }
        call.finish(outcome)
    }

    fn reset(&self) {
        self.connection.store(0, Ordering::Release);
        self.tree.reset();
    }
}
