//! Webhooks of Longhaul, verified.

use http::HeaderMap;
use standardwebhooks::{Webhook, WebhookError};

/// Refuses what was not signed with this secret within the last five minutes.
pub fn verify(headers: &HeaderMap, body: &[u8], secret: &str) -> Result<(), WebhookError> {
    Webhook::new(secret)?.verify(body, headers)
}
