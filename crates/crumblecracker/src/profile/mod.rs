//! Where the time of a guest goes: samples of the CPU in software, gathered by call stack.

mod elf;
mod kallsyms;
mod orc;
mod symbols;
mod task;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap};
use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use soft_cpu::{GuestStack, Sample, Samples};
use tracing::debug;

use crate::{Error, Result};
use elf::Sections;
use orc::{Frame, Orc};
use symbols::Symbols;
use task::TaskNames;

/// The most frames of one stack.
const MOST_FRAMES: usize = 128;
/// The most stacks that are told apart; the guest decides how many there are.
const MOST_STACKS: usize = 1 << 17;
/// Programs' addresses are told by page: their names are not known.
const PAGE: u64 = 4096;

/// Gathers where the time of guests goes. Clones are the same profiler.
///
/// It is given to [`crate::open_observed_backend`], which has it hear the samples, and to
/// [`crate::InstanceOptions`], which has it know the kernel.
#[derive(Clone, Default)]
pub struct Profiler {
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    kernel: OnceLock<Kernel>,
    counted: Mutex<Counted>,
}

/// What is known of the guest's kernel.
#[derive(Debug, Default)]
struct Kernel {
    symbols: Symbols,
    orc: Orc,
    tasks: Option<TaskNames>,
}

impl Kernel {
    fn read(file: &File) -> io::Result<Self> {
        let sections = Sections::read(file)?;
        let symbols = Symbols::read(&sections)?;
        Ok(Self {
            orc: Orc::read(&sections)?,
            tasks: TaskNames::read(&sections, &symbols)?,
            symbols,
        })
    }
}

/// Milliseconds by stack.
#[derive(Debug, Default)]
struct Counted {
    busy: HashMap<Stack, u64>,
    /// Of stacks beyond the limit.
    others: u64,
    idle: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Stack {
    process: Option<[u8; 16]>,
    kernel: bool,
    /// Addresses, the innermost first.
    frames: Vec<u64>,
}

impl Profiler {
    /// A guest boots the kernel in `file`. One whose symbols cannot be read is told by addresses.
    pub(crate) fn boots(&self, file: &File) {
        self.shared.kernel.get_or_init(|| {
            Kernel::read(file).unwrap_or_else(|error| {
                debug!(%error, "the kernel's symbols cannot be read");
                Kernel::default()
            })
        });
    }

    /// Whether there are any samples.
    pub fn is_empty(&self) -> bool {
        let counted = self.shared.counted();
        counted.busy.is_empty() && counted.idle == 0
    }

    /// The samples as folded stacks, the input of flame graphs: a line for each, frames from the outermost to the
    /// innermost separated by semicolons, a blank, and how many milliseconds they stand for.
    pub fn folded(&self) -> String {
        let counted = self.shared.counted();
        let kernel = self.shared.kernel.get();
        let mut lines: BTreeMap<String, u64> = BTreeMap::new();
        for (stack, milliseconds) in &counted.busy {
            *lines.entry(line(stack, kernel)).or_default() += milliseconds;
        }
        for (what, milliseconds) in [("[others]", counted.others), ("[idle]", counted.idle)] {
            if milliseconds > 0 {
                lines.insert(what.to_owned(), milliseconds);
            }
        }
        lines.into_iter().fold(String::new(), |mut text, (stack, count)| {
            // Writing to a string does not fail.
            let _ = writeln!(text, "{stack} {count}");
            text
        })
    }

    /// Writes [`Profiler::folded`] to a file, whole or not at all.
    ///
    /// # Errors
    /// [`Error::File`]; what was there before is left alone.
    pub fn write(&self, path: &Path) -> Result<()> {
        let failed = |source| Error::File {
            doing: "write the profile",
            path: path.to_owned(),
            source,
        };
        let text = self.folded();
        if path.metadata().is_ok_and(|found| !found.is_file()) {
            // A pipe or a terminal stays what it is.
            return fs::write(path, text).map_err(failed);
        }
        let mut staged = path.as_os_str().to_owned();
        staged.push(format!(".{}.part", std::process::id()));
        let staged = Path::new(&staged);
        let written = write_new(staged, text.as_bytes()).and_then(|()| fs::rename(staged, path));
        written.map_err(|error| {
            // What is half done is of no use; that it cannot be removed does not matter beside the error.
            let _ = fs::remove_file(staged);
            failed(error)
        })
    }

    pub(crate) fn samples(&self) -> Arc<dyn Samples> {
        self.shared.clone()
    }
}

fn write_new(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = File::create_new(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

impl Shared {
    fn counted(&self) -> MutexGuard<'_, Counted> {
        self.counted.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Samples for Shared {
    fn busy(&self, sample: &Sample, stack: &dyn GuestStack) {
        let kernel = self.kernel.get();
        let tasks = kernel.and_then(|kernel| kernel.tasks);
        let seen = Stack {
            process: tasks.and_then(|tasks| tasks.current(sample, stack)),
            kernel: sample.cpl == 0,
            frames: frames(sample, kernel, stack),
        };
        let mut counted = self.counted();
        let many = counted.busy.len() >= MOST_STACKS;
        match counted.busy.get_mut(&seen) {
            Some(count) => *count += sample.milliseconds,
            None if many => counted.others += sample.milliseconds,
            None => {
                counted.busy.insert(seen, sample.milliseconds);
            }
        }
    }

    fn idle(&self, _vcpu: u32, milliseconds: u64) {
        self.counted().idle += milliseconds;
    }
}

/// The addresses of a stack, as far as they can be told, the innermost first.
fn frames(sample: &Sample, kernel: Option<&Kernel>, stack: &dyn GuestStack) -> Vec<u64> {
    let mut frame = Frame {
        ip: sample.rip,
        sp: sample.rsp,
        bp: sample.rbp,
        exact: true,
    };
    let mut frames = vec![frame.ip];
    if sample.bits != 64 {
        return frames;
    }
    let caller = |frame: &Frame| match kernel {
        Some(kernel) if sample.cpl == 0 => {
            let known = kernel.orc.caller(frame, stack);
            known.filter(|caller| kernel.symbols.function(caller.ip).is_some())
        }
        _ => caller_by_frame_pointer(frame, stack),
    };
    while let Some(next) = caller(&frame).filter(|_| frames.len() < MOST_FRAMES) {
        frames.push(next.ip);
        frame = next;
    }
    frames
}

/// Who called the function of `frame`, where it looks as if RBP held the address of a frame: above the stack pointer,
/// and in it the address of an instruction behind a call.
fn caller_by_frame_pointer(frame: &Frame, stack: &dyn GuestStack) -> Option<Frame> {
    /// The largest frame that is believed.
    const MOST: u64 = 1 << 20;
    if frame.bp & 7 != 0 || frame.bp.wrapping_sub(frame.sp) > MOST {
        return None;
    }
    let bp = stack.quad(frame.bp)?;
    let ip = stack.quad(frame.bp.wrapping_add(8))?;
    is_behind_call(ip, stack).then_some(Frame {
        ip,
        sp: frame.bp.wrapping_add(16),
        bp,
        exact: false,
    })
}

/// Whether the bytes before `ip` end with a `CALL`: E8 and four bytes, or FF /2 with two to seven bytes in all.
fn is_behind_call(ip: u64, stack: &dyn GuestStack) -> bool {
    let Some(before) = stack.quad(ip.wrapping_sub(8)) else {
        return false;
    };
    let before = before.to_le_bytes();
    let indirect = |len: usize| before[8 - len] == 0xff && before[9 - len] & 0x38 == 0x10;
    before[3] == 0xe8 || (2..=7).any(indirect)
}

fn line(stack: &Stack, kernel: Option<&Kernel>) -> String {
    let process = stack.process.as_ref().map(task::text);
    let process = process.filter(|name| !name.is_empty());
    let root = match &process {
        Some(name) => printable(name),
        None if stack.kernel => "kernel".to_owned(),
        None => "user".to_owned(),
    };
    let mut frames = vec![root];
    let mut callees = stack.frames.iter().rev().peekable();
    while let Some(&address) = callees.next() {
        // What was called from is the instruction before.
        let calls = callees.peek().is_some();
        let at = if calls { address.wrapping_sub(1) } else { address };
        let function = kernel.and_then(|kernel| kernel.symbols.function(at));
        let frame = match function {
            Some(name) if stack.kernel => printable(name),
            _ if stack.kernel => format!("{address:#x}"),
            _ => format!("user {:#x}", address & !(PAGE - 1)),
        };
        // A program's functions on one page are not told apart.
        if stack.kernel || frames.last() != Some(&frame) {
            frames.push(frame);
        }
    }
    frames.join(";")
}

/// A name of the guest's, which neither ends a frame nor a line.
fn printable(name: &str) -> String {
    name.replace(
        |char: char| char.is_control() || char.is_whitespace() || char == ';',
        "_",
    )
}
