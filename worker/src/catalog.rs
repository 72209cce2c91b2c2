//! Notes which models each upstream lists, for the API's checks and for the routes taken here.

use crate::{
    context::{Context, STORE_PATIENCE},
    upstream::client::Server,
};
use futures_util::future::join_all;
use http::Method;
use serde::Deserialize;
use shared::{catalog::ANY, config::Upstream, store::UpstreamModels};
use std::{sync::Arc, time::Duration};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

/// Between two looks at upstreams that answer.
const PERIOD: Duration = Duration::from_secs(30);
/// Between two looks while one does not.
const PERIOD_DOWN: Duration = Duration::from_secs(5);
/// Longest wait for a list.
const PATIENCE: Duration = Duration::from_secs(5);
/// Longest list.
const BYTES_MAX: usize = 4 << 20;

#[derive(Deserialize)]
struct List {
    data: Vec<Model>,
}

#[derive(Deserialize)]
struct Model {
    id: String,
}

/// Looks at all upstreams; whether all of them answered.
pub(crate) async fn note(ctx: &Context) -> bool {
    let notes: Arc<[UpstreamModels]> =
        join_all(ctx.config.upstreams.iter().map(|upstream| one(ctx, upstream))).await.into();
    let complete = notes.iter().all(|note| note.models.is_some());
    for UpstreamModels { upstream, models } in notes.iter() {
        let before = ctx
            .noted
            .borrow()
            .iter()
            .find(|note| note.upstream == *upstream)
            .map(|note| note.models.is_some());
        if before.unwrap_or(true) != models.is_some() {
            tracing::info!(upstream, available = models.is_some(), "the upstream's list of models");
        }
        let put = ctx.backends.store.put_models(upstream, models.as_deref());
        match timeout(STORE_PATIENCE, put).await {
            Ok(Ok(())) => {}
            failed => {
                tracing::debug!(error = ?failed.ok().and_then(Result::err), upstream, "models are noted later")
            }
        }
    }
    ctx.backends.pauses.note(notes.clone());
    ctx.noted.send_replace(notes);
    complete
}

async fn one(ctx: &Context, upstream: &Upstream) -> UpstreamModels {
    let mut models = match ctx.servers.get(&upstream.name) {
        Some(server) => timeout(PATIENCE, list(server)).await.ok().flatten(),
        None => None,
    };
    if let Some(models) = models.as_mut().filter(|_| upstream.any_model) {
        models.push(ANY.to_owned());
    }
    UpstreamModels { upstream: upstream.name.clone(), models }
}

/// The upstream's models; `None` if there is no list to be had: then the upstream decides call by call.
async fn list(server: &Server) -> Option<Vec<String>> {
    let mut response = server.request(Method::GET, "/v1/models").send().await.ok()?;
    if !response.status().is_success() {
        return None;
    }
    let mut body = Vec::new();
    while let Some(piece) = response.chunk().await.ok()? {
        if body.len() + piece.len() > BYTES_MAX {
            return None;
        }
        body.extend_from_slice(&piece);
    }
    let list: List = serde_json::from_slice(&body).ok()?;
    Some(list.data.into_iter().map(|model| model.id).collect())
}

/// Whether the upstream answers at all, be it that it has no list.
pub(crate) async fn is_alive(server: &Server) -> bool {
    let asked = timeout(PATIENCE, server.request(Method::GET, "/v1/models").send()).await;
    asked.is_ok_and(|answer| answer.is_ok_and(|answer| !answer.status().is_server_error()))
}

/// Looks again and again until `stop`.
pub(crate) async fn keep(ctx: Arc<Context>, stop: CancellationToken) {
    let looking = async {
        loop {
            let complete = note(&ctx).await;
            let period = if complete { PERIOD } else { PERIOD_DOWN };
            sleep(period).await;
        }
    };
    tokio::select! {
        () = stop.cancelled() => {}
        () = looking => {}
    }
}
