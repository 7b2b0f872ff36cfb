//! `cc pull`, `cc images`, `cc rmi`.

use std::sync::Arc;

use anyhow::Result;
use crumblecracker::{Image, Library, Progress, PullPolicy, Refresh, one_line};
use indicatif::HumanBytes;

use crate::FAILED;
use crate::args::{Common, Names, Pull};
use crate::print::{self, Volume};
use crate::progress::Display;

/// Brings images and the default kernel into the cache. Each image is tried, whatever becomes of the others.
pub(crate) fn pull(common: &Common, arguments: &Pull) -> Result<u8> {
    let library = common.library()?;
    let options = arguments.fetch.options(PullPolicy::Always);
    let display = Display::new(common.volume());
    let mut pulled = 0;
    let mut status = for_each(&arguments.images, |name| {
        let listener: Arc<dyn Progress> = display.clone();
        display.step(name, || library.image(name, &options, &listener), Image::id)?;
        pulled += 1;
        Ok(())
    });
    if status == 0 && !arguments.no_kernel {
        status = kernel(&library, &display);
    }
    if pulled > 0 {
        // What is reported as done stays.
        library.settle()?;
    }
    Ok(status)
}

/// The images are there, and all that was asked for by name: without the default kernel a later run needs the
/// network or another kernel, which must be said and is a failure.
fn kernel(library: &Library, display: &Display) -> u8 {
    let fetched = display.step(
        "kernel",
        || library.fetch_kernel(Refresh::WhenStale, display),
        String::clone,
    );
    let Err(error) = fetched else { return 0 };
    let reason = one_line(&error);
    print::error_line(&format!(
        "the images are here, the default kernel is not (--no-kernel does without): {reason}"
    ));
    FAILED
}

/// Prints what the cache holds; with `--quiet` the names alone.
pub(crate) fn list(common: &Common) -> Result<u8> {
    let records = common.library()?.images()?;
    if common.volume() == Volume::Quiet {
        return Ok(print::text(
            &records
                .iter()
                .map(|image| format!("{}\n", image.name))
                .collect::<String>(),
        ));
    }
    let rows: Vec<_> = records
        .into_iter()
        .map(|image| {
            let size = HumanBytes(image.bytes).to_string();
            [
                image.name,
                short(&image.id),
                image.platform,
                size,
                day(image.created),
            ]
        })
        .collect();
    Ok(print::text(&print::table(
        ["NAME", "ID", "PLATFORM", "SIZE", "CREATED"],
        &rows,
    )))
}

/// Removes images. Each is tried, whatever becomes of the others.
pub(crate) fn remove(common: &Common, arguments: &Names) -> Result<u8> {
    let library = common.library()?;
    Ok(for_each(
        &arguments.images,
        |name| Ok(library.remove_image(name)?),
    ))
}

/// Does the same with every name and tells each failure; gives the exit status.
fn for_each(names: &[String], mut act: impl FnMut(&str) -> Result<()>) -> u8 {
    let mut status = 0;
    for name in names {
        if let Err(error) = act(name) {
            print::error(&error);
            status = FAILED;
        }
    }
    status
}

/// The first digits of a digest, enough to tell images apart.
pub(crate) fn short(id: &str) -> String {
    id.rsplit([':', '-'])
        .next()
        .unwrap_or_default()
        .chars()
        .take(12)
        .collect()
}

/// The day of a time as RFC 3339 writes it.
fn day(created: Option<String>) -> String {
    let created = created.unwrap_or_default();
    let day = created.split('T').next().unwrap_or_default();
    if day.is_empty() {
        "-".to_owned()
    } else {
        day.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use anyhow::bail;

    use super::*;

    #[test]
    fn short_digest_has_twelve_digits() {
        assert_eq!(short("sha256:0123456789abcdef"), "0123456789ab");
    }

    #[test]
    fn day_of_a_time_is_its_date() {
        assert_eq!(day(Some("2024-05-06T07:08:09Z".to_owned())), "2024-05-06");
        assert_eq!(day(None), "-");
    }

    #[test]
    fn for_each_failure_does_not_stop_the_rest() {
        let mut seen = Vec::new();
        let status = for_each(&["a".to_owned(), "b".to_owned()], |name| {
            seen.push(name.to_owned());
            if name == "a" { bail!("no") } else { Ok(()) }
        });

        assert_eq!((status, seen), (FAILED, vec!["a".to_owned(), "b".to_owned()]));
    }
}
