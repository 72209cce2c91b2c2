//! The names of a caller's buckets, made once.

use super::Unit;
use shared::identity::{Caller, Credential};
use std::{fmt, sync::Arc};

/// The buckets of a caller, by [`Unit`].
#[derive(Debug)]
pub(crate) struct Buckets {
    /// Its key's or user's; of others they are not used.
    pub(super) own: [Arc<str>; 2],
    /// Its project's.
    pub(super) project: [Arc<str>; 2],
}

impl Buckets {
    pub(crate) fn of(caller: &Caller) -> Self {
        let own = match &caller.credential {
            Credential::Key(id) => named("key", id),
            Credential::Token(user) => named("user", user),
            Credential::Nothing | Credential::Operator => Default::default(),
        };
        Self { own, project: named("project", &caller.project) }
    }
}

fn named(kind: &str, id: &dyn fmt::Display) -> [Arc<str>; 2] {
    [Unit::Requests, Unit::Tokens].map(|unit| format!("{}:{kind}:{id}", unit.name()).into())
}
