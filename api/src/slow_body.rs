//! A request body that has to arrive: one that is silent for `api.body_timeout`, or that comes slower than a minimum rate once that
//! time has passed, ends with [`TooSlow`]. Whoever keeps to the rate is never cut, however long it takes.
//!
//! Only time in which somebody waits for the body is counted: a busy server blames nobody.

use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};
use std::{
    error::Error,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};
use tokio::time::{Instant, Sleep, sleep};

/// Bytes a second that a body has to make on average.
const RATE_MIN: f64 = 1024.0;

/// The body did not arrive in time.
#[derive(Debug, thiserror::Error)]
#[error("too slow")]
pub(crate) struct TooSlow;

/// A body with a time that is left for its next piece.
pub(crate) struct SlowBody<B> {
    body: B,
    patience: Duration,
    bytes: u64,
    waited: Duration,
    waiting: Option<(Instant, Pin<Box<Sleep>>)>,
}

impl<B> SlowBody<B> {
    /// Watches over `body`.
    pub(crate) fn new(body: B, patience: Duration) -> Self {
        Self { body, patience, bytes: 0, waited: Duration::ZERO, waiting: None }
    }
}

/// How long to wait for the next piece of a body that has made so many bytes in the time that was waited for it.
fn left(patience: Duration, bytes: u64, waited: Duration) -> Duration {
    let earned = Duration::from_secs_f64(bytes as f64 / RATE_MIN).max(patience);
    patience.min(earned.saturating_sub(waited))
}

impl<B> Body for SlowBody<B>
where
    B: Body<Data = Bytes, Error: Error + Send + Sync + 'static> + Unpin,
{
    type Data = Bytes;
    type Error = Box<dyn Error + Send + Sync>;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let this = &mut *self;
        if let Poll::Ready(frame) = Pin::new(&mut this.body).poll_frame(context) {
            let data = frame.as_ref().and_then(|frame| frame.as_ref().ok()?.data_ref());
            this.bytes += data.map_or(0, |data| data.len() as u64);
            this.waited += this.waiting.take().map_or(Duration::ZERO, |(since, _)| since.elapsed());
            return Poll::Ready(frame.map(|frame| frame.map_err(Into::into)));
        }
        let left = left(this.patience, this.bytes, this.waited);
        let (_, alarm) = this.waiting.get_or_insert_with(|| (Instant::now(), Box::pin(sleep(left))));
        ready!(alarm.as_mut().poll(context));
        Poll::Ready(Some(Err(TooSlow.into())))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// Whether this is why a body broke off.
pub(crate) fn is_too_slow(error: &(dyn Error + 'static)) -> bool {
    std::iter::successors(Some(error), |&error| error.source()).any(<dyn Error>::is::<TooSlow>)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_keeps_to_the_rate_has_time() {
        let s = Duration::from_secs;
        let patience = s(20);
        for (bytes, waited, wanted) in [
            (0, 0, 20),
            (1, 0, 20),
            (199, 19, 1),
            (199, 20, 0),
            (19 << 10, 25, 0),
            (600 << 10, 599, 1),
            (600 << 10, 601, 0),
            (16 << 20, 599, 20),
        ] {
            assert_eq!(left(patience, bytes, s(waited)), s(wanted), "{bytes} bytes in {waited} s");
        }
    }
}
