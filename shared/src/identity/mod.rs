//! Who calls, and what they may do. Pure: where callers come from is [`crate::store::Registry`] and the API's gate.

mod caller;
mod key;
mod scope;

pub use caller::{Caller, Credential};
pub use key::{ApiKey, Digest};
pub use scope::{Scope, Scopes, UnknownScope};
