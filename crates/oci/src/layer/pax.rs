//! PAX extended header records (POSIX.1-2001 pax, "pax Extended Header"), and the vendor keys images use.

use super::Fault;

/// What a PAX header said about the entry that follows it.
#[derive(Debug, Default)]
pub(super) struct Pax {
    pub(super) path: Option<Vec<u8>>,
    pub(super) link: Option<Vec<u8>>,
    pub(super) size: Option<u64>,
    pub(super) uid: Option<u64>,
    pub(super) gid: Option<u64>,
    /// Seconds and nanoseconds.
    pub(super) mtime: Option<(i64, u32)>,
    /// `SCHILY.xattr.NAME`, in the order they came.
    pub(super) xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    pub(super) sparse: PaxSparse,
}

/// GNU tar's sparse keys, versions 0.0, 0.1 and 1.0.
#[derive(Debug, Default)]
pub(super) struct PaxSparse {
    pub(super) major: Option<u64>,
    pub(super) minor: Option<u64>,
    pub(super) name: Option<Vec<u8>>,
    pub(super) real_size: Option<u64>,
    /// Offsets and lengths alternating, from versions 0.0 and 0.1.
    pub(super) map: Vec<u64>,
    pub(super) has_map: bool,
}

impl Pax {
    /// Reads all records of one extended header.
    pub(super) fn parse(mut records: &[u8]) -> Result<Pax, Fault> {
        let mut pax = Pax::default();
        while !records.is_empty() {
            let (key, value, rest) =
                split_record(records).ok_or_else(|| Fault::Bad("it has a malformed PAX header".into()))?;
            pax.apply(key, value)?;
            records = rest;
        }
        Ok(pax)
    }

    fn apply(&mut self, key: &[u8], value: &[u8]) -> Result<(), Fault> {
        let number = || decimal(value).ok_or_else(|| bad_value(key));
        if let Some(name) = key.strip_prefix(b"SCHILY.xattr.") {
            self.xattrs.retain(|(other, _)| other != name);
            self.xattrs.push((name.to_vec(), value.to_vec()));
            return Ok(());
        }
        // An empty value takes a record back (POSIX pax).
        if value.is_empty() {
            return Ok(());
        }
        match key {
            b"path" => self.path = Some(value.to_vec()),
            b"linkpath" => self.link = Some(value.to_vec()),
            b"size" => self.size = Some(number()?),
            b"uid" => self.uid = Some(number()?),
            b"gid" => self.gid = Some(number()?),
            b"mtime" => self.mtime = Some(time(value).ok_or_else(|| bad_value(key))?),
            b"GNU.sparse.major" => self.sparse.major = Some(number()?),
            b"GNU.sparse.minor" => self.sparse.minor = Some(number()?),
            b"GNU.sparse.name" => self.sparse.name = Some(value.to_vec()),
            b"GNU.sparse.realsize" | b"GNU.sparse.size" => self.sparse.real_size = Some(number()?),
            b"GNU.sparse.numblocks" => self.sparse.has_map = true,
            b"GNU.sparse.offset" | b"GNU.sparse.numbytes" => {
                self.sparse.has_map = true;
                self.sparse.map.push(number()?);
            }
            b"GNU.sparse.map" => {
                self.sparse.has_map = true;
                for text in value.split(|&byte| byte == b',') {
                    self.sparse.map.push(decimal(text).ok_or_else(|| bad_value(key))?);
                }
            }
            _ => {}
        }
        Ok(())
    }
}

fn bad_value(key: &[u8]) -> Fault {
    Fault::Bad(format!(
        "it has a malformed PAX value of `{}`",
        String::from_utf8_lossy(key).escape_debug()
    ))
}

/// Splits `LENGTH KEY=VALUE\n` off; the length counts the whole record.
fn split_record(bytes: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let blank = bytes.iter().take(12).position(|&byte| byte == b' ')?;
    let length = usize::try_from(decimal(&bytes[..blank])?).ok()?;
    let record = bytes.get(blank + 1..length)?.strip_suffix(b"\n")?;
    let equals = record.iter().position(|&byte| byte == b'=')?;
    Some((&record[..equals], &record[equals + 1..], &bytes[length..]))
}

pub(super) fn decimal(text: &[u8]) -> Option<u64> {
    if text.is_empty() || !text.iter().all(u8::is_ascii_digit) {
        return None;
    }
    text.iter().try_fold(0u64, |value, &digit| {
        value.checked_mul(10)?.checked_add(u64::from(digit - b'0'))
    })
}

/// Decimal seconds with any number of fraction digits, of which nine count.
fn time(text: &[u8]) -> Option<(i64, u32)> {
    let (negative, text) = match text.strip_prefix(b"-") {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    let mut parts = text.splitn(2, |&byte| byte == b'.');
    let seconds = i64::try_from(decimal(parts.next()?)?).ok()?;
    let fraction = parts.next().unwrap_or(b"");
    if !fraction.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let digit = |index: usize| fraction.get(index).map_or(0, |digit| u32::from(digit - b'0'));
    let nanoseconds = (0..9).fold(0, |value, index| value * 10 + digit(index));
    match (negative, nanoseconds) {
        (false, _) => Some((seconds, nanoseconds)),
        (true, 0) => Some((-seconds, 0)),
        (true, _) => Some((-seconds - 1, 1_000_000_000 - nanoseconds)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pax_records_of_all_kinds_are_read() {
        let records = b"13 path=a/bc\n33 SCHILY.xattr.user.k=v\n\0w=\nxyz\n25 mtime=-1.250000000000\n";
        let pax = Pax::parse(records).unwrap();
        assert_eq!(pax.path.as_deref(), Some(&b"a/bc"[..]));
        assert_eq!(pax.xattrs, [(b"user.k".to_vec(), b"v\n\0w=\nxyz".to_vec())]);
        assert_eq!(pax.mtime, Some((-2, 750_000_000)));
    }

    #[test]
    fn pax_malformed_records_are_refused() {
        for records in [
            &b"x"[..],
            b"5 a=b",
            b"99 path=a\n",
            b"3 \n",
            b" path=a\n",
            b"10 size=-1\n",
            b"13 mtime=1.x\n",
        ] {
            assert!(matches!(Pax::parse(records), Err(Fault::Bad(_))), "{records:?}");
        }
    }

    proptest::proptest! {
        #[test]
        fn pax_parse_of_random_bytes_never_panics(bytes in proptest::collection::vec(0u8.., 0..200)) {
            let _ = Pax::parse(&bytes);
        }
    }
}
