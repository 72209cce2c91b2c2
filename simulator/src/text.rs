//! Text without a model: pure functions from a prompt to words, the same for the same prompt on every machine.

use std::fmt::Write as _;

use sha2::{Digest, Sha256};

/// Every generated answer starts with this, so that no person mistakes it for a model's.
pub(crate) const LABEL: &str = "[SIMULATED]";

/// The moment every simulated object claims to be from: a constant, so that bodies repeat.
pub(crate) const CREATED: u64 = 1_767_225_600;

/// A token never grows beyond this many bytes, so that echoed text without spaces still streams.
const LONGEST_PIECE: usize = 64;

/// Stands for a lone surrogate, which no Rust string can hold, until the answer is bytes.
pub(crate) const MARK: char = '\u{10ffff}';

const WORDS: [&str; 48] = [
    "a", "across", "after", "and", "answer", "at", "before", "bridge", "carries", "cargo", "day", "driver",
    "each", "engine", "every", "far", "follows", "for", "harbour", "home", "keeps", "light", "load", "long",
    "map", "mile", "moves", "night", "north", "of", "on", "over", "patient", "reaches", "rest", "river",
    "road", "slow", "steady", "stop", "the", "through", "toward", "town", "until", "waits", "wheel", "with",
];

/// What a request boils down to: everything simulated about its answer is drawn from this.
#[derive(Debug, Clone)]
pub(crate) struct Seed([u8; 32]);

impl Seed {
    /// The seed of these parts; their boundaries count.
    pub(crate) fn of(parts: &[&[u8]]) -> Self {
        let mut hash = Sha256::new();
        for part in parts {
            hash.update((part.len() as u64).to_le_bytes());
            hash.update(part);
        }
        Self(hash.finalize().into())
    }

    /// An object id: the prefix and 24 hex digits.
    pub(crate) fn id(&self, prefix: &str) -> String {
        format!("{prefix}{}", hex(&self.0[..12]))
    }

    /// A generator of its own for each `salt`.
    pub(crate) fn rng(&self, salt: u64) -> fastrand::Rng {
        let mut first = [0; 8];
        first.copy_from_slice(&self.0[..8]);
        fastrand::Rng::with_seed(u64::from_le_bytes(first) ^ salt.wrapping_mul(0x9e37_79b9_7f4a_7c15))
    }
}

/// Lowercase hex.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// `value` spread by ± `jitter`, relatively.
pub(crate) fn spread(value: f64, jitter: f64, rng: &mut fastrand::Rng) -> f64 {
    if jitter == 0.0 { value } else { value * (1.0 + jitter * (2.0 * rng.f64() - 1.0)) }
}

/// A text cut into tokens; joined, the tokens are the text.
#[derive(Debug, Clone, Default)]
pub(crate) struct Script {
    text: String,
    ends: Vec<usize>,
}

impl Script {
    /// `tokens` words after the label, which is the first token.
    pub(crate) fn words(tokens: u32, rng: &mut fastrand::Rng) -> Self {
        let mut script = Self::default();
        let mut sentence = 0;
        for token in 0..tokens {
            if token == 0 {
                script.text.push_str(LABEL);
            } else {
                let word = WORDS[rng.usize(..WORDS.len())];
                script.text.push(' ');
                script.push_word(word, sentence == 0);
                sentence += 1;
                let ends = token + 1 == tokens || sentence > 6 && rng.u8(..4) == 0;
                if ends {
                    script.text.push('.');
                    sentence = 0;
                }
            }
            script.ends.push(script.text.len());
        }
        script
    }

    /// Exactly this text, cut before each run of white space.
    pub(crate) fn exactly(text: String) -> Self {
        let mut ends = Vec::new();
        let (mut start, mut in_space) = (0, true);
        for (at, char) in text.char_indices() {
            let space = char.is_whitespace();
            if at > start && (space && !in_space || at + char.len_utf8() - start > LONGEST_PIECE) {
                ends.push(at);
                start = at;
            }
            in_space = space;
        }
        if start < text.len() {
            ends.push(text.len());
        }
        Self { text, ends }
    }

    /// Adds the mark of a lone surrogate to the last token, or as the only one.
    pub(crate) fn mark(&mut self) {
        self.text.push(MARK);
        let end = self.text.len();
        match self.ends.last_mut() {
            Some(last) => *last = end,
            None => self.ends.push(end),
        }
    }

    pub(crate) fn text(&self) -> &str {
        &self.text
    }

    pub(crate) fn tokens(&self) -> usize {
        self.ends.len()
    }

    /// Token number `index`, if there is one.
    pub(crate) fn piece(&self, index: usize) -> Option<&str> {
        let end = *self.ends.get(index)?;
        let start = if index == 0 { 0 } else { self.ends[index - 1] };
        Some(&self.text[start..end])
    }

    fn push_word(&mut self, word: &str, capital: bool) {
        let (first, rest) = word.split_at(1);
        if capital {
            self.text.push_str(&first.to_ascii_uppercase());
        } else {
            self.text.push_str(first);
        }
        self.text.push_str(rest);
    }
}

/// Roughly how many tokens a prompt is: a token for every four bytes, and at least one.
pub(crate) fn prompt_tokens(prompt: &str) -> u64 {
    (prompt.len() as u64).div_ceil(4).max(1)
}

/// Standard base64 with padding.
pub(crate) fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for three in bytes.chunks(3) {
        let group =
            three.iter().fold(0u32, |group, byte| group << 8 | u32::from(*byte)) << (8 * (3 - three.len()));
        for digit in 0..4 {
            let index = group >> (18 - 6 * digit) & 63;
            text.push(if digit > three.len() { '=' } else { ALPHABET[index as usize] as char });
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn joined(script: &Script) -> String {
        (0..script.tokens()).filter_map(|index| script.piece(index)).collect()
    }

    #[test]
    fn words_repeat_and_begin_with_the_label() {
        let seed = Seed::of(&[b"a prompt"]);
        let script = Script::words(40, &mut seed.rng(0));
        assert_eq!(script.tokens(), 40);
        assert!(script.text().starts_with(LABEL) && script.text().ends_with('.'));
        assert_eq!(script.text(), Script::words(40, &mut seed.rng(0)).text());
        assert_ne!(script.text(), Script::words(40, &mut seed.rng(1)).text());
        assert_eq!(joined(&script), script.text());
    }

    #[test]
    fn any_text_is_its_pieces() {
        for text in ["", " ", "one", " two  words\n", "nul\0 \u{1f469}\u{200d}\u{1f680}", &"é".repeat(500)] {
            let script = Script::exactly(text.into());
            assert_eq!(joined(&script), text);
            assert!((0..script.tokens()).all(|index| !script.piece(index).unwrap().is_empty()));
        }
        assert_eq!(Script::exactly(" two  words".into()).tokens(), 2);
    }

    #[test]
    fn base64_pads() {
        let all = ["", "f", "fo", "foo", "foob"].map(|text| base64(text.as_bytes()));
        assert_eq!(all, ["", "Zg==", "Zm8=", "Zm9v", "Zm9vYg=="]);
    }

    #[test]
    fn part_boundaries_count() {
        assert_ne!(Seed::of(&[b"ab", b"c"]).id(""), Seed::of(&[b"a", b"bc"]).id(""));
    }
}
