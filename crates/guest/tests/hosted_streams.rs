//! The guest program as init of a container: bytes of pipes and terminals.

mod common;

use common::{Guest, command, terminal};
use guest_protocol::{Stream, ToGuest, WindowSize, wire};

/// Bytes that repeat nowhere near a buffer's length.
fn noise(len: usize) -> Vec<u8> {
    let mut state = 1u32;
    std::iter::repeat_with(|| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    })
    .take(len)
    .collect()
}

#[test]
fn ten_mebibytes_through_cat_come_back_unchanged() {
    let input = noise(10 << 20);
    let mut guest = Guest::start();

    let process = guest.run(command(&["cat"]), &input);

    assert_eq!(process.shell_code(), 0);
    assert!(process.output[0] == input);
}

#[test]
fn many_commands_at_once_keep_their_bytes_apart() {
    let mut guest = Guest::start();
    let inputs: Vec<Vec<u8>> = (0..20u8).map(|n| vec![n; 300_000]).collect();

    let ids: Vec<u32> = inputs
        .iter()
        .map(|input| guest.exec(command(&["cat"]), input))
        .collect();

    for (id, input) in ids.into_iter().zip(inputs) {
        assert!(guest.wait_over(id).output[0] == input);
    }
}

#[test]
fn stdout_and_stderr_are_two_streams() {
    let mut guest = Guest::start();

    let process = guest.run(command(&["sh", "-c", "echo out; echo err >&2"]), b"");

    assert_eq!(process.output, [b"out\n".to_vec(), b"err\n".to_vec()]);
}

#[test]
fn stalled_reader_gets_its_window_and_holds_up_nobody() {
    let mut guest = Guest::start();
    let stalled = guest.exec(command(&["head", "-c", "1000000", "/dev/zero"]), b"");
    guest.processes.get_mut(&stalled).unwrap().stalled = true;
    guest.wait(|guest| guest.processes[&stalled].output[0].len() == wire::INITIAL_CREDIT as usize);

    let other = guest.run(command(&["head", "-c", "1000000", "/dev/zero"]), b"");
    assert_eq!(other.output[0].len(), 1_000_000);
    assert_eq!(
        guest.processes[&stalled].output[0].len(),
        wire::INITIAL_CREDIT as usize
    );
    assert!(guest.processes[&stalled].exited.is_none());

    guest.unstall(stalled);
    assert_eq!(guest.wait_over(stalled).output[0].len(), 1_000_000);
}

#[test]
fn process_that_ends_with_output_held_back_is_reported_at_once_and_drained_later() {
    let mut guest = Guest::start();
    // More than the window, and the rest fits into the pipe. The sleep keeps the pipe open.
    let id = guest.sh("sleep 1000 & head -c 100000 /dev/zero");
    guest.processes.get_mut(&id).unwrap().stalled = true;

    guest.wait(|guest| guest.processes[&id].exited.is_some());
    let exited = guest.processes[&id].exited.unwrap();
    assert!(exited.stdout_undrained && !exited.stderr_undrained);
    assert!(!guest.processes[&id].drained[0]);

    guest.unstall(id);
    guest.wait(|guest| guest.processes[&id].drained[0]);
    assert_eq!(guest.processes[&id].output[0].len(), 100_000);
    assert!(!guest.processes[&id].eof[0]);
}

#[test]
fn stalled_process_that_is_killed_is_reported_at_once() {
    let mut guest = Guest::start();
    let id = guest.exec(command(&["yes"]), b"");
    guest.processes.get_mut(&id).unwrap().stalled = true;
    guest.wait(|guest| guest.processes[&id].output[0].len() == wire::INITIAL_CREDIT as usize);

    guest.send(id, ToGuest::Signal(9));

    guest.wait(|guest| guest.processes[&id].exited.is_some());
    assert_eq!(guest.processes[&id].shell_code(), 137);
}

#[test]
fn process_that_does_not_read_tells_the_host_to_stop() {
    let mut guest = Guest::start();
    let id = guest.exec(
        command(&["sh", "-c", "exec <&-; echo closed; sleep 1000"]),
        &noise(1 << 20),
    );

    guest.wait(|guest| guest.processes[&id].stdin_closed);

    guest.send(id, ToGuest::Signal(9));
    assert_eq!(guest.wait_over(id).shell_code(), 137);
}

#[test]
fn output_closed_by_the_host_breaks_the_pipe() {
    let mut guest = Guest::start();
    let id = guest.exec(command(&["yes"]), b"");
    guest.wait_output(id, "y\n");

    guest.send(id, ToGuest::Close(Stream::Stdout));

    guest.wait(|guest| guest.processes[&id].exited.is_some());
    assert_eq!(guest.processes[&id].shell_code(), 128 + 13);
}

#[test]
fn terminal_has_the_size_asked_for_and_is_controlling() {
    let mut guest = Guest::start();

    let process = guest.run(
        terminal(
            &["sh", "-c", "stty size; echo direct > /dev/tty; test -t 2"],
            33,
            123,
        ),
        b"",
    );

    assert_eq!(process.stdout(), "33 123\r\ndirect\r\n");
    assert_eq!(process.shell_code(), 0);
}

#[test]
fn terminal_resized_tells_its_foreground_process() {
    let mut guest = Guest::start();
    let script = "trap 'stty size; exit 3' WINCH; echo ready; while :; do sleep 0.05; done";
    let id = guest.exec(terminal(&["sh", "-c", script], 24, 80), b"");
    guest.wait_output(id, "ready");

    guest.send(id, ToGuest::WindowSize(WindowSize { rows: 50, cols: 200 }));

    let process = guest.wait_over(id);
    assert_eq!(process.stdout(), "ready\r\n50 200\r\n");
    assert_eq!(process.shell_code(), 3);
}

#[test]
fn terminal_interrupt_character_kills_the_foreground_process() {
    let mut guest = Guest::start();
    let id = guest.exec(
        terminal(&["sh", "-c", "echo ready; exec sleep 1000"], 24, 80),
        b"",
    );
    guest.wait_output(id, "ready");

    guest.write(id, b"\x03");

    assert_eq!(guest.wait_over(id).shell_code(), 128 + 2);
}

#[test]
fn terminal_end_of_input_ends_its_reader() {
    let mut guest = Guest::start();
    let id = guest.exec(terminal(&["cat"], 24, 80), b"line\n");
    guest.wait_output(id, "line\r\nline\r\n");

    guest.send(id, ToGuest::Eof(Stream::Stdin));

    assert_eq!(guest.wait_over(id).shell_code(), 0);
}

#[test]
fn terminal_output_written_just_before_the_end_arrives_before_exited() {
    let mut guest = Guest::start();
    for _ in 0..20 {
        let id = guest.exec(
            terminal(&["sh", "-c", "stty -opost; head -c 3000 /dev/zero"], 24, 80),
            b"",
        );
        guest.wait(|guest| guest.processes[&id].exited.is_some());
        assert_eq!(guest.processes[&id].output[0].len(), 3000);
        guest.wait_over(id);
    }
}

#[test]
fn terminal_of_an_unprivileged_command_belongs_to_it() {
    let mut exec = terminal(&["sh", "-c", "stat -c %u $(tty)"], 24, 80);
    exec.uid = 1234;
    let mut guest = Guest::start();

    assert_eq!(guest.run(exec, b"").stdout(), "1234\r\n");
}

#[test]
fn terminal_closed_by_the_host_is_hung_up() {
    let mut guest = Guest::start();
    let id = guest.exec(
        terminal(&["sh", "-c", "echo ready; exec sleep 1000"], 24, 80),
        b"",
    );
    guest.wait_output(id, "ready");

    guest.send(id, ToGuest::Close(Stream::Stdout));

    guest.wait(|guest| guest.processes[&id].exited.is_some());
    assert_eq!(guest.processes[&id].shell_code(), 128 + 1);
}

#[test]
fn terminal_closed_by_a_living_process_is_not_hung_up() {
    let mut guest = Guest::start();
    let script = "exec <&- >&- 2>&-; sleep 0.2; echo back >/dev/tty; exec sleep 0.1";
    let id = guest.exec(terminal(&["sh", "-c", script], 24, 80), b"");

    guest.wait_output(id, "back\r\n");

    assert_eq!(guest.wait_over(id).shell_code(), 0);
}
