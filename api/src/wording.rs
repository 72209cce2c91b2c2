//! What a parser says of a document, in words that do not depend on the language that the parser is written in. Pure.
//!
//! Every text of `serde` and `serde_json` that reaches a client passes through here: the names of their types and of their enum
//! variants mean nothing to the author of the document.

use std::borrow::Cow;

/// What a value was expected to be and what it was: `invalid type: map, expected u8` becomes
/// `expected a whole number from 0 to 255, but got an object instead`.
pub(crate) fn mismatch(complaint: &str) -> String {
    let complaint = ["invalid type: ", "invalid value: "]
        .iter()
        .fold(complaint, |text, start| text.trim_start_matches(start));
    if complaint.starts_with("data did not match any variant") {
        return "it has none of the accepted forms".to_owned();
    }
    let Some((got, wanted)) = complaint.rsplit_once(", expected ") else { return complaint.to_owned() };
    let wanted = expected(wanted);
    match got {
        _ if got.starts_with("unknown variant") => format!("expected {wanted}"),
        _ if got.starts_with("invalid length ") => {
            format!("expected {wanted}, but got {} elements", got.trim_start_matches("invalid length "))
        }
        got => format!("expected {wanted}, but got {} instead", found(got)),
    }
}

/// Where a document is not JSON, and why.
pub(crate) fn malformed(complaint: &str) -> String {
    let (why, place) =
        complaint.rsplit_once(" at line ").map_or((complaint, None), |(why, at)| (why, Some(at)));
    let why: Cow<'_, str> = match why {
        "expected value" => "expected a value".into(),
        "expected ident" => "expected true, false or null".into(),
        "recursion limit exceeded" => "nested too deep".into(),
        "trailing characters" => "expected nothing after the end of the document".into(),
        why => match why.strip_prefix("EOF while parsing ") {
            Some(what) => format!("the document ends inside {what}").into(),
            None => why.into(),
        },
    };
    place.map_or_else(|| why.to_string(), |place| format!("line {place}: {why}"))
}

fn expected(what: &str) -> Cow<'_, str> {
    let whole = |low: i128, high: u128| Cow::Owned(format!("a whole number from {low} to {high}"));
    match what {
        "u8" => whole(0, u8::MAX.into()),
        "u16" => whole(0, u16::MAX.into()),
        "u32" => whole(0, u32::MAX.into()),
        "i8" => whole(i8::MIN.into(), i8::MAX as u128),
        "i16" => whole(i16::MIN.into(), i16::MAX as u128),
        "i32" => whole(i32::MIN.into(), i32::MAX as u128),
        "u64" | "u128" | "usize" => "a whole number, not negative".into(),
        "i64" | "i128" | "isize" => "a whole number".into(),
        "f32" | "f64" => "a number".into(),
        "a borrowed string" | "str" | "string" | "char" | "a character" => "a string".into(),
        "unit" | "unit struct" => "null".into(),
        "variant identifier" | "field identifier" => "a name".into(),
        "a sequence" | "sequence" => "a list".into(),
        "any value" | "any valid JSON value" | "raw value" => "a JSON value".into(),
        "a map" | "map" | "map with a single key" => "an object".into(),
        _ if what.starts_with("struct ") => "an object".into(),
        _ if what.starts_with("enum ") || what.starts_with("string or map") => {
            "one of the accepted values".into()
        }
        _ if ["tuple", "a tuple", "an array"].iter().any(|start| what.starts_with(start)) => "a list".into(),
        _ if what.starts_with("internally tagged enum ") || what.starts_with("adjacently tagged enum ") => {
            "an object".into()
        }
        _ => what.into(),
    }
}

fn found(what: &str) -> Cow<'_, str> {
    let value = |text: &str| text.split('`').nth(1).map(|value| Cow::Owned(value.to_owned()));
    match what {
        "sequence" => "a list".into(),
        "map" => "an object".into(),
        "string" | "character" => "a string".into(),
        "null" | "unit value" | "Option value" => "null".into(),
        _ if ["integer `", "floating point `", "boolean `"].iter().any(|kind| what.starts_with(kind)) => {
            value(what).unwrap_or_else(|| what.into())
        }
        _ => what.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::Deserialize;
    use std::{collections::BTreeMap, fmt::Debug};

    #[derive(Debug, Deserialize)]
    #[serde(rename_all = "snake_case")]
    enum Colour {
        Red,
        Green,
    }

    #[derive(Debug, Deserialize)]
    struct Point {
        #[serde(rename = "x")]
        _x: f32,
    }

    #[derive(Debug, Deserialize)]
    #[serde(untagged)]
    enum Either {
        One(()),
        Other(bool),
    }

    fn said<'a, T: Deserialize<'a> + Debug>(json: &'a str) -> String {
        let error = serde_json::from_str::<T>(json).expect_err(json).to_string();
        let (text, _) = error.rsplit_once(" at line ").unwrap_or((&error, ""));
        mismatch(&shared::redact::without_value(text))
    }

    #[test]
    fn nothing_of_the_parsers_own_types_is_told() {
        let all = [
            (said::<u8>("300"), "expected a whole number from 0 to 255, but got 300 instead"),
            (said::<u8>("[]"), "expected a whole number from 0 to 255, but got a list instead"),
            (said::<i64>("1.5"), "expected a whole number, but got 1.5 instead"),
            (said::<u64>("-1"), "expected a whole number, not negative, but got -1 instead"),
            (said::<f64>("\"word\""), "expected a number, but got a string instead"),
            (said::<f32>("null"), "expected a number, but got null instead"),
            (said::<bool>("{}"), "expected a boolean, but got an object instead"),
            (said::<&str>("true"), "expected a string, but got true instead"),
            (said::<char>("7"), "expected a string, but got 7 instead"),
            (said::<()>("7"), "expected null, but got 7 instead"),
            (said::<Vec<u8>>("{}"), "expected a list, but got an object instead"),
            (said::<(u8, u8)>("7"), "expected a list, but got 7 instead"),
            (said::<(u8, u8)>("[1]"), "expected a list, but got 1 elements"),
            (said::<BTreeMap<String, u8>>("7"), "expected an object, but got 7 instead"),
            (said::<Point>("7"), "expected an object, but got 7 instead"),
            (said::<Colour>("\"blue\""), "expected `red` or `green`"),
            (said::<Either>("\"blue\""), "it has none of the accepted forms"),
        ];
        for (text, wanted) in all {
            assert_eq!(text, wanted);
        }
        assert!(matches!((Colour::Red, Colour::Green), (Colour::Red, Colour::Green)));
        assert!(matches!((Either::One(()), Either::Other(true)), (Either::One(()), Either::Other(true))));
    }

    #[test]
    fn a_malformed_document_has_a_place_and_a_reason() {
        for (json, wanted) in [
            ("oops", "line 1 column 1: expected a value"),
            ("tru", "line 1 column 3: the document ends inside a value"),
            ("{\"a\":\n [1,", "line 2 column 4: the document ends inside a value"),
            ("nothing", "line 1 column 2: expected true, false or null"),
            ("{} {}", "line 1 column 4: expected nothing after the end of the document"),
        ] {
            let error = serde_json::from_str::<serde_json::Value>(json).expect_err(json).to_string();
            assert_eq!(malformed(&error), wanted, "{json}");
        }
    }
}
