//! Faults of an answer's content: a stream without its end, an error in place of the rest, bytes that are no text.

use http::StatusCode;

use crate::error::Failure;
use crate::execute::Endpoint;
use crate::reply::{Answer, Content, Frame, Frames, aside, json};
use crate::sim::Sim;
use crate::text::MARK;

/// Applies the content's faults to `answer` and tells how its execution ends if it comes to its end.
pub(crate) fn spoil(answer: Answer, sim: &Sim, endpoint: Endpoint) -> (Answer, &'static str) {
    let positions = u64::from(answer.positions);
    let failure = || Failure::asked_for(StatusCode::OK, sim.error_code.as_deref());
    let (content, how) = match answer.content {
        Content::Whole(_) if sim.error_after.is_some() => {
            (Content::Whole(json(&failure().body(endpoint))), "error_after")
        }
        Content::Whole(bytes) if sim.lone_surrogate => (Content::Whole(unmarked(&bytes)), sim.blemish()),
        Content::Whole(bytes) => (Content::Whole(bytes), sim.blemish()),
        Content::Frames(frames) => {
            let frames: Frames = match sim.lone_surrogate {
                true => Box::new(frames.map(|frame| Frame { bytes: unmarked(&frame.bytes), ..frame })),
                false => frames,
            };
            let (frames, how): (Frames, _) = match sim.error_after {
                Some(after) if after <= positions => {
                    let failure = failure();
                    let error = move |number| aside(failure.event(endpoint, number));
                    (Box::new(failing(frames, after, positions == 0, error)), "error_after")
                }
                _ if sim.omit_finish => (Box::new(until_last_token(frames, positions)), "omit_finish"),
                _ if sim.omit_done => (Box::new(without_last(frames)), "omit_done"),
                _ => (frames, sim.blemish()),
            };
            (Content::Frames(frames), how)
        }
    };
    (Answer { content, ..answer }, how)
}

/// The frames until `after` of them carried tokens, and then an error. What opens a stream comes before any error,
/// unless there are no tokens to tell what that is.
fn failing(
    mut frames: Frames,
    after: u64,
    tokenless: bool,
    error: impl Fn(usize) -> Frame + Send,
) -> impl Iterator<Item = Frame> + Send {
    let (mut seen, mut number, mut failed) = (0, 0, false);
    std::iter::from_fn(move || {
        let frame = if failed {
            None
        } else if seen == after && (after > 0 || tokenless) {
            Some(None)
        } else {
            Some(frames.next().filter(|frame| seen < after || frame.tokens == 0))
        };
        let frame = frame?.unwrap_or_else(|| {
            failed = true;
            error(number)
        });
        seen += u64::from(frame.tokens > 0);
        number += 1;
        Some(frame)
    })
}

/// The frames up to the last that carries tokens, of which there are `positions`.
fn until_last_token(frames: Frames, positions: u64) -> impl Iterator<Item = Frame> + Send {
    let mut seen = 0;
    frames.take_while(move |frame| {
        let before = seen;
        seen += u64::from(frame.tokens > 0);
        before < positions
    })
}

/// All frames but the last.
fn without_last(mut frames: Frames) -> impl Iterator<Item = Frame> + Send {
    let mut held = frames.next();
    std::iter::from_fn(move || {
        let next = frames.next();
        std::mem::replace(&mut held, next).filter(|_| held.is_some())
    })
}

/// The bytes with every mark turned into the escape of a lone surrogate.
fn unmarked(bytes: &[u8]) -> Vec<u8> {
    let mut buffer = [0; 4];
    let mark = MARK.encode_utf8(&mut buffer).as_bytes();
    let (mut clean, mut rest) = (Vec::with_capacity(bytes.len() + 8), bytes);
    while let Some(at) = rest.windows(mark.len()).position(|window| window == mark) {
        clean.extend_from_slice(&rest[..at]);
        clean.extend_from_slice(br"\ud800");
        rest = &rest[at + mark.len()..];
    }
    clean.extend_from_slice(rest);
    clean
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A stream of an opening, two tokens, a finish and an end.
    fn answer() -> Answer {
        let frames = [("open", 0), ("one", 1), ("two", 1), ("finish", 0), ("end", 0)];
        let frames = frames.map(|(text, tokens)| Frame { bytes: text.into(), tokens });
        Answer { tokens: 2, positions: 2, content: Content::Frames(Box::new(frames.into_iter())) }
    }

    fn spoiled(json: &str) -> (String, &'static str) {
        let sim: Sim = serde_json::from_str(json).unwrap();
        let (answer, how) = spoil(answer(), &sim, Endpoint::Chat);
        let Content::Frames(frames) = answer.content else { panic!("a stream stays one") };
        let frame = |frame: Frame| match String::from_utf8(frame.bytes).unwrap() {
            error if error.contains("server_error") => "error".to_owned(),
            other => other,
        };
        (frames.map(frame).collect::<Vec<_>>().join(" "), how)
    }

    #[test]
    fn streams_lose_their_ends() {
        assert_eq!(spoiled("{}"), ("open one two finish end".into(), "finished"));
        assert_eq!(spoiled(r#"{"omit_finish": true}"#), ("open one two".into(), "omit_finish"));
        assert_eq!(spoiled(r#"{"omit_done": true}"#), ("open one two finish".into(), "omit_done"));
        assert_eq!(spoiled(r#"{"error_after": 0}"#), ("open error".into(), "error_after"));
        assert_eq!(spoiled(r#"{"error_after": 1}"#), ("open one error".into(), "error_after"));
        assert_eq!(spoiled(r#"{"error_after": 2}"#), ("open one two error".into(), "error_after"));
        assert_eq!(spoiled(r#"{"error_after": 3}"#).1, "finished");
    }

    #[test]
    fn a_mark_becomes_six_characters() {
        let text = format!("\"a{MARK}b{MARK}\"");
        assert_eq!(unmarked(text.as_bytes()), br#""a\ud800b\ud800""#);
    }
}
