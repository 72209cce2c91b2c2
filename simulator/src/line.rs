//! One accepted connection: what a handler may do to it, and the socket that is reset instead of closed when told to.

use std::convert::Infallible;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;

/// How long the connection that asked for an outage may take to read the answer to that.
const GRACE: Duration = Duration::from_secs(3);

/// The handlers' side of a connection; clones are the same connection.
#[derive(Debug, Clone)]
pub(crate) struct Line(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    cut: CancellationToken,
    reset: AtomicBool,
    spared: AtomicBool,
}

impl Line {
    /// A connection that ends with `all`.
    pub(crate) fn new(all: &CancellationToken) -> Self {
        let cut = all.child_token();
        Self(Arc::new(Inner { cut, reset: AtomicBool::new(false), spared: AtomicBool::new(false) }))
    }

    /// Resets the connection. Nothing runs on it any more, so this never returns.
    pub(crate) async fn reset(&self) -> Infallible {
        self.0.reset.store(true, Ordering::Release);
        self.0.cut.cancel();
        std::future::pending().await
    }

    /// Lets the connection outlive the beginning of an outage, because it carries the request for it.
    pub(crate) fn spare(&self) {
        self.0.spared.store(true, Ordering::Release);
    }

    /// Why the connection was cut from our side, if it was.
    pub(crate) fn cause(&self) -> Option<&'static str> {
        let reset = self.0.reset.load(Ordering::Acquire);
        self.0.cut.is_cancelled().then_some(if reset { "reset" } else { "refuse" })
    }

    /// Waits until the connection has to end.
    pub(crate) async fn cut(&self) {
        self.0.cut.cancelled().await;
        if self.0.spared.load(Ordering::Acquire) && !self.0.reset.load(Ordering::Acquire) {
            tokio::time::sleep(GRACE).await;
        }
    }
}

/// The socket of a connection.
#[derive(Debug)]
pub(crate) struct Socket {
    pub(crate) stream: TcpStream,
    pub(crate) line: Line,
}

impl Drop for Socket {
    fn drop(&mut self) {
        let spared = self.line.0.spared.load(Ordering::Acquire);
        if self.line.cause().is_some_and(|cause| cause == "reset" || !spared)
            && let Err(error) = self.stream.set_zero_linger()
        {
            tracing::debug!(%error, "a connection is closed instead of reset");
        }
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        to: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, to)
    }
}

impl AsyncWrite for Socket {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}
