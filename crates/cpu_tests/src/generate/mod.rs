//! Makes up cases.

mod directed;
mod eligible;
mod operands;
mod values;

use iced_x86::{Code, Encoder, Instruction};

use crate::case::{Case, decode};
use crate::layout::{CODE, CODE_LEN};
use crate::random::Random;
use crate::undefined;

use eligible::Family;

/// Room for the jump behind a case, and for its longest item.
const RESERVED: usize = 5;
const MOST_ITEMS: usize = 6;

/// What cases are made from.
pub(crate) struct Generator {
    families: Vec<(Family, Vec<Code>)>,
    /// Whether directed families are among the cases.
    directs: bool,
}

impl Generator {
    /// Of the instructions whose code's name, as the disassembler's library has it, contains `only`.
    pub(crate) fn new(only: &str) -> Self {
        let mut families: Vec<_> = Family::ALL.iter().map(|family| (*family, Vec::new())).collect();
        for code in Code::values().filter(|code| format!("{code:?}").contains(only)) {
            if let Some(family) = eligible::family(code) {
                let codes = families.iter_mut().find(|(one, _)| *one == family);
                codes.into_iter().for_each(|(_, codes)| codes.push(code));
            }
        }
        families.retain(|(_, codes)| !codes.is_empty());
        Self {
            families,
            directs: only.is_empty(),
        }
    }

    /// The case that belongs to this seed.
    pub(crate) fn case(&self, seed: u64, slot: usize) -> Case {
        let mut random = Random::new(seed);
        let input = values::block(&mut random);
        let mut case = Case {
            slot,
            items: Vec::new(),
            input,
        };
        if let Some(item) = directed::item(self, seed, slot, &mut random).filter(|_| self.directs) {
            case.items.push(item);
            return case;
        }
        let wanted = 1 + random.below(MOST_ITEMS);
        let (mut undefined, mut len, mut attempts) = (0, 0, 0);
        while case.items.len() < wanted && attempts < 100 {
            attempts += 1;
            let at = CODE + (slot * CODE_LEN + len) as u64;
            let Some(item) = self.item(at, &mut random) else {
                continue;
            };
            let fits = len + item.len() + RESERVED <= CODE_LEN;
            let Some(after) = checked(&item, at, undefined).filter(|_| fits) else {
                continue;
            };
            undefined = after;
            len += item.len();
            case.items.push(item);
        }
        case
    }

    /// An instruction, or a branch before one.
    fn item(&self, at: u64, random: &mut Random) -> Option<Vec<u8>> {
        if !random.once_in(12) {
            return self.plain(at, random);
        }
        let short = random.once_in(2);
        let head = if short { 2 } else { 6 };
        let jumped_over = self.plain(at + head, random)?;
        let len = jumped_over.len() as u8;
        let mut item = match (short, random.below(8)) {
            // LOOPNE, LOOPE, LOOP, JRCXZ; the others are Jcc.
            (true, 0) => vec![0xe0 + random.below(4) as u8, len],
            (true, _) => vec![0x70 + random.below(16) as u8, len],
            (false, _) => vec![0x0f, 0x80 + random.below(16) as u8, len, 0, 0, 0],
        };
        item.extend(jumped_over);
        Some(item)
    }

    fn plain(&self, at: u64, random: &mut Random) -> Option<Vec<u8>> {
        let share = random.below(100);
        let found = self
            .families
            .iter()
            .find(|(family, _)| share < family.share_ends());
        let (_, codes) = found.or(self.families.last())?;
        let instruction = operands::fill(random.pick(codes), random)?;
        let mut bytes = encode(&instruction, at)?;
        // A prefix that means nothing, or something else altogether.
        if random.once_in(40) {
            const PREFIXES: [u8; 10] = [0x66, 0x67, 0xf2, 0xf3, 0x2e, 0x3e, 0x64, 0x65, 0x40, 0x48];
            bytes.insert(0, random.pick(&PREFIXES));
        }
        Some(bytes)
    }
}

fn encode(instruction: &Instruction, at: u64) -> Option<Vec<u8>> {
    let mut encoder = Encoder::new(64);
    encoder.encode(instruction, at).ok()?;
    Some(encoder.take_buffer())
}

/// Undefined flags behind an item, where it can be part of a case: it must not depend on undefined flags.
fn checked(item: &[u8], at: u64, mut undefined: u32) -> Option<u32> {
    let mut jumps = false;
    let instructions = decode(item, at);
    for instruction in &instructions {
        let instruction = *instruction;
        if !eligible::instruction(&instruction) || instruction.rflags_read() & undefined != 0 {
            return None;
        }
        // A prefix can shorten an instruction, so that its last bytes are another.
        if eligible::is_branch(&instruction) && !stays_inside(&instructions, &instruction) {
            return None;
        }
        let after = undefined::after(&instruction, undefined);
        undefined = if jumps { undefined | after } else { after };
        jumps |= eligible::is_branch(&instruction);
    }
    Some(undefined)
}

/// Whether a branch goes forwards, to an instruction or to the end.
fn stays_inside(instructions: &[Instruction], branch: &Instruction) -> bool {
    let target = branch.near_branch_target();
    target > branch.ip() && instructions.iter().any(|one| one.next_ip() == target)
}
