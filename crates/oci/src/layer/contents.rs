//! The contents file of a layer: the bytes of every regular file, each from a page boundary on.

use std::fs::File;
use std::io::{self, Seek, SeekFrom, Write};

/// Files begin at multiples of this, so that they can be mapped.
pub(crate) const PAGE: u64 = 4096;
/// Bytes gathered before they are written.
const BUFFER: usize = 1 << 20;
/// Zeros shorter than this are written rather than skipped.
const MIN_HOLE: u64 = 64 << 10;

static ZEROS: [u8; PAGE as usize] = [0; PAGE as usize];

/// Writes a contents file from front to back; pages of zeros become holes.
pub(crate) struct ContentsWriter {
    file: File,
    /// Where the file's own position is.
    file_at: u64,
    buffer: Vec<u8>,
    /// Offset of the buffer's first byte.
    buffer_at: u64,
}

impl ContentsWriter {
    /// Begins at the start of an empty file.
    pub(crate) fn new(file: File) -> ContentsWriter {
        ContentsWriter {
            file,
            file_at: 0,
            buffer: Vec::with_capacity(BUFFER),
            buffer_at: 0,
        }
    }

    /// Begins a file and tells its offset.
    pub(crate) fn begin(&mut self) -> io::Result<u64> {
        let pad = self.offset().next_multiple_of(PAGE) - self.offset();
        self.buffer.extend_from_slice(&ZEROS[..pad as usize]);
        if self.buffer.len() >= BUFFER {
            self.flush()?;
        }
        Ok(self.offset())
    }

    /// Appends bytes to the current file.
    pub(crate) fn write(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let room = BUFFER.saturating_sub(self.buffer.len());
            if room == 0 {
                self.flush()?;
                continue;
            }
            let (now, later) = bytes.split_at(room.min(bytes.len()));
            self.buffer.extend_from_slice(now);
            bytes = later;
        }
        Ok(())
    }

    /// Appends that many zero bytes to the current file, as a hole if it pays.
    pub(crate) fn skip(&mut self, mut length: u64) -> io::Result<()> {
        if length >= MIN_HOLE {
            self.flush()?;
            self.buffer_at += length;
            return Ok(());
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
        self.flush()?;
        let length = self.offset().next_multiple_of(PAGE);
        self.file.set_len(length)?;
        Ok(length)
    }

    fn offset(&self) -> u64 {
        self.buffer_at + self.buffer.len() as u64
    }

    /// Writes the buffer in runs, leaving out its pages of zeros.
    fn flush(&mut self) -> io::Result<()> {
        let mut at = 0;
        while at < self.buffer.len() {
            let zeros = self.run(at, true);
            let data = self.run(zeros, false);
            if data > zeros {
                let offset = self.buffer_at + zeros as u64;
                if self.file_at != offset {
                    self.file.seek(SeekFrom::Start(offset))?;
                }
                self.file.write_all(&self.buffer[zeros..data])?;
                self.file_at = self.buffer_at + data as u64;
            }
            at = data;
        }
        self.buffer_at += self.buffer.len() as u64;
        self.buffer.clear();
        Ok(())
    }

    /// End of the run of pages from `at` on that are (or are not) all zeros.
    fn run(&self, mut at: usize, zeros: bool) -> usize {
        while at < self.buffer.len() {
            let in_page = ((self.buffer_at + at as u64) % PAGE) as usize;
            let end = (at + PAGE as usize - in_page).min(self.buffer.len());
            let page = &self.buffer[at..end];
            if (page == &ZEROS[..page.len()]) != zeros {
                break;
            }
            at = end;
        }
        at
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(fill: impl FnOnce(&mut ContentsWriter)) -> Vec<u8> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("contents");
        let mut writer = ContentsWriter::new(File::create(&path).unwrap());
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
