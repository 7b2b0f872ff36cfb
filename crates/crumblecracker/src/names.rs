//! Names that users give: of running guests and of guests that were put by. Both are names of folders.

/// The longest name.
const NAME_MAX: usize = 64;

/// Whether `name` is one of 1 to 64 letters, digits, `.`, `-` and `_`, of which the first is one of the first two.
pub(crate) fn is_name(name: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte);
    (1..=NAME_MAX).contains(&name.len())
        && name.bytes().all(plain)
        && name.starts_with(|first: char| first.is_ascii_alphanumeric())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_are_paths_options_or_too_long_are_none() {
        let long = "x".repeat(65);
        for name in [
            "", ".", "..", ".a", "-a", "_a", "a/b", "a b", "ä", "a\n", "/", &long,
        ] {
            assert!(!is_name(name), "{name:?}");
        }
        for name in ["a", "0", "web.1", "A-b.c_d", &long[1..]] {
            assert!(is_name(name), "{name:?}");
        }
    }
}
