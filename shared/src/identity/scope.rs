//! What a caller may do: one scope per kind of operation. The OpenAPI document names the one that each operation needs.

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::{fmt, str::FromStr};

/// One kind of operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// Create, cancel, retry and delete tasks.
    Submit,
    /// See tasks, answers, events, batches, models and queues.
    Read,
    /// Create and cancel batches.
    Batch,
    /// Manage webhooks.
    Webhooks,
    /// Manage projects and keys of the whole installation, and see its audit log and metrics.
    Admin,
}

impl Scope {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Submit, Self::Read, Self::Batch, Self::Webhooks, Self::Admin];

    /// Its name.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Submit => "submit",
            Self::Read => "read",
            Self::Batch => "batch",
            Self::Webhooks => "webhooks",
            Self::Admin => "admin",
        }
    }

    fn bit(self) -> u8 {
        1 << self as u8
    }
}

/// No scope has this name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no scope: there are submit, read, batch, webhooks and admin")]
pub struct UnknownScope(pub String);

impl FromStr for Scope {
    type Err = UnknownScope;

    fn from_str(name: &str) -> Result<Self, UnknownScope> {
        let found = Self::ALL.into_iter().find(|scope| scope.as_str() == name);
        found.ok_or_else(|| UnknownScope(name.to_owned()))
    }
}

/// A set of scopes. As text: names with commas or spaces between them; in JSON: a list of names.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub struct Scopes(u8);

impl Scopes {
    /// Every scope.
    pub const ALL: Self = Self(0b1_1111);

    /// Whether this scope is among them.
    #[must_use]
    pub fn contains(self, scope: Scope) -> bool {
        self.0 & scope.bit() != 0
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Their names.
    pub fn names(self) -> impl Iterator<Item = &'static str> {
        Scope::ALL.into_iter().filter(move |scope| self.contains(*scope)).map(Scope::as_str)
    }
}

impl FromIterator<Scope> for Scopes {
    fn from_iter<I: IntoIterator<Item = Scope>>(scopes: I) -> Self {
        Self(scopes.into_iter().fold(0, |bits, scope| bits | scope.bit()))
    }
}

impl FromStr for Scopes {
    type Err = UnknownScope;

    fn from_str(text: &str) -> Result<Self, UnknownScope> {
        text.split([',', ' ']).filter(|name| !name.is_empty()).map(str::parse::<Scope>).collect()
    }
}

impl fmt::Display for Scopes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&str> = self.names().collect();
        f.write_str(&names.join(","))
    }
}

impl fmt::Debug for Scopes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for Scopes {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_seq(self.names())
    }
}

impl<'de> Deserialize<'de> for Scopes {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let names = Vec::<String>::deserialize(from)?;
        names
            .iter()
            .map(|name| name.parse::<Scope>())
            .collect::<Result<_, _>>()
            .map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_and_json_read_back() {
        let some: Scopes = [Scope::Read, Scope::Submit].into_iter().collect();
        assert_eq!(some.to_string(), "submit,read");
        assert_eq!("read, submit".parse(), Ok(some));
        let json = serde_json::to_string(&some).expect("JSON");
        assert_eq!(json, r#"["submit","read"]"#);
        assert_eq!(serde_json::from_str::<Scopes>(&json).expect("scopes"), some);
        assert_eq!(Scope::ALL.into_iter().collect::<Scopes>(), Scopes::ALL);
        assert_eq!("read,write".parse::<Scopes>(), Err(UnknownScope("write".into())));
    }

    #[test]
    fn a_set_holds_what_was_put_in_and_nothing_else() {
        for scope in Scope::ALL {
            let set: Scopes = [scope, scope].into_iter().collect();
            let held: Vec<_> = Scope::ALL.into_iter().filter(|other| set.contains(*other)).collect();
            assert_eq!(held, [scope]);
            assert!(!set.is_empty());
            assert_eq!(format!("{set:?}"), scope.as_str());
        }
        assert!(Scopes::default().is_empty() && " , ".parse() == Ok(Scopes::default()));
        assert!(serde_json::from_str::<Scopes>(r#"["read","write"]"#).is_err());
    }
}
