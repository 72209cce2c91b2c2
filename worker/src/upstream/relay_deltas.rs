//! An answer that is streamed: every chunk is told verbatim, and all of them are folded into the body of an unstreamed call.

use super::{Call, Reply, head, malformed, piece, sse::Decoder};
use crate::{
    classify::{Failure, Kind, of_error_object},
    fold::{Fold, Progress, Unfinished, event_data},
};
use shared::task::ErrorCode;

/// Longest single event: one chunk of a stream is far shorter, but a terminal event carries a whole body.
const EVENT_BYTES_MAX: usize = 16 << 20;

/// Reads the stream to its end: `[DONE]`, a terminal event, or an orderly close after the last choice has finished.
pub(super) async fn relay(
    mut response: reqwest::Response,
    fold: Fold,
    call: &mut Call<'_>,
) -> Result<Reply, Failure> {
    let reply = head(&response);
    let mut stream =
        Stream { fold, decoder: Decoder::new(EVENT_BYTES_MAX.min(call.limits.answer_bytes_max)), read: 0 };
    let ended = stream.read_all(&mut response, call).await;
    // What was seen is told in any case, so that watchers see the same as the row's error says.
    call.teller.close(&stream.fold).await;
    ended?;
    let body = stream.fold.finish().map_err(|unfinished| match unfinished {
        Unfinished::Truncated => Failure::new(
            Kind::Transient,
            ErrorCode::UpstreamTruncated,
            "the upstream's stream ended before its end",
        ),
        Unfinished::Aborted => {
            Failure::new(Kind::Transient, ErrorCode::UpstreamFailed, "the upstream gave up on the request")
        }
    })?;
    Ok(Reply { content_type: "application/json".to_owned(), body: body.into(), ..reply })
}

struct Stream {
    fold: Fold,
    decoder: Decoder,
    read: usize,
}

impl Stream {
    async fn read_all(
        &mut self,
        response: &mut reqwest::Response,
        call: &mut Call<'_>,
    ) -> Result<(), Failure> {
        let mut limit = call.limits.first_byte_timeout;
        let mut events = Vec::new();
        loop {
            let piece = {
                let next = piece(response, limit);
                tokio::pin!(next);
                loop {
                    tokio::select! {
                        // What the upstream sends comes first: telling it can wait a moment.
                        biased;
                        piece = &mut next => break piece?,
                        () = call.teller.due() => call.teller.flush(&self.fold).await,
                    }
                }
            };
            let Some(piece) = piece else { return Ok(()) };
            limit = call.limits.idle_timeout;
            self.read += piece.len();
            if self.read > call.limits.answer_bytes_max.saturating_mul(8) {
                // Frames repeat ids and names around each token, hence the factor.
                return Err(Failure::new(
                    Kind::Permanent,
                    ErrorCode::UpstreamMalformed,
                    "the upstream's stream is too long",
                ));
            }
            self.decoder
                .feed(&piece, &mut events)
                .map_err(|_| malformed("an event of the upstream's stream is too long"))?;
            for data in events.drain(..) {
                if self.take(&data, call)? {
                    return Ok(());
                }
            }
            if call.teller.is_due() {
                call.teller.flush(&self.fold).await;
            }
        }
    }

    /// Takes one event; `true` if it was the last one.
    fn take(&mut self, data: &[u8], call: &mut Call<'_>) -> Result<bool, Failure> {
        let broken = |_| malformed("the upstream's stream has a chunk that cannot be read");
        let chunk = std::str::from_utf8(data).map_err(|_| broken(crate::fold::Malformed))?.trim();
        if chunk == "[DONE]" {
            return Ok(true);
        }
        let progress = self.fold.push(chunk).map_err(broken)?;
        *call.spent = self.fold.usage().or(*call.spent);
        if let Progress::Failed(error) = progress {
            return Err(of_error_object(&error));
        }
        call.teller.hold(event_data(chunk).map_err(broken)?);
        Ok(progress == Progress::End)
    }
}
