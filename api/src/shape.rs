//! What must be known of a body before it is parsed: that it is not nested too deep, that its texts are made of whole characters,
//! and that none is huge but inside of a `body`. What is inside of one is sent on as it came, and not everybody who parses it after us
//! survives everything; what is beside it we copy, and tell of when it is wrong.

/// Levels of a body at most.
pub(crate) const DEPTH_MAX: usize = 64;
/// Bytes of a text at most, but inside of a `body`.
pub(crate) const TEXT_MAX: usize = 64 << 10;

/// What is wrong with the shape of a body.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// It is nested deeper than [`DEPTH_MAX`].
    Deep,
    /// An escape stands for one half of a character, and the other half is not there.
    Half,
    /// A text is longer than [`TEXT_MAX`].
    Long,
}

/// Looks once over JSON. It may be malformed: the parser tells of that.
pub(crate) fn check(json: &[u8]) -> Result<(), Fault> {
    // `free` is the level of the field `body` whose value we are in.
    let (mut depth, mut free, mut last, mut rest) = (0_usize, None, b"".as_slice(), json);
    while let Some((byte, after)) = rest.split_first() {
        rest = after;
        match byte {
            b'"' => {
                rest = text(after)?;
                last = &after[..after.len() - rest.len()];
                if free.is_none() && last.len() > TEXT_MAX {
                    return Err(Fault::Long);
                }
            }
            b':' if last == b"body\"" && free.is_none() => free = Some(depth),
            b',' if free == Some(depth) => free = None,
            b'[' | b'{' if depth == DEPTH_MAX => return Err(Fault::Deep),
            b'[' | b'{' => depth += 1,
            b']' | b'}' => {
                free = free.filter(|free| *free < depth);
                depth = depth.saturating_sub(1);
            }
            _ => {}
        }
    }
    Ok(())
}

/// What follows the text at the beginning of `rest`, whose first quote is gone.
fn text(mut rest: &[u8]) -> Result<&[u8], Fault> {
    while let Some(at) = rest.iter().position(|byte| matches!(byte, b'"' | b'\\')) {
        let after = &rest[at + 1..];
        if rest[at] == b'"' {
            return Ok(after);
        }
        rest = escape(after)?;
    }
    Ok(b"")
}

/// What follows the escape at the beginning of `rest`, whose backslash is gone.
fn escape(rest: &[u8]) -> Result<&[u8], Fault> {
    let Some((unit, after)) = unit(rest) else { return Ok(rest.get(1..).unwrap_or_default()) };
    match unit {
        0xd800..0xdc00 => match after.strip_prefix(b"\\").and_then(self::unit) {
            Some((0xdc00..0xe000, after)) => Ok(after),
            _ => Err(Fault::Half),
        },
        0xdc00..0xe000 => Err(Fault::Half),
        _ => Ok(after),
    }
}

/// The unit of UTF-16 that `u0000` to `uffff` stand for.
fn unit(rest: &[u8]) -> Option<(u16, &[u8])> {
    let (digits, after) = rest.strip_prefix(b"u")?.split_first_chunk::<4>()?;
    let digits = str::from_utf8(digits).ok()?;
    Some((u16::from_str_radix(digits, 16).ok()?, after))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_are_counted_outside_of_texts() {
        let nested = |levels| [vec![b'['; levels], vec![b']'; levels]].concat();
        assert_eq!(check(&nested(DEPTH_MAX)), Ok(()));
        assert_eq!(check(&nested(DEPTH_MAX + 1)), Err(Fault::Deep));
        assert_eq!(check(&b"[{}]".repeat(1_000)), Ok(()), "one after the other is not one in the other");
        let text = |text: &str| check(format!(r#"{{"a":"{text}"}}"#).as_bytes());
        assert_eq!(text(&"[".repeat(100)), Ok(()));
        assert_eq!(text(&r#"\"["#.repeat(100)), Ok(()));
        assert_eq!(text(&r"\\".repeat(100)), Ok(()));
        assert_eq!(check(format!(r#"{{"a\\":{}"#, "{".repeat(64)).as_bytes()), Err(Fault::Deep));
    }

    #[test]
    fn texts_are_short_but_in_a_body() {
        let (short, long) = ("x".repeat(TEXT_MAX - 1), "x".repeat(TEXT_MAX + 1));
        let task = |beside: &str, inside: &str| {
            check(format!(r#"{{"body":{{"a":["{inside}"],"b":{{}}}},"queue":"{beside}"}}"#).as_bytes())
        };
        assert_eq!(task(&short, &long), Ok(()));
        assert_eq!(task(&long, ""), Err(Fault::Long));
        let lines = |beside: &str| {
            check(
                format!(r#"{{"requests":[{{"body":{{"a":"{long}"}}}},{{"body":"{long}"}},"{beside}"]}}"#)
                    .as_bytes(),
            )
        };
        assert_eq!((lines(&short), lines(&long)), (Ok(()), Err(Fault::Long)));
        assert_eq!(check(format!(r#"{{"{long}":1}}"#).as_bytes()), Err(Fault::Long), "a name is a text");
        assert_eq!(
            check(format!(r#""body","{long}"#).as_bytes()),
            Err(Fault::Long),
            "without an end as well"
        );
    }

    #[test]
    fn characters_are_whole() {
        let text = |text: &str| check(format!(r#"{{"a":"{text}"}}"#).as_bytes());
        for whole in [
            r"\ud83d\ude00",
            r"\uD83D\uDE00",
            r"\u00e9\uffff\ud7ff\ue000",
            r"\\ud800",
            r"\u12",
            r"\u+800",
            "\\",
        ] {
            assert_eq!(text(whole), Ok(()), "{whole}");
        }
        for half in [
            r"\ud800",
            r"\udc00",
            r"\ud800\ud800",
            r"\ud800x\udc00",
            r"\ud800\n",
            r"\\\udfff",
            r"\uDBFF\\uDC00",
        ] {
            assert_eq!(text(half), Err(Fault::Half), "{half}");
        }
    }
}
