//! API keys as their holders keep them.
//!
//! `lh_`, 32 random digits in base62 (190 bits), and 6 digits of their CRC-32: the form that scanners of leaked secrets look
//! for, and a typing error is known without asking the database. Such a key cannot be guessed, so a fast hash is enough: the
//! database knows its SHA-256 alone.

use crate::config::Secret;
use sha2::{Digest as _, Sha256};

/// SHA-256 of a key, or of another credential.
pub type Digest = [u8; 32];

const PREFIX: &str = "lh_";
const RANDOM: usize = 32;
const CHECK: usize = 6;
const BASE62: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

/// A key, whole: shown once, when it is made.
#[derive(Debug, Clone)]
pub struct ApiKey(Secret);

impl ApiKey {
    /// A new one.
    ///
    /// # Panics
    /// The system has no randomness.
    #[must_use]
    pub fn generate() -> Self {
        let digits = random_digits();
        Self(Secret::new(format!("{PREFIX}{digits}{}", check(&digits))))
    }

    /// Whether the text can be one of ours: form and checksum.
    #[must_use]
    pub fn is_well_formed(text: &str) -> bool {
        let Some(digits) = text.strip_prefix(PREFIX) else { return false };
        let ours = digits.len() == RANDOM + CHECK && digits.bytes().all(|byte| byte.is_ascii_alphanumeric());
        ours && check(&digits[..RANDOM]) == digits[RANDOM..]
    }

    /// What the database knows of a credential.
    #[must_use]
    pub fn digest(text: &str) -> Digest {
        Sha256::digest(text).into()
    }

    /// The key itself.
    #[must_use]
    pub fn expose(&self) -> &str {
        self.0.expose()
    }

    /// Its first characters, by which people tell keys apart.
    #[must_use]
    pub fn hint(&self) -> &str {
        &self.expose()[..PREFIX.len() + 4]
    }
}

impl From<ApiKey> for Secret {
    fn from(key: ApiKey) -> Self {
        key.0
    }
}

/// 32 digits in base62 that nobody can guess.
///
/// # Panics
/// The system has no randomness.
pub(super) fn random_digits() -> String {
    let mut digits = String::with_capacity(RANDOM);
    let mut bytes = [0; 2 * RANDOM];
    while digits.len() < RANDOM {
        getrandom::fill(&mut bytes).expect("the system has randomness");
        // 248 is the largest multiple of 62: no digit is likelier than another.
        let fair = bytes.iter().filter(|byte| **byte < 248).map(|byte| BASE62[usize::from(*byte % 62)]);
        digits.extend(fair.map(char::from).take(RANDOM - digits.len()));
    }
    digits
}

/// CRC-32 in base62.
fn check(digits: &str) -> String {
    let mut rest = crc32fast::hash(digits.as_bytes());
    let mut text = [b'0'; CHECK];
    for digit in text.iter_mut().rev() {
        *digit = BASE62[(rest % 62) as usize];
        rest /= 62;
    }
    text.map(char::from).into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_typing_error_is_known() {
        let key = ApiKey::generate();
        let text = key.expose().to_owned();
        assert!(ApiKey::is_well_formed(&text), "{text}");
        assert_eq!(text.len(), 41);
        for at in PREFIX.len()..text.len() {
            let mut wrong = text.clone().into_bytes();
            wrong[at] = if wrong[at] == b'x' { b'y' } else { b'x' };
            assert!(!ApiKey::is_well_formed(std::str::from_utf8(&wrong).expect("ASCII")), "at {at}");
        }
        for wrong in ["", "lh_", &text[1..], &text[..40], &format!("{text}0"), "lh_ä"] {
            assert!(!ApiKey::is_well_formed(wrong), "{wrong}");
        }
    }

    #[test]
    fn no_two_are_alike() {
        assert_ne!(ApiKey::generate().expose(), ApiKey::generate().expose());
    }

    #[test]
    fn no_digit_is_likelier_than_another() {
        let mut seen = [0_i32; 128];
        for _ in 0..10_000 {
            let key = ApiKey::generate();
            key.expose()[PREFIX.len()..][..RANDOM].bytes().for_each(|digit| seen[usize::from(digit)] += 1);
        }
        for digit in BASE62 {
            let times = seen[usize::from(*digit)];
            // 320,000 / 62, and eight standard deviations.
            assert!((times - 5_161).abs() < 570, "{} came {times} times", char::from(*digit));
        }
    }

    #[test]
    fn keys_that_were_given_out_stay_good() {
        assert!(ApiKey::is_well_formed("lh_0123456789ABCDEFGHIJKLMNOPQRSTUV1ggZdL"));
        assert!(!ApiKey::is_well_formed("lh_--------------------------------1hgAQs"), "no digits");
        assert_eq!(ApiKey::digest("abc")[..4], [0xba, 0x78, 0x16, 0xbf]);
    }

    #[test]
    fn a_hint_tells_four_digits() {
        let key = ApiKey::generate();
        assert_eq!(key.hint(), &key.expose()[..7]);
        let text = key.expose().to_owned();
        assert_eq!(Secret::from(key).expose(), text);
    }
}
