//! Compiles the guest program for every guest architecture rustc can.
//!
//! rustc stands in for the project's own compiler of the restricted Rust in `program/`; that one will need
//! no target libraries, and this file will only call it.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

/// A guest architecture, its name in file names, and the rustc target that fits a freestanding program.
const GUESTS: [(&str, &str); 2] = [
    ("amd64", "x86_64-unknown-linux-gnu"),
    ("arm64", "aarch64-unknown-linux-gnu"),
];

fn main() {
    println!("cargo::rerun-if-changed=program");
    println!("cargo::rerun-if-changed=build.rs");
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    fs::write(out.join("wire.rs"), guest_protocol::WIRE_SOURCE).expect("OUT_DIR is writable");
    let rustc = env::var_os("RUSTC").expect("cargo sets RUSTC");
    let host = env::var("HOST").expect("cargo sets HOST");
    for (arch, target) in GUESTS {
        let program = out.join(format!("guest-{arch}"));
        if has_target(&rustc, target) {
            compile(&rustc, target, target == host, &program);
        } else {
            // The library says so when this program is asked for.
            fs::write(&program, b"").expect("OUT_DIR is writable");
        }
    }
}

/// Whether the target's `core` is installed.
fn has_target(rustc: &OsString, target: &str) -> bool {
    let output = Command::new(rustc)
        .args(["--print", "target-libdir", "--target", target])
        .output()
        .expect("rustc can be run");
    let directory = String::from_utf8_lossy(&output.stdout);
    output.status.success() && Path::new(directory.trim()).is_dir()
}

fn compile(rustc: &OsString, target: &str, native: bool, program: &Path) {
    let mut command = Command::new(rustc);
    command
        .args([
            "--edition",
            "2024",
            "--crate-name",
            "crumblecracker_guest",
            "--crate-type",
            "bin",
        ])
        .args(["--target", target])
        .args(["-C", "panic=abort", "-C", "opt-level=s", "-C", "codegen-units=1"])
        .args(["-C", "relocation-model=static", "-C", "strip=symbols"]);
    if native {
        command.args([
            "-C",
            "link-arg=-nostartfiles",
            "-C",
            "link-arg=-nostdlib",
            "-C",
            "link-arg=-static",
        ]);
        command.args(["-C", "link-arg=-Wl,--build-id=none,-z,noseparate-code"]);
    } else {
        // No C compiler for the target is needed: the linker comes with rustc, and there is nothing but this.
        command.args(["-C", "linker=rust-lld", "-C", "linker-flavor=gnu-lld"]);
        command.args(["-C", "link-self-contained=no", "-C", "link-arg=--build-id=none"]);
    }
    let status = command
        .arg("-o")
        .arg(program)
        .arg("program/main.rs")
        .status()
        .expect("rustc can be run");
    assert!(
        status.success(),
        "the guest program for {target} does not compile"
    );
}
