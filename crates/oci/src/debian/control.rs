//! Debian control data (Debian Policy 5.1, "Syntax of control files"; deb822(5)).

/// One paragraph: fields in order, names as written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Paragraph<'a> {
    fields: Vec<(&'a str, &'a str)>,
}

impl<'a> Paragraph<'a> {
    /// The value of a field, names compared without case: everything after the colon, with the line
    /// breaks of a value that has several lines.
    pub(crate) fn get(&self, name: &str) -> Option<&'a str> {
        self.fields
            .iter()
            .find(|(field, _)| field.eq_ignore_ascii_case(name))
            .map(|(_, value)| *value)
    }

    /// The words of a field that is a list split by white space, without comment lines.
    pub(crate) fn words(&self, name: &str) -> impl Iterator<Item = &'a str> {
        lines(self.get(name).unwrap_or_default()).flat_map(str::split_ascii_whitespace)
    }
}

/// The lines of a value, trimmed, without empty ones and comments.
pub(crate) fn lines(value: &str) -> impl Iterator<Item = &str> {
    value
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
}

/// The paragraphs of a text, in order. A line that is neither a field, a continuation, a comment nor empty
/// is an error, which names it.
pub(crate) fn paragraphs(text: &str) -> Result<Vec<Paragraph<'_>>, String> {
    let mut all = Vec::new();
    let mut current = Paragraph::default();
    let mut at = 0;
    // Where the value being read begins; comments inside stay in its slice and are dropped by `lines`.
    let mut value_start = None;
    for line in text.split_inclusive('\n') {
        let (start, end) = (at, at + line.len());
        at = end;
        let content = line.trim_end();
        if content.is_empty() {
            value_start = None;
            if !current.fields.is_empty() {
                all.push(std::mem::take(&mut current));
            }
        } else if content.starts_with('#') {
            continue;
        } else if line.starts_with([' ', '\t']) {
            let (begin, field) = value_start
                .zip(current.fields.last_mut())
                .ok_or_else(|| malformed(content))?;
            field.1 = text[begin..end].trim();
        } else {
            let (name, _) = content.split_once(':').ok_or_else(|| malformed(content))?;
            if name.is_empty() || name.contains(char::is_whitespace) {
                return Err(malformed(content));
            }
            let begin = start + name.len() + 1;
            value_start = Some(begin);
            current.fields.push((name, text[begin..end].trim()));
        }
    }
    if !current.fields.is_empty() {
        all.push(current);
    }
    Ok(all)
}

fn malformed(line: &str) -> String {
    format!("`{}` is not a field", line.chars().take(80).collect::<String>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_paragraphs_comments_and_continuations_are_read() {
        let text = "# top\nTypes: deb deb-src\nURIs: http://a/\n# in the middle\n  http://b/ \n\n\n\tx: 1\n";
        assert!(paragraphs(text).is_err());
        let text = text.replace("\tx: 1", "x:1");
        let read = paragraphs(&text).unwrap();
        assert_eq!(read.len(), 2);
        assert_eq!(
            read[0].words("uris").collect::<Vec<_>>(),
            ["http://a/", "http://b/"]
        );
        assert_eq!(read[0].words("TYPES").collect::<Vec<_>>(), ["deb", "deb-src"]);
        assert_eq!(read[1].get("X"), Some("1"));
        assert_eq!(read[1].get("y"), None);
    }

    #[test]
    fn control_paragraphs_carriage_returns_are_white_space() {
        let read = paragraphs("A: 1\r\nB:\r\n 2\r\n\r\nC: 3\r\n").unwrap();
        assert_eq!(
            (read[0].get("a"), read[0].get("b"), read[1].get("c")),
            (Some("1"), Some("2"), Some("3"))
        );
    }

    #[test]
    fn control_paragraphs_junk_line_is_named() {
        assert_eq!(paragraphs("A: 1\njunk\n").unwrap_err(), "`junk` is not a field");
    }

    proptest::proptest! {
        #[test]
        fn control_paragraphs_of_random_text_do_not_panic(text in "[a:# \\n\\tä]{0,60}") {
            if let Ok(read) = paragraphs(&text) {
                for paragraph in read {
                    paragraph.words("a").count();
                }
            }
        }
    }
}
