//! When things are sent: the times of one request, and the stream that keeps to them.
//!
//! Times of zero never touch a timer, and frames that need no waiting leave together.

use std::fmt;
use std::iter::Peekable;
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use futures_util::{StreamExt as _, stream};

use crate::behaviour::Behaviour;
use crate::execute::Execution;
use crate::reply::{Frame, Frames};
use crate::text::spread;

/// Frames are gathered up to this size while none of them has to wait.
const GATHER: usize = 16 << 10;

/// The times of one request, drawn from its prompt.
#[derive(Debug)]
pub(crate) struct Pace {
    times: Behaviour,
    rng: fastrand::Rng,
}

impl Pace {
    pub(crate) fn new(times: Behaviour, rng: fastrand::Rng) -> Self {
        Self { times, rng }
    }

    /// From the request to the first token.
    pub(crate) fn first(&mut self) -> Duration {
        self.draw(self.times.ttft_ms)
    }

    /// From one token to the next.
    pub(crate) fn next(&mut self) -> Duration {
        self.draw(self.times.itl_ms)
    }

    /// All of a request's time at once.
    pub(crate) fn whole(&mut self, positions: u32) -> Duration {
        let first = self.first();
        if self.is_instant() { first } else { (1..positions).fold(first, |sum, _| sum + self.next()) }
    }

    fn is_instant(&self) -> bool {
        self.times.itl_ms == 0
    }

    fn draw(&mut self, ms: u64) -> Duration {
        // A day bounds what any request may ask for.
        let ms = ms.min(86_400_000) as f64;
        Duration::from_secs_f64(spread(ms, self.times.jitter, &mut self.rng) / 1000.0)
    }
}

/// Sends an answer's frames at their times and tells the ledger how far it came.
pub(crate) struct Paced {
    pub(crate) frames: Peekable<Frames>,
    pub(crate) pace: Pace,
    /// Frames until the connection is cut.
    pub(crate) cut_after: Option<u64>,
    /// A pause after the first token.
    pub(crate) hang: Option<Duration>,
    pub(crate) execution: Execution,
    pub(crate) sent: u64,
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

impl Paced {
    pub(crate) fn into_body(self) -> Body {
        Body::from_stream(stream::unfold(self, async |mut paced| Some((paced.step().await?, paced))))
    }

    /// What is sent next; `None` after the last frame.
    async fn step(&mut self) -> Option<Result<Bytes, Cut>> {
        if self.is_cut() {
            // The server must get a chance to flush what came before: an error discards its buffer.
            tokio::task::yield_now().await;
            self.execution.end("cut_after");
            return Some(Err(Cut));
        }
        let begun = self.execution.tokens > 0;
        if let Some(hang) = self.hang.take_if(|_| begun) {
            tokio::time::sleep(hang).await;
        }
        // The first token has waited already, before the response's head.
        if begun && self.frames.peek()?.tokens > 0 {
            let wait = self.pace.next();
            self.execution.wait(wait).await;
        }
        let mut bytes = Vec::new();
        let first = self.frames.next()?;
        self.gather(&mut bytes, first);
        while bytes.len() < GATHER && !self.is_cut() && !self.must_wait() {
            let Some(frame) = self.frames.next() else { break };
            self.gather(&mut bytes, frame);
        }
        if self.frames.peek().is_none() && !self.is_cut() {
            self.execution.end("finished");
        }
        Some(Ok(bytes.into()))
    }

    fn gather(&mut self, bytes: &mut Vec<u8>, frame: Frame) {
        self.sent += 1;
        self.execution.tokens += frame.tokens;
        self.execution.bytes += frame.bytes.len() as u64;
        bytes.extend(frame.bytes);
    }

    fn is_cut(&self) -> bool {
        self.cut_after.is_some_and(|limit| self.sent >= limit)
    }

    /// Whether the next frame has to wait for its time.
    fn must_wait(&mut self) -> bool {
        let begun = self.execution.tokens > 0;
        let token_next = self.frames.peek().is_some_and(|frame| frame.tokens > 0);
        begun && (self.hang.is_some() || token_next && !self.pace.is_instant())
    }
}

/// The first half of `whole`, and then the end of the connection.
pub(crate) fn halved(whole: &[u8], mut execution: Execution) -> Body {
    let half = Bytes::copy_from_slice(&whole[..whole.len() / 2]);
    execution.bytes = half.len() as u64;
    let end = async move {
        tokio::task::yield_now().await;
        execution.end("cut_after");
        Err(Cut)
    };
    Body::from_stream(stream::iter([Ok(half)]).chain(stream::once(end)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_stay_within_the_jitter() {
        let times = Behaviour { ttft_ms: 100, itl_ms: 10, jitter: 0.5, ..Behaviour::default() };
        let mut pace = Pace::new(times, fastrand::Rng::with_seed(7));
        assert!((50..=150).contains(&pace.first().as_millis()));
        assert!((0..100).all(|_| (5..=15).contains(&pace.next().as_millis())));
        assert!((1..=2).contains(&pace.whole(101).as_secs()));
    }

    #[test]
    fn zero_is_zero() {
        let mut pace =
            Pace::new(Behaviour { jitter: 1.0, ..Behaviour::instant() }, fastrand::Rng::with_seed(7));
        assert_eq!(pace.whole(1_000), Duration::ZERO);
    }
}
