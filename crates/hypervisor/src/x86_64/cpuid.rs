//! CPUID leaves.

/// One answer of the CPUID instruction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CpuidLeaf {
    /// EAX going in.
    pub leaf: u32,
    /// ECX going in, where it matters for this leaf.
    pub subleaf: Option<u32>,
    /// What comes back.
    pub eax: u32,
    /// What comes back.
    pub ebx: u32,
    /// What comes back.
    pub ecx: u32,
    /// What comes back.
    pub edx: u32,
}
