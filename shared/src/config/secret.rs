//! A value that must never be shown.

use std::fmt;
use uuid::Uuid;

/// A secret: its `Debug` form is masked.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Wraps a value.
    #[must_use]
    pub fn new(value: impl Into<String>) -> Self {
        Self(value.into())
    }

    /// A fresh key: `lh_` and 244 random bits in base32.
    #[must_use]
    pub fn generate() -> Self {
        const ALPHABET: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";
        let digits = [Uuid::new_v4(), Uuid::new_v4()].map(|random| {
            let bits = random.as_u128();
            (0..26)
                .map(move |i| char::from(ALPHABET[(bits >> (125 - 5 * i) & 31) as usize]))
                .collect::<String>()
        });
        Self(format!("lh_{}", digits.concat()))
    }

    /// The value, for the one place that needs it.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}
