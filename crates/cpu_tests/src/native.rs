//! The child process that runs batches on the host's processor.

use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, PoisonError};

use anyhow::{Context, Result, ensure};

use crate::block::BLOCK_LEN;
use crate::case::Batch;
use crate::harness::Harness;
use crate::layout::{
    AT_END, BLOCKS, BLOCKS_END, CODE, CODES_LEN, DATA, DATA_END, PAGE, READ_ONLY, RUNTIME, RUNTIME_END,
    SIGACTION, SIGNAL_STACK, SIGNAL_STACK_LEN, SIGSTACK, STACK_TOP, VARIABLES,
};

/// Held while a child's program is written and started.
static STARTING: Mutex<()> = Mutex::new(());

/// What `/proc/cpuinfo` calls the features of x86-64-v3: what a case may use.
const WANTED: &[&str] = &[
    "cmov", "cx8", "fpu", "fxsr", "mmx", "sse2", "cx16", "lahf_lm", "popcnt", "pni", "sse4_1", "sse4_2",
    "ssse3", "avx", "avx2", "bmi1", "bmi2", "f16c", "fma", "abm", "movbe", "xsave",
];

/// The running child, and its program's file.
pub(crate) struct Native {
    child: Child,
    _folder: tempfile::TempDir,
}

impl Native {
    /// # Errors
    /// A host that is no Linux on x86-64-v3, and what keeps a program from being written and started.
    pub(crate) fn start(harness: &Harness) -> Result<Self> {
        let about = std::fs::read_to_string("/proc/cpuinfo").context("what processor this is")?;
        let flags = about
            .lines()
            .find(|line| line.starts_with("flags"))
            .unwrap_or_default();
        let missing = WANTED
            .iter()
            .find(|wanted| !flags.split_whitespace().any(|flag| flag == **wanted));
        ensure!(
            missing.is_none(),
            "this processor cannot be the oracle: it lacks {missing:?}"
        );
        let folder = tempfile::tempdir()?;
        let path = folder.path().join("oracle");
        // A fork of another thread between here and the end of the writing would hold the file open for writing, and
        // such a file cannot be executed.
        let _alone = STARTING.lock().unwrap_or_else(PoisonError::into_inner);
        std::fs::write(&path, executable(harness))?;
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o700))?;
        let child = Command::new(&path)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("the native child cannot be started")?;
        Ok(Self {
            child,
            _folder: folder,
        })
    }

    /// Gives the blocks as the batch leaves them.
    ///
    /// # Errors
    /// A child that ended: its alarm clock ends it where a batch takes too long.
    pub(crate) fn run(&mut self, batch: &Batch) -> Result<Vec<u8>> {
        let pipes = (self.child.stdin.as_mut(), self.child.stdout.as_mut());
        let (Some(input), Some(output)) = pipes else {
            anyhow::bail!("the native child has no pipes");
        };
        input.write_all(&(batch.count() as u64).to_le_bytes())?;
        input.write_all(&(batch.blocks.len() as u64).to_le_bytes())?;
        input.write_all(&batch.code)?;
        input.write_all(&batch.blocks)?;
        let mut blocks = vec![0; batch.count() * BLOCK_LEN];
        output
            .read_exact(&mut blocks)
            .context("the native child ended within a batch")?;
        Ok(blocks)
    }
}

impl Drop for Native {
    fn drop(&mut self) {
        // A child that has ended already is no trouble.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The page of [`VARIABLES`] as the child and the guest start with it.
pub(crate) fn variables(harness: &Harness, at_end: u64) -> Vec<u8> {
    /// SA_SIGINFO, SA_RESTORER, SA_ONSTACK, SA_NODEFER.
    const ACTION: u64 = 0x4 | 0x0400_0000 | 0x0800_0000 | 0x4000_0000;
    let mut page = vec![0; (STACK_TOP - VARIABLES) as usize];
    let words = [
        (AT_END, at_end),
        (SIGACTION, harness.signal_handler),
        (SIGACTION + 8, ACTION),
        // Nobody returns from the handler.
        (SIGACTION + 16, harness.finish),
        (SIGSTACK, SIGNAL_STACK),
        (SIGSTACK + 16, SIGNAL_STACK_LEN),
    ];
    for (address, word) in words {
        let at = (address - VARIABLES) as usize;
        page[at..at + 8].copy_from_slice(&word.to_le_bytes());
    }
    page
}

/// A static program without sections (System V ABI, chapters 4 and 5).
fn executable(harness: &Harness) -> Vec<u8> {
    const EXECUTE: u32 = 1;
    const WRITE: u32 = 2;
    const READ: u32 = 4;
    const LOAD: u32 = 1;
    const GNU_STACK: u32 = 0x6474_e551;
    let mut contents = harness.code.clone();
    contents.resize((VARIABLES - RUNTIME) as usize, 0);
    contents.extend(variables(harness, harness.child_end));
    let len = contents.len() as u64;
    let codes = CODE & !(PAGE - 1);
    let codes_len = (CODE - codes + CODES_LEN as u64).next_multiple_of(PAGE);
    let segments = [
        (LOAD, READ | WRITE | EXECUTE, RUNTIME, len, RUNTIME_END - RUNTIME),
        (LOAD, READ | WRITE | EXECUTE, codes, 0, codes_len),
        (LOAD, READ | WRITE, DATA, 0, DATA_END - DATA),
        // Linux maps what has no bytes in the file writable.
        (LOAD, READ, READ_ONLY, PAGE, PAGE),
        (LOAD, READ | WRITE, BLOCKS, 0, BLOCKS_END - BLOCKS),
        (GNU_STACK, READ | WRITE, 0, 0, 0),
    ];
    let mut file = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0".to_vec();
    // ET_EXEC, EM_X86_64, version 1.
    file.extend([2, 0, 62, 0, 1, 0, 0, 0]);
    for word in [harness.start, 64, 0] {
        file.extend(word.to_le_bytes());
    }
    file.extend(0_u32.to_le_bytes());
    for half in [64, 56, segments.len() as u16, 64, 0, 0] {
        file.extend(half.to_le_bytes());
    }
    for (kind, rights, address, in_file, in_memory) in segments {
        file.extend(kind.to_le_bytes());
        file.extend(rights.to_le_bytes());
        let offset = if address == READ_ONLY { PAGE + len } else { PAGE };
        for word in [offset, address, address, in_file, in_memory, PAGE] {
            file.extend(word.to_le_bytes());
        }
    }
    file.resize(PAGE as usize, 0);
    file.extend(contents);
    file.resize(file.len() + PAGE as usize, 0);
    file
}
