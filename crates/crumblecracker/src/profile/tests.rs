//! Kernels made of the tables that are read, and stacks made of numbers.

use std::collections::HashMap;
use std::io::{Seek, SeekFrom, Write};

use super::*;

/// Memory by address; nothing elsewhere.
#[derive(Default)]
struct Quads(HashMap<u64, u64>);

impl GuestStack for Quads {
    fn quad(&self, linear: u64) -> Option<u64> {
        self.0.get(&linear).copied()
    }
}

const TEXT: u64 = 0xffff_ffff_8100_0000;
const PLACES: u64 = 0xffff_ffff_8200_0000;
const STACK: u64 = 0xffff_c900_0000_1000;
const CPU_DATA: u64 = 0xffff_8880_0000_0000;
const TASK: u64 = 0xffff_8880_1000_0000;

/// A section to be: name, type, flags, address, bytes.
type Part<'a> = (&'a str, u32, u64, u64, Vec<u8>);

const DATA: u32 = 1;
const CODE: u64 = 4;

/// An ELF file of these sections.
fn elf(parts: &[Part<'_>]) -> File {
    let mut names = vec![0];
    let mut headers = vec![0; 64];
    let mut contents: Vec<u8> = Vec::new();
    let header = |name: usize, kind: u32, flags: u64, address: u64, offset: usize, len: usize| {
        let mut header = (name as u32).to_le_bytes().to_vec();
        header.extend(kind.to_le_bytes());
        for word in [flags, address, offset as u64, len as u64, 0, 0, 0] {
            header.extend(word.to_le_bytes());
        }
        header.resize(64, 0);
        header
    };
    for (name, kind, flags, address, bytes) in parts {
        headers.extend(header(
            names.len(),
            *kind,
            *flags,
            *address,
            64 + contents.len(),
            bytes.len(),
        ));
        names.extend(name.bytes().chain([0]));
        contents.extend(bytes);
    }
    headers.extend(header(names.len(), 3, 0, 0, 64 + contents.len(), names.len() + 6));
    names.extend(b"names\0");
    contents.extend(&names);
    let mut file = b"\x7fELF\x02\x01\x01".to_vec();
    file.resize(40, 0);
    file.extend((64 + contents.len() as u64).to_le_bytes());
    file.resize(58, 0);
    for half in [64, parts.len() as u16 + 2, parts.len() as u16 + 1] {
        file.extend(half.to_le_bytes());
    }
    file.extend(contents);
    file.extend(headers);
    written(&file)
}

fn written(bytes: &[u8]) -> File {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(bytes).unwrap();
    file.seek(SeekFrom::Start(0)).unwrap();
    file
}

fn padded(bytes: &mut Vec<u8>) {
    bytes.resize(bytes.len().next_multiple_of(8), 0);
}

/// A table of symbols as a kernel carries it: the first character of a name is its kind.
fn kallsyms(symbols: &[(i32, &str)]) -> Vec<u8> {
    // Words are the characters themselves, but for one of several.
    let word = |number: usize| {
        if number == 1 {
            "Tdo_".to_owned()
        } else {
            char::from(number as u8 & 0x7f).to_string()
        }
    };
    let mut data = b"something else".to_vec();
    padded(&mut data);
    data.extend((symbols.len() as u64).to_le_bytes());
    let (start, mut marks) = (data.len(), Vec::new());
    for (number, (_, name)) in symbols.iter().enumerate() {
        if number % 256 == 0 {
            marks.extend(((data.len() - start) as u32).to_le_bytes());
        }
        let packed = name.replace("Tdo_", "\x01");
        match packed.len() {
            len @ ..128 => data.push(len as u8),
            len => data.extend([len as u8 & 0x7f | 0x80, (len >> 7) as u8]),
        }
        data.extend(packed.bytes());
    }
    for part in [marks, Vec::new()] {
        padded(&mut data);
        data.extend(part);
    }
    padded(&mut data);
    let (start, mut index) = (data.len(), Vec::new());
    for number in 0..256 {
        index.extend(((data.len() - start) as u16).to_le_bytes());
        data.extend(word(number).bytes().filter(|&byte| byte != 0).chain([0]));
    }
    padded(&mut data);
    data.extend(index);
    for (offset, _) in symbols {
        data.extend(offset.to_le_bytes());
    }
    padded(&mut data);
    data.extend(TEXT.to_le_bytes());
    data
}

/// Type information that says at which bit a task's name begins.
fn types(bit: u32) -> Vec<u8> {
    let names = b"\0int\0task_struct\0state\0comm\0";
    let mut types = Vec::new();
    // An integer, then the structure with two members of that type.
    for word in [1_u32, 1 << 24, 4, 32, 5, 4 << 24 | 2, 64, 17, 1, 0, 23, 1, bit] {
        types.extend(word.to_le_bytes());
    }
    let mut section = 0xeb9f_u16.to_le_bytes().to_vec();
    section.extend([1, 0]);
    for word in [24, 0, types.len() as u32, types.len() as u32, names.len() as u32] {
        section.extend(word.to_le_bytes());
    }
    section.extend(types);
    section.extend(names);
    section
}

/// An ORC entry: offsets of SP and BP, what they count from, kind.
fn orc(sp_offset: i16, bp_offset: i16, sp: u16, bp: u16, kind: u16) -> [u8; 6] {
    let mut entry = [0; 6];
    entry[..2].copy_from_slice(&sp_offset.to_le_bytes());
    entry[2..4].copy_from_slice(&bp_offset.to_le_bytes());
    entry[4..].copy_from_slice(&(sp | bp << 4 | kind << 8).to_le_bytes());
    entry
}

/// 300 functions of 16 bytes, so that the index of names has two entries, and where a CPU keeps its task.
fn functions() -> Vec<(i32, String)> {
    let function = |number: i32| (-1 - 16 * number, format!("tfunction_{number}"));
    let mut all: Vec<_> = (0..300).map(function).collect();
    all[1].1 = "Tdo_something".to_owned();
    all[2].1 = format!("t{}", "long".repeat(60));
    all.push((0x100, "Dpcpu_hot".to_owned()));
    all
}

/// A kernel whose functions 0, 1 and 2 have frames of 16, 32 and 8 bytes; a program called the last.
fn kernel() -> File {
    let symbols = functions();
    let symbols: Vec<_> = symbols
        .iter()
        .map(|(offset, name)| (*offset, name.as_str()))
        .collect();
    let places = [0, 16, 32].map(|offset| TEXT + offset).into_iter().zip(0_u64..);
    let places =
        places.flat_map(|(place, index)| (place.wrapping_sub(PLACES + index * 4) as i32).to_le_bytes());
    let entries = [orc(16, 0, 5, 0, 2), orc(32, -16, 5, 1, 2), orc(8, 0, 5, 0, 3)];
    elf(&[
        (".text", DATA, CODE, TEXT, vec![0x90; 0x2000]),
        (".rodata", DATA, 0, PLACES + 0x10_0000, kallsyms(&symbols)),
        (".orc_unwind_ip", DATA, 0, PLACES, places.collect()),
        (".orc_unwind", DATA, 0, 0, entries.concat()),
        (".BTF", DATA, 0, 0, types(0x40 * 8)),
    ])
}

/// A profiler of that kernel.
fn profiler() -> Profiler {
    let profiler = Profiler::default();
    profiler.boots(&kernel());
    profiler
}

fn sample(rip: u64, cpl: u8) -> Sample {
    Sample {
        vcpu: 0,
        milliseconds: 1,
        cpl,
        bits: 64,
        rip,
        rsp: STACK,
        rbp: 0,
        gs_bases: [0x7000, CPU_DATA],
    }
}

/// A stack on which functions 0, 1 and 2 called each other, the task's name, and a program below.
fn stack() -> Quads {
    let name = u128::from_le_bytes(*b"a;b c\0\0\0\0\0\0\0\0\0\0\0");
    Quads(HashMap::from([
        (STACK + 8, TEXT + 16 + 5),
        (STACK + 16 + 16, 0xb9),
        (STACK + 16 + 24, TEXT + 32 + 5),
        // Registers of the program: RBP, CS.
        (STACK + 48 + 8 + 0x20, 0),
        (STACK + 48 + 8 + 0x88, 0x33),
        (CPU_DATA + 0x100, TASK),
        (TASK + 0x40, name as u64),
        (TASK + 0x48, (name >> 64) as u64),
    ]))
}

#[test]
fn folded_kernel_stack_has_callers_and_the_process() {
    let profiler = profiler();

    profiler.samples().busy(&sample(TEXT + 7, 0), &stack());

    let long = "long".repeat(60);
    assert_eq!(
        profiler.folded(),
        format!("a_b_c;{long};do_something;function_0 1\n")
    );
}

#[test]
fn folded_samples_of_one_stack_are_added_up() {
    let profiler = profiler();
    let samples = profiler.samples();

    for offset in [0, 5] {
        samples.busy(&sample(TEXT + 16 * 5 + offset, 0), &Quads::default());
    }
    samples.idle(0, 40);
    samples.idle(1, 2);

    assert_eq!(profiler.folded(), "[idle] 42\nkernel;function_5 2\n");
}

#[test]
fn folded_program_is_told_by_page_with_its_callers() {
    let profiler = Profiler::default();
    let mut program = sample(0x40_1234, 3);
    (program.rsp, program.rbp) = (0x7000, 0x7010);
    let called = |bytes: [u8; 8]| u64::from_le_bytes(bytes);
    let memory = Quads(HashMap::from([
        (0x7010, 0x7040),
        (0x7018, 0x40_5678),
        (0x40_5670, called([0x90, 0x90, 0x90, 0xe8, 1, 2, 3, 4])),
        (0x7040, 0x7080),
        (0x7048, 0x40_6789),
        (
            0x40_6781,
            called([0x90, 0x90, 0x90, 0x90, 0x90, 0x90, 0xff, 0xd0]),
        ),
        // No call is before this one.
        (0x7080, 0x70c0),
        (0x7088, 0x40_789a),
        (0x40_7892, called([0x90; 8])),
    ]));

    profiler.samples().busy(&program, &memory);

    assert_eq!(
        profiler.folded(),
        "user;user 0x406000;user 0x405000;user 0x401000 1\n"
    );
}

#[test]
fn stacks_without_end_are_cut() {
    let profiler = Profiler::default();
    let mut program = sample(0x40_0000, 3);
    (program.rsp, program.rbp) = (0x7000, 0x7010);
    let call = u64::from_le_bytes([0x90, 0x90, 0x90, 0xe8, 1, 2, 3, 4]);
    let mut memory = HashMap::from([(0x40_5670, call)]);
    for frame in (0x7010..0x2_0000).step_by(16) {
        memory.extend([(frame, frame + 16), (frame + 8, 0x40_5678)]);
    }

    profiler.samples().busy(&program, &Quads(memory));

    let counted = profiler.shared.counted();
    assert_eq!(counted.busy.keys().next().unwrap().frames.len(), MOST_FRAMES);
}

#[test]
fn symbols_of_the_file_itself_go_first() {
    let mut table = vec![0; 24];
    for (name, kind, address) in [(1_u32, 2_u8, TEXT), (6, 2, TEXT + 0x100), (11, 1, TEXT + 0x80)] {
        table.extend(name.to_le_bytes());
        table.extend([kind, 0, 1, 0]);
        table.extend(address.to_le_bytes());
        table.extend([0; 8]);
    }
    let file = elf(&[
        (".text", DATA, CODE, TEXT, vec![0x90; 0x200]),
        (".symtab", 2, 0, 0, table),
        (".strtab", 3, 0, 0, b"\0main\0next\0data\0".to_vec()),
    ]);

    let symbols = Kernel::read(&file).unwrap().symbols;

    assert_eq!(symbols.function(TEXT + 0xff), Some("main"));
    assert_eq!(symbols.function(TEXT + 0x100), Some("next"));
    assert_eq!(symbols.function(TEXT + 0x200), None);
    assert_eq!(symbols.variable("data"), Some(TEXT + 0x80));
}

/// A kernel's file can be anything.
#[test]
fn kernel_whose_bytes_are_wrong_is_read_without_harm() {
    let mut bytes = Vec::new();
    io::Read::read_to_end(&mut kernel(), &mut bytes).unwrap();
    let read = |bytes: &[u8]| {
        Kernel::read(&written(bytes)).map(|kernel| kernel.symbols.function(TEXT).map(str::to_owned))
    };
    assert_eq!(read(&bytes).unwrap().as_deref(), Some("function_0"));

    for len in (0..bytes.len()).step_by(bytes.len() / 97) {
        // Some are refused, some have fewer symbols.
        let _ = read(&bytes[..len]);
    }
    for at in (0..bytes.len()).step_by(23) {
        let mut wrong = bytes.clone();
        wrong[at] ^= 0xff;
        let _ = read(&wrong);
    }
    assert_eq!(read(b"no ELF file").unwrap_or_default(), None);
}

#[test]
fn write_replaces_a_file_whole_and_leaves_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("profile");
    fs::write(&path, "old").unwrap();
    let profiler = Profiler::default();
    profiler.samples().idle(0, 7);

    profiler.write(&path).unwrap();

    assert_eq!(fs::read_to_string(&path).unwrap(), "[idle] 7\n");
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
}

#[test]
fn write_that_fails_names_the_file_and_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("missing/profile");

    let error = Profiler::default().write(&path).unwrap_err();

    let told = crate::one_line(&error);
    assert!(
        told.starts_with(&format!("cannot write the profile {}: ", path.display())),
        "{told}"
    );
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[test]
fn stacks_that_are_too_many_are_counted_together() {
    let profiler = Profiler::default();
    let samples = profiler.samples();

    for rip in 0..MOST_STACKS as u64 + 5 {
        samples.busy(&sample(rip, 0), &Quads::default());
    }

    assert!(profiler.folded().starts_with("[others] 5\n"));
    assert_eq!(profiler.shared.counted().busy.len(), MOST_STACKS);
}
