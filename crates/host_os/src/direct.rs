//! Writing around the system's cache of files.

use std::fs::File;

use crate::{Error, sys};

/// What address, length and offset of a write around the cache must be multiples of, in bytes.
///
/// Most disks ask for less; one that asks for more refuses the write.
pub const DIRECT_ALIGNMENT: usize = 4096;

/// Lets what is written to `file` go around the system's cache, straight to the disk, or into the cache as
/// usual. Applies to everything that shares the open file.
///
/// That saves a copy and the memory of the cache. It does not make anything durable: what is written is still
/// to be forced to the disk.
///
/// # Errors
/// The system or the file system has no such thing. Some find that out at the first write only.
pub fn set_direct(file: &File, on: bool) -> Result<(), Error> {
    sys::set_direct(file, on)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn direct_off_again_takes_writes_of_any_length() {
        let path = std::env::temp_dir().join(format!("host_os-direct-{}", std::process::id()));
        let mut file = File::create(&path).unwrap();

        // Not every file system has it.
        let _ = set_direct(&file, true);
        set_direct(&file, false).unwrap();
        file.write_all(b"odd").unwrap();

        assert_eq!(std::fs::read(&path).unwrap(), b"odd");
        std::fs::remove_file(&path).unwrap();
    }
}
