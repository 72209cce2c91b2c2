//! The way in: HTTP from clients to committed tasks, and the news of them back.
//!
//! A connection comes through [`listen`] and the [`gate`]; [`routes`] is the whole table. [`submit`] commits a task and
//! answers 202; [`shared::news`] then rings for it. [`tasks`], [`list`], [`batches`], [`webhooks`] and [`admin`] read
//! and steer. [`stream`], [`ws`] and
//! [`wait`] all stand on [`follow`], which tells every event once and in order, and on the [`watcher`], which looks at the
//! rows so that nothing told in vain stays unknown; dashboards have [`counters`]. Never here: calls to models.

mod admin;
mod bare;
mod batches;
mod browser;
mod catalogue;
mod counters;
mod discard;
mod docs;
mod error;
mod fetch;
mod few;
mod follow;
mod gate;
mod health;
mod held;
mod home;
mod idempotency;
mod identity;
mod judge;
mod limits;
mod lines;
mod list;
mod listen;
mod metadata;
mod models;
mod parse;
mod queues;
mod register;
mod results;
mod routes;
mod shape;
mod slow_body;
mod state;
mod story;
mod stream;
mod submit;
mod taken;
mod tasks;
mod tls;
mod view;
mod wait;
mod wanted;
mod watcher;
mod webhooks;
mod wire;
mod wording;
mod ws;

pub use docs::description_json;

use shared::{backends::Backends, config::Config};
use state::AppState;
use std::sync::Arc;
use tls::Tls;
use tokio::{
    net::TcpListener,
    task::JoinSet,
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;

/// Serves the API on `listener` until `stop`, then drains within the grace time.
///
/// # Errors
/// What made it end without being asked to.
pub async fn serve(
    listener: TcpListener,
    backends: Backends,
    config: Arc<Config>,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let mut tasks = JoinSet::new();
    let address = listener.local_addr()?;
    let app = AppState::start(&mut tasks, backends, config.clone(), address.ip(), stop.clone())?;
    let tls = Tls::start(&mut tasks, &config.api, stop.clone())?;
    tracing::info!(%address, tls = tls.is_some(), "the API listens");
    // Who asks whether we are ready hears no for a while before nobody answers at all.
    let closed = CancellationToken::new();
    let close = async {
        stop.cancelled().await;
        sleep(config.api.drain_delay).await;
        closed.cancel();
    };
    tokio::join!(
        listen::listen(listener, routes::router(app.clone()), &config.api, tls, closed.clone()),
        close
    );
    app.sockets.close();
    let rest = async {
        app.sockets.wait().await;
        // With the last handle gone the last commit is made and told, and the tasks end.
        drop(app);
        while tasks.join_next().await.is_some() {}
    };
    if timeout(config.api.grace, rest).await.is_err() {
        tracing::warn!("ended with work left after the grace time");
    }
    Ok(())
}
