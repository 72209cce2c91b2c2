//! An answer that is streamed: every chunk is told verbatim, and all of them are folded into the body of an unstreamed call.
//!
//! The end of a stream is judged by all that is there: `[DONE]`, a terminal event, an orderly close; and where these do not come, the answer's
//! own word that it is whole (the reasons why its choices have ended), after a grace for what may follow. What has not said that it is whole
//! is never an answer.

use super::{Call, Reply, body::Body, gave_up, malformed, silence};
use crate::{
    classify::{Failure, Kind, of_error},
    fold::{Fold, Malformed, Progress, Unfinished, event_data},
    sse::Decoder,
};
use bytes::Bytes;
use shared::{config, task::ErrorCode};
use std::time::Duration;
use tokio::time::Instant;

/// Longest single event: one chunk of a stream is far shorter, but a terminal event carries a whole body.
const EVENT_BYTES_MAX: usize = 16 << 20;
/// How long a finished answer waits for its figures and its orderly end.
const GRACE: Duration = Duration::from_secs(3);
/// The same once it has told its figures.
const GRACE_AFTER_USAGE: Duration = Duration::from_secs(1);

/// Reads the stream to its end.
pub(super) async fn relay(mut body: Body<'_>, fold: Fold, call: &mut Call<'_>) -> Result<Reply, Failure> {
    let reply = body.head();
    let decoder = Decoder::new(EVENT_BYTES_MAX.min(call.limits.answer_bytes_max));
    let mut stream = Stream { fold, decoder, patience: Patience::new(call.limits) };
    let ended = stream.read_all(&mut body, call).await;
    // What was seen is told in any case, so that watchers see the same as the row's error says.
    call.teller.close(&stream.fold).await;
    ended?;
    let body = stream.fold.finish().map_err(|unfinished| match unfinished {
        Unfinished::Truncated => {
            let message = "the upstream's stream ended before its end";
            Failure::new(Kind::Transient, ErrorCode::UpstreamTruncated, message)
        }
        Unfinished::Aborted => gave_up(),
    })?;
    Ok(Reply { content_type: "application/json".to_owned(), body: body.into(), ..reply })
}

/// Until when the next piece is waited for.
struct Patience<'a> {
    limits: &'a config::Worker,
    /// The last sign of life: any bytes.
    alive: Option<Instant>,
    /// When the answer grew last, else when it was asked for.
    grew: Instant,
    /// When the answer was whole, and how long it waits for what may follow.
    finished: Option<(Instant, Duration)>,
}

impl<'a> Patience<'a> {
    fn new(limits: &'a config::Worker) -> Self {
        Self { limits, alive: None, grew: Instant::now(), finished: None }
    }

    /// A chunk has come that adds to the answer.
    fn grew(&mut self, fold: &Fold) {
        self.grew = Instant::now();
        let grace = if fold.usage().is_some() { GRACE_AFTER_USAGE } else { GRACE };
        self.finished = fold.is_finished().then_some((self.grew, grace));
    }

    /// Mere signs of life prolong the wait for the next chunk, but not beyond the time that a first one may take, and not that for the end of
    /// an answer that is whole.
    fn deadline(&self) -> Instant {
        let (first, idle) = (self.limits.first_byte_timeout, self.limits.idle_timeout);
        let open = match self.alive {
            None => self.grew + first,
            Some(alive) => (alive + idle).min(self.grew + first.max(idle)),
        };
        self.finished.map_or(open, |(since, grace)| open.min(since + grace))
    }
}

struct Stream<'a> {
    fold: Fold,
    decoder: Decoder,
    patience: Patience<'a>,
}

impl Stream<'_> {
    /// Reads until the stream is over, in whatever way. An answer that is whole is not spoilt by what comes after it.
    async fn read_all(&mut self, body: &mut Body<'_>, call: &mut Call<'_>) -> Result<(), Failure> {
        let mut events = Vec::new();
        loop {
            let deadline = self.patience.deadline();
            let read = self.next(body, call, deadline).await;
            let over = match read {
                Ok(None) => return Ok(()),
                Ok(Some(piece)) => {
                    self.patience.alive = Some(Instant::now());
                    let fed = self.decoder.feed(&piece, &mut events);
                    let fed = fed.map_err(|_| malformed("an event of the upstream's stream is too long"));
                    fed.and_then(|()| self.take_all(&mut events, call))
                }
                Err(failure) => Err(failure),
            };
            match over {
                Ok(true) => return Ok(()),
                Err(_) if self.fold.is_finished() => return Ok(()),
                Err(failure) => return Err(failure),
                Ok(false) if Instant::now() < self.patience.deadline() => {}
                Ok(false) if self.fold.is_finished() => return Ok(()),
                Ok(false) => {
                    return Err(silence("the upstream sent signs of life, but no chunk, for too long"));
                }
            }
            if call.teller.is_due() {
                call.teller.flush(&self.fold).await;
            }
        }
    }

    /// The next piece, and meanwhile what is due is told.
    async fn next(
        &self,
        body: &mut Body<'_>,
        call: &mut Call<'_>,
        deadline: Instant,
    ) -> Result<Option<Bytes>, Failure> {
        let next = body.piece(deadline);
        tokio::pin!(next);
        loop {
            tokio::select! {
                // What the upstream sends comes first: telling it can wait a moment.
                biased;
                piece = &mut next => return piece,
                () = call.teller.due() => call.teller.flush(&self.fold).await,
            }
        }
    }

    /// Takes events; `true` if the last one was among them.
    fn take_all(&mut self, events: &mut Vec<Vec<u8>>, call: &mut Call<'_>) -> Result<bool, Failure> {
        for data in events.drain(..) {
            if self.take(&data, call)? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn take(&mut self, data: &[u8], call: &mut Call<'_>) -> Result<bool, Failure> {
        let broken = |why: Malformed| malformed(&why.to_string());
        let chunk = std::str::from_utf8(data).map_err(|_| broken(Malformed::Unreadable))?.trim();
        if chunk == "[DONE]" {
            return Ok(true);
        }
        if chunk.is_empty() {
            return Ok(false);
        }
        let progress = self.fold.push(chunk).map_err(broken)?;
        *call.spent = self.fold.usage().or(*call.spent);
        if let Progress::Failed(error) = &progress {
            return Err(of_error(error.as_bytes()));
        }
        if progress == Progress::More {
            self.patience.grew(&self.fold);
        }
        call.teller.hold(event_data(chunk).map_err(broken)?);
        Ok(progress == Progress::End)
    }
}
