//! Clients that others have made, against a real system: `scripts/clients` brings them.

mod schemathesis;
mod sse;
mod verification;
#[expect(unreachable_pub, reason = "it stands in docs/webhooks.md as readers would write it")]
mod verify;
mod webhooks;
