//! Variables for the command: `--env-file` and `--env` as Docker reads them.

use std::ffi::OsString;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, anyhow, bail, ensure};

/// Where values of the host's variables come from.
type Host<'a> = &'a dyn Fn(&str) -> Option<OsString>;

/// `NAME=value` of all `files` in their order, then of all `settings`.
///
/// # Errors
/// A file that cannot be read; a line or word that is no variable.
pub(crate) fn variables(
    files: &[impl AsRef<Path>],
    settings: &[String],
    host: Host<'_>,
) -> Result<Vec<String>> {
    let mut all = Vec::new();
    for path in files {
        let path = path.as_ref();
        let text = fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
        all.extend(listed(&text, host).with_context(|| format!("{} is refused", path.display()))?);
    }
    for setting in settings {
        all.extend(variable(setting, host)?);
    }
    Ok(all)
}

/// The variables in the text of a file: one on a line, lines that begin with `#` and empty ones left out.
fn listed(text: &str, host: Host<'_>) -> Result<Vec<String>> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut all = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let line = line.trim_start();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let name = line.split('=').next().unwrap_or_default();
        ensure!(
            !name.contains(char::is_whitespace),
            "line {}: a name has no blanks: {name:?}",
            number + 1
        );
        all.extend(variable(line, host).with_context(|| format!("line {}", number + 1))?);
    }
    Ok(all)
}

/// `NAME=value` as it is, `NAME` with the host's value; `None` where the host has none.
fn variable(setting: &str, host: Host<'_>) -> Result<Option<String>> {
    let (name, value) = match setting.split_once('=') {
        Some((name, _)) => (name, Some(setting.to_owned())),
        None => (setting, None),
    };
    if name.is_empty() || setting.contains('\0') {
        bail!("{setting:?} is no variable");
    }
    if value.is_some() {
        return Ok(value);
    }
    let Some(value) = host(name) else { return Ok(None) };
    let value = value
        .into_string()
        .map_err(|_| anyhow!("the host's variable {name} is not UTF-8"))?;
    Ok(Some(format!("{name}={value}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(name: &str) -> Option<OsString> {
        (name == "HERE").then(|| "of the host".into())
    }

    #[test]
    fn variable_with_value_is_kept_as_it_is() {
        assert_eq!(variable("A=b=c d", &host).unwrap().as_deref(), Some("A=b=c d"));
    }

    #[test]
    fn variable_name_alone_takes_the_host_value() {
        assert_eq!(
            variable("HERE", &host).unwrap().as_deref(),
            Some("HERE=of the host")
        );
        assert_eq!(variable("ELSEWHERE", &host).unwrap(), None);
    }

    #[test]
    fn variable_without_name_is_refused() {
        for text in ["", "=x", "A=\0"] {
            assert!(variable(text, &host).is_err(), "{text:?}");
        }
    }

    #[test]
    fn listed_comments_and_empty_lines_are_left_out() {
        let text = "\u{feff}# words\n\n  A=1 # kept\r\nHERE\nNOT_HERE\nB=\n";

        assert_eq!(
            listed(text, &host).unwrap(),
            ["A=1 # kept", "HERE=of the host", "B="]
        );
    }

    #[test]
    fn listed_name_with_blank_is_refused_with_its_line() {
        let error = listed("A=1\nexport B=2\n", &host).unwrap_err();

        assert!(error.to_string().contains("line 2"), "{error}");
    }

    #[test]
    fn variables_settings_follow_files() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("list");
        fs::write(&path, "A=file\n").unwrap();

        assert_eq!(
            variables(&[path], &["A=word".to_owned()], &host).unwrap(),
            ["A=file", "A=word"]
        );
    }

    #[test]
    fn variables_missing_file_is_named() {
        let error = variables(&["/not/there"], &[], &host).unwrap_err();

        assert!(error.to_string().contains("/not/there"), "{error}");
    }
}
