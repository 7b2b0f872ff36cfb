//! From a kernel file as distributions ship it to the ELF image that is booted.

use std::io::Read;

/// The most an unpacked kernel may take, in bytes; Debian's cloud kernel takes about 60 MiB.
const UNPACKED_MAX: u64 = 512 << 20;

/// Why a file is no kernel for this machine.
#[derive(Debug, thiserror::Error)]
pub enum KernelImageError {
    /// Neither a bzImage nor an ELF file.
    #[error("it is neither a bzImage nor an ELF kernel")]
    Unknown,
    /// A field points outside the file.
    #[error("its {0} lies outside the file; it is truncated or damaged")]
    Truncated(&'static str),
    /// A compression that is not supported.
    #[error("its payload is compressed with {0}, which is not supported; use gzip, xz, lzma or zstd")]
    Compression(&'static str),
    /// Decompression failed.
    #[error("its payload cannot be decompressed")]
    Payload(#[source] std::io::Error),
    /// More than the cap.
    #[error("it unpacks to more than {} MiB", UNPACKED_MAX >> 20)]
    TooLarge,
    /// The payload is for another machine.
    #[error("it is not a 64-bit x86 kernel")]
    WrongMachine,
}

/// Returns the ELF kernel inside `file`: the payload of a bzImage (Linux boot protocol 2.08 and later), or
/// the file itself where it is one already.
///
/// # Errors
/// [`KernelImageError`]; `file` is foreign bytes and every field is checked.
pub fn unpack_kernel(file: &[u8]) -> Result<Vec<u8>, KernelImageError> {
    if file.starts_with(ELF_MAGIC) {
        check_elf(file)?;
        return Ok(file.to_vec());
    }
    let payload = bzimage_payload(file)?;
    let kernel = decompress(payload)?;
    check_elf(&kernel)?;
    Ok(kernel)
}

const ELF_MAGIC: &[u8] = b"\x7fELF";

/// Offsets in the setup header (Documentation/arch/x86/boot.rst).
mod header {
    pub(super) const SETUP_SECTS: usize = 0x1f1;
    pub(super) const MAGIC: usize = 0x202;
    pub(super) const VERSION: usize = 0x206;
    pub(super) const PAYLOAD_OFFSET: usize = 0x248;
    pub(super) const PAYLOAD_LENGTH: usize = 0x24c;
    /// The first version of the protocol that says where the payload is.
    pub(super) const VERSION_WITH_PAYLOAD: u16 = 0x0208;
}

fn u32_at(file: &[u8], offset: usize) -> Option<u32> {
    let bytes = file.get(offset..offset + 4)?;
    Some(u32::from_le_bytes(bytes.try_into().ok()?))
}

fn bzimage_payload(file: &[u8]) -> Result<&[u8], KernelImageError> {
    if file.get(header::MAGIC..header::MAGIC + 4) != Some(b"HdrS") {
        return Err(KernelImageError::Unknown);
    }
    let truncated = || KernelImageError::Truncated("setup header");
    let version = u32_at(file, header::VERSION).ok_or_else(truncated)? as u16;
    if version < header::VERSION_WITH_PAYLOAD {
        return Err(KernelImageError::Unknown);
    }
    // 0 means 4, for the oldest boot loaders' sake.
    let setup_sectors = match file[header::SETUP_SECTS] {
        0 => 4,
        sectors => usize::from(sectors),
    };
    let offset = u32_at(file, header::PAYLOAD_OFFSET).ok_or_else(truncated)? as usize;
    let length = u32_at(file, header::PAYLOAD_LENGTH).ok_or_else(truncated)? as usize;
    let start = (setup_sectors + 1) * 512 + offset;
    file.get(start..start.saturating_add(length))
        .ok_or(KernelImageError::Truncated("compressed payload"))
}

/// The payload is a compressed stream, then its unpacked size in four bytes, which the decoders ignore.
fn decompress(payload: &[u8]) -> Result<Vec<u8>, KernelImageError> {
    let magic = |bytes: &[u8]| payload.starts_with(bytes);
    if magic(ELF_MAGIC) {
        return Ok(payload.to_vec());
    }
    if magic(&[0x1f, 0x8b]) {
        return read_capped(flate2::read::GzDecoder::new(payload));
    }
    if magic(b"\xfd7zXZ\0") {
        return read_capped(liblzma::read::XzDecoder::new(payload));
    }
    if magic(&[0x28, 0xb5, 0x2f, 0xfd]) {
        let decoder = zstd::stream::read::Decoder::with_buffer(payload).map_err(KernelImageError::Payload)?;
        return read_capped(decoder.single_frame());
    }
    if magic(&[0x5d, 0x00, 0x00]) {
        let stream = liblzma::stream::Stream::new_lzma_decoder(u64::MAX)
            .map_err(|error| KernelImageError::Payload(error.into()))?;
        return read_capped(liblzma::read::XzDecoder::new_stream(payload, stream));
    }
    Err(KernelImageError::Compression(
        if magic(&[0x02, 0x21, 0x4c, 0x18]) {
            "lz4"
        } else if magic(b"BZh") {
            "bzip2"
        } else if magic(&[0x89, 0x4c, 0x5a, 0x4f]) {
            "lzo"
        } else {
            "an unknown method"
        },
    ))
}

fn read_capped(decoder: impl Read) -> Result<Vec<u8>, KernelImageError> {
    let mut kernel = Vec::new();
    let read = decoder
        .take(UNPACKED_MAX + 1)
        .read_to_end(&mut kernel)
        .map_err(KernelImageError::Payload)?;
    if read as u64 > UNPACKED_MAX {
        return Err(KernelImageError::TooLarge);
    }
    Ok(kernel)
}

/// 64-bit, little endian, machine 62 (EM_X86_64).
fn check_elf(kernel: &[u8]) -> Result<(), KernelImageError> {
    if !kernel.starts_with(ELF_MAGIC) {
        return Err(KernelImageError::Unknown);
    }
    if kernel.get(4..6) != Some(&[2, 1]) || kernel.get(18..20) != Some(&[62, 0]) {
        return Err(KernelImageError::WrongMachine);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn elf() -> Vec<u8> {
        let mut elf = b"\x7fELF\x02\x01\x01".to_vec();
        elf.resize(18, 0);
        elf.extend([62, 0]);
        elf.extend(std::iter::repeat_n(b"kernel ", 4000).flatten());
        elf
    }

    fn bzimage(payload: &[u8]) -> Vec<u8> {
        let mut file = vec![0; 1024];
        file[header::SETUP_SECTS] = 1;
        file[header::MAGIC..header::MAGIC + 4].copy_from_slice(b"HdrS");
        file[header::VERSION..header::VERSION + 2].copy_from_slice(&0x020f_u16.to_le_bytes());
        let length = payload.len() as u32 + 4;
        file[header::PAYLOAD_LENGTH..header::PAYLOAD_LENGTH + 4].copy_from_slice(&length.to_le_bytes());
        file.extend_from_slice(payload);
        file.extend_from_slice(&[1, 2, 3, 4]);
        file
    }

    #[test]
    fn unpack_each_compression_gives_the_elf() {
        let elf = elf();
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        std::io::Write::write_all(&mut gzip, &elf).unwrap();
        let mut xz = Vec::new();
        liblzma::read::XzEncoder::new(&elf[..], 1)
            .read_to_end(&mut xz)
            .unwrap();
        let zstd = zstd::encode_all(&elf[..], 1).unwrap();
        for payload in [elf.clone(), gzip.finish().unwrap(), xz, zstd] {
            let unpacked = unpack_kernel(&bzimage(&payload)).unwrap();
            assert!(unpacked.starts_with(&elf));
        }
    }

    #[test]
    fn unpack_damaged_files_is_an_error() {
        let good = bzimage(&zstd::encode_all(&elf()[..], 1).unwrap());
        assert!(matches!(
            unpack_kernel(b"#!/bin/sh"),
            Err(KernelImageError::Unknown)
        ));
        assert!(matches!(
            unpack_kernel(&good[..good.len() - 9]),
            Err(KernelImageError::Truncated(_))
        ));
        assert!(matches!(
            unpack_kernel(&bzimage(b"BZh9")),
            Err(KernelImageError::Compression("bzip2"))
        ));
        assert!(matches!(
            unpack_kernel(b"\x7fELF\x01\x01"),
            Err(KernelImageError::WrongMachine)
        ));
        let mut wrong = elf();
        wrong[18] = 183;
        assert!(matches!(
            unpack_kernel(&wrong),
            Err(KernelImageError::WrongMachine)
        ));
    }

    proptest! {
        #[test]
        fn unpack_random_headers_never_panics(mut bytes in proptest::collection::vec(any::<u8>(), 0..2048)) {
            if bytes.len() > header::MAGIC + 4 {
                bytes[header::MAGIC..header::MAGIC + 4].copy_from_slice(b"HdrS");
            }
            let _ = unpack_kernel(&bytes);
        }
    }
}
