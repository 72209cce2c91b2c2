//! How a socket ends, and what its client is told.

use super::protocol::Say;
use axum::extract::ws::{
    CloseFrame, Message, WebSocket,
    close_code::{INVALID, POLICY, PROTOCOL, RESTART, SIZE},
};
use std::time::Duration;
use tokio::time::timeout;
use tungstenite::{Error, error::ProtocolError};

/// Longest time for one write to the socket.
pub(super) const WRITE_MAX: Duration = Duration::from_secs(10);

/// The socket is of no more use.
pub(super) struct Closed;

/// Sends one message.
///
/// # Errors
/// The client has gone, or takes nothing.
pub(super) async fn write(socket: &mut WebSocket, message: Message) -> Result<(), Closed> {
    match timeout(WRITE_MAX, socket.send(message)).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(_)) | Err(_) => Err(Closed),
    }
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
    let close = CloseFrame { code: POLICY, reason: "the key or token has ended".into() };
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
