//! The extended state of the state table.

use hypervisor::Error;
use hypervisor::x86_64::ExtendedState;

use crate::testing::x87::Bench;
use crate::x87::{extended_state, set_extended_state};

/// Control word 0x37f, and ST0 holding 1.0 with its tag.
fn one() -> Vec<u8> {
    let mut component = vec![0; 160];
    component[..5].copy_from_slice(&[0x7f, 0x03, 0x00, 0x38, 0x80]);
    component[32..42].copy_from_slice(&[0, 0, 0, 0, 0, 0, 0, 0x80, 0xff, 0x3f]);
    component
}

#[test]
fn extended_state_after_reset_has_no_component() {
    assert_eq!(extended_state(&Bench::long().cpu), ExtendedState::reset());
}

#[test]
fn set_extended_state_then_extended_state_gives_it_back() {
    let mut bench = Bench::long();
    let mut state = ExtendedState::reset();
    state.mxcsr = 0x1fa0;
    let mut x87 = one();
    // An instruction pointer, which no exception makes visible.
    x87[8..16].copy_from_slice(&0x7fff_1234_5678_u64.to_le_bytes());
    state.components.0.insert(0, x87);
    state.components.0.insert(1, vec![0x31; 256]);
    state.components.0.insert(2, vec![0x32; 256]);

    set_extended_state(&mut bench.cpu, &state).unwrap();

    assert_eq!(extended_state(&bench.cpu), state);
}

#[test]
fn set_extended_state_without_components_initializes_them() {
    let mut bench = Bench::long();
    bench.cpu.x87.tags = 1;
    bench.cpu.vector.registers[2].0 = [1, 2, 3, 4];

    set_extended_state(&mut bench.cpu, &ExtendedState::reset()).unwrap();

    assert_eq!(extended_state(&bench.cpu), ExtendedState::reset());
}

#[test]
fn set_extended_state_of_another_cpu_is_refused_and_changes_nothing() {
    let mut bench = Bench::long();
    let mut state = ExtendedState::reset();
    state.components.0.insert(0, one());
    state.components.0.insert(5, vec![0; 64]);

    let result = set_extended_state(&mut bench.cpu, &state);

    assert!(matches!(
        result,
        Err(Error::State {
            element: "extended",
            ..
        })
    ));
    assert_eq!(extended_state(&bench.cpu), ExtendedState::reset());
}

#[test]
fn extended_state_in_32_bit_code_has_all_sixteen_registers() {
    let mut bench = Bench::protected();
    bench.cpu.vector.registers[15].0 = [1, 0, 0, 0];

    let state = extended_state(&bench.cpu);

    assert_eq!(state.components.0.get(&1).map(|sse| sse[240]), Some(1));
}
