//! Ports and device registers, by every width and kind of instruction.

use super::guest::{DATA_AREA, Failure, Guest, Mode, RAM_LEN};
use super::recorder::{Access, answer};
use super::short::{input, load, out, store};
use super::{Bench, Case, expect, expect_trace, programs};

pub(super) const CASES: &[Case] = &[
    Case {
        name: "real_mode_ports",
        run: |bench| ports(bench, Mode::Real, programs::REAL_PORTS),
    },
    Case {
        name: "protected_mode_ports",
        run: |bench| ports(bench, Mode::Protected, programs::PORTS),
    },
    Case {
        name: "long_mode_ports",
        run: |bench| ports(bench, Mode::Long, programs::PORTS),
    },
    Case {
        name: "protected_mode_mmio",
        run: protected_mmio,
    },
    Case {
        name: "long_mode_mmio",
        run: long_mmio,
    },
    Case {
        name: "mmio_read_modify_write",
        run: read_modify_write,
    },
    Case {
        name: "real_mode_segments",
        run: real_segments,
    },
    Case {
        name: "mode_switch",
        run: mode_switch,
    },
    Case {
        name: "string_ports",
        run: string_ports,
    },
    Case {
        name: "string_mmio",
        run: string_mmio,
    },
    Case {
        name: "straddle_ram_end",
        run: straddle,
    },
    Case {
        name: "locked_beside_mmio",
        run: locked_neighbours,
    },
];

const DEVICE: u64 = 0xd000_0000;

fn run(bench: &Bench<'_>, mode: Mode, listing: &str, wanted: &[Access]) -> Result<Vec<Access>, Failure> {
    let trace = Guest::new(bench.hypervisor, mode, listing)?.run_to_end()?;
    expect_trace(&trace, wanted)?;
    Ok(trace)
}

fn ports(bench: &Bench<'_>, mode: Mode, listing: &str) -> Result<Vec<Access>, Failure> {
    let mut wanted = vec![
        out(0x10, 1, 0x12),
        out(0x10, 2, 0x3456),
        out(0x10, 4, 0x789a_bcde),
    ];
    for width in [1, 2, 4] {
        wanted.extend([input(0x1234, width), out(0x10, width, answer(0x1234, width))]);
    }
    run(bench, mode, listing, &wanted)
}

fn mmio_up_to_four() -> Vec<Access> {
    let mut wanted = vec![
        store(DEVICE, 1, 0x12),
        store(DEVICE + 2, 2, 0x3456),
        store(DEVICE + 4, 4, 0x789a_bcde),
    ];
    for width in [1, 2, 4] {
        let value = answer(DEVICE + 8, width);
        wanted.extend([load(DEVICE + 8, width), store(DEVICE + 0x10, width, value)]);
    }
    wanted
}

fn protected_mmio(bench: &Bench<'_>) -> Result<Vec<Access>, Failure> {
    run(
        bench,
        Mode::Protected,
        programs::PROTECTED_MMIO,
        &mmio_up_to_four(),
    )
}

fn long_mmio(bench: &Bench<'_>) -> Result<Vec<Access>, Failure> {
    let mut wanted = mmio_up_to_four();
    wanted.extend([
        load(DEVICE + 8, 8),
        store(DEVICE + 0x18, 8, answer(DEVICE + 8, 8)),
        load(DEVICE + 0x21, 1),
        store(DEVICE + 0x20, 4, answer(DEVICE + 0x21, 1)),
    ]);
    run(bench, Mode::Long, programs::LONG_MMIO, &wanted)
}

/// The value that `cmpxchg` compares with is read by an instruction of its own just before, so it is equal.
fn read_modify_write(bench: &Bench<'_>) -> Result<Vec<Access>, Failure> {
    let wanted = [
        load(DEVICE, 4),
        store(DEVICE, 4, answer(DEVICE, 4) | 0x80),
        load(DEVICE + 4, 4),
        store(DEVICE + 4, 4, 0x1122_3344),
        store(DEVICE + 8, 4, answer(DEVICE + 4, 4)),
        load(DEVICE + 0xc, 4),
        load(DEVICE + 0xc, 4),
        store(DEVICE + 0xc, 4, 0x5566_7788),
        out(0x10, 1, 1),
    ];
    run(bench, Mode::Long, programs::MMIO_READ_MODIFY_WRITE, &wanted)
}

fn real_segments(bench: &Bench<'_>) -> Result<Vec<Access>, Failure> {
    let mut guest = Guest::new(bench.hypervisor, Mode::Real, programs::REAL_SEGMENTS)?;
    let trace = guest.run_to_end()?;
    expect("the word in RAM", guest.ram(DATA_AREA + 0x10)?, 0xbeef)?;
    expect_trace(&trace, &[out(0x10, 2, 0xbeef)])?;
    Ok(trace)
}

fn mode_switch(bench: &Bench<'_>) -> Result<Vec<Access>, Failure> {
    let wanted = [
        out(0x10, 1, 0x16),
        out(0x10, 1, 0x32),
        out(0x10, 1, 0x64),
        out(0x10, 4, 0xfeed_face),
    ];
    run(bench, Mode::Real, programs::MODE_SWITCH, &wanted)
}

fn string_ports(bench: &Bench<'_>) -> Result<Vec<Access>, Failure> {
    let mut guest = Guest::new(bench.hypervisor, Mode::Long, programs::STRING_PORTS)?;
    guest.fill_ram(DATA_AREA, &(1..=15).collect::<Vec<u8>>())?;
    let trace = guest.run_to_end()?;
    let mut wanted = vec![out(0x20, 1, 1), out(0x20, 1, 2), out(0x20, 1, 3)];
    wanted.extend([out(0x20, 2, 0x0504), out(0x20, 2, 0x0706)]);
    wanted.extend([out(0x20, 4, 0x0b0a_0908), out(0x20, 4, 0x0f0e_0d0c)]);
    // The second `rep insb` finds ECX zero and does nothing.
    let widths = [1, 1, 2, 2, 4, 4];
    wanted.extend(widths.map(|width| input(0x22, width)));
    for width in widths {
        let bytes = answer(0x22, width).to_le_bytes();
        wanted.extend(
            bytes[..usize::from(width)]
                .iter()
                .map(|byte| out(0x24, 1, (*byte).into())),
        );
    }
    wanted.extend([out(0x24, 1, 3), out(0x24, 1, 2), out(0x24, 1, 1)]);
    expect_trace(&trace, &wanted)?;
    Ok(trace)
}

fn string_mmio(bench: &Bench<'_>) -> Result<Vec<Access>, Failure> {
    let mut guest = Guest::new(bench.hypervisor, Mode::Long, programs::STRING_MMIO)?;
    guest.fill_ram(DATA_AREA, &[1, 2, 3, 4, 5, 6, 7, 8])?;
    let trace = guest.run_to_end()?;
    let [from, to] = [DEVICE + 0x40, DEVICE + 0x80];
    let wanted = [
        load(from, 1),
        load(from + 1, 1),
        load(from + 2, 1),
        store(to, 4, 0x0403_0201),
        store(to + 4, 4, 0x0807_0605),
        store(to + 8, 4, 0x0102_0304),
        store(to + 12, 4, 0x0102_0304),
        out(0x10, 4, answer(from, 3)),
    ];
    expect_trace(&trace, &wanted)?;
    Ok(trace)
}

fn straddle(bench: &Bench<'_>) -> Result<Vec<Access>, Failure> {
    let wanted = [
        store(RAM_LEN, 4, 0x1122_3344),
        out(0x10, 4, 0x5566_7788),
        load(RAM_LEN, 4),
        out(0x10, 4, answer(RAM_LEN, 4)),
    ];
    run(bench, Mode::Long, programs::STRADDLE, &wanted)
}

fn locked_neighbours(bench: &Bench<'_>) -> Result<Vec<Access>, Failure> {
    let wanted = [
        out(0x10, 1, 1),
        // What the last byte was, before 0x99 was added to it.
        out(0x10, 1, 0x01),
        out(0x10, 4, 0x0506_0708),
        out(0x10, 4, 0x9a02_0305),
        load(RAM_LEN, 4),
        out(0x10, 4, answer(RAM_LEN, 4)),
    ];
    run(bench, Mode::Long, programs::LOCKED_NEIGHBOURS, &wanted)
}
