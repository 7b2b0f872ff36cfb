//! The guest's messages as bytes. The guest itself writes them in its own restricted language; the encoder
//! here is for tests and for a host that plays the guest.

use alloc::vec::Vec;

use crate::bytes::{FieldReader, FrameWriter};
use crate::message::{Arch, ExecFailure, ExitStatus, Exited, Failure, Hello, Mark, Stage, Stream, ToHost};
use crate::to_guest::{input, output};
use crate::{Error, file, wire};

pub(crate) fn encode(message: &ToHost, id: u32, out: &mut Vec<u8>) -> Result<(), Error> {
    let (kind, stream) = kind_and_stream(message);
    let mut w = FrameWriter::new(out, kind, stream, id);
    match message {
        ToHost::Hello(hello) => encode_hello(&mut w, hello),
        ToHost::Done => {}
        ToHost::Failed(Failure { errno, stage, text }) => {
            w.u32(*errno);
            w.u32(stage_number(*stage));
            w.bytes(text.as_bytes());
        }
        ToHost::Started(pid) => w.u32(*pid),
        ToHost::ExecFailed(ExecFailure { errno, stage }) => {
            w.u32(*errno);
            w.u32(stage_number(*stage));
        }
        ToHost::Exited(exited) => encode_exited(&mut w, exited),
        ToHost::Mark(Mark { ns, name }) => {
            w.u64(*ns);
            w.bytes(name.as_bytes());
        }
        ToHost::FileData(data) => w.bytes(data),
        ToHost::FileMetadata(metadata) => file::encode_metadata(&mut w, metadata),
        ToHost::FileWritten(bytes) => w.u32(*bytes),
        ToHost::Data(stream, data) => {
            w.require("stream", *stream != Stream::Stdin);
            w.require("data", !data.is_empty());
            w.bytes(data);
        }
        ToHost::Drained(stream) | ToHost::Eof(stream) => w.require("stream", *stream != Stream::Stdin),
        ToHost::Close(stream) => w.require("stream", *stream == Stream::Stdin),
        ToHost::Credit(stream, bytes) => {
            w.require("stream", *stream == Stream::Stdin);
            w.u32(*bytes);
        }
    }
    w.finish()
}

fn kind_and_stream(message: &ToHost) -> (u16, u8) {
    match message {
        ToHost::Hello(_) => (wire::KIND_HELLO, 0),
        ToHost::Done => (wire::KIND_DONE, 0),
        ToHost::Failed(_) => (wire::KIND_FAILED, 0),
        ToHost::Started(_) => (wire::KIND_STARTED, 0),
        ToHost::ExecFailed(_) => (wire::KIND_EXEC_FAILED, 0),
        ToHost::Exited(_) => (wire::KIND_EXITED, 0),
        ToHost::Mark(_) => (wire::KIND_MARK, 0),
        ToHost::FileData(_) => (wire::KIND_FILE_DATA, 0),
        ToHost::FileMetadata(_) => (wire::KIND_FILE_METADATA, 0),
        ToHost::FileWritten(_) => (wire::KIND_FILE_WRITTEN, 0),
        ToHost::Drained(stream) => (wire::KIND_DRAINED, stream.number()),
        ToHost::Data(stream, _) => (wire::KIND_DATA, stream.number()),
        ToHost::Eof(stream) => (wire::KIND_EOF, stream.number()),
        ToHost::Close(stream) => (wire::KIND_CLOSE, stream.number()),
        ToHost::Credit(stream, _) => (wire::KIND_CREDIT, stream.number()),
    }
}

fn encode_hello(w: &mut FrameWriter<'_>, hello: &Hello) {
    let Hello {
        version_min,
        version_max,
        arch,
        hosted,
        slots,
        boot_id,
        start_ns,
        now_ns,
        release,
    } = hello;
    w.u32(wire::MAGIC);
    w.u16(*version_min);
    w.u16(*version_max);
    w.u16(match arch {
        Arch::Amd64 => wire::ARCH_AMD64,
        Arch::Arm64 => wire::ARCH_ARM64,
        Arch::Riscv64 => wire::ARCH_RISCV64,
    });
    w.u16(if *hosted { wire::HELLO_HOSTED } else { 0 });
    w.u32(*slots);
    w.bytes(boot_id);
    w.u64(*start_ns);
    w.u64(*now_ns);
    w.bytes(release.as_bytes());
}

fn encode_exited(w: &mut FrameWriter<'_>, exited: &Exited) {
    let Exited {
        status,
        stdout_undrained,
        stderr_undrained,
        user_us,
        system_us,
        max_rss_kib,
    } = exited;
    let (how, code, core) = match status {
        ExitStatus::Code(code) => (wire::EXITED_BY_CODE, *code, false),
        ExitStatus::Signal { signal, core_dumped } => (wire::EXITED_BY_SIGNAL, *signal, *core_dumped),
    };
    w.require("signal", how == wire::EXITED_BY_CODE || is_signal(code));
    let undrained = bit(*stdout_undrained, wire::STDOUT) | bit(*stderr_undrained, wire::STDERR);
    w.bytes(&[how, code, undrained, u8::from(core)]);
    w.u32(0);
    w.u64(*user_us);
    w.u64(*system_us);
    w.u64(*max_rss_kib);
}

fn bit(set: bool, stream: u8) -> u8 {
    u8::from(set) << stream
}

fn is_signal(signal: u8) -> bool {
    (1..=wire::MAX_SIGNAL).contains(&u32::from(signal))
}

pub(crate) fn decode(kind: u16, stream: u8, mut r: FieldReader<'_>) -> Result<ToHost, Error> {
    let message = match kind {
        wire::KIND_HELLO => ToHost::Hello(decode_hello(&mut r)?),
        wire::KIND_DONE => ToHost::Done,
        wire::KIND_FAILED => {
            let (errno, stage) = (r.u32()?, decode_stage(&mut r)?);
            ToHost::Failed(Failure {
                errno,
                stage,
                text: r.text(),
            })
        }
        wire::KIND_STARTED => ToHost::Started(r.u32()?),
        wire::KIND_EXEC_FAILED => ToHost::ExecFailed(ExecFailure {
            errno: r.u32()?,
            stage: decode_stage(&mut r)?,
        }),
        wire::KIND_EXITED => ToHost::Exited(decode_exited(&mut r)?),
        wire::KIND_DRAINED => ToHost::Drained(output(stream, &r)?),
        wire::KIND_MARK => ToHost::Mark(Mark {
            ns: r.u64()?,
            name: r.text(),
        }),
        wire::KIND_FILE_DATA => ToHost::FileData(r.rest().to_vec()),
        wire::KIND_FILE_METADATA => ToHost::FileMetadata(file::decode_metadata(&mut r)?),
        wire::KIND_FILE_WRITTEN => ToHost::FileWritten(r.u32()?),
        wire::KIND_DATA => match r.rest() {
            [] => return Err(r.bad("data")),
            data => ToHost::Data(output(stream, &r)?, data.to_vec()),
        },
        wire::KIND_EOF => ToHost::Eof(output(stream, &r)?),
        wire::KIND_CLOSE => ToHost::Close(input(stream, &r)?),
        wire::KIND_CREDIT => ToHost::Credit(input(stream, &r)?, r.u32()?),
        _ => return Err(Error::UnknownKind(kind)),
    };
    r.end()?;
    Ok(message)
}

fn decode_hello(r: &mut FieldReader<'_>) -> Result<Hello, Error> {
    if r.u32()? != wire::MAGIC {
        return Err(r.bad("magic number"));
    }
    let (version_min, version_max) = (r.u16()?, r.u16()?);
    let arch = match r.u16()? {
        wire::ARCH_AMD64 => Arch::Amd64,
        wire::ARCH_ARM64 => Arch::Arm64,
        wire::ARCH_RISCV64 => Arch::Riscv64,
        _ => return Err(r.bad("architecture")),
    };
    Ok(Hello {
        version_min,
        version_max,
        arch,
        hosted: r.u16()? & wire::HELLO_HOSTED != 0,
        slots: r.u32()?,
        boot_id: r.id_bytes()?,
        start_ns: r.u64()?,
        now_ns: r.u64()?,
        release: r.text(),
    })
}

fn decode_exited(r: &mut FieldReader<'_>) -> Result<Exited, Error> {
    let (how, code, undrained, core) = (r.u8()?, r.u8()?, r.u8()?, r.u8()?);
    r.skip(4)?;
    let status = match how {
        wire::EXITED_BY_CODE => ExitStatus::Code(code),
        wire::EXITED_BY_SIGNAL if is_signal(code) => ExitStatus::Signal {
            signal: code,
            core_dumped: core != 0,
        },
        _ => return Err(r.bad("exit status")),
    };
    Ok(Exited {
        status,
        stdout_undrained: undrained & bit(true, wire::STDOUT) != 0,
        stderr_undrained: undrained & bit(true, wire::STDERR) != 0,
        user_us: r.u64()?,
        system_us: r.u64()?,
        max_rss_kib: r.u64()?,
    })
}

const fn stage_number(stage: Stage) -> u32 {
    match stage {
        Stage::Request => wire::STAGE_REQUEST,
        Stage::Version => wire::STAGE_VERSION,
        Stage::Mount => wire::STAGE_MOUNT,
        Stage::Configure => wire::STAGE_CONFIGURE,
        Stage::Slot => wire::STAGE_SLOT,
        Stage::Stdio => wire::STAGE_STDIO,
        Stage::Fork => wire::STAGE_FORK,
        Stage::Cwd => wire::STAGE_CWD,
        Stage::Credentials => wire::STAGE_CREDENTIALS,
        Stage::Exec => wire::STAGE_EXEC,
        Stage::File => wire::STAGE_FILE,
    }
}

fn decode_stage(r: &mut FieldReader<'_>) -> Result<Stage, Error> {
    Ok(match r.u32()? {
        wire::STAGE_REQUEST => Stage::Request,
        wire::STAGE_VERSION => Stage::Version,
        wire::STAGE_MOUNT => Stage::Mount,
        wire::STAGE_CONFIGURE => Stage::Configure,
        wire::STAGE_SLOT => Stage::Slot,
        wire::STAGE_STDIO => Stage::Stdio,
        wire::STAGE_FORK => Stage::Fork,
        wire::STAGE_CWD => Stage::Cwd,
        wire::STAGE_CREDENTIALS => Stage::Credentials,
        wire::STAGE_EXEC => Stage::Exec,
        wire::STAGE_FILE => Stage::File,
        _ => return Err(r.bad("stage")),
    })
}
