//! Instructions with known answers.

mod crypto;
mod integer;
mod masked;
mod moves;
mod numbers;
mod state;
mod text;

use crate::testing::vector::Bench;

/// MXCSR with every exception masked, and without flags.
const MASKED: u32 = 0x1f80;

/// A processor whose first vector registers hold these.
fn bench(registers: &[[u64; 4]]) -> Bench {
    let mut bench = Bench::new();
    for (slot, value) in bench.cpu.vector.registers.iter_mut().zip(registers) {
        slot.0 = *value;
    }
    bench
}

/// Vector register `number`.
fn register(bench: &Bench, number: usize) -> [u64; 4] {
    bench.cpu.vector.registers[number].0
}

/// What an instruction leaves in XMM0, which held `a`, with `b` in XMM1.
fn xmm(code: &[u8], a: u128, b: u128) -> u128 {
    let wide = |value: u128| [value as u64, (value >> 64) as u64, 0, 0];
    let mut bench = bench(&[wide(a), wide(b)]);
    bench.run(code).unwrap();
    let result = register(&bench, 0);
    u128::from(result[1]) << 64 | u128::from(result[0])
}
