//! The contents file of a layer: the bytes of every regular file, each from a page boundary on.
//!
//! A layer is written once and as a whole, and much of it is never read: it goes around the system's cache of
//! files where that can be, in large blocks and by a thread of its own.

use std::fs::File;
use std::io::{self, Seek, SeekFrom, Write};
use std::panic::resume_unwind;
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::thread::{Builder, JoinHandle};

/// Files begin at multiples of this, so that they can be mapped.
pub(crate) const PAGE: u64 = 4096;
/// Bytes gathered before they are written; whole pages.
const BLOCK: usize = 512 << 10;
/// Blocks that wait, besides the one being filled and the one being written.
const WAITING: usize = 1;
/// Zeros shorter than this are written rather than skipped.
const MIN_HOLE: u64 = 64 << 10;

// Blocks are written from page boundaries on, which must suit writes around the cache.
const _: () =
    assert!(PAGE.is_multiple_of(host_os::DIRECT_ALIGNMENT as u64) && BLOCK.is_multiple_of(PAGE as usize));

static ZEROS: [u8; PAGE as usize] = [0; PAGE as usize];

/// Writes a contents file from front to back; pages of zeros become holes.
pub(crate) struct ContentsWriter {
    block: Block,
    /// Offset of the block's first byte, whole pages.
    block_at: u64,
    /// Blocks that were written.
    spare: Receiver<Block>,
    writer: Writer,
}

impl ContentsWriter {
    /// Begins at the start of an empty file.
    pub(crate) fn new(file: File) -> io::Result<ContentsWriter> {
        let (giver, spare) = channel();
        Ok(ContentsWriter {
            block: Block::new(),
            block_at: 0,
            spare,
            writer: Writer::start(file, giver)?,
        })
    }

    /// Begins a file and tells its offset.
    pub(crate) fn begin(&mut self) -> io::Result<u64> {
        let pad = self.offset().next_multiple_of(PAGE) - self.offset();
        self.write(&ZEROS[..pad as usize])?;
        Ok(self.offset())
    }

    /// Appends bytes to the current file.
    pub(crate) fn write(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let count = self.block.push(bytes);
            bytes = &bytes[count..];
            if self.block.length == BLOCK {
                self.pass_on()?;
            }
        }
        Ok(())
    }

    /// Appends that many zero bytes to the current file, as a hole if it pays.
    pub(crate) fn skip(&mut self, mut length: u64) -> io::Result<()> {
        if length >= MIN_HOLE {
            let before = self.offset();
            length -= self.begin()? - before;
            self.pass_on()?;
            self.block_at += length - length % PAGE;
            length %= PAGE;
        }
        while length > 0 {
            let count = length.min(PAGE);
            self.write(&ZEROS[..count as usize])?;
            length -= count;
        }
        Ok(())
    }

    /// Writes what is left and sets the file's length to whole pages, which it returns.
    pub(crate) fn finish(mut self) -> io::Result<u64> {
        let length = self.begin()?;
        self.pass_on()?;
        self.writer.end()?.set_len(length)?;
        Ok(length)
    }

    fn offset(&self) -> u64 {
        self.block_at + self.block.length as u64
    }

    /// Gives the block, which ends with a whole page, to the thread.
    fn pass_on(&mut self) -> io::Result<()> {
        let next = self.spare.try_recv().unwrap_or_else(|_| Block::new());
        let block = std::mem::replace(&mut self.block, next);
        let at = self.block_at;
        self.block_at += block.length as u64;
        self.writer.write(at, block)
    }
}

/// Bytes at an address that suits writing around the cache.
struct Block {
    memory: Vec<u8>,
    start: usize,
    length: usize,
}

impl Block {
    fn new() -> Block {
        // Never grows, so its address stays.
        let memory = vec![0; BLOCK + host_os::DIRECT_ALIGNMENT];
        let start = memory.as_ptr().align_offset(host_os::DIRECT_ALIGNMENT);
        Block {
            memory,
            start,
            length: 0,
        }
    }

    /// Takes as many bytes as fit.
    fn push(&mut self, bytes: &[u8]) -> usize {
        let count = bytes.len().min(BLOCK - self.length);
        let end = self.start + self.length;
        self.memory[end..end + count].copy_from_slice(&bytes[..count]);
        self.length += count;
        count
    }

    fn bytes(&self) -> &[u8] {
        &self.memory[self.start..self.start + self.length]
    }
}

/// The thread that writes blocks; it ends with this.
struct Writer {
    blocks: Option<SyncSender<(u64, Block)>>,
    thread: Option<JoinHandle<io::Result<File>>>,
}

impl Writer {
    fn start(file: File, giver: Sender<Block>) -> io::Result<Writer> {
        let (blocks, receiver) = sync_channel::<(u64, Block)>(WAITING);
        let write = move || {
            let mut file = PagedFile::new(file);
            for (at, mut block) in receiver {
                file.write_block(at, block.bytes())?;
                block.length = 0;
                // The other side may need no more of them.
                let _ = giver.send(block);
            }
            Ok(file.file)
        };
        Ok(Writer {
            blocks: Some(blocks),
            thread: Some(Builder::new().name("contents".into()).spawn(write)?),
        })
    }

    /// Has a block written some time; the error may be that of an earlier one.
    fn write(&mut self, at: u64, block: Block) -> io::Result<()> {
        match self.blocks.as_ref().map(|blocks| blocks.send((at, block))) {
            Some(Ok(())) => Ok(()),
            // The thread has ended before its time, and can say why.
            _ => self.end().map(drop),
        }
    }

    /// Waits until everything is written.
    fn end(&mut self) -> io::Result<File> {
        self.blocks = None;
        match self.thread.take().map(JoinHandle::join) {
            // The only panics are bugs of this crate; they go on to the caller.
            Some(ended) => ended.unwrap_or_else(|panic| resume_unwind(panic)),
            None => Err(io::Error::other("an earlier part could not be written")),
        }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.blocks = None;
        if let Some(thread) = self.thread.take() {
            // Whoever wants to know whether all is well calls `end`.
            let _ = thread.join();
        }
    }
}

/// A file that is written in whole pages.
struct PagedFile {
    file: File,
    /// Where the file's own position is.
    at: u64,
    /// Whether writes go around the system's cache.
    direct: bool,
}

impl PagedFile {
    fn new(file: File) -> PagedFile {
        let direct = host_os::set_direct(&file, true);
        if let Err(error) = &direct {
            tracing::debug!(%error, "writing through the system's cache");
        }
        PagedFile {
            file,
            at: 0,
            direct: direct.is_ok(),
        }
    }

    /// Writes whole pages in runs, leaving out those of zeros.
    fn write_block(&mut self, block_at: u64, bytes: &[u8]) -> io::Result<()> {
        let mut at = 0;
        while at < bytes.len() {
            let zeros = end_of_run(bytes, at, true);
            let data = end_of_run(bytes, zeros, false);
            if data > zeros {
                self.write_run(block_at + zeros as u64, &bytes[zeros..data])?;
            }
            at = data;
        }
        Ok(())
    }

    fn write_run(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        match self.write_at(offset, bytes) {
            // What this file system or disk refuses to take directly goes through the cache. Other errors, a
            // full disk's among them, are the same there.
            Err(error) if self.direct && is_refusal(&error) => {
                tracing::debug!(%error, "writing through the system's cache");
                self.direct = false;
                host_os::set_direct(&self.file, false).map_err(io::Error::other)?;
                self.write_at(offset, bytes)
            }
            result => result,
        }
    }

    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        if self.at != offset {
            self.file.seek(SeekFrom::Start(offset))?;
        }
        // Unknown until all is written.
        self.at = u64::MAX;
        self.file.write_all(bytes)?;
        self.at = offset + bytes.len() as u64;
        Ok(())
    }
}

/// Whether an error says that a write cannot be done in this way (open(2), "O_DIRECT").
fn is_refusal(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::InvalidInput | io::ErrorKind::Unsupported
    )
}

/// End of the run of pages from `at` on that are (or are not) all zeros.
fn end_of_run(bytes: &[u8], mut at: usize, zeros: bool) -> usize {
    for page in bytes[at..].chunks(PAGE as usize) {
        if (page == &ZEROS[..page.len()]) != zeros {
            break;
        }
        at += page.len();
    }
    at
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(fill: impl FnOnce(&mut ContentsWriter)) -> Vec<u8> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("contents");
        let mut writer = ContentsWriter::new(File::create(&path).unwrap()).unwrap();
        fill(&mut writer);
        let length = writer.finish().unwrap();
        let bytes = std::fs::read(&path).unwrap();
        assert_eq!(bytes.len() as u64, length);
        bytes
    }

    #[test]
    fn contents_files_begin_at_pages() {
        let bytes = written(|writer| {
            assert_eq!(writer.begin().unwrap(), 0);
            writer.write(b"abc").unwrap();
            assert_eq!(writer.begin().unwrap(), 4096);
            writer.write(&[7; 5000]).unwrap();
            assert_eq!(writer.begin().unwrap(), 12288);
        });
        assert_eq!(&bytes[..4], b"abc\0");
        assert!(bytes[4096..9096].iter().all(|&byte| byte == 7));
        assert_eq!(bytes.len(), 12288);
    }

    #[test]
    fn contents_longer_than_all_blocks_are_whole() {
        let block = |number: u8| vec![number; BLOCK + 1];

        let bytes = written(|writer| {
            writer.begin().unwrap();
            (1..20).for_each(|number| writer.write(&block(number)).unwrap());
        });

        let expected: Vec<u8> = (1..20).flat_map(block).collect();
        assert!(bytes[..expected.len()] == expected[..]);
        assert!(bytes[expected.len()..].iter().all(|&byte| byte == 0));
    }

    #[test]
    fn contents_that_cannot_be_written_are_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("contents");
        std::fs::write(&path, b"").unwrap();
        let mut writer = ContentsWriter::new(File::open(&path).unwrap()).unwrap();

        let mut written = Ok(());
        for _ in 0..WAITING + 3 {
            written = written.and_then(|()| writer.write(&[1; BLOCK]));
        }

        assert!(written.unwrap_err().raw_os_error().is_some());
        assert!(writer.finish().is_err());
    }

    #[test]
    fn paged_file_whose_direct_write_is_refused_goes_through_the_cache() {
        // On the disk of the build: the folder of temporary files may be in memory, where nothing is refused.
        let program = std::env::current_exe().unwrap();
        let folder = tempfile::tempdir_in(program.parent().unwrap()).unwrap();
        let path = folder.path().join("contents");
        let mut file = PagedFile::new(File::create(&path).unwrap());

        // No disk takes one byte directly.
        file.write_run(0, b"x").unwrap();
        file.write_run(PAGE, &[7; PAGE as usize]).unwrap();

        let bytes = std::fs::read(&path).unwrap();
        assert_eq!((bytes[0], bytes[PAGE as usize]), (b'x', 7));
    }

    #[test]
    fn contents_holes_and_zero_pages_read_as_zeros() {
        let bytes = written(|writer| {
            writer.begin().unwrap();
            writer.write(b"a").unwrap();
            writer.skip(3 << 20).unwrap();
            writer.write(b"b").unwrap();
            writer.skip(100).unwrap();
            writer.write(&vec![0; 2 << 20]).unwrap();
            writer.write(b"c").unwrap();
        });
        assert_eq!(bytes[0], b'a');
        assert_eq!(bytes[(3 << 20) + 1], b'b');
        assert_eq!(bytes[(3 << 20) + 102 + (2 << 20)], b'c');
        assert_eq!(bytes.iter().filter(|&&byte| byte != 0).count(), 3);
    }
}
