//! Code that was gathered on one processor and is taken up by another.

use std::sync::Arc;

use guest_memory::{GuestMemory, WriteObserver};
use hypervisor::x86_64::{Activity, SegmentAttributes};
use iced_x86::code_asm::{CodeAssembler, byte_ptr, ebx, ecx, r8b, rdi};
use proptest::prelude::*;

use super::gather::MOST_USER_CODE;
use super::record::{self, Record};
use super::*;
use crate::apic::Interconnect;
use crate::cpu::SegReg;
use crate::testing::{NoDevices, flat_cpu64};
use crate::translate::Part;

/// The page of a loop, that of the function it calls, and where the loop stores.
const CODE: u64 = 0x1_0000;
const FUNCTION: u64 = 0x1_2000;
const DATA: u64 = 0x2_0000;
const STACK: u64 = 0x8_0000;
const ROUNDS: u64 = 100;
/// What the function adds to EBX, and where that number is.
const ADDED: u8 = 3;
const ADDED_AT: u64 = FUNCTION + 2;

/// Memory with that loop; each round stores R8B where RDI points. It ends with HLT.
fn memory() -> Memory {
    let ram = GuestMemory::anonymous(&[(0, 1 << 20)]).unwrap();
    let nobody: Arc<dyn WriteObserver> = Arc::new(Interconnect::default());
    ram.observe_writes(&nobody);
    let memory = Memory::default().with(&ram, false);
    let mut a = CodeAssembler::new(64).unwrap();
    let mut top = a.create_label();
    a.mov(ecx, ROUNDS as u32).unwrap();
    a.set_label(&mut top).unwrap();
    a.call(FUNCTION).unwrap();
    a.mov(byte_ptr(rdi), r8b).unwrap();
    a.dec(ecx).unwrap();
    a.jnz(top).unwrap();
    a.hlt().unwrap();
    memory.ram().write(CODE, &a.assemble(CODE).unwrap());
    let mut a = CodeAssembler::new(64).unwrap();
    a.add(ebx, i32::from(ADDED)).unwrap();
    // Nothing but its handler executes this.
    a.rdtsc().unwrap();
    a.ret().unwrap();
    memory.ram().write(FUNCTION, &a.assemble(FUNCTION).unwrap());
    memory
}

/// A processor at the loop.
fn processor() -> Box<Cpu> {
    let mut cpu = flat_cpu64(crate::system::offered_leaves(), CODE);
    cpu.gpr[Cpu::RSP] = STACK;
    cpu.gpr[Cpu::RDI] = DATA;
    cpu
}

/// The same at privilege level 3, where HLT faults.
fn user_processor() -> Box<Cpu> {
    let mut cpu = processor();
    let mut stack = *cpu.segment(SegReg::Ss);
    stack.attributes |= SegmentAttributes::DPL;
    cpu.set_segment(SegReg::Ss, stack);
    assert_eq!(cpu.mode.set, TlbSet::User);
    cpu
}

/// Runs to the loop's end; gives EBX.
fn run(cpu: &mut Cpu, memory: &Memory) -> u64 {
    let mut exec = Exec {
        cpu,
        memory,
        io: &NoDevices,
    };
    while exec.cpu.activity == Activity::Running {
        exec.cpu.apic.attention().take();
        if exec.run_hot_block().is_err() {
            break;
        }
    }
    cpu.gpr[Cpu::RBX]
}

fn gathered_on(mut cpu: Box<Cpu>) -> Vec<u8> {
    let memory = memory();
    cpu.gather_code();
    run(&mut cpu, &memory);
    cpu.code_to_keep(&memory).unwrap()
}

fn gathered() -> Vec<u8> {
    gathered_on(processor())
}

fn taken_up(mut cpu: Box<Cpu>, bytes: &[u8], memory: &Memory) -> Box<Cpu> {
    assert!(cpu.take_up_code(&mut &bytes[..], memory));
    cpu
}

fn is_taken_up(bytes: &[u8]) -> bool {
    processor().take_up_code(&mut &bytes[..], &memory())
}

/// How much code there is.
fn code(cpu: &Cpu) -> usize {
    cpu.translations.arena.as_ref().unwrap().used()
}

#[test]
fn kept_code_is_executed_and_nothing_is_translated() {
    for processor in [processor, user_processor] {
        let memory = memory();
        let mut cpu = taken_up(processor(), &gathered_on(processor()), &memory);
        let before = code(&cpu);

        let sum = run(&mut cpu, &memory);

        assert_eq!(sum, ROUNDS * u64::from(ADDED));
        assert_eq!(code(&cpu), before);
    }
}

#[test]
fn code_for_another_privilege_level_is_not_executed() {
    let memory = memory();
    let mut cpu = taken_up(user_processor(), &gathered(), &memory);
    cpu.translations.hot = 0;
    let before = code(&cpu);

    assert_eq!(run(&mut cpu, &memory), ROUNDS * u64::from(ADDED));

    assert!(code(&cpu) > before);
}

#[test]
fn page_that_is_another_is_noticed_where_it_is_entered_first() {
    for (processor, changed) in [processor, user_processor]
        .into_iter()
        .flat_map(|processor| [ADDED_AT, FUNCTION + 0xff8].map(|changed| (processor, changed)))
    {
        let memory = memory();
        memory.ram().write(changed, &[5]);
        let mut cpu = taken_up(processor(), &gathered_on(processor()), &memory);

        let sum = run(&mut cpu, &memory);

        let added = [u64::from(ADDED), 5][usize::from(changed == ADDED_AT)];
        assert_eq!(sum, ROUNDS * added);
    }
}

/// Whether the page was entered before or not.
#[test]
fn page_that_is_stored_to_loses_its_kept_code() {
    for processor in [processor, user_processor] {
        let memory = memory();
        let mut cpu = taken_up(processor(), &gathered_on(processor()), &memory);
        (cpu.gpr[Cpu::RDI], cpu.gpr[8]) = (ADDED_AT, 5);

        let sum = run(&mut cpu, &memory);

        assert_eq!(sum, u64::from(ADDED) + (ROUNDS - 1) * 5);
    }
}

#[test]
fn page_that_is_stored_to_before_it_is_entered_loses_its_kept_code() {
    let memory = memory();
    let mut cpu = taken_up(processor(), &gathered(), &memory);
    let mut exec = Exec {
        cpu: &mut cpu,
        memory: &memory,
        io: &NoDevices,
    };
    assert!(memory.ram().is_watched(FUNCTION));

    exec.code_written(FUNCTION);

    assert!(!memory.ram().is_watched(FUNCTION));
    assert_eq!(run(&mut cpu, &memory), ROUNDS * u64::from(ADDED));
}

/// How many entries of the jump caches lead into the page at `linear`.
fn jumps_to(cpu: &Cpu, linear: u64) -> usize {
    let entries = cpu.translator.jumps_of(cpu.mode.set).iter();
    entries.filter(|entry| entry.rip & !PAGE_OFFSET == linear).count()
}

#[test]
fn jump_caches_lead_to_kept_code_until_its_page_is_stored_to() {
    let memory = memory();
    let mut cpu = taken_up(processor(), &gathered(), &memory);
    let before = [CODE, FUNCTION].map(|page| jumps_to(&cpu, page));
    let mut exec = Exec {
        cpu: &mut cpu,
        memory: &memory,
        io: &NoDevices,
    };

    exec.code_written(FUNCTION);

    assert!(before.iter().all(|&count| count > 0));
    assert_eq!(jumps_to(&cpu, CODE), before[0]);
    assert_eq!(jumps_to(&cpu, FUNCTION), 0);
}

#[test]
fn record_that_is_torn_or_goes_on_is_none() {
    let bytes = gathered();
    assert!(is_taken_up(&bytes));

    let torn = [0, 1, 63, 64, 65, bytes.len() / 2, bytes.len() - 1].map(|len| is_taken_up(&bytes[..len]));
    let longer = is_taken_up(&[&bytes[..], &[0]].concat());

    assert_eq!((torn, longer), ([false; 7], false));
}

#[test]
fn record_with_a_bit_flipped_is_none() {
    let bytes = gathered();
    for at in (0..64).chain((64..bytes.len()).step_by(61)) {
        let mut flipped = bytes.clone();
        flipped[at] ^= 0x10;
        assert!(!is_taken_up(&flipped), "{at}");
    }
}

#[test]
fn record_of_another_program_is_none() {
    let (tables, code) = {
        let bytes = gathered();
        let len = u32::from_le_bytes(bytes[60..64].try_into().unwrap()) as usize;
        (bytes[64..64 + len].to_vec(), bytes[64 + len..].to_vec())
    };
    let record = Record::of(&tables, code.len()).unwrap();
    let ours = fingerprint().unwrap();
    assert!(is_taken_up(&record.write(&code, ours)));

    assert!(!is_taken_up(&record.write(&code, [ours[0], ours[1] ^ 1])));
}

#[test]
fn processor_that_interprets_takes_up_and_gathers_nothing() {
    let memory = memory();
    let mut cpu = processor();
    cpu.translations.hot = u32::MAX;

    assert!(!cpu.take_up_code(&mut &gathered()[..], &memory));
    cpu.gather_code();
    run(&mut cpu, &memory);

    assert!(cpu.code_to_keep(&memory).is_none());
}

#[test]
fn code_that_was_changed_and_not_noticed_yet_is_not_kept() {
    let memory = memory();
    let mut cpu = processor();
    cpu.gather_code();
    run(&mut cpu, &memory);
    memory.ram().write(ADDED_AT, &[5]);
    cpu.apic.attention().code_changed(FUNCTION);
    let bytes = cpu.code_to_keep(&memory).unwrap();

    let mut cpu = taken_up(processor(), &bytes, &memory);

    assert_eq!(run(&mut cpu, &memory), ROUNDS * 5);
}

/// Code beyond what is kept goes into the arena's other part.
#[test]
fn programs_code_at_any_address_is_not_kept() {
    let going = Gathering::Going { user: 0 };
    let full = Gathering::Going { user: MOST_USER_CODE };
    let randomized = 0x5555_5555_4000;
    assert_eq!(going.part(TlbSet::User, CODE), Some(Part::First));
    assert_eq!(going.part(TlbSet::User, randomized), Some(Part::Second));
    assert_eq!(full.part(TlbSet::User, CODE), Some(Part::Second));
    assert_eq!(full.part(TlbSet::Supervisor, randomized), Some(Part::First));
}

fn tables() -> (Vec<u8>, usize) {
    let bytes = gathered();
    let len = u32::from_le_bytes(bytes[60..64].try_into().unwrap()) as usize;
    (bytes[64..64 + len].to_vec(), bytes.len() - 64 - len)
}

proptest! {
    #[test]
    fn reading_any_bytes_ends(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        prop_assert!(record::read(&mut &bytes[..], [0; 2]).is_none());
        let _ = parse(&bytes, 1000);
    }

    /// Tables whose sum was made right again.
    #[test]
    fn reading_tables_with_changes_ends_and_what_is_read_can_be_searched(
        changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
        cut in proptest::option::of(any::<prop::sample::Index>()),
    ) {
        let (mut tables, code) = tables();
        for (at, byte) in changes {
            let at = at.index(tables.len());
            tables[at] = byte;
        }
        if let Some(cut) = cut {
            tables.truncate(cut.index(tables.len()));
        }
        if let Some(Parsed { mut kept, links, .. }) = parse(&tables, code) {
            prop_assert!(links.iter().all(|link| link.site as usize + 4 <= code));
            let key = Key { gpa: FUNCTION, linear: FUNCTION, mode: processor().mode };
            let found = kept.placed(&key).and_then(|page| kept.find(page, &key));
            prop_assert!(found.is_none_or(|block| block < kept.blocks.len()));
            kept.drop_page(FUNCTION);
            kept.drop_page(CODE);
        }
    }
}
