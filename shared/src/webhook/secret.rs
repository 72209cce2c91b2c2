//! Secrets that webhooks are signed with, after the Standard Webhooks specification.

use crate::{clock::UnixMs, config::Secret};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use standardwebhooks::Webhook;

const PREFIX: &str = "whsec_";
/// Bytes of randomness; the specification wants 24 to 64.
const RANDOM: usize = 32;

/// A secret, as its receiver keeps it: `whsec_` and 32 bytes in base64.
#[derive(Debug, Clone)]
pub struct SigningSecret(Secret);

impl SigningSecret {
    /// A new one.
    ///
    /// # Panics
    /// The system has no randomness.
    #[must_use]
    pub fn generate() -> Self {
        let mut bytes = [0; RANDOM];
        getrandom::fill(&mut bytes).expect("the system has randomness");
        Self(Secret::new(format!("{PREFIX}{}", STANDARD.encode(bytes))))
    }

    /// One that was kept.
    #[must_use]
    pub fn kept(text: String) -> Self {
        Self(Secret::new(text))
    }

    /// The secret itself.
    #[must_use]
    pub fn expose(&self) -> &str {
        self.0.expose()
    }

    /// Its last characters, by which people tell secrets apart.
    #[must_use]
    pub fn hint(&self) -> String {
        let text = self.expose();
        format!("…{}", &text[text.len().saturating_sub(4)..])
    }
}

/// The header `webhook-signature`: one signature per secret, so that a receiver with either of two finds its own. `at` is the moment of
/// this attempt.
///
/// # Panics
/// Never: secrets are ours, so they are base64.
#[must_use]
pub(super) fn signatures(secrets: &[SigningSecret], id: &str, at: UnixMs, body: &[u8]) -> String {
    let sign = |secret: &SigningSecret| {
        let webhook = Webhook::new(secret.expose()).expect("a secret of ours");
        webhook.sign(id, at.0 / 1_000, body).expect("an id without dots and a time after 1970")
    };
    secrets.iter().map(sign).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_secrets_of_a_rotation_verify() {
        let (old, new) = (SigningSecret::generate(), SigningSecret::generate());
        let body = br#"{"type":"task.completed"}"#;
        let now = UnixMs::now();
        let mut headers = http::HeaderMap::new();
        let signature = signatures(&[new.clone(), old.clone()], "evt_1", now, body);
        for (name, value) in [
            ("webhook-id", "evt_1".into()),
            ("webhook-timestamp", (now.0 / 1_000).to_string()),
            ("webhook-signature", signature),
        ] {
            headers.insert(name, value.parse().expect("ASCII"));
        }
        let verify = |secret: &SigningSecret, body: &[u8]| {
            Webhook::new(secret.expose()).expect("a secret").verify(body, &headers).is_ok()
        };
        assert!(verify(&old, body) && verify(&new, body));
        assert!(!verify(&SigningSecret::generate(), body) && !verify(&new, b"{}"));
    }

    #[test]
    fn only_its_end_is_shown() {
        let secret = SigningSecret::generate();
        assert!(secret.expose().ends_with(secret.hint().trim_start_matches('…')));
        assert_eq!(secret.hint().chars().count(), 5);
        assert!(!format!("{secret:?}").contains(secret.expose()));
    }
}
