//! PID 1 of the guest and the agent behind the control channel.
//!
//! One static program without libc, heap or threads. It is written in a restricted Rust: integers, bools,
//! raw pointers (`add` is their only method), fixed arrays, plain structs, constants, statics, functions,
//! `if`, `while`, `loop`, `match` on integers, and one `syscall`. rustc compiles it today; a small compiler
//! of the project's own takes its place later, so that any host can build it for any guest.
//!
//! `unsafe` is everywhere here because everything is a raw pointer or a system call; nothing of this runs on
//! the host. What comes over the channel is checked all the same: a host with a bug must not take the guest
//! down. Every function returns a negative errno where something failed, as the kernel does.
//!
//! One process serves the channel and never waits for anything else, but a moment for commands to stop when all of them
//! are to; a second one, forked when the host first
//! asks for a file, may wait for file systems.
//!
//! As PID 1 it prepares the machine. With `--control-fd N` it serves the channel on an inherited descriptor
//! instead and leaves mounts, modules, clock, hostname and power to whoever started it: for containers, and
//! for trying it out.
#![no_std]
#![no_main]
// Else the loops of memcpy and memset below would be compiled into calls of themselves.
#![no_builtins]
#![allow(unsafe_op_in_unsafe_fn)]

mod boot;
mod configure;
mod exec;
mod file_operations;
mod file_server;
mod files;
mod freezer;
mod kernel;
mod log;
mod memory;
mod mounts;
mod processes;
mod protocol;
mod pty;
mod reap;
mod requests;
mod ring;
mod serve;
mod shutdown;
mod spawn;
mod streams;
mod syscall;
mod text;
/// The numbers of the control channel, from the crate both sides share.
#[allow(dead_code)]
mod wire {
    include!(concat!(env!("OUT_DIR"), "/wire.rs"));
}

use kernel::*;

/// Whether the program was started with `--control-fd`.
pub static mut HOSTED: bool = false;

/// Called by the entry code with the stack the kernel made: argc, then the argument pointers.
#[unsafe(no_mangle)]
unsafe extern "C" fn program_start(stack: *const usize) -> ! {
    let start_ns = now_ns();
    let argc = *stack;
    let argv = stack.add(1) as *const *const u8;
    processes::clear();
    let mut control = -1;
    if argc == 3 && text::equal(*argv.add(1), b"--control-fd\0" as *const u8) {
        HOSTED = true;
        control = text::parse_decimal(*argv.add(2));
        if control < 0 {
            log::note(b"--control-fd needs a descriptor number\0" as *const u8, 0);
            exit(125);
        }
    }
    block_signals();
    if HOSTED {
        boot::adopt(control);
    } else {
        boot::prepare();
        control = boot::find_control_port();
    }
    serve::serve(control, start_ns);
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    // An index out of bounds or a division by zero of this program itself. PID 1 must not return to nothing:
    // the kernel's panic that follows is what the host sees.
    unsafe {
        log::note(b"guest program failed a check of its own\0" as *const u8, 0);
        exit(125);
    }
}

/// The parts of `core` that check bounds were compiled to be unwound through and ask for this by name; a
/// program that aborts never calls it.
#[unsafe(no_mangle)]
extern "C" fn rust_eh_personality() {}
