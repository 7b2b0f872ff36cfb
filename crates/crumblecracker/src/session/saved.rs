//! A session as a snapshot holds it: what is under way in the channel, and the processes whose streams go on.
//!
//! Requests that wait for an answer are not part of it: whoever waits is not either, and an answer that nobody waits
//! for is dropped.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use device_backends::HostEnd;
use guest_protocol::{Decoder, ReceiveCredit, SendCredit, Stream};
use saved_state::{Unit, record, require};

use super::process::{Process, ProcessEntry};
use super::streams::{InputGate, OutputQueue};
use super::{Session, Shared};
use crate::plugs::PIPE_CAPACITY;
use crate::{Error, Result, Timeline};

const SCHEMA: u16 = 1;
/// The most processes a guest may have at once, far above what it has slots for.
const PROCESSES_MAX: usize = 1 << 16;

record! {
    /// [`Session`].
    struct SavedSession {
        /// What the next request is numbered.
        1 next_id: u32,
        /// The beginning of a frame whose end has not come yet.
        2 partial: Vec<u8>,
        /// What was sent and the device has not taken yet.
        3 untaken: Vec<u8>,
        4 processes: Vec<SavedProcess>,
    }
}

record! {
    /// A process that runs.
    pub(super) struct SavedProcess {
        1 id: u32,
        2 pid: u32,
        3 input: Option<SavedInput>,
        4 stdout: Option<SavedOutput>,
        5 stderr: Option<SavedOutput>,
        /// The first two are ends of a terminal.
        6 terminal: bool,
    }
}

record! {
    /// [`InputGate`].
    pub(super) struct SavedInput {
        1 credit: u32,
        2 closed: bool,
    }
}

record! {
    /// [`OutputQueue`].
    pub(super) struct SavedOutput {
        1 bytes: Vec<u8>,
        2 outstanding: u32,
        3 owed: u32,
        4 ended: bool,
    }
}

impl SavedInput {
    pub(super) fn gate(&self) -> Result<InputGate, saved_state::Error> {
        let credit = SendCredit::resumed(self.credit);
        let credit = credit.ok_or(saved_state::Error::Value("the credit of a process's input"))?;
        Ok(InputGate::resumed(credit, self.closed))
    }
}

impl SavedOutput {
    pub(super) fn queue(self) -> Result<OutputQueue, saved_state::Error> {
        let credit = ReceiveCredit::resumed(self.outstanding, self.owed);
        let credit = credit.filter(|_| self.bytes.len() <= guest_protocol::wire::MAX_CREDIT as usize);
        let credit = credit.ok_or(saved_state::Error::Value("the credit of a process's output"))?;
        Ok(OutputQueue::resumed(self.bytes, credit, self.ended))
    }
}

impl Session {
    /// The state of this session with a guest whose machine is paused.
    ///
    /// # Errors
    /// [`Error::Guest`] for one that broke the protocol.
    pub(crate) fn save(&self) -> Result<Unit> {
        let shared = &self.shared;
        // Nobody sends meanwhile.
        let channel = super::lock(&shared.writer);
        let mut decoder = super::lock(&shared.decoder);
        super::take_in(&channel, &mut decoder, shared, &|_| {}).map_err(Error::Guest)?;
        let table = shared.table();
        let mut processes: Vec<_> = table
            .processes
            .iter()
            .filter_map(|(id, process)| process.save(*id))
            .collect();
        processes.sort_by_key(|process| process.id);
        let saved = SavedSession {
            next_id: shared.next_id.load(Ordering::Relaxed),
            partial: decoder.rest().to_vec(),
            untaken: channel.untaken(),
            processes,
        };
        Ok(Unit::new(SCHEMA, &saved))
    }

    /// A session over `channel`, whose guest does not run yet, that goes on as `unit` says; with it the processes that
    /// run in the guest, those started first coming first.
    ///
    /// # Errors
    /// [`Error::Snapshot`], [`Error::Host`] when the host gives no thread.
    pub(crate) fn resume(
        mut channel: HostEnd,
        unit: &Unit,
        timeline: &Timeline,
    ) -> Result<(Self, Vec<Process>)> {
        use std::io::Write;
        let saved: SavedSession = unit.decode(SCHEMA)?;
        require(
            saved.untaken.len() <= PIPE_CAPACITY,
            "what is on its way to the guest",
        )?;
        require(
            saved.partial.len() <= guest_protocol::wire::MAX_PAYLOAD + guest_protocol::wire::HEADER_LEN,
            "what is on its way from the guest",
        )?;
        require(saved.processes.len() <= PROCESSES_MAX, "the number of processes")?;
        let mut ids = HashSet::new();
        let unique = saved.processes.iter().all(|process| ids.insert(process.id));
        require(unique, "the numbers of processes")?;
        let mut decoder = Decoder::new();
        decoder.push(&saved.partial);
        let shared = Arc::new(Shared::new(channel.clone(), saved.next_id, decoder));
        let mut processes = Vec::new();
        for process in saved.processes {
            let id = process.id;
            let (entry, process) = ProcessEntry::resume(&shared, process, timeline)?;
            shared.table().processes.insert(id, entry);
            processes.push(process);
        }
        // There is room for it, as was checked.
        channel.write_all(&saved.untaken).map_err(|source| Error::Host {
            doing: "write to the guest's control channel",
            source,
        })?;
        let (session, _) = Self::serve(channel, shared)?;
        Ok((session, processes))
    }
}

impl ProcessEntry {
    /// `None` for one that does not run: it has not begun, or has ended.
    fn save(&self, id: u32) -> Option<SavedProcess> {
        let pid = self.running()?;
        let output = |stream| self.output(stream).map(|queue| queue.save());
        Some(SavedProcess {
            id,
            pid,
            input: self.input().map(|gate| gate.save()),
            stdout: output(Stream::Stdout),
            stderr: output(Stream::Stderr),
            terminal: self.terminal,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::io::Write;

    use device_backends::{ByteStream, DeviceEnd, byte_pipe};
    use guest_protocol::{Exec, ExitStatus, Exited, Frame, Stdio, ToGuest, ToHost};
    use proptest::prelude::*;

    use super::*;

    fn exec() -> Exec {
        Exec {
            argv: vec![b"cat".to_vec()],
            env: Vec::new(),
            cwd: b"/".to_vec(),
            create_cwd: false,
            uid: 0,
            gid: 0,
            groups: Vec::new(),
            stdio: Stdio::Pipes {
                stdin: true,
                stdout: true,
                stderr: false,
            },
        }
    }

    fn exited(code: u8) -> ToHost {
        ToHost::Exited(Exited {
            status: ExitStatus::Code(code),
            stdout_undrained: false,
            stderr_undrained: false,
            user_us: 0,
            system_us: 0,
            max_rss_kib: 0,
        })
    }

    fn say(device: &DeviceEnd, id: u32, message: ToHost) {
        let bytes = Frame { id, message }.to_bytes().unwrap();
        assert_eq!(device.write(&bytes), bytes.len());
    }

    /// All frames that the guest's side has not taken yet.
    fn heard(device: &DeviceEnd) -> Vec<Frame<ToGuest>> {
        let mut decoder = Decoder::new();
        let mut bytes = [0; 4096];
        while let count @ 1.. = device.read(&mut bytes) {
            decoder.push(&bytes[..count]);
        }
        std::iter::from_fn(|| decoder.next_frame().unwrap()).collect()
    }

    fn session() -> (DeviceEnd, Session) {
        let (device, host) = byte_pipe(PIPE_CAPACITY);
        (device, Session::reopen(host).unwrap())
    }

    #[test]
    fn process_goes_on_in_a_session_that_was_resumed() {
        let (device, session) = session();
        let mut process = session.exec(exec(), &Timeline::default()).unwrap();
        let id = heard(&device)[0].id;
        say(&device, id, ToHost::Started(77));
        process.wait_started().unwrap().unwrap();
        say(&device, id, ToHost::Data(Stream::Stdout, b"before ".to_vec()));
        process.stdin.as_mut().unwrap().write_all(b"under way").unwrap();
        // The end of a frame is still to come.
        let message = ToHost::Data(Stream::Stdout, b"after".to_vec());
        let cut = Frame { id, message }.to_bytes().unwrap();
        assert_eq!(device.write(&cut[..9]), 9);

        let unit = session.save().unwrap();
        assert_eq!(unit, session.save().unwrap());

        let (device, host) = byte_pipe(PIPE_CAPACITY);
        let (again, mut processes) = Session::resume(host, &unit, &Timeline::default()).unwrap();
        let mut process = processes.pop().unwrap();
        assert!(processes.is_empty());
        assert_eq!(process.wait_started().unwrap(), Ok(77));
        let sent = heard(&device);
        assert_eq!(sent.len(), 1);
        assert_eq!(
            sent[0].message,
            ToGuest::Data(Stream::Stdin, b"under way".to_vec())
        );
        assert_eq!(device.write(&cut[9..]), cut.len() - 9);
        say(&device, id, ToHost::Eof(Stream::Stdout));
        say(&device, id, exited(3));
        let mut output = String::new();
        process
            .stdout
            .take()
            .unwrap()
            .read_to_string(&mut output)
            .unwrap();
        assert_eq!(output, "before after");
        assert_eq!(process.wait().unwrap().code(), 3);
        let other = again.exec(exec(), &Timeline::default()).unwrap();
        assert!(heard(&device).iter().all(|frame| frame.id != id));
        drop(other);
    }

    #[test]
    fn process_that_does_not_run_yet_or_has_ended_is_left_out() {
        let (device, session) = session();
        let _begun = session.exec(exec(), &Timeline::default()).unwrap();
        let ended = session.exec(exec(), &Timeline::default()).unwrap();
        let id = heard(&device)[1].id;
        say(&device, id, ToHost::Started(5));
        say(&device, id, exited(0));
        ended.wait().unwrap();

        let unit = session.save().unwrap();

        let (_device, host) = byte_pipe(PIPE_CAPACITY);
        let (_, processes) = Session::resume(host, &unit, &Timeline::default()).unwrap();
        assert!(processes.is_empty());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn resume_from_any_bytes_does_not_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let (_device, host) = byte_pipe(PIPE_CAPACITY);
            let unit = Unit { schema: SCHEMA, bytes };
            let _ = Session::resume(host, &unit, &Timeline::default());
        }
    }
}
