//! Tar header blocks: ustar (POSIX.1-1988), GNU and old V7.

use super::Fault;

pub(super) const BLOCK: usize = 512;
pub(super) type Block = [u8; BLOCK];

/// A header block whose checksum was right.
pub(super) struct Header<'a>(&'a Block);

/// The sparse map in a header block.
pub(super) struct GnuSparse {
    /// Up to four offsets and lengths.
    pub(super) segments: Vec<(u64, u64)>,
    /// Whether a block with more of them follows.
    pub(super) more: bool,
    /// Length of the file, holes included.
    pub(super) real_size: u64,
}

impl<'a> Header<'a> {
    /// Checks the checksum. The block must not be all zero.
    pub(super) fn parse(block: &'a Block) -> Result<Header<'a>, Fault> {
        let header = Header(block);
        let stored = octal(&block[148..156]).filter(|_| block[148] & 0x80 == 0);
        // The checksum field itself counts as blanks. Some old writers summed signed characters.
        let field = |index: usize| {
            if (148..156).contains(&index) {
                b' '
            } else {
                block[index]
            }
        };
        let unsigned: i64 = (0..BLOCK).map(|index| i64::from(field(index))).sum();
        let signed: i64 = (0..BLOCK).map(|index| i64::from(field(index) as i8)).sum();
        match stored.and_then(|sum| i64::try_from(sum).ok()) {
            Some(sum) if sum == unsigned || sum == signed => Ok(header),
            _ => Err(Fault::Bad(
                "it has a block that is no tar header (bad checksum)".into(),
            )),
        }
    }

    fn is_gnu(&self) -> bool {
        &self.0[257..265] == b"ustar  \0"
    }

    fn is_posix(&self) -> bool {
        &self.0[257..263] == b"ustar\0"
    }

    pub(super) fn type_flag(&self) -> u8 {
        self.0[156]
    }

    /// Name with the ustar prefix in front.
    pub(super) fn path(&self) -> Vec<u8> {
        let name = until_nul(&self.0[0..100]);
        let prefix = until_nul(&self.0[345..500]);
        if !self.is_posix() || prefix.is_empty() {
            return name.to_vec();
        }
        [prefix, b"/", name].concat()
    }

    pub(super) fn link(&self) -> Vec<u8> {
        until_nul(&self.0[157..257]).to_vec()
    }

    pub(super) fn mode(&self) -> Result<u64, Fault> {
        self.number("mode", 100..108)
    }

    pub(super) fn uid(&self) -> Result<u64, Fault> {
        self.number("uid", 108..116)
    }

    pub(super) fn gid(&self) -> Result<u64, Fault> {
        self.number("gid", 116..124)
    }

    pub(super) fn size(&self) -> Result<u64, Fault> {
        self.number("size", 124..136)
    }

    pub(super) fn mtime(&self) -> Result<i64, Fault> {
        signed(&self.0[136..148]).ok_or_else(|| self.bad_number("mtime"))
    }

    pub(super) fn device(&self) -> Result<(u64, u64), Fault> {
        if !self.is_gnu() && !self.is_posix() {
            return Ok((0, 0));
        }
        Ok((
            self.number("devmajor", 329..337)?,
            self.number("devminor", 337..345)?,
        ))
    }

    /// The sparse map of an old GNU header, or its beginning.
    pub(super) fn gnu_sparse(&self) -> Result<GnuSparse, Fault> {
        let mut segments = Vec::new();
        read_segments(&self.0[386..482], &mut segments)?;
        let real_size = self.number("real size", 483..495)?;
        Ok(GnuSparse {
            segments,
            more: self.0[482] != 0,
            real_size,
        })
    }

    fn number(&self, name: &str, field: std::ops::Range<usize>) -> Result<u64, Fault> {
        octal(&self.0[field]).ok_or_else(|| self.bad_number(name))
    }

    fn bad_number(&self, name: &str) -> Fault {
        Fault::of_entry(&self.path(), format_args!("its {name} is not a number"))
    }
}

/// Reads (offset, length) pairs of 12 bytes each until an empty one.
pub(super) fn read_segments(bytes: &[u8], segments: &mut Vec<(u64, u64)>) -> Result<(), Fault> {
    for pair in bytes.chunks_exact(24) {
        if pair[0] == 0 {
            break;
        }
        let bad = || Fault::Bad("it has a malformed sparse map".into());
        segments.push((
            octal(&pair[..12]).ok_or_else(bad)?,
            octal(&pair[12..]).ok_or_else(bad)?,
        ));
    }
    Ok(())
}

fn until_nul(field: &[u8]) -> &[u8] {
    &field[..field.iter().position(|&byte| byte == 0).unwrap_or(field.len())]
}

/// A number that must not be negative; an empty field is 0.
fn octal(field: &[u8]) -> Option<u64> {
    u64::try_from(signed(field)?).ok()
}

/// Octal digits padded by blanks and NULs, or GNU's base 256: the top bit set, then two's complement.
fn signed(field: &[u8]) -> Option<i64> {
    if field[0] & 0x80 != 0 {
        let negative = field[0] & 0x40 != 0;
        let first = if negative {
            field[0] | 0x80
        } else {
            field[0] & 0x7f
        };
        let start = if negative { -1i64 } else { 0 };
        let shift = |value: i64, byte: u8| Some(value.checked_mul(256)?.wrapping_add(i64::from(byte)));
        let value = shift(start, first)?;
        return field[1..]
            .iter()
            .try_fold(value, |value, &byte| shift(value, byte));
    }
    let mut digits = field.iter().skip_while(|byte| **byte == b' ');
    let mut value = 0i64;
    for &byte in digits.by_ref() {
        match byte {
            b'0'..=b'7' => value = value.checked_mul(8)?.checked_add(i64::from(byte - b'0'))?,
            b' ' | 0 => break,
            _ => return None,
        }
    }
    // After the digits only padding; bytes behind a NUL are nobody's (some writers leave rubbish there).
    Some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn number_octal_and_base_256_are_read() {
        assert_eq!(octal(b"0000644\0"), Some(0o644));
        assert_eq!(octal(b"   644 \0"), Some(0o644));
        assert_eq!(octal(b"\0\0\0\0\0\0\0\0"), Some(0));
        assert_eq!(
            octal(&[0x80, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0]),
            Some(0x2_0000_0000)
        );
        assert_eq!(signed(&[0xff; 12]), Some(-1));
        assert_eq!(
            signed(&[
                0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xfe
            ]),
            Some(-2)
        );
    }

    #[test]
    fn number_malformed_or_too_large_is_refused() {
        assert_eq!(octal(b"00x0644\0"), None);
        assert_eq!(octal(&[0xff; 12]), None);
        assert_eq!(
            octal(&[0x8f, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255]),
            None
        );
    }
}
