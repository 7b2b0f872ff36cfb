//! What the operating system can refuse.

/// Why the operating system did not do it.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It refused one operation.
    #[error("cannot {operation}")]
    Os {
        /// What was attempted, in the infinitive.
        operation: &'static str,
        /// Its answer.
        #[source]
        source: std::io::Error,
    },
    /// It has no such thing.
    #[error("this system has no {0}")]
    Unsupported(&'static str),
}

impl Error {
    /// Wraps the answer to `operation`.
    pub(crate) fn os<E: Into<std::io::Error>>(operation: &'static str) -> impl FnOnce(E) -> Self {
        move |source| Self::Os {
            operation,
            source: source.into(),
        }
    }
}
