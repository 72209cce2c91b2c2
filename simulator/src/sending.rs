//! A body on its way: when its bytes leave, in which pieces, and where the connection is cut.
//!
//! Times of zero never touch a timer, and frames that need no waiting leave together. Pieces that have to leave alone
//! are body frames of their own with a yield between them: the server flushes whenever there is nothing to be had.

use std::collections::VecDeque;
use std::fmt;
use std::iter::Peekable;
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use futures_util::stream;

use crate::execute::Execution;
use crate::pace::Pace;
use crate::reply::{Frame, Frames};
use crate::sim::{HangAt, Sim, Split};

/// Frames are gathered up to this size while none of them has to wait.
const GATHER: usize = 16 << 10;

/// What a huge answer is made of, a write at a time.
static FILLER: [u8; 64 << 10] = [b'x'; 64 << 10];

/// The field that makes an answer huge, without its value.
const PADDING: &[u8] = br#","padding":""#;

/// What happens to a body between its composition and the socket.
#[derive(Debug)]
pub(crate) struct Course {
    /// A pause before the first byte.
    body_hang: Option<Duration>,
    /// A pause after the first token.
    token_hang: Option<Duration>,
    /// A pause between two bytes.
    drip: Option<Duration>,
    split: Option<Split>,
    /// Frames until the connection is cut.
    cut_after: Option<u64>,
    /// Bytes until the connection is cut, and the fault's name.
    cut_bytes: Option<(u64, &'static str)>,
    /// The size the first frame is padded to.
    huge: Option<u64>,
}

impl Course {
    /// The course of a stream's frames.
    pub(crate) fn of_stream(sim: &Sim) -> Self {
        Self {
            body_hang: sim.hang(HangAt::Body, true),
            token_hang: sim.hang(HangAt::Token, true),
            drip: sim.drip_ms.map(Duration::from_millis),
            split: sim.split,
            cut_after: sim.cut_after,
            cut_bytes: sim.cut_bytes.map(|bytes| (bytes, "cut_bytes")),
            huge: sim.huge_bytes,
        }
    }

    /// The course of a body of this size. It has no events, so `cut_after` cuts it in half.
    pub(crate) fn of_whole(sim: &Sim, size: usize) -> Self {
        let half = sim.cut_after.map(|_| (size as u64 / 2, "cut_after"));
        let stream = Self::of_stream(sim);
        Self {
            body_hang: sim.hang(HangAt::Body, false),
            token_hang: None,
            cut_after: None,
            cut_bytes: stream.cut_bytes.or(half),
            ..stream
        }
    }

    /// Whether a body just leaves.
    pub(crate) fn is_plain(&self) -> bool {
        self.body_hang.is_none()
            && self.drip.is_none()
            && self.split.is_none()
            && self.cut_bytes.is_none()
            && self.huge.is_none()
    }
}

/// Sends frames at their times and tells the ledger how far they came.
pub(crate) struct Sending {
    frames: Peekable<Frames>,
    pace: Pace,
    course: Course,
    execution: Execution,
    /// How the execution ends if nothing cuts it.
    how: &'static str,
    /// Frames drawn.
    drawn: u64,
    /// Tokens drawn.
    tokens: u64,
    /// What was drawn and is not sent yet.
    parts: VecDeque<Part>,
}

/// A stretch of the body.
enum Part {
    Bytes(Bytes),
    /// So many bytes of padding.
    Filler(u64),
}

/// Why a body ends before its end: the connection closes with it.
#[derive(Debug)]
pub(crate) struct Cut;

impl fmt::Display for Cut {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        to.write_str("the connection was cut on request")
    }
}

impl std::error::Error for Cut {}

impl Sending {
    pub(crate) fn new(
        frames: Frames,
        pace: Pace,
        course: Course,
        execution: Execution,
        how: &'static str,
    ) -> Self {
        let (frames, parts) = (frames.peekable(), VecDeque::new());
        Self { frames, pace, course, execution, how, drawn: 0, tokens: 0, parts }
    }

    pub(crate) fn into_body(self) -> Body {
        Body::from_stream(stream::unfold(self, async |mut sending| Some((sending.step().await?, sending))))
    }

    /// What is sent next; `None` after the last byte.
    async fn step(&mut self) -> Option<Result<Bytes, Cut>> {
        if let Some(hang) = self.course.body_hang.take() {
            tokio::time::sleep(hang).await;
        }
        if let Some(how) = self.cut() {
            // The server must get a chance to flush what came before: an error discards its buffer.
            tokio::task::yield_now().await;
            self.execution.end(how);
            return Some(Err(Cut));
        }
        if self.execution.bytes > 0 {
            self.pause().await;
        }
        if self.parts.is_empty() && !self.draw().await {
            self.execution.end(self.how);
            return None;
        }
        let bytes = self.take();
        if self.parts.is_empty() && self.frames.peek().is_none() && self.cut().is_none() {
            self.execution.end(self.how);
        }
        Some(Ok(bytes))
    }

    /// Which fault cuts the connection here, if any.
    fn cut(&self) -> Option<&'static str> {
        let bytes = self.course.cut_bytes.filter(|(limit, _)| self.execution.bytes >= *limit);
        let events = self.parts.is_empty() && self.is_last_event();
        bytes.map(|(_, how)| how).or(events.then_some("cut_after"))
    }

    fn is_last_event(&self) -> bool {
        self.course.cut_after.is_some_and(|limit| self.drawn >= limit)
    }

    /// Keeps two pieces that have to leave alone from leaving together.
    async fn pause(&mut self) {
        match self.course.drip {
            Some(drip) => tokio::time::sleep(drip).await,
            None if self.course.split.is_some() => tokio::task::yield_now().await,
            None => {}
        }
    }

    /// Draws the next frame at its time, and those that need not wait after it. Whether there was one.
    async fn draw(&mut self) -> bool {
        let begun = self.tokens > 0;
        if let Some(hang) = self.course.token_hang.take_if(|_| begun) {
            tokio::time::sleep(hang).await;
        }
        // The first token has waited already, before the response's head.
        if begun && self.frames.peek().is_some_and(|frame| frame.tokens > 0) {
            let wait = self.pace.next();
            self.execution.wait(wait).await;
        }
        let Some(first) = self.frames.next() else { return false };
        let mut bytes = Vec::new();
        self.gather(&mut bytes, first);
        if let Some(size) = self.course.huge.take() {
            self.parts.extend(padded(bytes, size));
            return true;
        }
        while bytes.len() < GATHER && !self.is_last_event() && !self.must_wait() {
            let Some(frame) = self.frames.next() else { break };
            self.gather(&mut bytes, frame);
        }
        match self.course.split {
            Some(Split::Frames) => self.parts.extend(halves(bytes)),
            _ => self.parts.push_back(Part::Bytes(bytes.into())),
        }
        true
    }

    fn gather(&mut self, bytes: &mut Vec<u8>, frame: Frame) {
        self.drawn += 1;
        self.tokens += frame.tokens;
        bytes.extend(frame.bytes);
    }

    /// Whether the next frame has to wait for its time.
    fn must_wait(&mut self) -> bool {
        let begun = self.tokens > 0;
        let token_next = self.frames.peek().is_some_and(|frame| frame.tokens > 0);
        begun && (self.course.token_hang.is_some() || token_next && !self.pace.is_instant())
    }

    /// The next piece of what was drawn.
    fn take(&mut self) -> Bytes {
        let alone = self.course.drip.is_some() || self.course.split == Some(Split::Bytes);
        let left = self.course.cut_bytes.map_or(u64::MAX, |(limit, _)| limit - self.execution.bytes);
        let most = usize::try_from(left).unwrap_or(usize::MAX).min(if alone { 1 } else { usize::MAX });
        let (bytes, is_over) = match self.parts.front_mut() {
            None => (Bytes::new(), false),
            Some(Part::Bytes(bytes)) => {
                let piece = bytes.split_to(most.min(bytes.len()));
                (piece, bytes.is_empty())
            }
            Some(Part::Filler(left)) => {
                let size = most.min(FILLER.len()).min(usize::try_from(*left).unwrap_or(usize::MAX));
                *left -= size as u64;
                (Bytes::from_static(&FILLER[..size]), *left == 0)
            }
        };
        if is_over {
            self.parts.pop_front();
        }
        self.execution.bytes += bytes.len() as u64;
        if self.parts.is_empty() {
            self.execution.tokens = self.tokens;
        }
        bytes
    }
}

/// The JSON object `bytes` end with, padded by one more field to `size` bytes. What is no object stays as it is.
fn padded(mut bytes: Vec<u8>, size: u64) -> Vec<Part> {
    let own = (bytes.len() + PADDING.len() + 1) as u64;
    let end = bytes.iter().rposition(|byte| !byte.is_ascii_whitespace()).filter(|at| bytes[*at] == b'}');
    match (end, size.checked_sub(own)) {
        (Some(end), Some(filler @ 1..)) => {
            let mut rest = vec![b'"'];
            rest.extend(bytes.drain(end..));
            bytes.extend_from_slice(PADDING);
            vec![Part::Bytes(bytes.into()), Part::Filler(filler), Part::Bytes(rest.into())]
        }
        _ => vec![Part::Bytes(bytes.into())],
    }
}

/// Every event in two halves; a body without events is one.
fn halves(bytes: Vec<u8>) -> Vec<Part> {
    let (mut parts, mut rest) = (Vec::new(), Bytes::from(bytes));
    while !rest.is_empty() {
        let end = rest.windows(2).position(|pair| pair == b"\n\n").map_or(rest.len(), |at| at + 2);
        let mut event = rest.split_to(end);
        let first = event.split_to(end / 2);
        parts.extend([first, event].into_iter().filter(|half| !half.is_empty()).map(Part::Bytes));
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The parts' bytes, joined, and their sizes.
    fn laid(parts: Vec<Part>) -> (String, Vec<usize>) {
        let text = |part: Part| match part {
            Part::Bytes(bytes) => String::from_utf8(bytes.to_vec()).unwrap(),
            Part::Filler(size) => "x".repeat(usize::try_from(size).unwrap()),
        };
        let texts: Vec<String> = parts.into_iter().map(text).collect();
        (texts.concat(), texts.iter().map(String::len).collect())
    }

    #[test]
    fn padding_makes_one_more_field() {
        assert_eq!(laid(padded(br#"{"a":1}"#.to_vec(), 25)).0, r#"{"a":1,"padding":"xxxxx"}"#);
        let event = laid(padded(b"data: {\"a\":1}\n\n".to_vec(), 1000)).0;
        assert_eq!((event.len(), event.ends_with("x\"}\n\n")), (1000, true));
        assert_eq!(laid(padded(b"<html>".to_vec(), 1000)).0, "<html>");
        assert_eq!(laid(padded(br#"{"a":1}"#.to_vec(), 9)).0, r#"{"a":1}"#);
    }

    #[test]
    fn events_are_cut_in_the_middle() {
        let (text, sizes) = laid(halves(b"data: 12\n\ndata: 3\n\n".to_vec()));
        assert_eq!((text.as_str(), sizes), ("data: 12\n\ndata: 3\n\n", vec![5, 5, 4, 5]));
        assert_eq!(laid(halves(b"{}".to_vec())).1, [1, 1]);
    }
}
