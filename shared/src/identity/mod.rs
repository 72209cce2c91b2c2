//! Who calls, and what they may do. Pure: where callers come from is [`crate::store::Registry`] and the API's gate.

mod caller;
mod key;
mod quotas;
mod scope;
mod ticket;

pub use caller::{Caller, Credential};
pub use key::{ApiKey, Digest};
pub use quotas::Quotas;
pub use scope::{Scope, Scopes, UnknownScope};
pub use ticket::{Holder, TICKET_LIVES, Ticket};
