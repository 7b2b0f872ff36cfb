//! Debian version numbers and their order (Debian Policy 5.6.12, "Version").

use std::cmp::Ordering;

/// Orders two version numbers `[epoch:]upstream[-revision]` as dpkg does. Any text has a place in the order.
pub fn compare(a: &str, b: &str) -> Ordering {
    let (a, b) = (Parts::of(a), Parts::of(b));
    let epochs = strip_zeros(a.epoch).len().cmp(&strip_zeros(b.epoch).len());
    epochs
        .then_with(|| strip_zeros(a.epoch).cmp(strip_zeros(b.epoch)))
        .then_with(|| compare_part(a.upstream, b.upstream))
        .then_with(|| compare_part(a.revision, b.revision))
}

/// A relation between versions as dependencies write it (Policy 7.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operator {
    /// `<<`
    Earlier,
    /// `<=`
    EarlierOrEqual,
    /// `=`
    Equal,
    /// `>=`
    LaterOrEqual,
    /// `>>`
    Later,
}

impl Operator {
    /// Reads the operator; the obsolete `<` and `>` mean "or equal".
    pub(crate) fn parse(text: &str) -> Option<Operator> {
        Some(match text {
            "<<" => Operator::Earlier,
            "<=" | "<" => Operator::EarlierOrEqual,
            "=" => Operator::Equal,
            ">=" | ">" => Operator::LaterOrEqual,
            ">>" => Operator::Later,
            _ => return None,
        })
    }

    /// Whether `version` stands in this relation to `bound`.
    pub fn holds(self, version: &str, bound: &str) -> bool {
        let order = compare(version, bound);
        match self {
            Operator::Earlier => order.is_lt(),
            Operator::EarlierOrEqual => order.is_le(),
            Operator::Equal => order.is_eq(),
            Operator::LaterOrEqual => order.is_ge(),
            Operator::Later => order.is_gt(),
        }
    }
}

struct Parts<'a> {
    epoch: &'a str,
    upstream: &'a [u8],
    revision: &'a [u8],
}

impl<'a> Parts<'a> {
    fn of(version: &'a str) -> Parts<'a> {
        let (epoch, rest) = version.split_once(':').unwrap_or(("", version));
        // An absent revision is the same as "0", which compares equal to the empty one.
        let (upstream, revision) = rest.rsplit_once('-').unwrap_or((rest, ""));
        Parts {
            epoch,
            upstream: upstream.as_bytes(),
            revision: revision.as_bytes(),
        }
    }
}

fn strip_zeros(digits: &str) -> &[u8] {
    digits.trim_start_matches('0').as_bytes()
}

/// Compares alternately a run of non-digits and a run of digits, until a difference is found.
fn compare_part(mut a: &[u8], mut b: &[u8]) -> Ordering {
    while !a.is_empty() || !b.is_empty() {
        let (text_a, rest_a) = split_run(a, |byte| !byte.is_ascii_digit());
        let (text_b, rest_b) = split_run(b, |byte| !byte.is_ascii_digit());
        let (number_a, rest_a) = split_run(rest_a, |byte| byte.is_ascii_digit());
        let (number_b, rest_b) = split_run(rest_b, |byte| byte.is_ascii_digit());
        let order = compare_text(text_a, text_b).then_with(|| compare_number(number_a, number_b));
        if order.is_ne() {
            return order;
        }
        (a, b) = (rest_a, rest_b);
    }
    Ordering::Equal
}

fn split_run(bytes: &[u8], belongs: impl Fn(u8) -> bool) -> (&[u8], &[u8]) {
    let length = bytes
        .iter()
        .position(|&byte| !belongs(byte))
        .unwrap_or(bytes.len());
    bytes.split_at(length)
}

/// Letters before everything else, except that `~` comes before even the end.
fn compare_text(a: &[u8], b: &[u8]) -> Ordering {
    let weight = |byte: Option<&u8>| match byte {
        Some(b'~') => -1,
        None => 0,
        Some(&byte) if byte.is_ascii_alphabetic() => i32::from(byte),
        Some(&byte) => i32::from(byte) + 256,
    };
    (0..a.len().max(b.len()))
        .map(|at| weight(a.get(at)).cmp(&weight(b.get(at))))
        .find(|order| order.is_ne())
        .unwrap_or(Ordering::Equal)
}

/// Numbers of any length; no digits count as zero.
fn compare_number(a: &[u8], b: &[u8]) -> Ordering {
    let significant = |digits: &[u8]| digits.iter().position(|&d| d != b'0').unwrap_or(digits.len());
    let (a, b) = (&a[significant(a)..], &b[significant(b)..]);
    a.len().cmp(&b.len()).then_with(|| a.cmp(b))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn version_compare_policy_examples_are_ordered() {
        let ordered = ["~~", "~~a", "~", "", "a"];
        for pair in ordered.windows(2) {
            assert_eq!(compare(pair[0], pair[1]), Ordering::Less, "{pair:?}");
        }
        assert_eq!(compare("1.0", "1.0-0"), Ordering::Equal);
        assert_eq!(compare("0:1.0", "1.0"), Ordering::Equal);
        assert_eq!(compare("1:0.9", "2.0"), Ordering::Greater);
        assert_eq!(compare("1.10", "1.9"), Ordering::Greater);
        assert_eq!(compare("1.0~rc1", "1.0"), Ordering::Less);
        assert_eq!(compare("1.0+b1", "1.0"), Ordering::Greater);
        assert_eq!(compare("1.0-1~deb13u1", "1.0-1"), Ordering::Less);
        assert_eq!(compare("001", "1"), Ordering::Equal);
    }

    #[test]
    fn version_operator_holds_as_named() {
        assert!(Operator::Earlier.holds("1", "2") && !Operator::Earlier.holds("2", "2"));
        assert!(Operator::EarlierOrEqual.holds("2", "2") && Operator::Equal.holds("2-0", "2"));
        assert!(Operator::LaterOrEqual.holds("2", "2") && Operator::Later.holds("2.1", "2"));
    }

    proptest::proptest! {
        #[test]
        fn version_compare_of_random_text_is_antisymmetric(a in "[0-9a-c.~+:-]{0,12}", b in "[0-9a-c.~+:-]{0,12}") {
            proptest::prop_assert_eq!(compare(&a, &b), compare(&b, &a).reverse());
            proptest::prop_assert_eq!(compare(&a, &a), Ordering::Equal);
        }
    }
}
