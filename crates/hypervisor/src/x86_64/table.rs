//! The macros behind the state table: a struct written once, with numbered fields, gets its list of fields,
//! its comparison and its form in a snapshot from the same lines.

/// Adds the names of what differs between two values of one type.
pub(super) trait Compare {
    /// Appends `path`, or paths below it, to `out` for everything that is not equal.
    fn compare(&self, other: &Self, path: &str, out: &mut Vec<String>);
}

macro_rules! compare_whole {
    ($($ty:ty),* $(,)?) => {$(
        impl $crate::x86_64::table::Compare for $ty {
            fn compare(&self, other: &Self, path: &str, out: &mut Vec<String>) {
                if self != other {
                    out.push(path.to_owned());
                }
            }
        }
    )*};
}
pub(super) use compare_whole;

compare_whole!(bool, u8, u16, u32, u64);

impl<T: Compare, const N: usize> Compare for [T; N] {
    fn compare(&self, other: &Self, path: &str, out: &mut Vec<String>) {
        for (index, (mine, theirs)) in self.iter().zip(other).enumerate() {
            mine.compare(theirs, &format!("{path}[{index}]"), out);
        }
    }
}

impl<K, V> Compare for std::collections::BTreeMap<K, V>
where
    K: Ord + Copy + std::fmt::LowerHex,
    V: PartialEq,
{
    fn compare(&self, other: &Self, path: &str, out: &mut Vec<String>) {
        let keys: std::collections::BTreeSet<K> = self.keys().chain(other.keys()).copied().collect();
        for key in keys.into_iter().filter(|key| self.get(key) != other.get(key)) {
            out.push(format!("{path}[{key:#x}]"));
        }
    }
}

/// A group of registers: `number name: type`, the number being the field's identity in a file.
macro_rules! register_group {
    (
        $(#[$meta:meta])*
        pub struct $name:ident {
            $($(#[$field_meta:meta])* $number:literal $field:ident : $ty:ty,)*
        }
    ) => {
        $(#[$meta])*
        #[derive(Clone, Debug, Default, PartialEq, Eq)]
        pub struct $name {
            $($(#[$field_meta])* pub $field: $ty,)*
        }

        impl $name {
            /// Number and name of every field, in the order they are written.
            pub const FIELDS: &'static [(u16, &'static str)] = &[$(($number, stringify!($field))),*];
        }

        saved_state::saved_fields!($name { $($number $field,)* });

        impl $crate::x86_64::table::Compare for $name {
            fn compare(&self, other: &Self, path: &str, out: &mut Vec<String>) {
                $($crate::x86_64::table::Compare::compare(
                    &self.$field,
                    &other.$field,
                    &format!("{path}.{}", stringify!($field)),
                    out,
                );)*
            }
        }
    };
}
pub(super) use register_group;

/// The state table itself: the struct, one getter and one setter for each element, and all of them in turn.
macro_rules! state_table {
    (
        $(#[$meta:meta])*
        pub struct $name:ident / $access:ident {
            $($(#[$field_meta:meta])* $number:literal $field:ident : $ty:ty => $set:ident,)*
        }
    ) => {
        $(#[$meta])*
        #[derive(Clone, Debug, PartialEq, Eq)]
        pub struct $name {
            $($(#[$field_meta])* pub $field: $ty,)*
        }

        impl $name {
            /// Number and name of every element, in the order they must be set.
            pub const ELEMENTS: &'static [(u16, &'static str)] = &[$(($number, stringify!($field))),*];

            /// The names of all registers that differ, such as `system.cr3`; empty where the states are equal.
            pub fn differences(&self, other: &Self) -> Vec<String> {
                let mut out = Vec::new();
                $($crate::x86_64::table::Compare::compare(
                    &self.$field,
                    &other.$field,
                    stringify!($field),
                    &mut out,
                );)*
                out
            }
        }

        saved_state::saved_fields!($name { $($number $field,)* });

        /// How a backend reads and writes one vCPU's state, element by element.
        ///
        /// Setters may rely on every element before theirs in the table being set already.
        pub trait $access {
            $(
                #[doc = concat!("Reads element `", stringify!($field), "`.")]
                fn $field(&mut self) -> Result<$ty, $crate::Error>;
                #[doc = concat!("Sets element `", stringify!($field), "`.")]
                fn $set(&mut self, value: &$ty) -> Result<(), $crate::Error>;
            )*

            /// Reads every element.
            fn read_all(&mut self) -> Result<$name, $crate::Error> {
                Ok($name { $($field: self.$field()?,)* })
            }

            /// Sets every element, in table order.
            fn write_all(&mut self, state: &$name) -> Result<(), $crate::Error> {
                $(self.$set(&state.$field)?;)*
                Ok(())
            }
        }
    };
}
pub(super) use state_table;
