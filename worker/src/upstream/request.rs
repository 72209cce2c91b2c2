//! The body of a call: as the client wrote it, with the stream asked for by splicing and no other byte touched. Pure.

use crate::json::{Picked, is_null, is_object, pick};
use bytes::Bytes;
use serde_json::value::RawValue;
use std::ops::Range;

/// The body is no JSON object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct NoObject;

const WISH: &str = r#"{"include_usage":true}"#;

/// What goes in place of a range of the body.
type Edit = (Range<usize>, String);

/// Asks for a stream; with `usage`, also for its figures at the end. Of repeated members each is edited, because servers
/// disagree about which one counts.
pub(super) fn streamed(body: &Bytes, usage: bool) -> Result<Bytes, NoObject> {
    let Picked { members, is_empty } = pick(body, &["stream", "stream_options"]).map_err(|_| NoObject)?;
    let mut edits: Vec<Edit> = Vec::new();
    let mut absent = String::new();
    let mut edit = |name: &str, change: &dyn Fn(&RawValue) -> Option<Edit>, otherwise: &str| {
        let mut found = members.iter().filter(|(known, _)| known == name).peekable();
        if found.peek().is_none() {
            absent.push_str(otherwise);
        }
        edits.extend(found.filter_map(|(_, value)| change(value)));
    };
    edit("stream", &|value| Some((place(body, value), "true".to_owned())), r#""stream":true,"#);
    if usage {
        edit("stream_options", &|value| wish(body, value), &format!(r#""stream_options":{WISH},"#));
    }
    if !absent.is_empty() {
        edits.push(first_member(body, 0, is_empty, absent));
    }
    Ok(apply(body, edits))
}

/// Where a value stands in the body that it was read from.
fn place(body: &[u8], value: &RawValue) -> Range<usize> {
    let start = value.get().as_ptr() as usize - body.as_ptr() as usize;
    start..start + value.get().len()
}

/// The edit that makes `include_usage` true in the client's own options. Options of a wrong type are left to the upstream's judgement.
fn wish(body: &[u8], options: &RawValue) -> Option<Edit> {
    if is_null(options) {
        return Some((place(body, options), WISH.to_owned()));
    }
    if !is_object(options) {
        return None;
    }
    let members = crate::json::members(options.get()).ok()?;
    Some(match members.iter().rfind(|(name, _)| name == "include_usage") {
        Some((_, value)) => (place(body, value), "true".to_owned()),
        None => {
            let start = place(body, options).start;
            first_member(body, start, members.is_empty(), r#""include_usage":true,"#.to_owned())
        }
    })
}

/// The edit that puts members (each with its comma) behind the next `{` from `from` on.
fn first_member(body: &[u8], from: usize, empty: bool, mut members: String) -> Edit {
    let open = body[from..].iter().position(|&byte| byte == b'{').map_or(from, |at| from + at + 1);
    if empty {
        members.pop();
    }
    (open..open, members)
}

fn apply(body: &[u8], mut edits: Vec<Edit>) -> Bytes {
    edits.sort_by_key(|(range, _)| range.start);
    let added: usize = edits.iter().map(|(_, text)| text.len()).sum();
    let (mut out, mut from) = (Vec::with_capacity(body.len() + added), 0);
    for (range, text) in edits {
        out.extend_from_slice(&body[from..range.start]);
        out.extend_from_slice(text.as_bytes());
        from = range.end;
    }
    out.extend_from_slice(&body[from..]);
    out.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spliced(body: &str, usage: bool) -> String {
        let out = streamed(&Bytes::copy_from_slice(body.as_bytes()), usage).unwrap();
        String::from_utf8(out.to_vec()).unwrap()
    }

    #[test]
    fn other_bytes_stay_as_they_are() {
        let body = " {\"model\" : \"m\", \"seed\":12345678901234567890 ,\"x\":\"\\u0000\",\"x\":[ 1 ]} ";
        let options = r#""stream":true,"stream_options":{"include_usage":true},"#;
        assert_eq!(spliced(body, true), body.replacen('{', &format!("{{{options}"), 1));
        assert_eq!(spliced("{}", false), r#"{"stream":true}"#);
    }

    #[test]
    fn members_that_are_there_are_edited_in_place() {
        let cases = [
            (r#"{"stream":false}"#, r#"{"stream_options":{"include_usage":true},"stream":true}"#),
            (
                r#"{"stream": true ,"stream_options":null}"#,
                r#"{"stream": true ,"stream_options":{"include_usage":true}}"#,
            ),
            (
                r#"{"stream_options":{ },"stream":null}"#,
                r#"{"stream_options":{"include_usage":true },"stream":true}"#,
            ),
            (
                r#"{"stream":true,"stream_options":{"a" : 1, "include_usage":false}}"#,
                r#"{"stream":true,"stream_options":{"a" : 1, "include_usage":true}}"#,
            ),
            (
                r#"{"stream":1,"stream_options":{"a":1},"stream":2}"#,
                r#"{"stream":true,"stream_options":{"include_usage":true,"a":1},"stream":true}"#,
            ),
            (r#"{"stream":true,"stream_options":3}"#, r#"{"stream":true,"stream_options":3}"#),
        ];
        for (body, want) in cases {
            assert_eq!(spliced(body, true), want);
        }
    }

    #[test]
    fn only_objects_can_be_asked_to_stream() {
        assert_eq!(streamed(&Bytes::from_static(b"[1]"), true), Err(NoObject));
        assert_eq!(streamed(&Bytes::from_static(b"{\"a\":"), true), Err(NoObject));
    }
}
