//! An answer that has to be taken. Over HTTP/1 the kernel sees whether the other end takes what was written, and ends the connection if it
//! does not. Over HTTP/2 a client may take all that belongs to the connection, and nothing of a stream: then the stream alone is ended.
//!
//! ```text
//! executor ── watches ──▶ stream of HTTP/2 ── asks for the next piece ──▶ Pieces ── cut ──▶ body
//!     ▲                                                                    │
//!     └──────── given, and not asked since: the reader has it to take ◀────┘
//! ```
//! The transport asks for a piece when it has room for it: while none is asked for, the last one is on its way. Pieces are short, so that
//! what the transport holds of a stream is short too, and a reader that takes something is seen to. Time in which we have nothing to
//! tell is not counted.

use axum::body::{Body, Bytes, HttpBody};
use hyper::{
    body::{Frame, SizeHint},
    rt::Executor,
};
use hyper_util::rt::TokioExecutor;
use std::{
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll, ready},
    time::Duration,
};
use tokio::time::{Instant, sleep};

/// Bytes that a reader has to take within the time limit.
const PIECE: usize = 16 << 10;

tokio::task_local! {
    static READER: Arc<Reader>;
}

/// Who reads one stream.
#[derive(Default)]
struct Reader {
    /// When it was given the piece that it has to take.
    has_since: Mutex<Option<Instant>>,
}

impl Reader {
    fn has(&self, since: Option<Instant>) {
        *self.has_since.lock().unwrap_or_else(PoisonError::into_inner) = since;
    }

    /// Waits until a piece has been there for too long.
    async fn takes_nothing(&self, limit: Duration) {
        loop {
            let since = *self.has_since.lock().unwrap_or_else(PoisonError::into_inner);
            let left = match since {
                Some(since) => limit.saturating_sub(since.elapsed()),
                None => limit / 4,
            };
            if left.is_zero() {
                return;
            }
            sleep(left).await;
        }
    }
}

/// Runs the streams of HTTP/2 connections, and ends those whose readers take nothing for `limit`.
#[derive(Clone)]
pub(crate) struct Watching {
    /// The limit.
    pub(crate) limit: Duration,
}

impl<F: Future<Output: Send> + Send + 'static> Executor<F> for Watching {
    fn execute(&self, stream: F) {
        let limit = self.limit;
        TokioExecutor::new().execute(async move {
            let reader = Arc::new(Reader::default());
            tokio::select! {
                _ = READER.scope(reader.clone(), stream) => {}
                () = reader.takes_nothing(limit) => {
                    metrics::counter!("longhaul_slow_readers_total").increment(1);
                    tracing::debug!("a stream was ended: nothing of it was taken");
                }
            }
        });
    }
}

/// A body in short pieces, that says when each was given.
pub(crate) struct Pieces {
    body: Body,
    rest: Bytes,
}

impl Pieces {
    /// Cuts `body`.
    pub(crate) fn new(body: Body) -> Self {
        Self { body, rest: Bytes::new() }
    }
}

impl HttpBody for Pieces {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let tell = |since: Option<Instant>| {
            // Over HTTP/1 nobody watches.
            let _: Result<(), _> = READER.try_with(|reader| reader.has(since));
        };
        let this = &mut *self;
        if this.rest.is_empty() {
            let polled = Pin::new(&mut this.body).poll_frame(context);
            if polled.is_pending() {
                tell(None);
            }
            match ready!(polled) {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => this.rest = data,
                    Err(other) => return Poll::Ready(Some(Ok(other))),
                },
                end => return Poll::Ready(end),
            }
        }
        tell(Some(Instant::now()));
        let piece = this.rest.split_to(PIECE.min(this.rest.len()));
        Poll::Ready(Some(Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let (rest, of) = (self.rest.len() as u64, self.body.size_hint());
        let mut hint = SizeHint::new();
        hint.set_lower(of.lower() + rest);
        if let Some(upper) = of.upper() {
            hint.set_upper(upper + rest);
        }
        hint
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt;
    use http_body_util::BodyExt;

    #[tokio::test]
    async fn pieces_are_short_and_make_the_whole() {
        let whole = Bytes::from_iter((0..3 * PIECE + 5).map(|i| i as u8));
        let mut pieces = Pieces::new(Body::from(whole.clone()));
        let mut came = Vec::new();
        assert_eq!(pieces.size_hint().exact(), Some(whole.len() as u64));
        while let Some(frame) = pieces.frame().await {
            let data = frame.expect("a frame").into_data().expect("data");
            assert!(data.len() <= PIECE);
            came.extend(data);
            assert_eq!(pieces.size_hint().exact(), Some((whole.len() - came.len()) as u64));
        }
        assert!(pieces.is_end_stream() && came == whole);
    }

    #[tokio::test]
    async fn who_has_a_piece_and_asks_for_none_takes_nothing() {
        let (limit, reader) = (Duration::from_millis(20), Arc::new(Reader::default()));
        let mut pieces = Pieces::new(Body::from(vec![0; 2 * PIECE]));
        READER.scope(reader.clone(), pieces.frame()).await;
        reader.takes_nothing(limit).await;
        // With nothing to tell, nobody is blamed.
        let mut silent =
            Pieces::new(Body::from_stream(futures_util::stream::pending::<Result<Bytes, axum::Error>>()));
        assert!(READER.scope(reader.clone(), silent.frame()).now_or_never().is_none());
        assert!(tokio::time::timeout(4 * limit, reader.takes_nothing(limit)).await.is_err());
    }
}
