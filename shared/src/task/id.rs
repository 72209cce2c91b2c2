//! Identifiers: a type prefix and a UUIDv7 in Crockford base32 (26 characters, lower case), sortable by time of making.
//!
//! In the databases an id is its 16 bytes; the text form exists only at the edges (URLs, JSON, logs).

use crate::clock::UnixMs;
use std::{fmt, str::FromStr};
use uuid::Uuid;

const ALPHABET: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";

/// A text is no id of the wanted kind. Carries nothing: the caller answers as for an unknown id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a well-formed id")]
pub struct IllFormed;

fn encode(id: Uuid) -> [u8; 26] {
    let value = id.as_u128();
    std::array::from_fn(|i| ALPHABET[(value >> (125 - 5 * i) & 31) as usize])
}

fn decode(text: &str) -> Result<Uuid, IllFormed> {
    // 26 digits carry 130 bits: the first digit may only use its lower three.
    if text.len() != 26 || !matches!(text.as_bytes()[0], b'0'..=b'7') {
        return Err(IllFormed);
    }
    text.bytes()
        .try_fold(0u128, |value, byte| {
            let digit = ALPHABET.iter().position(|&letter| letter == byte).ok_or(IllFormed)?;
            Ok(value << 5 | digit as u128)
        })
        .map(Uuid::from_u128)
}

macro_rules! id {
    ($(#[$doc:meta])* $name:ident, $prefix:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(pub Uuid);

        impl $name {
            /// What the text form starts with.
            pub const PREFIX: &str = $prefix;

            /// A fresh id, later than all ids made before it in this process.
            #[must_use]
            pub fn new() -> Self {
                Self(Uuid::now_v7())
            }
        }

        impl Default for $name {
            fn default() -> Self {
                Self::new()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str($prefix)?;
                let digits = encode(self.0);
                f.write_str(std::str::from_utf8(&digits).map_err(|_| fmt::Error)?)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }

        impl FromStr for $name {
            type Err = IllFormed;

            fn from_str(text: &str) -> Result<Self, IllFormed> {
                decode(text.strip_prefix($prefix).ok_or(IllFormed)?).map(Self)
            }
        }

        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
                to.collect_str(self)
            }
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
                let text = std::borrow::Cow::<'de, str>::deserialize(from)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}

id!(
    /// One task.
    TaskId, "task_"
);
id!(
    /// One batch of tasks.
    BatchId, "batch_"
);
id!(
    /// One worker incarnation: new at every start and after every lost lease.
    WorkerId, "worker_"
);
id!(
    /// One request to the API, named in every response.
    RequestId, "req_"
);
id!(
    /// One API key: names it, opens nothing.
    KeyId, "key_"
);
id!(
    /// One entry of the audit log.
    ActId, "act_"
);
id!(
    /// One project: the tenant that every row belongs to.
    ProjectId, "proj_"
);

id!(
    /// One webhook endpoint.
    EndpointId, "we_"
);
id!(
    /// One event on its way to one receiver: what receivers know repeats by.
    DeliveryId, "evt_"
);

impl TaskId {
    /// When it was made, by the clock of the process that made it.
    #[must_use]
    pub fn made_at(self) -> UnixMs {
        // The first 48 bits of a UUIDv7.
        UnixMs(i64::try_from(self.0.as_u128() >> 80).expect("48 bits"))
    }
}

impl ProjectId {
    /// The project of callers that name none.
    pub const DEFAULT: Self = Self(Uuid::nil());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_form_round_trips_and_sorts() {
        let (a, b) = (TaskId::new(), TaskId::new());
        assert_eq!(a.to_string().parse(), Ok(a));
        assert_eq!(a.to_string().len(), 31);
        assert!(a < b && a.to_string() < b.to_string());
        assert!((0..60_000).contains(&(UnixMs::now().0 - a.made_at().0)), "{:?}", a.made_at());
    }

    #[test]
    fn ill_formed_ids_are_refused() {
        let other_kind = BatchId::new().to_string();
        let overflow = format!("task_8{}", "0".repeat(25));
        for text in ["", "task_", "task_abc", "task_01J000000000000000000000UU", &other_kind, &overflow] {
            assert_eq!(text.parse::<TaskId>(), Err(IllFormed), "{text}");
        }
    }
}
