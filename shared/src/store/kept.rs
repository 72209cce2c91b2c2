//! Kept answers as they are read: a long body is read only by whoever has room for it.

use crate::task::Payload;

/// A body of this many bytes at most is read along with its task.
pub const SHORT_BYTES: u32 = 64 << 10;

/// A kept answer, as far as it is known without its body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kept {
    /// HTTP status.
    pub status: u16,
    /// `Content-Type` as sent.
    pub content_type: String,
    /// The upstream's request id, if it named one.
    pub request_id: Option<String>,
    /// Length of the body in bytes.
    pub len: u64,
    /// The body, or where it is in the object store; `None`: it is in the row, and longer than [`SHORT_BYTES`].
    pub body: Option<Payload>,
}
