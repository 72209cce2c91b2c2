//! Who calls.

use super::{Scope, Scopes};
use crate::task::{KeyId, ProjectId};
use std::{fmt, sync::Arc};

/// By what a caller is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Credential {
    /// Nothing: somebody on this machine, while there are no keys.
    Nothing,
    /// The key that the configuration names: the operator.
    Operator,
    /// A key of a project.
    Key(KeyId),
    /// A token of the identity provider, for this subject.
    Token(Arc<str>),
}

impl fmt::Display for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nothing => f.write_str("local"),
            Self::Operator => f.write_str("operator"),
            Self::Key(id) => fmt::Display::fmt(id, f),
            Self::Token(subject) => write!(f, "user {subject}"),
        }
    }
}

/// Who calls, from the credential alone: nothing in a request can change it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// The tenant: all that the caller sees and makes is its.
    pub project: ProjectId,
    /// Its name.
    pub project_name: Arc<str>,
    /// By what the caller is known.
    pub credential: Credential,
    /// What the caller may do.
    pub scopes: Scopes,
}

impl Caller {
    /// Somebody who may do everything, in the default project.
    #[must_use]
    pub fn unlimited(credential: Credential) -> Self {
        Self { project: ProjectId::DEFAULT, project_name: "default".into(), credential, scopes: Scopes::ALL }
    }

    /// Whether the caller may do this.
    #[must_use]
    pub fn may(&self, scope: Scope) -> bool {
        self.scopes.contains(scope)
    }
}
