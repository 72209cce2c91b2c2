//! Who calls, and what they may do. Pure: where callers come from is [`crate::store::Registry`] and the API's gate.

mod caller;
mod key;
mod quotas;
mod scope;

pub use caller::{Caller, Credential};
pub use key::{ApiKey, Digest};
pub use quotas::Quotas;
pub use scope::{Scope, Scopes, UnknownScope};
