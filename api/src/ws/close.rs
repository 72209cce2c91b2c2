//! How a socket ends, and what its client is told.

use super::{outbox::Letter, protocol::Say};
use axum::extract::ws::{
    CloseCode, CloseFrame, Message, WebSocket,
    close_code::{INVALID, PROTOCOL, RESTART, SIZE},
};
use futures_util::SinkExt;
use std::time::Duration;
use tokio::time::timeout;
use tungstenite::{Error, error::ProtocolError};

/// Longest time for one write to the socket.
pub(super) const WRITE_MAX: Duration = Duration::from_secs(10);

/// Longest time for a last word to a reader that is slow.
const LAST_WORD: Duration = Duration::from_secs(5);
/// Close codes of ours.
const CREDENTIAL_ENDED: CloseCode = 4401;
const TOO_SLOW: CloseCode = 4013;

/// The socket is of no more use.
pub(super) enum Closed {
    /// The client has gone.
    Gone,
    /// The client takes nothing.
    Slow,
}

/// Sends one message.
///
/// # Errors
/// The client has gone, or takes nothing.
pub(super) async fn write(socket: &mut WebSocket, message: Message) -> Result<(), Closed> {
    within(socket.send(message)).await
}

/// Sends messages in one go.
///
/// # Errors
/// The client has gone, or takes nothing.
pub(super) async fn write_all(
    socket: &mut WebSocket,
    letters: impl Iterator<Item = Letter>,
) -> Result<(), Closed> {
    for letter in letters.filter(Letter::is_wanted) {
        within(socket.feed(Message::text(letter.text))).await?;
    }
    within(socket.flush()).await
}

/// Whoever does not take what was gathered for it within this time is too slow.
async fn within(writing: impl Future<Output = Result<(), axum::Error>>) -> Result<(), Closed> {
    match timeout(WRITE_MAX, writing).await {
        Ok(written) => written.map_err(|_| Closed::Gone),
        Err(_) => Err(Closed::Slow),
    }
}

/// A reader that takes nothing is cut off: it can go on from the last seq that it has.
pub(super) async fn cut_off(mut socket: WebSocket) {
    metrics::counter!("longhaul_slow_readers_total").increment(1);
    let close = CloseFrame { code: TOO_SLOW, reason: "too slow: resume from the last seq".into() };
    // Whoever takes nothing does not take this either; whoever has begun again does.
    let told = timeout(LAST_WORD, socket.send(Message::Close(Some(close)))).await;
    tracing::debug!(told = matches!(told, Ok(Ok(()))), "a slow reader was cut off");
}

/// What was sent is no WebSocket's: the client is told so. Of a connection that broke nothing is said.
pub(super) async fn blame(mut socket: WebSocket, error: axum::Error) {
    let (code, reason) = match error.into_inner().downcast_ref::<Error>() {
        Some(Error::Capacity(_)) => (SIZE, "too long"),
        Some(Error::Utf8(_)) => (INVALID, "not UTF-8"),
        Some(Error::Protocol(ProtocolError::ResetWithoutClosingHandshake)) => return,
        Some(Error::Protocol(_)) => (PROTOCOL, "not a WebSocket's frame"),
        _ => return,
    };
    let close = CloseFrame { code, reason: reason.into() };
    if write(&mut socket, Message::Close(Some(close))).await.is_err() {
        tracing::debug!("a socket was gone before it was told what is wrong");
    }
}

/// The credential has ended.
pub(super) async fn show_out(mut socket: WebSocket) {
    let close = CloseFrame { code: CREDENTIAL_ENDED, reason: "the key or token has ended".into() };
    if write(&mut socket, Message::Close(Some(close))).await.is_err() {
        tracing::debug!("a socket was gone before its farewell");
    }
}

/// The process ends: the client is told, and comes back to another one.
pub(super) async fn farewell(mut socket: WebSocket) {
    let last = Say::Draining { reconnect_after_ms: 500 }.text();
    let close = CloseFrame { code: RESTART, reason: "draining".into() };
    if write(&mut socket, Message::text(last)).await.is_ok()
        && write(&mut socket, Message::Close(Some(close))).await.is_err()
    {
        tracing::debug!("a socket was gone before its farewell");
    }
}
