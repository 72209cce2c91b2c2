//! The body of an upstream's answer, as it comes: piece by piece, up to a length, with a limit on each silence.

use super::{Reply, malformed, silence};
use crate::{
    answer::{Form, form},
    classify::{Failure, Kind},
};
use bytes::{Bytes, BytesMut};
use http::header;
use reqwest::Response;
use shared::{config, task::ErrorCode};
use tokio::time::{Instant, timeout_at};

/// White space that may come before an answer says what it is.
const BLANK_MAX: usize = 64 << 10;

/// One body.
pub(super) struct Body<'a> {
    response: Response,
    pub(super) limits: &'a config::Worker,
    /// What has been looked at already.
    peeked: Option<Bytes>,
    read: usize,
}

impl<'a> Body<'a> {
    pub(super) fn of(response: Response, limits: &'a config::Worker) -> Self {
        Self { response, limits, peeked: None, read: 0 }
    }

    /// What the first bytes say that it is. They are read again by [`Body::piece`].
    ///
    /// # Errors
    /// There are none within the limit of time, or no others than white space for too long.
    pub(super) async fn peek(&mut self) -> Result<Form, Failure> {
        let deadline = Instant::now() + self.limits.first_byte_timeout;
        let mut beginning = Gathered::default();
        loop {
            let form = form(beginning.bytes());
            let piece = match form {
                Form::Blank if beginning.bytes().len() <= BLANK_MAX => self.piece(deadline).await?,
                _ => None,
            };
            let Some(piece) = piece else {
                self.peeked = Some(beginning.into_bytes()).filter(|bytes| !bytes.is_empty());
                return Ok(form);
            };
            beginning.add(piece);
        }
    }

    /// The next piece; `None` at the end.
    ///
    /// # Errors
    /// None came until `deadline`, the connection broke, or there are more bytes than `answer_bytes_max`.
    ///
    /// # Cancel safety
    /// Dropping the future loses nothing.
    pub(super) async fn piece(&mut self, deadline: Instant) -> Result<Option<Bytes>, Failure> {
        if let Some(peeked) = self.peeked.take() {
            return Ok(Some(peeked));
        }
        let piece = match timeout_at(deadline, self.response.chunk()).await {
            Ok(piece) => piece.map_err(|_| {
                // Whatever broke it, the answer has begun and not ended.
                let message = "the upstream's answer broke off";
                Failure::new(Kind::Transient, ErrorCode::UpstreamTruncated, message)
            })?,
            Err(_) => return Err(silence("the upstream fell silent inside its answer")),
        };
        self.read += piece.as_ref().map_or(0, Bytes::len);
        let bytes_max = self.limits.answer_bytes_max;
        if self.read > bytes_max {
            // Repeating a request whose answer is too long would only make another one.
            let message =
                format!("the upstream's answer is longer than {bytes_max} bytes (worker.answer_bytes_max)");
            return Err(Failure { kind: Kind::Permanent, ..malformed(&message) });
        }
        Ok(piece)
    }

    /// An empty reply with the head of the answer.
    pub(super) fn head(&self) -> Reply {
        let text = |name: &str| {
            self.response.headers().get(name).and_then(|value| value.to_str().ok()).map(str::to_owned)
        };
        Reply {
            status: self.response.status().as_u16(),
            content_type: text(header::CONTENT_TYPE.as_str())
                .unwrap_or_else(|| "application/octet-stream".to_owned()),
            request_id: text("x-request-id").or_else(|| text("request-id")),
            body: Bytes::new(),
        }
    }
}

/// Gathers pieces, without a copy if it is one.
#[derive(Default)]
pub(super) struct Gathered {
    first: Bytes,
    rest: BytesMut,
}

impl Gathered {
    pub(super) fn add(&mut self, piece: Bytes) {
        if self.first.is_empty() && self.rest.is_empty() {
            self.first = piece;
            return;
        }
        if self.rest.is_empty() {
            self.rest.extend_from_slice(&std::mem::take(&mut self.first));
        }
        self.rest.extend_from_slice(&piece);
    }

    pub(super) fn bytes(&self) -> &[u8] {
        if self.rest.is_empty() { &self.first } else { &self.rest }
    }

    pub(super) fn into_bytes(self) -> Bytes {
        if self.rest.is_empty() { self.first } else { self.rest.freeze() }
    }
}
