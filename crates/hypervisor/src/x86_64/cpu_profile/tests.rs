use super::*;
use crate::x86_64::{LocalApic, find_leaf, msr};

/// A host that has everything.
fn all_features() -> Vec<CpuidLeaf> {
    let full = |leaf, subleaf| CpuidLeaf {
        leaf,
        subleaf: Some(subleaf),
        eax: u32::MAX,
        ebx: u32::MAX,
        ecx: u32::MAX,
        edx: u32::MAX,
    };
    let component = |number, offset, len| CpuidLeaf {
        eax: len,
        ebx: offset,
        ecx: 0,
        ..full(0xd, number)
    };
    vec![
        full(1, 0),
        full(7, 0),
        full(0xd, 0),
        full(0xd, 1),
        component(2, 576, 256),
        component(5, 1088, 64),
        component(6, 1152, 512),
        component(7, 1664, 1024),
        component(18, 2752, 8192),
        full(0x4000_0001, 0),
        full(0x8000_0001, 0),
    ]
}

/// What a profile needs and such a host lacks.
fn lacks(profile: CpuProfile, offered: &[CpuidLeaf]) -> Vec<String> {
    match profile.apply(offered) {
        Err(Error::Profile { lacks, .. }) => lacks,
        other => panic!("{other:?}"),
    }
}

#[test]
fn apply_v2_has_no_avx_and_no_extended_state() {
    let leaves = CpuProfile::X86_64V2.apply(&all_features()).unwrap();

    assert_eq!(find_leaf(&leaves, 1, 0).unwrap().ecx >> 26 & 7, 0);
    assert!(find_leaf(&leaves, 0xd, 0).is_none());
}

#[test]
fn apply_v4_shows_avx512_without_amx() {
    let leaves = CpuProfile::X86_64V4.apply(&all_features()).unwrap();

    assert_eq!(find_leaf(&leaves, 7, 0).unwrap().ebx & 0xd003_0128, 0xd003_0128);
    assert_eq!(find_leaf(&leaves, 0xd, 0).unwrap().ecx, 2688);
    assert!(find_leaf(&leaves, 0xd, 18).is_none());
}

#[test]
fn apply_shows_the_same_whatever_else_a_host_has() {
    let mut modest = all_features();
    modest[1].ebx &= !0xd003_0000;
    modest[0].ecx &= !(1 << 25);

    let shown = [all_features(), modest].map(|offered| CpuProfile::X86_64V3.apply(&offered).unwrap());

    assert_eq!(shown[0], shown[1]);
}

#[test]
fn apply_shows_no_counter_that_is_tied_to_one_host() {
    let leaves = CpuProfile::X86_64V3.apply(&all_features()).unwrap();

    // TSC-deadline; the invariant counter; its frequency.
    assert_eq!(find_leaf(&leaves, 1, 0).unwrap().ecx >> 24 & 1, 0);
    assert!(find_leaf(&leaves, 0x8000_0007, 0).is_none());
    assert!(find_leaf(&leaves, 0x4000_0010, 0).is_none());
}

#[test]
fn apply_host_that_lacks_something_is_refused_with_all_of_it() {
    let mut offered = all_features();
    offered[0].ecx &= !(1 << 12);
    offered[1].ebx &= !(1 << 5);
    offered[4].ebx = 832;

    let lacking = lacks(CpuProfile::X86_64V3, &offered);

    assert_eq!(lacking, ["FMA", "AVX2", "XSAVE component 2 at 576 of its area"]);
    assert!(CpuProfile::X86_64V2.apply(&offered).is_ok());
}

#[test]
fn apply_host_profile_changes_nothing() {
    assert_eq!(CpuProfile::Host.apply(&all_features()).unwrap(), all_features());
}

#[test]
fn carried_leaves_out_what_is_the_hosts_and_the_guest_never_used() {
    let mut state = CpuState::reset(0);
    let own = state.clone();
    // ARCH_CAPABILITIES, SPEC_CTRL, and PKRU.
    state.msrs.insert(0x10a, 0x1234);
    state.msrs.insert(0x48, 0);
    state.extended.components.0.insert(9, vec![0; 8]);

    assert_eq!(CpuProfile::Host.carried(state.clone()).unwrap(), state);
    assert_eq!(CpuProfile::X86_64V3.carried(state).unwrap(), own);
}

#[test]
fn carried_names_all_that_was_used_and_cannot_go() {
    let mut state = CpuState::reset(0);
    state.xcr0 = 0xe7;
    state.msrs.insert(0x4b56_4d02, 1);
    state.extended.components.0.insert(5, vec![1; 64]);
    state.tsc_deadline = 7;
    state.lapic.registers[LocalApic::SPURIOUS] |= 1 << 12;

    let refused = CpuProfile::X86_64V3.carried(state).unwrap_err();

    let Error::NotCarried { profile, what } = refused else {
        panic!("{refused}");
    };
    assert_eq!(profile, "x86-64-v3");
    let expected = [
        "XCR0 0xe7",
        "MSR 0x4b564d02 with 0x1 in it",
        "XSAVE component 5",
        "MSR 0x6e0, the timer's deadline",
        "directed ends of interrupts",
    ];
    assert_eq!(what, expected);
}

#[test]
fn carried_registers_are_of_the_state_table() {
    let mut carried = carried::CARRIED.iter().cloned().flatten();

    assert!(carried.all(|index| msr::STATE_MSRS.contains(&index)));
}

#[test]
fn from_str_reads_every_name_and_names_the_unknown() {
    for profile in CpuProfile::ALL {
        assert_eq!(profile.name().parse(), Ok(profile));
    }
    assert_eq!(
        "x86-64-v9".parse::<CpuProfile>(),
        Err(UnknownProfile("x86-64-v9".into()))
    );
}
