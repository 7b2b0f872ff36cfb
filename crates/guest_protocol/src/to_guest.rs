//! The host's messages as bytes.

use alloc::vec::Vec;

use crate::bytes::{FieldReader, FrameWriter};
use crate::message::{Configure, Exec, Mount, MountRoot, Shutdown, Stdio, Stream, ToGuest, WindowSize};
use crate::{Error, file, wire};

pub(crate) fn encode(message: &ToGuest, id: u32, out: &mut Vec<u8>) -> Result<(), Error> {
    let (kind, stream) = kind_and_stream(message);
    let mut w = FrameWriter::new(out, kind, stream, id);
    w.require("id", id != 0);
    match message {
        ToGuest::Configure(configure) => encode_configure(&mut w, configure),
        ToGuest::MountRoot(MountRoot { tag, read_only }) => {
            w.u32(mount_flags(*read_only));
            w.string("tag", tag, wire::MAX_TAG);
        }
        ToGuest::Mount(Mount {
            tag,
            path,
            source,
            read_only,
        }) => {
            w.u32(mount_flags(*read_only));
            w.string("tag", tag, wire::MAX_TAG);
            w.require("path", path.starts_with(b"/"));
            w.string("path", path, wire::MAX_PATH);
            w.string("source", source, wire::MAX_PATH);
        }
        ToGuest::Exec(exec) => encode_exec(&mut w, exec),
        ToGuest::Signal(signal) => {
            w.require("signal", is_signal(*signal));
            w.u32(*signal);
        }
        ToGuest::WindowSize(WindowSize { rows, cols }) => {
            w.u16(*rows);
            w.u16(*cols);
        }
        ToGuest::Shutdown(Shutdown { restart, grace_ms }) => {
            w.u32(if *restart {
                wire::SHUTDOWN_RESTART
            } else {
                wire::SHUTDOWN_POWER_OFF
            });
            w.require("grace", *grace_ms <= wire::MAX_GRACE_MS);
            w.u32(*grace_ms);
        }
        ToGuest::Data(stream, data) => {
            w.require("stream", *stream == Stream::Stdin);
            w.require("data", !data.is_empty());
            w.bytes(data);
        }
        ToGuest::Eof(stream) => w.require("stream", *stream == Stream::Stdin),
        ToGuest::Close(stream) => w.require("stream", *stream != Stream::Stdin),
        ToGuest::Credit(stream, bytes) => {
            w.require("stream", *stream != Stream::Stdin);
            w.u32(*bytes);
        }
        ToGuest::File(request) => file::encode_request(&mut w, request),
        ToGuest::Sync | ToGuest::Ping | ToGuest::Freeze | ToGuest::Thaw | ToGuest::CloseFile => {}
    }
    w.finish()
}

fn kind_and_stream(message: &ToGuest) -> (u16, u8) {
    match message {
        ToGuest::Configure(_) => (wire::KIND_CONFIGURE, 0),
        ToGuest::MountRoot(_) => (wire::KIND_MOUNT_ROOT, 0),
        ToGuest::Mount(_) => (wire::KIND_MOUNT, 0),
        ToGuest::Exec(_) => (wire::KIND_EXEC, 0),
        ToGuest::Signal(_) => (wire::KIND_SIGNAL, 0),
        ToGuest::WindowSize(_) => (wire::KIND_WINDOW_SIZE, 0),
        ToGuest::Sync => (wire::KIND_SYNC, 0),
        ToGuest::Shutdown(_) => (wire::KIND_SHUTDOWN, 0),
        ToGuest::Ping => (wire::KIND_PING, 0),
        ToGuest::Freeze => (wire::KIND_FREEZE, 0),
        ToGuest::Thaw => (wire::KIND_THAW, 0),
        ToGuest::File(_) => (wire::KIND_FILE, 0),
        ToGuest::CloseFile => (wire::KIND_FILE_CLOSE, 0),
        ToGuest::Data(stream, _) => (wire::KIND_DATA, stream.number()),
        ToGuest::Eof(stream) => (wire::KIND_EOF, stream.number()),
        ToGuest::Close(stream) => (wire::KIND_CLOSE, stream.number()),
        ToGuest::Credit(stream, _) => (wire::KIND_CREDIT, stream.number()),
    }
}

fn encode_configure(w: &mut FrameWriter<'_>, configure: &Configure) {
    let Configure {
        version,
        hostname,
        wall_clock_ns,
        entropy,
    } = configure;
    w.require("entropy", entropy.len() <= wire::MAX_ENTROPY);
    w.u16(*version);
    w.u16(0);
    // Longer than u32::MAX was refused just above.
    w.u32(entropy.len() as u32);
    w.u64(*wall_clock_ns);
    w.string("hostname", hostname, wire::MAX_HOSTNAME);
    w.bytes(entropy);
}

fn encode_exec(w: &mut FrameWriter<'_>, exec: &Exec) {
    let Exec {
        argv,
        env,
        cwd,
        create_cwd,
        uid,
        gid,
        groups,
        stdio,
    } = exec;
    let (mut flags, size) = match stdio {
        Stdio::Pipes {
            stdin,
            stdout,
            stderr,
        } => {
            let flags = if *stdin { wire::EXEC_STDIN } else { 0 }
                | if *stdout { wire::EXEC_STDOUT } else { 0 }
                | if *stderr { wire::EXEC_STDERR } else { 0 };
            (flags, WindowSize::default())
        }
        Stdio::Tty(size) => (wire::EXEC_TTY, *size),
    };
    if *create_cwd {
        flags |= wire::EXEC_CREATE_CWD;
    }
    w.require("number of groups", groups.len() <= wire::MAX_GROUPS as usize);
    w.require(
        "number of arguments",
        (1..=wire::MAX_STRINGS as usize).contains(&argv.len()),
    );
    w.require("number of variables", env.len() <= wire::MAX_STRINGS as usize);
    w.u32(flags);
    w.u32(*uid);
    w.u32(*gid);
    w.u16(size.rows);
    w.u16(size.cols);
    // Counts past u32::MAX were refused just above.
    w.u32(groups.len() as u32);
    w.u32(argv.len() as u32);
    w.u32(env.len() as u32);
    for group in groups {
        w.u32(*group);
    }
    w.string("working directory", cwd, wire::MAX_PATH);
    for argument in argv {
        w.string("argument", argument, wire::MAX_PAYLOAD);
    }
    for variable in env {
        w.string("environment variable", variable, wire::MAX_PAYLOAD);
    }
}

/// Decodes as the guest does; for tests and for a host that plays the guest.
pub(crate) fn decode(kind: u16, stream: u8, mut r: FieldReader<'_>) -> Result<ToGuest, Error> {
    let message = match kind {
        wire::KIND_CONFIGURE => ToGuest::Configure(decode_configure(&mut r)?),
        wire::KIND_MOUNT_ROOT => {
            let read_only = read_only(&mut r)?;
            ToGuest::MountRoot(MountRoot {
                tag: r.string("tag", wire::MAX_TAG)?,
                read_only,
            })
        }
        wire::KIND_MOUNT => ToGuest::Mount(decode_mount(&mut r)?),
        wire::KIND_EXEC => ToGuest::Exec(decode_exec(&mut r)?),
        wire::KIND_SIGNAL => {
            let signal = r.u32()?;
            ToGuest::Signal(if is_signal(signal) {
                signal
            } else {
                return Err(r.bad("signal"));
            })
        }
        wire::KIND_WINDOW_SIZE => ToGuest::WindowSize(WindowSize {
            rows: r.u16()?,
            cols: r.u16()?,
        }),
        wire::KIND_SYNC => ToGuest::Sync,
        wire::KIND_SHUTDOWN => ToGuest::Shutdown(decode_shutdown(&mut r)?),
        wire::KIND_PING => ToGuest::Ping,
        wire::KIND_FREEZE => ToGuest::Freeze,
        wire::KIND_THAW => ToGuest::Thaw,
        wire::KIND_FILE => ToGuest::File(file::decode_request(&mut r)?),
        wire::KIND_FILE_CLOSE => ToGuest::CloseFile,
        wire::KIND_DATA => match r.rest() {
            [] => return Err(r.bad("data")),
            data => ToGuest::Data(input(stream, &r)?, data.to_vec()),
        },
        wire::KIND_EOF => ToGuest::Eof(input(stream, &r)?),
        wire::KIND_CLOSE => ToGuest::Close(output(stream, &r)?),
        wire::KIND_CREDIT => ToGuest::Credit(output(stream, &r)?, r.u32()?),
        _ => return Err(Error::UnknownKind(kind)),
    };
    r.end()?;
    Ok(message)
}

fn decode_configure(r: &mut FieldReader<'_>) -> Result<Configure, Error> {
    let version = r.u16()?;
    r.skip(2)?;
    let entropy_len = r.u32()? as usize;
    let wall_clock_ns = r.u64()?;
    let hostname = r.string("hostname", wire::MAX_HOSTNAME)?;
    let entropy = r.rest().to_vec();
    if entropy.len() != entropy_len || entropy_len > wire::MAX_ENTROPY {
        return Err(r.bad("entropy"));
    }
    Ok(Configure {
        version,
        hostname,
        wall_clock_ns,
        entropy,
    })
}

fn decode_mount(r: &mut FieldReader<'_>) -> Result<Mount, Error> {
    let read_only = read_only(r)?;
    let tag = r.string("tag", wire::MAX_TAG)?;
    let path = r.string("path", wire::MAX_PATH)?;
    if !path.starts_with(b"/") {
        return Err(r.bad("path"));
    }
    Ok(Mount {
        tag,
        path,
        source: r.string("source", wire::MAX_PATH)?,
        read_only,
    })
}

fn decode_exec(r: &mut FieldReader<'_>) -> Result<Exec, Error> {
    let flags = r.u32()?;
    let (uid, gid) = (r.u32()?, r.u32()?);
    let size = WindowSize {
        rows: r.u16()?,
        cols: r.u16()?,
    };
    let (groups, args, vars) = (r.u32()?, r.u32()?, r.u32()?);
    if groups > wire::MAX_GROUPS {
        return Err(r.bad("number of groups"));
    }
    if args == 0 || args > wire::MAX_STRINGS {
        return Err(r.bad("number of arguments"));
    }
    if vars > wire::MAX_STRINGS {
        return Err(r.bad("number of variables"));
    }
    let stdio = if flags & wire::EXEC_TTY != 0 {
        Stdio::Tty(size)
    } else {
        Stdio::Pipes {
            stdin: flags & wire::EXEC_STDIN != 0,
            stdout: flags & wire::EXEC_STDOUT != 0,
            stderr: flags & wire::EXEC_STDERR != 0,
        }
    };
    Ok(Exec {
        groups: (0..groups).map(|_| r.u32()).collect::<Result<_, _>>()?,
        cwd: r.string("working directory", wire::MAX_PATH)?,
        argv: strings(r, "argument", args)?,
        env: strings(r, "environment variable", vars)?,
        create_cwd: flags & wire::EXEC_CREATE_CWD != 0,
        uid,
        gid,
        stdio,
    })
}

fn strings(r: &mut FieldReader<'_>, field: &'static str, count: u32) -> Result<Vec<Vec<u8>>, Error> {
    (0..count).map(|_| r.string(field, wire::MAX_PAYLOAD)).collect()
}

fn decode_shutdown(r: &mut FieldReader<'_>) -> Result<Shutdown, Error> {
    let restart = match r.u32()? {
        wire::SHUTDOWN_POWER_OFF => false,
        wire::SHUTDOWN_RESTART => true,
        _ => return Err(r.bad("action")),
    };
    let grace_ms = r.u32()?;
    if grace_ms > wire::MAX_GRACE_MS {
        return Err(r.bad("grace"));
    }
    Ok(Shutdown { restart, grace_ms })
}

const fn mount_flags(read_only: bool) -> u32 {
    if read_only { wire::MOUNT_READ_ONLY } else { 0 }
}

fn read_only(r: &mut FieldReader<'_>) -> Result<bool, Error> {
    Ok(r.u32()? & wire::MOUNT_READ_ONLY != 0)
}

fn is_signal(signal: u32) -> bool {
    (1..=wire::MAX_SIGNAL).contains(&signal)
}

pub(crate) fn input(stream: u8, r: &FieldReader<'_>) -> Result<Stream, Error> {
    if stream == wire::STDIN {
        Ok(Stream::Stdin)
    } else {
        Err(r.bad("stream"))
    }
}

pub(crate) fn output(stream: u8, r: &FieldReader<'_>) -> Result<Stream, Error> {
    match stream {
        wire::STDOUT => Ok(Stream::Stdout),
        wire::STDERR => Ok(Stream::Stderr),
        _ => Err(r.bad("stream")),
    }
}
