//! The accept loop: every connection is a task of one set, so that ending the server ends them all. An outage that
//! refuses closes the listening socket and cuts every connection.

use std::time::Duration;

use axum::Router;
use http::Request;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tower::util::MapRequest;

use crate::door::Door;
use crate::line::{Line, Socket};
use crate::outage::Follower;

/// How long answers under way may take once the server has been asked to stop.
const GRACE: Duration = Duration::from_secs(3);

/// How long to wait when a connection cannot be accepted, most likely for want of file descriptors, or when the
/// listening socket cannot be opened again.
const BREATH: Duration = Duration::from_millis(50);

/// What serves connections, and those it serves.
struct Serving {
    builder: Builder<TokioExecutor>,
    router: Router,
    graceful: GracefulShutdown,
    connections: JoinSet<()>,
}

/// Serves `router` until `stop`. There are no limits on headers or idle connections: the only clients are our own.
///
/// # Cancel safety
/// Dropping the future aborts every connection.
pub(crate) async fn serve(
    listener: TcpListener,
    router: Router,
    mut outages: Follower,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let mut serving = Serving {
        builder: Builder::new(TokioExecutor::new()),
        router,
        graceful: GracefulShutdown::new(),
        connections: JoinSet::new(),
    };
    let mut door = Door::new(listener)?;
    let mut all = CancellationToken::new();
    loop {
        let window = outages.window();
        // Asked once: the window's time may be over at any moment.
        let refuses = window.refuses();
        if refuses && door.is_open() {
            door.shut();
            std::mem::take(&mut all).cancel();
        } else if !refuses && let Err(error) = door.open() {
            tracing::warn!(%error, "the listening socket cannot be opened again yet");
        }
        let followed = door.is_open() != refuses;
        if followed {
            outages.followed(window.number);
        }
        tokio::select! {
            biased;
            () = stop.cancelled() => break,
            () = outages.changed() => {}
            () = window.over(), if refuses => {}
            () = tokio::time::sleep(BREATH), if !followed => {}
            Some(_) = serving.connections.join_next() => {}
            accepted = door.accept() => match accepted {
                Ok(stream) => serving.accept(stream, Line::new(&all)),
                Err(error) => {
                    tracing::warn!(%error, "a connection was not accepted");
                    tokio::time::sleep(BREATH).await;
                }
            },
        }
    }
    drop(door);
    serving.end().await;
    Ok(())
}

impl Serving {
    fn accept(&mut self, stream: TcpStream, line: Line) {
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "small chunks will leave late");
        }
        let carried = line.clone();
        let service = MapRequest::new(self.router.clone(), move |request| carry(&carried, request));
        let socket = TokioIo::new(Socket { stream, line: line.clone() });
        let connection = self.builder.serve_connection(socket, TowerToHyperService::new(service));
        let connection = self.graceful.watch(connection.into_owned());
        self.connections.spawn(async move {
            tokio::select! {
                biased;
                () = line.cut() => {}
                ended = connection => {
                    if let Err(error) = ended {
                        tracing::debug!(%error, "a connection ended early");
                    }
                }
            }
        });
    }

    async fn end(mut self) {
        if tokio::time::timeout(GRACE, self.graceful.shutdown()).await.is_err() {
            tracing::warn!(connections = self.connections.len(), "answers were cut by the end of the server");
        }
        self.connections.shutdown().await;
    }
}

/// Hands the handlers the connection their request came on.
fn carry<B>(line: &Line, mut request: Request<B>) -> Request<B> {
    request.extensions_mut().insert(line.clone());
    request
}
