//! Requests about directories and the file system as a whole.

use rustix::io::Errno;
use zerocopy::IntoBytes;

use super::Server;
use super::call::Call;
use crate::protocol::{
    Dirent, EntryOut, FOPEN_KEEP_CACHE, OpenOut, RECORD_ALIGNMENT, ReadIn, StatfsOut, init_flag,
};
use crate::tree::{DirectoryBatch, DirectoryEntry, FileRef};

/// Largest READDIR reply in bytes; a larger size asked for is a size not used.
const LISTING_MAX: usize = 1 << 20;

impl Server {
    pub(super) fn opendir(&self, call: &mut Call<'_>) -> Result<usize, Errno> {
        if self.tree.cache_policy().stateless {
            if self.negotiated(init_flag::NO_OPENDIR_SUPPORT) {
                // From now on the kernel opens directories by itself and keeps their listings.
                return Err(Errno::NOSYS);
            }
            return call.reply(&OpenOut {
                fh: 0,
                open_flags: FOPEN_KEEP_CACHE,
                padding: 0,
            });
        }
        call.require_space::<OpenOut>()?;
        let handle = self.tree.opendir(call.node())?;
        call.reply(&OpenOut {
            fh: handle,
            open_flags: 0,
            padding: 0,
        })
    }

    pub(super) fn readdir(&self, call: &mut Call<'_>) -> Result<usize, Errno> {
        let mut end = 0;
        for entry in self.listing(call, size_of::<Dirent>())? {
            end = reply_dirent(call, end, &entry)?;
        }
        Ok(end)
    }

    pub(super) fn readdirplus(&self, call: &mut Call<'_>) -> Result<usize, Errno> {
        let mut end = 0;
        for entry in self.listing(call, size_of::<EntryOut>() + size_of::<Dirent>())? {
            // No use is counted for `.` and `..`, nor for what has vanished since the listing was made; the
            // kernel takes an entry with node id 0 as a name only.
            let dots = matches!(entry.name.as_slice(), b"." | b"..");
            let found = if dots {
                None
            } else {
                self.tree.lookup(call.node(), &entry.name).ok()
            };
            let attributes = found.map(|found| self.entry_out(&found)).unwrap_or_default();
            end = call.reply_at(end, attributes.as_bytes())?;
            end = reply_dirent(call, end, &entry)?;
        }
        Ok(end)
    }

    fn listing(&self, call: &Call<'_>, overhead: usize) -> Result<Vec<DirectoryEntry>, Errno> {
        let asked: ReadIn = call.arguments().take()?;
        let capacity = (asked.size as usize).min(call.reply_space()).min(LISTING_MAX);
        let mut batch = DirectoryBatch::new(capacity, overhead);
        let file = FileRef {
            node: call.node(),
            handle: Some(asked.fh),
        };
        self.tree.readdir(file, asked.offset, &mut batch)?;
        Ok(batch.into_entries())
    }

    pub(super) fn statfs(&self, call: &mut Call<'_>) -> Result<usize, Errno> {
        let status = self.tree.statfs()?;
        call.reply(&StatfsOut {
            blocks: status.blocks,
            bfree: status.blocks_free,
            bavail: status.blocks_available,
            files: status.files,
            ffree: status.files_free,
            bsize: status.block_size,
            namelen: status.name_max,
            frsize: status.block_size,
            padding: 0,
            spare: [0; 6],
        })
    }
}

/// Writes one `struct fuse_dirent` at `at` and returns where the next one begins.
fn reply_dirent(call: &mut Call<'_>, at: usize, entry: &DirectoryEntry) -> Result<usize, Errno> {
    let name_len = entry.name.len();
    // Names have at most 255 bytes.
    let head = Dirent {
        ino: entry.ino,
        off: entry.cookie,
        namelen: name_len as u32,
        kind: entry.kind.directory_type(),
    };
    let end = call.reply_at(at, head.as_bytes())?;
    let end = call.reply_at(end, &entry.name)?;
    let padding = end.next_multiple_of(RECORD_ALIGNMENT) - end;
    call.reply_at(end, &[0; RECORD_ALIGNMENT][..padding])
}
