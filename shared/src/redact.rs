//! What may be shown of a text that can hold what must not be shown. Pure.

use std::borrow::Cow;

/// The text with the login of every URL in it masked: `https://***@host/path`.
#[must_use]
pub fn without_logins(text: &str) -> Cow<'_, str> {
    let mut shown = String::new();
    let mut rest = text;
    while let Some(at) = rest.find("://") {
        let (before, after) = rest.split_at(at + "://".len());
        shown.push_str(before);
        // A password may hold anything but what ends the authority; whoever forgets to encode an @ has more than one.
        let ends = |c: char| matches!(c, '/' | '?' | '#' | '"' | '\'' | ',') || c.is_whitespace();
        let authority = &after[..after.find(ends).unwrap_or(after.len())];
        rest = match authority.rfind('@') {
            Some(login) => {
                shown.push_str("***");
                &after[login..]
            }
            None => after,
        };
    }
    if shown.is_empty() {
        return Cow::Borrowed(text);
    }
    shown.push_str(rest);
    Cow::Owned(shown)
}

/// The text with everything in it masked that looks like a key: a word of at least 16 letters, digits, `-`, `_`, `.` or `*` behind one of the
/// prefixes that providers give their keys, or behind `Bearer `.
#[must_use]
pub fn without_keys(text: &str) -> Cow<'_, str> {
    const PREFIXES: [&str; 10] =
        ["sk-", "sk_", "pk-", "rk-", "lh_", "hf_", "gsk_", "xai-", "AIza", "Bearer "];
    let is_part = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '*' | '=' | '/' | '+');
    let mut shown = String::new();
    let mut rest = text;
    while let Some((at, prefix)) =
        PREFIXES.iter().filter_map(|prefix| Some((rest.find(prefix)?, prefix.len()))).min()
    {
        let word = if rest[at..].starts_with("Bearer ") { at + prefix } else { at };
        let len = rest[word..].find(|c: char| !is_part(c)).unwrap_or(rest.len() - word);
        let begins = at == 0 || !rest[..at].ends_with(|c: char| c.is_ascii_alphanumeric());
        if begins && len >= 16 {
            shown.push_str(&rest[..word]);
            shown.push_str("***");
            rest = &rest[word + len..];
        } else {
            shown.push_str(&rest[..at + prefix]);
            rest = &rest[at + prefix..];
        }
    }
    if shown.is_empty() {
        return Cow::Borrowed(text);
    }
    shown.push_str(rest);
    Cow::Owned(shown)
}

/// What a parser says of a value, without the value: `invalid type: string "x", expected u64` repeats a text that may be a prompt
/// or a password.
#[must_use]
pub fn without_value(complaint: &str) -> Cow<'_, str> {
    let end = complaint.rfind(", expected ");
    let start = ["string \"", "character `", "unknown variant `"].into_iter().find_map(|before| {
        let at = complaint.find(before)?;
        Some(at + before.len() - 2)
    });
    match (start, end) {
        (Some(start), Some(end)) if start < end => {
            Cow::Owned(format!("{}{}", &complaint[..start], &complaint[end..]))
        }
        _ => Cow::Borrowed(complaint),
    }
}

/// A text that repeats what a client has written, without its middle if that was long.
#[must_use]
pub fn elide(text: String) -> String {
    const HALF: usize = 200;
    if text.len() <= 2 * HALF {
        return text;
    }
    let (head, tail) = (text.floor_char_boundary(HALF), text.ceil_char_boundary(text.len() - HALF));
    format!("{}…{}", &text[..head], &text[tail..])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn logins_are_masked_and_nothing_else() {
        for (text, shown) in [
            ("postgres://user:word@host:1/x", "postgres://***@host:1/x"),
            ("redis://:word@host", "redis://***@host"),
            ("https://user:wo@rd@host/a@b?c=d@e", "https://***@host/a@b?c=d@e"),
            ("a http://u:p@h/x, and \"ftp://q@i\" too", "a http://***@h/x, and \"ftp://***@i\" too"),
            ("https://host/a@b", "https://host/a@b"),
            ("file:///folder", "file:///folder"),
            ("mail@example.com", "mail@example.com"),
            ("", ""),
        ] {
            assert_eq!(without_logins(text), shown);
        }
    }

    #[test]
    fn keys_are_masked_and_nothing_else() {
        for (text, shown) in [
            ("key sk-proj-0123456789abcdef.", "key ***"),
            ("key sk-abc********************wxyz, see", "key ***, see"),
            ("Authorization: Bearer 0123456789abcdef0123!", "Authorization: Bearer ***!"),
            (
                "a task-based-approach-of-many-words and sk-short",
                "a task-based-approach-of-many-words and sk-short",
            ),
            ("sk-sk-0123456789abcdef0 AIzaSyA0123456789abcdef", "*** ***"),
            ("", ""),
        ] {
            assert_eq!(without_keys(text), shown);
        }
    }

    #[test]
    fn values_are_left_out() {
        #[derive(Debug, serde::Deserialize)]
        enum Either {
            Left,
        }
        let said = |json: &str| serde_json::from_str::<u8>(json).expect_err("no number").to_string();
        for json in [r#""word""#, r#""wo\"rd, expected \" word""#] {
            let said = said(json);
            assert!(said.contains("word"), "{said}");
            let shown = without_value(&said);
            assert!(
                shown.starts_with("invalid type: string, expected u8") && !shown.contains("word"),
                "{shown}"
            );
        }
        let said = serde_json::from_str::<Either>(r#""word""#).expect_err("no variant").to_string();
        assert!(without_value(&said).starts_with("unknown variant, expected `Left`"), "{said}");
        assert!(matches!(Either::Left, Either::Left));
        assert_eq!(without_value("invalid type: map, expected u8"), "invalid type: map, expected u8");
    }
}
