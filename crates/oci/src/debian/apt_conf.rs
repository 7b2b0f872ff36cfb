//! apt's configuration (apt.conf(5)), as far as it bears on fetching: validity checks and proxies.

use std::fs;
use std::path::{Path, PathBuf};

use super::error::{Error, Result};

/// Largest configuration file that is read.
const MAX_BYTES: u64 = 4 << 20;
/// Deepest nesting of braces.
const MAX_DEPTH: usize = 32;

/// The settings of all configuration files, later ones winning.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct AptConf {
    /// Scoped names in lower case (`acquire::http::proxy`) and their values, in order.
    settings: Vec<(String, String)>,
}

impl AptConf {
    /// Reads `apt.conf.d/*` in order of their names and then `apt.conf` of apt's folder, as apt does.
    /// Absent files are no settings.
    pub(crate) fn read(apt_folder: &Path) -> Result<AptConf> {
        let mut files = parts(&apt_folder.join("apt.conf.d"))?;
        files.push(apt_folder.join("apt.conf"));
        let mut conf = AptConf::default();
        for file in files {
            if let Some(text) = read_text(&file)? {
                conf.parse(&text);
            }
        }
        Ok(conf)
    }

    /// Adds the settings of one file's text. What is not understood is passed over: it is not ours to judge.
    fn parse(&mut self, text: &str) {
        let mut scopes: Vec<String> = Vec::new();
        let mut words: Vec<String> = Vec::new();
        for token in tokens(text) {
            match token {
                Token::Word(word) => words.push(word),
                Token::Open => {
                    if scopes.len() >= MAX_DEPTH {
                        return;
                    }
                    scopes.push(
                        words
                            .first()
                            .map(|word| word.to_ascii_lowercase())
                            .unwrap_or_default(),
                    );
                    words.clear();
                }
                Token::Close => {
                    self.add(&scopes, &words);
                    words.clear();
                    scopes.pop();
                }
                Token::End => {
                    self.add(&scopes, &words);
                    words.clear();
                }
            }
        }
    }

    fn add(&mut self, scopes: &[String], words: &[String]) {
        let scoped = |name: &str| {
            let parts: Vec<&str> = scopes.iter().map(String::as_str).chain([name]).collect();
            parts.join("::").to_ascii_lowercase()
        };
        match words {
            [directive, name] if directive.eq_ignore_ascii_case("#clear") => {
                let (name, inside) = (scoped(name), format!("{}::", scoped(name)));
                self.settings
                    .retain(|(key, _)| *key != name && !key.starts_with(&inside));
            }
            [name, value] => self.settings.push((scoped(name), value.clone())),
            _ => {}
        }
    }

    /// The last value of a scoped name, letters compared without case.
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        let name = name.to_ascii_lowercase();
        self.settings
            .iter()
            .rev()
            .find(|(key, _)| *key == name)
            .map(|(_, value)| value.as_str())
    }

    /// A truth value in any of apt's spellings; `None` when unset or something else.
    pub(crate) fn flag(&self, name: &str) -> Option<bool> {
        match self.get(name)?.to_ascii_lowercase().as_str() {
            "1" | "yes" | "true" | "with" | "on" | "enable" => Some(true),
            "0" | "no" | "false" | "without" | "off" | "disable" => Some(false),
            _ => None,
        }
    }

    /// Whether any proxy is configured.
    pub(crate) fn has_proxy(&self) -> bool {
        let starts =
            |key: &str| key.starts_with("acquire::http::proxy") || key.starts_with("acquire::https::proxy");
        self.settings.iter().any(|(key, _)| starts(key))
    }

    /// The proxy for a scheme and host: `Acquire::<scheme>::Proxy::<host>` before `Acquire::<scheme>::Proxy`;
    /// https uses http's when it has none of its own. `DIRECT` means none.
    pub(crate) fn proxy(&self, scheme: &str, host: &str) -> Option<&str> {
        let schemes: &[&str] = if scheme == "https" {
            &["https", "http"]
        } else {
            &["http"]
        };
        schemes
            .iter()
            .find_map(|scheme| {
                self.get(&format!("Acquire::{scheme}::Proxy::{host}"))
                    .or_else(|| self.get(&format!("Acquire::{scheme}::Proxy")))
            })
            .filter(|proxy| !proxy.is_empty() && !proxy.eq_ignore_ascii_case("direct"))
    }
}

/// The files of a configuration folder that apt reads (names of letters, digits, `-`, `_`, `.`; no extension
/// or `conf`), sorted. An absent folder has none.
fn parts(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut files = list(folder)?;
    files.retain(|file| {
        let name = file
            .file_name()
            .and_then(|name| name.to_str())
            .unwrap_or_default();
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
        name.bytes().all(plain) && !name.starts_with('.') && (!name.contains('.') || name.ends_with(".conf"))
    });
    Ok(files)
}

/// All entries of a folder, sorted by name; none if it is absent.
pub(crate) fn list(folder: &Path) -> Result<Vec<PathBuf>> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(Error::io("read", folder)(error)),
    };
    let mut files: Vec<PathBuf> = entries
        .map(|entry| entry.map(|entry| entry.path()))
        .collect::<std::io::Result<_>>()
        .map_err(Error::io("read", folder))?;
    files.sort();
    Ok(files)
}

/// A file's text, bytes that are not UTF-8 replaced; `None` if it is absent, not a file or unreasonably large.
pub(crate) fn read_text(file: &Path) -> Result<Option<String>> {
    match fs::metadata(file) {
        Ok(about) if about.is_file() && about.len() <= MAX_BYTES => {}
        Ok(_) => return Ok(None),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(Error::io("read", file)(error)),
    }
    match fs::read(file) {
        Ok(bytes) => Ok(Some(String::from_utf8_lossy(&bytes).into_owned())),
        // Files only root may read hold credentials or nothing that matters here.
        Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => Ok(None),
        Err(error) => Err(Error::io("read", file)(error)),
    }
}

enum Token {
    Word(String),
    Open,
    Close,
    End,
}

/// Splits into words (quoted or not), braces and semicolons; drops `//`, `#` and `/* */` comments.
fn tokens(text: &str) -> Vec<Token> {
    let mut tokens = Vec::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let after = &rest[first.len_utf8()..];
        rest = match first {
            '{' | '}' | ';' => {
                tokens.push(match first {
                    '{' => Token::Open,
                    '}' => Token::Close,
                    _ => Token::End,
                });
                after
            }
            '"' => {
                let (word, rest) = after.split_once('"').unwrap_or((after, ""));
                tokens.push(Token::Word(word.to_owned()));
                rest
            }
            '/' if rest.starts_with("//") => skip_line(rest),
            '/' if rest.starts_with("/*") => rest[2..].split_once("*/").map_or("", |(_, rest)| rest),
            '#' if !rest.starts_with("#clear") => skip_line(rest),
            _ if first.is_whitespace() => after,
            _ => {
                let end = rest
                    .find(|c: char| c.is_whitespace() || "{};\"".contains(c))
                    .unwrap_or(rest.len());
                tokens.push(Token::Word(rest[..end].to_owned()));
                &rest[end..]
            }
        };
    }
    tokens
}

fn skip_line(text: &str) -> &str {
    text.split_once('\n').map_or("", |(_, rest)| rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn conf(text: &str) -> AptConf {
        let mut conf = AptConf::default();
        conf.parse(text);
        conf
    }

    #[test]
    fn apt_conf_scoped_and_braced_forms_are_the_same() {
        for text in [
            "Acquire::Check-Valid-Until \"false\";",
            "acquire { check-valid-until \"false\"; };",
            "Acquire {\n // why\n Check-Valid-Until false; # x\n /* \" */ };",
            "Acquire { http { Proxy \"p\"; }; Check-Valid-Until \"0\"; };",
            "Acquire { Check-Valid-Until \"no\" }",
        ] {
            assert_eq!(
                conf(text).flag("Acquire::Check-Valid-Until"),
                Some(false),
                "{text}"
            );
        }
    }

    #[test]
    fn apt_conf_later_setting_wins_and_clear_removes() {
        let read = conf("A::B \"1\"; A::B \"0\"; C { D \"x\"; }; #clear C;");
        assert_eq!(read.flag("a::b"), Some(false));
        assert_eq!(read.get("C::D"), None);
    }

    #[test]
    fn apt_conf_proxy_host_before_scheme_and_https_falls_back() {
        let read = conf("Acquire::http { Proxy \"http://p:1\"; Proxy::near \"DIRECT\"; };");
        assert_eq!(read.proxy("http", "far"), Some("http://p:1"));
        assert_eq!(read.proxy("https", "far"), Some("http://p:1"));
        assert_eq!(read.proxy("http", "near"), None);
        assert_eq!(conf("").proxy("http", "far"), None);
    }

    #[test]
    fn apt_conf_read_parts_before_main_and_ignores_odd_names() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("apt.conf.d")).unwrap();
        fs::write(folder.path().join("apt.conf.d/10a"), "X \"a\"; Y \"a\";").unwrap();
        fs::write(folder.path().join("apt.conf.d/20b.conf"), "Y \"b\"; Z \"b\";").unwrap();
        fs::write(folder.path().join("apt.conf.d/30c.bak"), "Y \"c\";").unwrap();
        fs::write(folder.path().join("apt.conf"), "Z \"main\";").unwrap();
        let read = AptConf::read(folder.path()).unwrap();
        assert_eq!(
            (read.get("X"), read.get("Y"), read.get("Z")),
            (Some("a"), Some("b"), Some("main"))
        );
        assert_eq!(
            AptConf::read(&folder.path().join("none")).unwrap(),
            AptConf::default()
        );
    }

    proptest::proptest! {
        #[test]
        fn apt_conf_of_random_text_does_not_panic(text in "[a:{};\"#/* \\nä]{0,60}") {
            conf(&text);
        }
    }
}
