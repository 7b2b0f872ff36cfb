//! How a pull is shown: bars on a terminal, otherwise only what matters.

use std::collections::HashMap;
use std::io::{self, IsTerminal};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crumblecracker::{Event, Progress};
use indicatif::{HumanBytes, MultiProgress, ProgressBar, ProgressStyle};

use crate::print::{self, Volume};

/// How many transfers have a bar of their own; all are in the sum.
const BARS_MAX: usize = 6;
const SUM: &str = "{msg:28!} {bar:30} {bytes:>11} of {total_bytes:>11}  {bytes_per_sec}";
const ONE: &str = "  {msg:26!} {bar:30} {bytes:>11} of {total_bytes:>11}";

/// The state of one request's transfers.
pub(crate) struct Display {
    volume: Volume,
    bars: Option<MultiProgress>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    what: String,
    sum: Option<ProgressBar>,
    single: HashMap<(Kind, usize), ProgressBar>,
    fetched: u64,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Kind {
    Layer,
    File,
}

impl Display {
    pub(crate) fn new(volume: Volume) -> Arc<Self> {
        let bars = volume != Volume::Quiet && io::stderr().is_terminal();
        Arc::new(Self {
            volume,
            bars: bars.then(MultiProgress::new),
            state: Mutex::default(),
        })
    }

    /// Shows what `act` does about `what`, takes the bars away and, where everything is told, says the result.
    pub(crate) fn step<T, E>(
        &self,
        what: &str,
        act: impl FnOnce() -> Result<T, E>,
        told: impl FnOnce(&T) -> String,
    ) -> Result<T, E> {
        *self.state() = State {
            what: what.to_owned(),
            ..State::default()
        };
        let result = act();
        let mut state = self.state();
        self.clear(&mut state);
        if self.volume == Volume::Verbose
            && let Ok(done) = &result
        {
            print::error_line(&format!(
                "{what}: {}, {} fetched",
                told(done),
                HumanBytes(state.fetched)
            ));
        }
        result
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn clear(&self, state: &mut State) {
        state.single.drain().for_each(|(_, bar)| bar.finish_and_clear());
        if let Some(bar) = state.sum.take() {
            bar.finish_and_clear();
        }
    }

    fn resolved(&self, bytes: u64) {
        let mut state = self.state();
        self.clear(&mut state);
        state.sum = self.bar(bytes, SUM, &state.what);
    }

    fn started(&self, key: (Kind, usize), name: &str, bytes: u64, resumed: u64) {
        let mut state = self.state();
        if let Some(sum) = &state.sum {
            sum.inc(resumed);
        }
        if state.single.len() < BARS_MAX
            && let Some(bar) = self.bar(bytes, ONE, name)
        {
            bar.set_position(resumed);
            state.single.insert(key, bar);
        }
    }

    fn advanced(&self, key: (Kind, usize), bytes: u64) {
        let mut state = self.state();
        state.fetched += bytes;
        for bar in state.sum.iter().chain(state.single.get(&key)) {
            bar.inc(bytes);
        }
    }

    fn done(&self, key: (Kind, usize)) {
        if let Some(bar) = self.state().single.remove(&key) {
            bar.finish_and_clear();
        }
    }

    fn indexing(&self) {
        let mut state = self.state();
        self.clear(&mut state);
        if let Some(bars) = &self.bars {
            let bar = bars.add(ProgressBar::new_spinner());
            bar.set_message(format!("{}: indexing", state.what));
            bar.enable_steady_tick(Duration::from_millis(100));
            state.sum = Some(bar);
        }
    }

    fn notice(&self, text: &str) {
        let state = self.state();
        let say = || print::error_line(&format!("{}: {text}", state.what));
        match (self.volume, &self.bars) {
            (Volume::Quiet, _) => {}
            (_, Some(bars)) => bars.suspend(say),
            (_, None) => say(),
        }
    }

    fn bar(&self, bytes: u64, style: &str, message: &str) -> Option<ProgressBar> {
        let style = ProgressStyle::with_template(style).unwrap_or_else(|_| ProgressStyle::default_bar());
        let bar = self.bars.as_ref()?.add(ProgressBar::new(bytes));
        Some(
            bar.with_style(style.progress_chars("=> "))
                .with_message(message.to_owned()),
        )
    }
}

impl Progress for Display {
    fn report(&self, event: Event<'_>) {
        match event {
            Event::Resolved { bytes, .. } | Event::FilesResolved { bytes, .. } => self.resolved(bytes),
            Event::LayerStarted {
                layer,
                digest,
                bytes,
                resumed,
            } => {
                let digest = digest.to_string();
                let name: String = digest
                    .rsplit(':')
                    .next()
                    .unwrap_or_default()
                    .chars()
                    .take(12)
                    .collect();
                self.started((Kind::Layer, layer), &name, bytes, resumed);
            }
            Event::FileStarted {
                file,
                name,
                bytes,
                resumed,
            } => {
                self.started((Kind::File, file), name, bytes, resumed);
            }
            Event::LayerAdvanced { layer, bytes } => self.advanced((Kind::Layer, layer), bytes),
            Event::FileAdvanced { file, bytes } => self.advanced((Kind::File, file), bytes),
            Event::LayerDone { layer, .. } => self.done((Kind::Layer, layer)),
            Event::FileDone { file, .. } => self.done((Kind::File, file)),
            Event::Indexing => self.indexing(),
            Event::Notice(text) => self.notice(text),
            // Steps this program has no picture for are no news.
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn templates_are_understood() {
        for template in [SUM, ONE] {
            assert!(ProgressStyle::with_template(template).is_ok(), "{template}");
        }
    }

    #[test]
    fn advanced_bytes_are_counted_once() {
        let display = Display::new(Volume::Quiet);

        display.report(Event::Resolved { layers: 1, bytes: 10 });
        display.report(Event::LayerAdvanced { layer: 0, bytes: 4 });
        display.report(Event::LayerAdvanced { layer: 0, bytes: 6 });

        assert_eq!(display.state().fetched, 10);
    }
}
