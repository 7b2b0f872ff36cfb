//! Just enough of Rust's lexical structure to tell code from comments and literals.

/// The source with comments and the contents of string and character literals turned into spaces; lines
/// stay where they are.
pub(super) fn code_of(source: &str) -> String {
    let mut code = String::with_capacity(source.len());
    let mut rest = source;
    let mut after_word = false;
    while let Some(first) = rest.chars().next() {
        let blank = if after_word { 0 } else { raw_string(rest) };
        let blank = if blank > 0 {
            blank
        } else {
            comment(rest).max(literal(rest))
        };
        if blank > 0 {
            let (skipped, tail) = rest.split_at(blank);
            code.extend(skipped.chars().map(|c| if c == '\n' { c } else { ' ' }));
            rest = tail;
            after_word = false;
        } else {
            code.push(first);
            rest = &rest[first.len_utf8()..];
            after_word = is_word(first);
        }
    }
    code
}

/// The words of code: identifiers, keywords and numbers, with the index of the byte they start at.
pub(super) fn words(code: &str) -> impl Iterator<Item = (usize, &str)> {
    code.split(|c| !is_word(c))
        .filter(|word| !word.is_empty())
        .map(move |word| (word.as_ptr() as usize - code.as_ptr() as usize, word))
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// Length of the comment `text` starts with, or 0. Block comments nest.
fn comment(text: &str) -> usize {
    if text.starts_with("//") {
        return text.find('\n').unwrap_or(text.len());
    }
    if !text.starts_with("/*") {
        return 0;
    }
    let mut depth = 0;
    let mut at = 0;
    while at < text.len() {
        match &text.as_bytes()[at..] {
            [b'/', b'*', ..] => (depth, at) = (depth + 1, at + 2),
            [b'*', b'/', ..] if depth == 1 => return at + 2,
            [b'*', b'/', ..] => (depth, at) = (depth - 1, at + 2),
            _ => at += 1,
        }
    }
    text.len()
}

/// Length of the raw string `text` starts with, or 0.
fn raw_string(text: &str) -> usize {
    let Some(marks) = ["r", "br", "cr"]
        .iter()
        .find_map(|prefix| text.strip_prefix(prefix))
    else {
        return 0;
    };
    let hashes = marks.len() - marks.trim_start_matches('#').len();
    let Some(body) = marks[hashes..].strip_prefix('"') else {
        return 0;
    };
    let end = format!("\"{}", "#".repeat(hashes));
    body.find(&end)
        .map_or(text.len(), |at| text.len() - body.len() + at + end.len())
}

/// Length of the string or character literal `text` starts with, or 0; a lifetime is none.
fn literal(text: &str) -> usize {
    let bytes = text.as_bytes();
    let quote = bytes[0];
    let is_character = || {
        let second = text[1..].chars().next();
        second == Some('\\') || second.is_some_and(|c| text[1 + c.len_utf8()..].starts_with('\''))
    };
    if quote != b'"' && !(quote == b'\'' && is_character()) {
        return 0;
    }
    let mut at = 1;
    while at < bytes.len() {
        match bytes[at] {
            b'\\' => at += 2,
            byte if byte == quote => return at + 1,
            _ => at += 1,
        }
    }
    text.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept(source: &str) -> Vec<String> {
        let code = code_of(source);
        words(&code).map(|(_, word)| word.to_owned()).collect()
    }

    #[test]
    fn code_of_comments_are_blanked() {
        assert_eq!(
            kept("a // unsafe\nb /* unsafe /* x */ y */ c //! z"),
            ["a", "b", "c"]
        );
    }

    #[test]
    fn code_of_strings_are_blanked() {
        assert_eq!(
            kept(r###"a "un\"safe" b r#"x " y"# c br"z" d '"' e '\'' f"###),
            ["a", "b", "c", "d", "e", "f"]
        );
    }

    #[test]
    fn code_of_lifetimes_and_raw_names_stay() {
        assert_eq!(
            kept("fn f<'a>(x: &'a str, r#type: u8) {}"),
            "fn f a x a str r type u8".split(' ').collect::<Vec<_>>()
        );
    }

    #[test]
    fn code_of_any_source_keeps_line_numbers() {
        let source = "a\n/* \n */ \"\n\" b";

        assert_eq!(code_of(source).lines().count(), source.lines().count());
    }

    #[test]
    fn code_of_unfinished_literals_end_with_the_text() {
        for source in ["\"x\\", "r#\"x", "/* x", "'\\", "b'"] {
            code_of(source);
        }
    }

    #[test]
    fn words_unsafe_code_is_one_word() {
        assert_eq!(kept("#![forbid(unsafe_code)]"), ["forbid", "unsafe_code"]);
    }
}
