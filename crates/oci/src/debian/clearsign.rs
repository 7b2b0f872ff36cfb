//! The cleartext signature framework (RFC 9580, section 7), read strictly and in one pass.
//!
//! What is returned as the text is exactly what was signed: a message with anything before, after or between
//! its parts is refused, and so is a line that two readers could split differently.

const BEGIN_MESSAGE: &str = "-----BEGIN PGP SIGNED MESSAGE-----";
const BEGIN_SIGNATURE: &str = "-----BEGIN PGP SIGNATURE-----";
const END_SIGNATURE: &str = "-----END PGP SIGNATURE-----";
/// Largest armored signature block; three signatures take two kilobytes.
const MAX_SIGNATURE: usize = 64 << 10;

/// A message taken apart, not verified.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct ClearSigned<'a> {
    /// The text as it was hashed: lines without trailing white space, joined by CR LF (section 7.2).
    pub(crate) text: String,
    /// The armored signatures.
    pub(crate) signatures: &'a str,
}

/// Takes a message apart; what is wrong with it otherwise.
pub(crate) fn read(message: &str) -> Result<ClearSigned<'_>, &'static str> {
    let mut at = 0;
    let mut lines = message.split_inclusive('\n').map(|line| {
        let start = at;
        at += line.len();
        (start, line.trim_end_matches(['\n', '\r', ' ', '\t']))
    });
    if lines.next().map(|(_, line)| line) != Some(BEGIN_MESSAGE) {
        return Err("it does not begin as a clear-signed message");
    }
    for (_, line) in lines.by_ref() {
        match line {
            "" => break,
            _ if line.starts_with("Hash: ") => {}
            _ => return Err("its header has something else than hashes"),
        }
    }
    let mut text = String::with_capacity(message.len() + message.len() / 16);
    let mut first = true;
    for (start, line) in lines {
        if line == BEGIN_SIGNATURE {
            return Ok(ClearSigned {
                text,
                signatures: signature_block(&message[start..])?,
            });
        }
        let line = match line.strip_prefix("- ") {
            Some(escaped) => escaped,
            None if line.starts_with('-') => return Err("a line of its text begins with an unescaped dash"),
            None => line,
        };
        if line.contains(['\r', '\0']) {
            return Err("its text has control characters");
        }
        if !std::mem::take(&mut first) {
            text.push_str("\r\n");
        }
        text.push_str(line);
    }
    Err("it ends without a signature")
}

/// The one block that must be all that is left.
fn signature_block(rest: &str) -> Result<&str, &'static str> {
    let block = rest.trim_end();
    if block.len() > MAX_SIGNATURE {
        return Err("its signature is too large");
    }
    let inner = block
        .strip_prefix(BEGIN_SIGNATURE)
        .and_then(|rest| rest.strip_suffix(END_SIGNATURE));
    match inner {
        Some(inner) if inner.ends_with('\n') && !inner.lines().any(|line| line.starts_with('-')) => Ok(block),
        _ => Err("its signature is cut off, or something follows it"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIGNATURE: &str = "-----BEGIN PGP SIGNATURE-----\n\nabc=\n-----END PGP SIGNATURE-----\n";

    fn message(text: &str) -> String {
        format!("{BEGIN_MESSAGE}\nHash: SHA256\n\n{text}{SIGNATURE}")
    }

    #[test]
    fn clearsign_read_gives_text_as_hashed() {
        let message = message("a \t\n- -----BEGIN\r\n\nb\n");
        let read = read(&message).unwrap();
        assert_eq!(read.text, "a\r\n-----BEGIN\r\n\r\nb");
        assert_eq!(read.signatures, SIGNATURE.trim_end());
    }

    #[test]
    fn clearsign_read_anything_else_is_refused() {
        let good = message("a\n");
        for bad in [
            String::new(),
            format!("a\n{good}"),
            format!("\n{good}"),
            format!("{good}a\n"),
            format!("{good}{good}"),
            message("-a\n"),
            message("a\rb\n"),
            good.replace("Hash: SHA256", "Comment: x"),
            good.replace("-----END PGP SIGNATURE-----", ""),
            good.replace(SIGNATURE, ""),
            good.replace("abc=", "-----END PGP SIGNATURE-----\nabc="),
        ] {
            assert!(read(&bad).is_err(), "{bad}");
        }
    }

    proptest::proptest! {
        #[test]
        fn clearsign_read_of_random_lines_does_not_panic(lines in "(-----BEGIN PGP SIGNATURE-----|a|- |-|\\n|\\r|ä){0,20}") {
            let _ = read(&format!("{BEGIN_MESSAGE}\n\n{lines}"));
            let _ = read(&lines);
        }
    }
}
