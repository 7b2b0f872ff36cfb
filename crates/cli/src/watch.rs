//! `--trace` and `--profile`: where what is seen of a guest goes.

use std::fmt;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, Result, anyhow};
use crumblecracker::{Observation, Profiler, Trace, one_line};

use crate::args::Run;
use crate::print::{self, Stderr};

/// What is watched of one guest.
pub(crate) struct Watch {
    observation: Observation,
    profile: Option<PathBuf>,
    trace: Option<Arc<TraceFile>>,
}

impl Watch {
    /// Makes ready what the options ask for. A file that cannot be written is refused at once.
    pub(crate) fn begin(arguments: &Run) -> Result<Self> {
        let mut watch = Self {
            observation: Observation::default(),
            profile: arguments.profile.clone(),
            trace: None,
        };
        if let Some(path) = &arguments.profile {
            check(path).with_context(|| format!("cannot write the profile {}", path.display()))?;
            watch.observation.profiler = Some(Profiler::default());
        }
        if let Some(path) = &arguments.trace_file {
            watch.trace = Some(Arc::new(TraceFile::create(path)?));
        }
        if !arguments.trace.is_empty() {
            watch.observation.trace = Some(Trace {
                kinds: arguments.trace.iter().map(|&kind| kind.into()).collect(),
                lines: match watch.trace.clone() {
                    Some(file) => Arc::new(move |line| file.line(line)),
                    None => Arc::new(line_on_standard_error),
                },
            });
        }
        Ok(watch)
    }

    /// Whether anything is watched: all of it is seen only when the guest has ended.
    pub(crate) fn is_watching(&self) -> bool {
        self.observation.profiler.is_some() || self.observation.trace.is_some()
    }

    pub(crate) fn observation(&self) -> &Observation {
        &self.observation
    }

    /// Writes what was seen, however the run ended. A failure to do so is the run's, unless that has its own.
    pub(crate) fn end(self, ended: Result<u8>) -> Result<u8> {
        let written = self.write();
        match (ended, written) {
            (Err(error), Err(also)) => {
                print::error_line(&one_line(also.as_ref()));
                Err(error)
            }
            (ended, written) => written.and(ended),
        }
    }

    fn write(&self) -> Result<()> {
        let traced = self.trace.as_ref().map_or(Ok(()), |file| file.finish());
        if let (Some(path), Some(profiler)) = (&self.profile, &self.observation.profiler)
            && !profiler.is_empty()
        {
            profiler.write(path)?;
        }
        traced
    }
}

/// Finds out early that a file cannot be made.
fn check(path: &Path) -> Result<()> {
    if path.is_dir() {
        return Err(anyhow!("it is a folder"));
    }
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    folder.unwrap_or(Path::new(".")).metadata()?;
    Ok(())
}

fn line_on_standard_error(line: fmt::Arguments<'_>) {
    // Nobody can be told that standard error is gone.
    let _ = Stderr.write_all(format!("{line}\n").as_bytes());
}

/// A file of lines. What goes wrong is told once, at the end.
struct TraceFile {
    path: PathBuf,
    state: Mutex<State>,
}

struct State {
    file: BufWriter<File>,
    failed: Option<io::Error>,
}

impl TraceFile {
    fn create(path: &Path) -> Result<Self> {
        let file =
            File::create(path).with_context(|| format!("cannot write the trace {}", path.display()))?;
        Ok(Self {
            path: path.to_owned(),
            state: Mutex::new(State {
                file: BufWriter::new(file),
                failed: None,
            }),
        })
    }

    fn line(&self, line: fmt::Arguments<'_>) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.failed.is_none() {
            state.failed = writeln!(state.file, "{line}").err();
        }
    }

    fn finish(&self) -> Result<()> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let failed = state.failed.take().map_or_else(|| state.file.flush(), Err);
        failed.with_context(|| format!("cannot write the trace {}", self.path.display()))
    }
}
