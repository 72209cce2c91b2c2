//! The rest of a body that nobody wants. Who is still sending when the connection is closed often hears of that alone, and tries again:
//! so what is on its way is taken and thrown away before the answer, within limits.

use axum::{
    body::{Body, HttpBody},
    extract::Request,
};
use http::{Version, header, request::Parts};
use http_body_util::BodyExt;
use std::time::Duration;
use tokio::time::timeout;

/// What is taken of it at most.
const BYTES_MAX: u64 = 64 << 20;
const TIME_MAX: Duration = Duration::from_secs(5);
/// Silence after which the caller waits for the answer.
const SILENCE_MAX: Duration = Duration::from_millis(500);

/// Throws away the body of a request that is refused.
pub(crate) async fn discard(request: Request) {
    let (parts, body) = request.into_parts();
    discard_rest(&parts, body).await;
}

/// Throws away what is left of a body.
pub(crate) async fn discard_rest(parts: &Parts, mut body: Body) {
    // HTTP/2 ends one stream without the others, and who expects to be asked is not asked.
    let needless = parts.version >= Version::HTTP_2 || parts.headers.contains_key(header::EXPECT);
    if needless || body.size_hint().lower() > BYTES_MAX {
        return;
    }
    let taking = async {
        let mut taken = 0;
        while taken < BYTES_MAX
            && let Ok(Some(Ok(frame))) = timeout(SILENCE_MAX, body.frame()).await
        {
            taken += frame.data_ref().map_or(0, |data| data.len() as u64);
        }
        taken
    };
    let taken = timeout(TIME_MAX, taking).await;
    tracing::trace!(?taken, "threw away a body");
}
