//! Tickets: what a browser opens a socket with, because it cannot send a key.
//!
//! A ticket stands in a URL, where it may be seen. So it opens one socket, once, within a minute; and what the database keeps is
//! its SHA-256 and whom it lets in, not the ticket.

use super::{Digest, Scopes, key::random_digits};
use crate::{clock::UnixMs, config::Secret, task::ProjectId};
use serde::{Deserialize, Serialize};
use std::{sync::Arc, time::Duration};

const PREFIX: &str = "wst_";

/// How long a ticket is good.
pub const TICKET_LIVES: Duration = Duration::from_secs(60);

/// A ticket, whole: shown once, when it is made.
#[derive(Debug)]
pub struct Ticket(Secret);

impl Ticket {
    /// A new one.
    ///
    /// # Panics
    /// The system has no randomness.
    #[must_use]
    pub fn generate() -> Self {
        Self(Secret::new(format!("{PREFIX}{}", random_digits())))
    }

    /// The ticket itself.
    #[must_use]
    pub fn expose(&self) -> &str {
        self.0.expose()
    }
}

/// Whom a ticket lets in: the caller who asked for it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "by", rename_all = "snake_case")]
pub enum Holder {
    /// Whoever calls from this machine, while there are no keys.
    Nobody,
    /// The operator.
    Operator,
    /// The holder of a key, by its SHA-256: once the key has ended, so has the ticket.
    Key {
        /// The digest.
        digest: Digest,
    },
    /// A user of the identity provider.
    Token {
        /// Who.
        subject: Arc<str>,
        /// The project.
        project: ProjectId,
        /// Its name.
        project_name: Arc<str>,
        /// Names of scopes, with commas.
        scopes: String,
        /// When the token ends.
        until: UnixMs,
    },
}

impl Holder {
    /// The scopes of a token.
    #[must_use]
    pub fn scopes(names: &str) -> Scopes {
        names.split(',').filter_map(|name| name.parse().ok()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::Scope;

    #[test]
    fn holders_are_kept_as_json() {
        let scopes: Scopes = [Scope::Read, Scope::Submit].into_iter().collect();
        let token = Holder::Token {
            subject: "ann".into(),
            project: ProjectId::DEFAULT,
            project_name: "default".into(),
            scopes: scopes.to_string(),
            until: UnixMs(1_790_000_000_123),
        };
        for holder in [Holder::Nobody, Holder::Operator, Holder::Key { digest: [7; 32] }, token] {
            let kept = serde_json::to_string(&holder).expect("JSON");
            assert_eq!(serde_json::from_str::<Holder>(&kept).expect(&kept), holder);
        }
        assert_eq!(Holder::scopes(&scopes.to_string()), scopes);
    }

    #[test]
    fn no_two_are_alike() {
        assert_ne!(Ticket::generate().expose(), Ticket::generate().expose());
        assert_eq!(Ticket::generate().expose().len(), 36);
    }
}
