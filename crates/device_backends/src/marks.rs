//! Who notes what a guest says of its own course.

/// Notes when something happened in a guest, by its own account.
///
/// Called from vCPU threads, several at once; must not block. A guest can mark without end, so an implementation keeps
/// no more than it has room for.
pub trait Marks: Send + Sync {
    /// `what` happens now: printable ASCII, not empty, at most 64 bytes.
    fn mark(&self, what: &str);
}

/// Notes nothing.
impl Marks for () {
    fn mark(&self, _what: &str) {}
}
