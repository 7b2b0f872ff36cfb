//! The guest's root: our program of workloads, Debian's programs and all they read.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::lab::Archive;
use crate::lab::packages::Package;

/// What the workloads are made of, beyond what a Debian machine always has.
pub(super) const PACKAGES: &[Package] = &[
    Package {
        name: "gcc",
        why: "a workload, and compiles the others",
    },
    Package {
        name: "libc6-dev",
        why: "headers for the compiler",
    },
    Package {
        name: "python3-minimal",
        why: "a workload",
    },
];
const PROGRAMS: &[&str] = &[
    "/usr/bin/sha256sum",
    "/usr/bin/md5sum",
    "/usr/bin/gzip",
    "/usr/bin/gcc",
    "/usr/bin/python3",
];
const WORKLOADS: &str = include_str!("workloads.c");
const PYTHON: &str = include_str!("work.py");
/// Prints the files of the modules a bare Python starts with.
const PYTHON_MODULES: &str = "import sys\nfor module in list(sys.modules.values()):\n    \
    print(getattr(module, '__file__', None) or '')";

/// Writes the workloads' sources to `folder` as the program expects them, compiles it, and gives its path.
///
/// # Errors
/// Where it does not compile.
pub(super) fn prepare(folder: &Path) -> Result<PathBuf> {
    let source = folder.join("src/workloads.c");
    fs::create_dir_all(folder.join("src"))?;
    fs::write(&source, WORKLOADS)?;
    fs::write(folder.join("src/work.py"), PYTHON)?;
    let program = folder.join("workloads");
    let mut gcc = Command::new("gcc");
    gcc.args(["-O2", "-static", "-o"])
        .arg(&program)
        .arg(&source)
        .arg("-lm");
    said(&mut gcc)?;
    Ok(program)
}

/// The initramfs, from what [`prepare`] left.
///
/// # Errors
/// Where a file is missing.
pub(super) fn archive(folder: &Path, program: &Path) -> Result<Vec<u8>> {
    let mut archive = Archive::default();
    archive.file("init", 0o755, &fs::read(program)?);
    archive.file("src/workloads.c", 0o644, WORKLOADS.as_bytes());
    archive.file("src/work.py", 0o644, PYTHON.as_bytes());
    for path in files(folder)? {
        let bytes = fs::read(&path).with_context(|| format!("reading {}", path.display()))?;
        let inside = path.strip_prefix("/").unwrap_or(&path).display().to_string();
        archive.file(&inside, 0o755, &bytes);
    }
    Ok(archive.finish())
}

/// Debian's programs, their libraries, the compiler's parts and headers, and Python's modules.
fn files(folder: &Path) -> Result<BTreeSet<PathBuf>> {
    let mut programs: BTreeSet<PathBuf> = PROGRAMS.iter().map(PathBuf::from).collect();
    for (part, alias) in [("cc1", None), ("as", Some("/usr/bin/as"))] {
        let path = said(Command::new("gcc").arg(format!("-print-prog-name={part}")))?;
        programs.insert(PathBuf::from(alias.unwrap_or(path.trim())));
    }
    let mut files = programs.clone();
    for program in &programs {
        files.extend(libraries(&said(Command::new("ldd").arg(program))?));
    }
    let source = folder.join("src/workloads.c");
    files.extend(headers(&said(
        Command::new("gcc").args(["-O2", "-M"]).arg(source),
    )?));
    let modules = said(Command::new("/usr/bin/python3").args(["-I", "-S", "-c", PYTHON_MODULES]))?;
    files.extend(modules.lines().filter(|line| !line.is_empty()).map(PathBuf::from));
    Ok(files)
}

/// The paths in what `ldd` prints; the kernel's own object has none.
fn libraries(listing: &str) -> impl Iterator<Item = PathBuf> {
    let words = listing.split_whitespace();
    words.filter(|word| word.starts_with('/')).map(PathBuf::from)
}

/// The headers in what `gcc -M` prints as a makefile's rule.
fn headers(rule: &str) -> impl Iterator<Item = PathBuf> {
    let words = rule.split_whitespace();
    words
        .filter(|word| word.starts_with('/') && word.ends_with(".h"))
        .map(PathBuf::from)
}

fn said(command: &mut Command) -> Result<String> {
    let program = command.get_program().to_string_lossy().into_owned();
    let output = command
        .output()
        .with_context(|| format!("{program} could not be started"))?;
    ensure!(
        output.status.success(),
        "{program} failed: {}",
        String::from_utf8_lossy(&output.stderr).trim()
    );
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_kernels_own_object_is_left_out() {
        let listing = "\tlinux-vdso.so.1 (0x00007ffd)\n\tlibc.so.6 => /lib/libc.so.6 (0x00007f)\n\
                       \t/lib64/ld-linux-x86-64.so.2 (0x00007f)\n";

        let found: Vec<PathBuf> = libraries(listing).collect();

        assert_eq!(
            found,
            [
                Path::new("/lib/libc.so.6"),
                Path::new("/lib64/ld-linux-x86-64.so.2")
            ]
        );
    }

    #[test]
    fn headers_source_and_line_ends_are_left_out() {
        let found: Vec<PathBuf> =
            headers("a.o: /x/a.c /usr/include/stdio.h \\\n /usr/include/b.h\n").collect();

        assert_eq!(
            found,
            [Path::new("/usr/include/stdio.h"), Path::new("/usr/include/b.h")]
        );
    }
}
