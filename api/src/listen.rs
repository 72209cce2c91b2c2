//! The accept loop: what the framework's own leaves open is closed here.
//!
//! A connection has `header_timeout` for its first request's head and `idle_timeout` for later ones, so that a caller who says
//! nothing holds nothing for long; a TLS handshake has as long again. A body has to arrive ([`crate::slow_body`]), and an answer has to
//! be taken: the kernel ends a connection whose other end has taken nothing for `write_timeout`, and [`crate::taken`] a stream of HTTP/2. At most `connections_max` are open;
//! more wait in the kernel's backlog. On `stop` the door closes at once, running requests have `grace`, and what is left is dropped.

use crate::{
    gate::Peer,
    slow_body::SlowBody,
    taken::{Pieces, Watching},
    tls::Tls,
};
use axum::{Router, body::Body};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    server::conn::auto::Builder,
};
use shared::config;
#[cfg(target_os = "linux")]
use socket2::SockRef;
use std::{convert::Infallible, io, net::SocketAddr, pin::pin, sync::Arc, time::Duration};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
    task::JoinSet,
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;
use tower::Service;

/// Requests at once on one HTTP/2 connection.
const H2_STREAMS_MAX: u32 = 256;
/// Period of HTTP/2 pings, and how long one may stay unanswered.
const H2_PING: Duration = Duration::from_secs(20);
/// Pause after an accept that failed: usually there are no file descriptors left, and asking again at once gives none.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Serves `router` on `listener` until `stop`, then drains.
pub(crate) async fn listen(
    listener: TcpListener,
    router: Router,
    api: &config::Api,
    tls: Option<Tls>,
    stop: CancellationToken,
) {
    let permits = Arc::new(Semaphore::new(api.connections_max));
    let server = Arc::new(server(api));
    let mut connections = JoinSet::new();
    loop {
        let next = accept(&listener, &permits, api.write_timeout);
        let (stream, peer, permit) = tokio::select! {
            () = stop.cancelled() => break,
            Some(_) = connections.join_next() => continue,
            accepted = next => match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::warn!(error = &error as &dyn std::error::Error, "a connection could not be accepted");
                    sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            },
        };
        let (server, router, stop) = (server.clone(), router.clone(), stop.clone());
        let patience = Patience { first_head: api.header_timeout, body: api.body_timeout };
        let acceptor = tls.as_ref().map(Tls::acceptor);
        connections.spawn(async move {
            match acceptor {
                None => connection(&server, router, stream, peer, patience, stop).await,
                Some(acceptor) => match timeout(patience.first_head, acceptor.accept(stream)).await {
                    Ok(Ok(stream)) => connection(&server, router, stream, peer, patience, stop).await,
                    failed => {
                        let error = failed.ok().and_then(Result::err);
                        tracing::debug!(%peer, ?error, "no TLS with this caller");
                    }
                },
            }
            drop(permit);
        });
    }
    drop(listener);
    let drained = async { while connections.join_next().await.is_some() {} };
    if timeout(api.grace, drained).await.is_err() {
        tracing::warn!(
            connections = connections.len(),
            "closed connections that were still busy after the grace time"
        );
        connections.shutdown().await;
    }
}

/// How long a caller may take.
#[derive(Clone, Copy)]
struct Patience {
    first_head: Duration,
    body: Duration,
}

type Accepted = (TcpStream, SocketAddr, OwnedSemaphorePermit);

/// The permit comes first: a connection that cannot be served stays with the kernel.
///
/// # Cancel safety
/// Dropping the future loses nothing.
async fn accept(
    listener: &TcpListener,
    permits: &Arc<Semaphore>,
    write_timeout: Duration,
) -> io::Result<Accepted> {
    let permit = permits.clone().acquire_owned().await.map_err(io::Error::other)?;
    let (stream, peer) = listener.accept().await?;
    stream.set_nodelay(true)?;
    // Only the kernel sees whether the other end takes what was written, be it a byte.
    #[cfg(target_os = "linux")]
    SockRef::from(&stream).set_tcp_user_timeout(Some(write_timeout))?;
    Ok((stream, peer, permit))
}

fn server(api: &config::Api) -> Builder<Watching> {
    let mut builder = Builder::new(Watching { limit: api.write_timeout });
    builder.http1().timer(TokioTimer::new()).header_read_timeout(api.idle_timeout);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(H2_STREAMS_MAX)
        .keep_alive_interval(H2_PING)
        .keep_alive_timeout(H2_PING);
    builder
}

async fn connection(
    server: &Builder<Watching>,
    router: Router,
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    peer: SocketAddr,
    patience: Patience,
    stop: CancellationToken,
) {
    let begun = CancellationToken::new();
    let service = service_fn(|mut request: http::Request<Incoming>| {
        begun.cancel();
        request.extensions_mut().insert(Peer(peer));
        let answer = router.clone().call(request.map(|body| Body::new(SlowBody::new(body, patience.body))));
        async { Ok::<_, Infallible>(answer.await?.map(Pieces::new)) }
    });
    let mut serving = pin!(server.serve_connection_with_upgrades(TokioIo::new(stream), service));
    let silent = async {
        if timeout(patience.first_head, begun.cancelled()).await.is_ok() {
            std::future::pending::<()>().await;
        }
    };
    let ended = tokio::select! {
        ended = serving.as_mut() => ended,
        () = silent => return,
        () = stop.cancelled() => {
            serving.as_mut().graceful_shutdown();
            serving.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%peer, error = error.as_ref() as &dyn std::error::Error, "a connection ended early");
    }
}
