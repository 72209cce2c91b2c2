//! What of an upstream's words repeats the request: many servers quote what they refuse. Masked, so that no error holds a prompt. Pure.

use shared::input;
use std::collections::{HashMap, HashSet};

/// Texts of a request that are shorter than this may stand in an error: words of the API are as short.
const TEXT_MIN: usize = 8;
/// A longer text counts as repeated where so many bytes of it are.
const WINDOW: usize = 16;

/// The words without what they repeat of the texts of the request's body; `None` if these cannot be read. The words that `spared` is made of
/// stay.
pub(crate) fn masked(words: &str, body: &[u8], spared: &str) -> Option<String> {
    let mut marks = vec![false; words.len()];
    let mut windows: HashMap<&[u8], Vec<usize>> = HashMap::new();
    for (at, window) in words.as_bytes().windows(WINDOW).enumerate() {
        windows.entry(window).or_default().push(at);
    }
    let mut mark = |at: usize, len: usize| marks[at..at + len].fill(true);
    let mut short = HashSet::new();
    let is_read = input::texts(body, &mut |text| {
        if text.len() < TEXT_MIN || text == spared {
        } else if text.len() < WINDOW {
            short.insert(text.to_owned());
        } else {
            // Each is marked once, however often the text repeats it.
            let repeated = text.as_bytes().windows(WINDOW).filter_map(|window| windows.remove(window));
            repeated.flatten().for_each(|at| mark(at, WINDOW));
        }
    });
    if !is_read {
        return None;
    }
    // Every beginning of a short text is looked up, whatever number of texts there are.
    for (at, _) in words.char_indices() {
        let ends =
            (at + TEXT_MIN..(at + WINDOW).min(words.len() + 1)).filter(|end| words.is_char_boundary(*end));
        ends.filter(|end| short.contains(&words[at..*end])).for_each(|end| mark(at, end - at));
    }
    let (mut shown, mut is_masked) = (String::with_capacity(words.len()), false);
    for (at, char) in words.char_indices() {
        if !marks[at] {
            shown.push(char);
        } else if !is_masked {
            shown.push_str("***");
        }
        is_masked = marks[at];
    }
    Some(shown)
}

#[cfg(test)]
mod tests {
    use super::*;

    const BODY: &[u8] = br#"{"model":"a-model-with-a-long-name","max_completion_tokens":7,
        "messages":[{"role":"user","content":"my secret is that I like \"cheese\" very much"},{"content":"sevenlong"}],
        "tools":[{"function":{"name":"f","parameters":{"properties":{"a-name-of-the-clients-own":{}}}}}]}"#;

    #[test]
    fn what_is_repeated_is_masked() {
        let masked = |words: &str| masked(words, BODY, "a-model-with-a-long-name").unwrap();
        for (words, shown) in [
            ("Bad input: my secret is that I like \"cheese\" very much.", "Bad input: ***."),
            // With the space before it, which stands in the text as well.
            ("Bad input: secret is that I lik...", "Bad input:***..."),
            ("Bad input: sevenlong!", "Bad input: ***!"),
            ("role user is unknown", "role user is unknown"),
            (
                "'max_completion_tokens' is too small for a-model-with-a-long-name",
                "'max_completion_tokens' is too small for a-model-with-a-long-name",
            ),
            ("", ""),
        ] {
            assert_eq!(masked(words), shown);
        }
        assert_eq!(super::masked("words", b"{\"x\":", ""), None);
    }
}
