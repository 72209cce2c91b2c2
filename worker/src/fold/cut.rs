//! JSON that was cut off, closed where it can be: what is whole of it stays, what is not is left out. Pure.

use serde_json::value::RawValue;

/// The object or array whose beginning `text` is; `None` if it is the beginning of none. Objects and arrays are closed; what may go on (a
/// number, a string without its end, a name without its value) is left out.
pub(super) fn close(text: &str) -> Option<Box<RawValue>> {
    let mut open = Vec::new();
    // Where the text can be closed, and with what.
    let mut safe = None;
    let (mut is_text, mut is_escaped, mut is_value) = (false, false, false);
    for (at, byte) in text.bytes().enumerate() {
        if is_text {
            is_text = is_escaped || byte != b'"';
            is_escaped = !is_escaped && byte == b'\\';
            if !is_text && (is_value || open.last() == Some(&']')) {
                safe = Some((at + 1, open.clone()));
            }
            continue;
        }
        match byte {
            b'"' => is_text = true,
            b':' => is_value = true,
            b'{' | b'[' => {
                open.push(if byte == b'{' { '}' } else { ']' });
                safe = Some((at + 1, open.clone()));
                is_value = false;
            }
            b'}' | b']' => {
                open.pop()?;
                safe = Some((at + 1, open.clone()));
                is_value = false;
            }
            // What stands before a comma is whole.
            b',' => {
                safe = Some((at, open.clone()));
                is_value = false;
            }
            _ => {}
        }
    }
    let (end, open) = safe?;
    RawValue::from_string(text[..end].chars().chain(open.into_iter().rev()).collect()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_whole_stays() {
        for (text, whole) in [
            ("{", "{}"),
            (r#"{"a"#, "{}"),
            (r#"{"a""#, "{}"),
            (r#"{"a":"#, "{}"),
            (r#"{"a":"x"#, "{}"),
            (r#"{"a":"x""#, r#"{"a":"x"}"#),
            (r#"{"a":"x\""#, "{}"),
            (r#"{"a":"x\\""#, r#"{"a":"x\\"}"#),
            (r#"{"a":12"#, "{}"),
            (r#"{"a":12,"#, r#"{"a":12}"#),
            (r#"{"a":12,"b"#, r#"{"a":12}"#),
            (r#"{"a":{"b":[1,{"c":"d"},"e"#, r#"{"a":{"b":[1,{"c":"d"}]}}"#),
            (r#"{"a":["x","y""#, r#"{"a":["x","y"]}"#),
            (r#"{"a":tr"#, "{}"),
            (r#"{"a":true}"#, r#"{"a":true}"#),
        ] {
            assert_eq!(close(text).map(|raw| raw.get().to_owned()).as_deref(), Some(whole), "{text}");
        }
        for text in ["", "\"a", "12", "}", "{]", "{\"a\":1}}"] {
            assert!(close(text).is_none(), "{text}");
        }
    }
}
