//! CPU state in a snapshot: what the state table's macros do not write by themselves.

use saved_state::{Decoder, Error, Saved, Unit, saved_fields};

use super::{
    Activity, Components, CpuState, CpuidLeaf, LocalApic, PendingException, PendingInterrupt, Segment,
    SegmentAttributes, TableRegister,
};

/// Layout of a vCPU's record.
const VCPU_SCHEMA: u16 = 1;
/// Layout of the list of CPUID leaves.
const CPUID_SCHEMA: u16 = 1;
/// The last vector of an exception.
const LAST_EXCEPTION: u8 = 31;

impl CpuState {
    /// The state as a unit of a snapshot.
    pub fn save(&self) -> Unit {
        Unit::new(VCPU_SCHEMA, self)
    }

    /// The state in a unit of a snapshot. Registers may have any value: a backend decides what it accepts.
    ///
    /// # Errors
    /// Bytes that are no such state.
    pub fn load(unit: &Unit) -> Result<Self, Error> {
        unit.decode(VCPU_SCHEMA)
    }
}

impl CpuidLeaf {
    /// What a VM's CPUs show, as a unit of a snapshot.
    pub fn save_all(leaves: &[Self]) -> Unit {
        Unit::new(CPUID_SCHEMA, &leaves.to_vec())
    }

    /// What a VM's CPUs show, from a unit of a snapshot.
    ///
    /// # Errors
    /// Bytes that are no such list.
    pub fn load_all(unit: &Unit) -> Result<Vec<Self>, Error> {
        unit.decode(CPUID_SCHEMA)
    }
}

saved_fields!(Segment { 1 selector, 2 base, 3 limit, 4 attributes, });
saved_fields!(TableRegister { 1 base, 2 limit, });
saved_fields!(PendingInterrupt { 1 vector, 2 software, });
saved_fields!(CpuidLeaf { 1 leaf, 2 subleaf, 3 eax, 4 ebx, 5 ecx, 6 edx, });

impl Saved for SegmentAttributes {
    fn encode(&self, out: &mut Vec<u8>) {
        self.bits().encode(out);
    }

    fn decode(input: &mut Decoder<'_>) -> Result<Self, Error> {
        Self::from_bits(u32::decode(input)?).ok_or(Error::Value("a segment's attributes"))
    }
}

impl Saved for Components {
    fn encode(&self, out: &mut Vec<u8>) {
        self.0.encode(out);
    }

    fn decode(input: &mut Decoder<'_>) -> Result<Self, Error> {
        Saved::decode(input).map(Self)
    }
}

impl Saved for LocalApic {
    fn encode(&self, out: &mut Vec<u8>) {
        self.registers.encode(out);
    }

    fn decode(input: &mut Decoder<'_>) -> Result<Self, Error> {
        let registers = Saved::decode(input)?;
        Ok(Self { registers })
    }
}

impl Saved for PendingException {
    fn encode(&self, out: &mut Vec<u8>) {
        let Self {
            vector,
            error_code,
            payload,
            injected,
        } = self;
        vector.encode(out);
        error_code.encode(out);
        payload.encode(out);
        injected.encode(out);
    }

    fn decode(input: &mut Decoder<'_>) -> Result<Self, Error> {
        let vector = u8::decode(input)?;
        if vector > LAST_EXCEPTION {
            return Err(Error::Value("an exception's vector"));
        }
        Ok(Self {
            vector,
            error_code: Saved::decode(input)?,
            payload: Saved::decode(input)?,
            injected: Saved::decode(input)?,
        })
    }
}

impl Saved for Activity {
    fn encode(&self, out: &mut Vec<u8>) {
        let (number, vector) = match self {
            Self::Running => (0_u8, 0_u8),
            Self::Halted => (1, 0),
            Self::WaitForInit => (2, 0),
            Self::WaitForSipi => (3, 0),
            Self::SipiReceived(vector) => (4, *vector),
        };
        number.encode(out);
        vector.encode(out);
    }

    fn decode(input: &mut Decoder<'_>) -> Result<Self, Error> {
        match (u8::decode(input)?, u8::decode(input)?) {
            (0, 0) => Ok(Self::Running),
            (1, 0) => Ok(Self::Halted),
            (2, 0) => Ok(Self::WaitForInit),
            (3, 0) => Ok(Self::WaitForSipi),
            (4, vector) => Ok(Self::SipiReceived(vector)),
            _ => Err(Error::Value("a CPU's activity")),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::x86_64::PendingEvents;

    fn busy() -> CpuState {
        let mut state = CpuState::reset(3);
        state.general.gpr[7] = 0x1122_3344_5566_7788;
        state.extended.components.0.insert(2, vec![9; 256]);
        state.activity = Activity::SipiReceived(0x9a);
        state.events = PendingEvents {
            exception: Some(PendingException {
                vector: 14,
                error_code: Some(2),
                payload: Some(0xdead_b000),
                injected: true,
            }),
            interrupt: Some(PendingInterrupt {
                vector: 0x40,
                software: false,
            }),
            nmi_masked: true,
            ..PendingEvents::default()
        };
        state
    }

    #[test]
    fn state_saved_and_loaded_is_equal() {
        assert_eq!(CpuState::load(&busy().save()).unwrap(), busy());
    }

    #[test]
    fn state_of_the_first_layout_loads() {
        let golden = Unit {
            schema: 1,
            bytes: include_bytes!("saved-vcpu-1.bin").to_vec(),
        };
        assert_eq!(CpuState::load(&golden).unwrap(), busy());
    }

    #[test]
    fn leaves_saved_and_loaded_are_equal() {
        let leaves = [CpuidLeaf {
            leaf: 7,
            subleaf: Some(1),
            eax: 1,
            ebx: 2,
            ecx: 3,
            edx: 4,
        }];
        assert_eq!(
            CpuidLeaf::load_all(&CpuidLeaf::save_all(&leaves)).unwrap(),
            leaves
        );
    }

    proptest! {
        #[test]
        fn load_changed_bytes_never_panics(at: prop::sample::Index, value: u8, cut: prop::sample::Index) {
            let mut unit = busy().save();
            let at = at.index(unit.bytes.len());
            unit.bytes[at] = value;
            let _ = CpuState::load(&unit);
            unit.bytes.truncate(cut.index(unit.bytes.len()));
            prop_assert!(CpuState::load(&unit).is_err());
        }
    }
}
