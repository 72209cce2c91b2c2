//! Clients that others have made, against a real system: `scripts/clients` brings them.

mod schemathesis;
mod webhooks;
