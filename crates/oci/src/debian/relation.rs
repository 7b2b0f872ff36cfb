//! Dependency fields (Debian Policy 7.1, "Syntax of relationship fields").

use std::fmt;

use super::version::Operator;

/// One package relation: `name[:qualifier] [(operator version)]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Relation<'a> {
    pub(crate) name: &'a str,
    /// `any`, or an architecture.
    pub(crate) qualifier: Option<&'a str>,
    pub(crate) bound: Option<(Operator, &'a str)>,
    text: &'a str,
}

impl Relation<'_> {
    /// Whether a package's own version satisfies the relation.
    pub(crate) fn admits(&self, version: &str) -> bool {
        self.bound
            .is_none_or(|(operator, bound)| operator.holds(version, bound))
    }

    /// Whether providing the name, at a version or without one, satisfies the relation: a provision
    /// without a version satisfies no versioned relation (Policy 7.5).
    pub(crate) fn admits_provided(&self, version: Option<&str>) -> bool {
        match (self.bound, version) {
            (None, _) => true,
            (Some((operator, bound)), Some(version)) => operator.holds(version, bound),
            (Some(_), None) => false,
        }
    }

    /// Whether the relation can be met by packages of one architecture.
    pub(crate) fn for_architecture(&self, architecture: &str) -> bool {
        self.qualifier
            .is_none_or(|qualifier| matches!(qualifier, "any" | "native") || qualifier == architecture)
    }
}

impl fmt::Display for Relation<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text)
    }
}

/// A field's groups of alternatives; what is not a relation is returned as the error.
pub(crate) fn parse(field: &str) -> Result<Vec<Vec<Relation<'_>>>, String> {
    field
        .split(',')
        .map(str::trim)
        .filter(|group| !group.is_empty())
        .map(|group| group.split('|').map(|text| relation(text.trim())).collect())
        .collect()
}

fn relation(text: &str) -> Result<Relation<'_>, String> {
    let malformed = || {
        format!(
            "`{}` is not a package relation",
            text.chars().take(80).collect::<String>()
        )
    };
    // Architecture lists and build profiles only occur in source packages.
    let (head, bound) = match text.split_once('(') {
        Some((head, bound)) => {
            let bound = bound.trim_end().strip_suffix(')').ok_or_else(malformed)?.trim();
            let version = bound.trim_start_matches(['<', '>', '=']);
            let operator = Operator::parse(&bound[..bound.len() - version.len()]).ok_or_else(malformed)?;
            (head.trim(), Some((operator, version.trim())))
        }
        None => (text, None),
    };
    let (name, qualifier) = match head.split_once(':') {
        Some((name, qualifier)) => (name, Some(qualifier)),
        None => (head, None),
    };
    if !is_package_name(name) || bound.is_some_and(|(_, version)| version.is_empty()) {
        return Err(malformed());
    }
    Ok(Relation {
        name,
        qualifier,
        bound,
        text,
    })
}

/// Policy 5.6.7, loosened by upper case and single letters, which old virtual packages have.
pub(crate) fn is_package_name(name: &str) -> bool {
    name.bytes()
        .next()
        .is_some_and(|first| first.is_ascii_alphanumeric())
        && name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'-' | b'.' | b'_'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn relation_parse_alternatives_versions_and_qualifiers_are_read() {
        let groups = parse("libc6 (>= 2.38), awk | mawk:any (<<1:2),perl:any ( = 5 )").unwrap();
        assert_eq!(groups.len(), 3);
        assert_eq!(groups[0][0].bound, Some((Operator::LaterOrEqual, "2.38")));
        assert_eq!((groups[1][1].name, groups[1][1].qualifier), ("mawk", Some("any")));
        assert_eq!(groups[1][1].bound, Some((Operator::Earlier, "1:2")));
        assert_eq!(groups[2][0].bound, Some((Operator::Equal, "5")));
        assert_eq!(groups[2][0].to_string(), "perl:any ( = 5 )");
    }

    #[test]
    fn relation_parse_malformed_is_refused() {
        for field in [
            "a (", "a (>= )", "a (1)", "a b", "(>= 1)", "a | ", "$x", "a (=> 1)",
        ] {
            assert!(parse(field).is_err(), "{field}");
        }
        assert_eq!(parse("").unwrap().len(), 0);
    }

    #[test]
    fn relation_admits_provided_needs_version_for_versioned() {
        let groups = parse("a (>= 2), b").unwrap();
        assert!(!groups[0][0].admits_provided(None) && groups[0][0].admits_provided(Some("2")));
        assert!(groups[1][0].admits_provided(None));
    }

    proptest::proptest! {
        #[test]
        fn relation_parse_of_random_text_does_not_panic(text in "[a-c()<>=:|, 1ä]{0,40}") {
            let _ = parse(&text);
        }
    }
}
