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
