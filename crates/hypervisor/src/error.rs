//! What can go wrong below the traits.

/// Why a backend refused.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The backend cannot be used on this host at all; the sentence says why and what would help.
    #[error("{backend} is not usable: {reason}")]
    Unusable {
        /// The backend's short name, as `--backend` takes it.
        backend: &'static str,
        /// One clause: why, and what the user can do.
        reason: String,
    },
    /// The host refused one operation.
    #[error("cannot {operation}")]
    Host {
        /// What was attempted, in the infinitive.
        operation: &'static str,
        /// The host's answer.
        #[source]
        source: std::io::Error,
    },
    /// A memory slot would overlap one that is mapped.
    #[error("guest memory {gpa:#x}+{len:#x} overlaps what is mapped at {other:#x}")]
    Overlap {
        /// First guest-physical address asked for.
        gpa: u64,
        /// Length asked for, in bytes.
        len: u64,
        /// Where the mapping in the way begins.
        other: u64,
    },
    /// A piece of CPU state that this backend or host cannot hold.
    #[error("CPU state {element} cannot be set: {reason}")]
    State {
        /// The element's name in the state table.
        element: &'static str,
        /// What stands against it.
        reason: String,
    },
    /// A CPU profile that this backend cannot show.
    #[error("CPU profile {profile} needs what this backend lacks: {}", .lacks.join(", "))]
    Profile {
        /// Its name.
        profile: &'static str,
        /// Everything that is missing, by name.
        lacks: Vec<String>,
    },
    /// CPU state that is of this backend alone, in a guest that is to move to any.
    #[error("CPU profile {profile} does not carry what this guest uses: {}", .what.join(", "))]
    NotCarried {
        /// Its name.
        profile: &'static str,
        /// All of it, by name.
        what: Vec<String>,
    },
    /// The backend lacks what was asked.
    #[error("this backend has no {0}")]
    Unsupported(&'static str),
}
