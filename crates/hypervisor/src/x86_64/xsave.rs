//! Extended state (x87, SSE, AVX and later), component by component.

use std::collections::BTreeMap;

use super::table::{Compare, register_group};
use super::{CpuidLeaf, find_leaf};

register_group! {
    /// What `XSAVE` saves (Intel SDM vol. 1, 13.4), free of any layout.
    pub struct ExtendedState {
        /// MXCSR.
        1 mxcsr: u32,
        /// State components by number. One that is missing is in its initial configuration. Component 0 is the
        /// first 160 bytes of the legacy region with bytes 24 to 31 (MXCSR and its mask) zero, component 1 is
        /// XMM0 to XMM15 (bytes 160 to 415), every other as CPUID leaf 0xd sizes it.
        2 components: Components,
    }
}

/// Component number to contents.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Components(pub BTreeMap<u32, Vec<u8>>);

impl Compare for Components {
    fn compare(&self, other: &Self, path: &str, out: &mut Vec<String>) {
        self.0.compare(&other.0, path, out);
    }
}

/// Where a state component lies in the standard (non-compacted) format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Place {
    component: u32,
    offset: usize,
    len: usize,
}

/// The standard format of an XSAVE area, as one set of CPUID leaves describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct XsaveLayout {
    places: Vec<Place>,
    len: usize,
}

const X87: Place = Place {
    component: 0,
    offset: 0,
    len: 160,
};
const SSE: Place = Place {
    component: 1,
    offset: 160,
    len: 256,
};
const MXCSR_OFFSET: usize = 24;
const MXCSR_MASK_OFFSET: usize = 28;
const XSTATE_BV_OFFSET: usize = 512;
/// Legacy region and header.
const FIRST_EXTENDED: usize = 576;
/// MXCSR after reset: all exceptions masked.
const MXCSR_RESET: u32 = 0x1f80;
/// No component is larger than AMX's 8 KiB tiles today; a description beyond this is not believed.
const MAX_AREA: usize = 64 * 1024;

impl XsaveLayout {
    /// Reads the layout from CPUID leaf 0xd (Intel SDM vol. 1, 13.2). Supervisor components have no place in
    /// the standard format and are left out.
    pub fn from_cpuid(leaves: &[CpuidLeaf]) -> Self {
        let mut places = vec![X87, SSE];
        for component in 2..63 {
            let Some(leaf) = find_leaf(leaves, 0xd, component) else {
                continue;
            };
            let place = Place {
                component,
                offset: leaf.ebx as usize,
                len: leaf.eax as usize,
            };
            let supervisor = leaf.ecx & 1 != 0;
            let fits = place.offset >= FIRST_EXTENDED && place.offset.saturating_add(place.len) <= MAX_AREA;
            if !supervisor && place.len != 0 && fits {
                places.push(place);
            }
        }
        let len = places
            .iter()
            .map(|place| place.offset + place.len)
            .max()
            .unwrap_or(0)
            .max(FIRST_EXTENDED);
        Self { places, len }
    }

    /// Length of an area in bytes.
    pub fn area_len(&self) -> usize {
        self.len
    }

    /// Takes an area apart. Components whose bit in XSTATE_BV is clear are in their initial configuration,
    /// whatever bytes lie there. `None` where the area is too short.
    pub fn parse(&self, area: &[u8]) -> Option<ExtendedState> {
        let present = u64::from_le_bytes(area.get(XSTATE_BV_OFFSET..)?.get(..8)?.try_into().ok()?);
        let mxcsr = u32::from_le_bytes(area.get(MXCSR_OFFSET..)?.get(..4)?.try_into().ok()?);
        let mut components = BTreeMap::new();
        for place in self
            .places
            .iter()
            .filter(|place| present >> place.component & 1 != 0)
        {
            let mut bytes = area.get(place.offset..place.offset + place.len)?.to_vec();
            if place.component == 0 {
                bytes[MXCSR_OFFSET..MXCSR_MASK_OFFSET + 4].fill(0);
            }
            components.insert(place.component, bytes);
        }
        Some(ExtendedState {
            mxcsr,
            components: Components(components),
        })
    }

    /// Writes an area of [`XsaveLayout::area_len`] bytes or more. On failure names the component that this
    /// layout lacks or that has another size here.
    pub fn format(&self, state: &ExtendedState, area: &mut [u8]) -> Result<(), u32> {
        area.fill(0);
        let mut present = 0_u64;
        for (&component, bytes) in &state.components.0 {
            let place = self
                .places
                .iter()
                .find(|place| place.component == component && place.len == bytes.len())
                .ok_or(component)?;
            area.get_mut(place.offset..place.offset + place.len)
                .ok_or(component)?
                .copy_from_slice(bytes);
            present |= 1 << component;
        }
        let header = area.get_mut(..FIRST_EXTENDED).ok_or(0_u32)?;
        if present & 1 == 0 {
            // The control word of an initial x87 (Intel SDM vol. 1, 13.6) for readers that skip XSTATE_BV.
            header[..2].copy_from_slice(&0x037f_u16.to_le_bytes());
        }
        header[MXCSR_OFFSET..MXCSR_OFFSET + 4].copy_from_slice(&state.mxcsr.to_le_bytes());
        header[XSTATE_BV_OFFSET..XSTATE_BV_OFFSET + 8].copy_from_slice(&present.to_le_bytes());
        Ok(())
    }
}

impl ExtendedState {
    /// Everything in its initial configuration.
    pub fn reset() -> Self {
        Self {
            mxcsr: MXCSR_RESET,
            components: Components::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layout_with_avx() -> XsaveLayout {
        let avx = CpuidLeaf {
            leaf: 0xd,
            subleaf: Some(2),
            eax: 256,
            ebx: 576,
            ecx: 0,
            edx: 0,
        };
        XsaveLayout::from_cpuid(&[avx])
    }

    #[test]
    fn format_then_parse_gives_back_every_component() {
        let layout = layout_with_avx();
        let components = BTreeMap::from([(1, vec![7; 256]), (2, vec![9; 256])]);
        let state = ExtendedState {
            mxcsr: 0x1fa0,
            components: Components(components),
        };
        let mut area = vec![0xff; layout.area_len()];

        layout.format(&state, &mut area).unwrap();

        assert_eq!(layout.parse(&area), Some(state));
    }

    #[test]
    fn format_component_of_another_size_is_named() {
        let state = ExtendedState {
            mxcsr: 0,
            components: Components(BTreeMap::from([(2, vec![0; 8])])),
        };

        assert_eq!(layout_with_avx().format(&state, &mut [0; 4096]), Err(2));
    }

    #[test]
    fn parse_short_area_is_refused() {
        assert_eq!(layout_with_avx().parse(&[0xff; 575]), None);
    }

    #[test]
    fn from_cpuid_absurd_sizes_are_not_believed() {
        let absurd = CpuidLeaf {
            leaf: 0xd,
            subleaf: Some(5),
            eax: u32::MAX,
            ebx: u32::MAX,
            ecx: 0,
            edx: 0,
        };

        assert_eq!(XsaveLayout::from_cpuid(&[absurd]).area_len(), FIRST_EXTENDED);
    }
}
