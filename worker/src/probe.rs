//! Tries upstreams that fail again and again: with one task that waits for it, or, where none does, by asking for its list of
//! models. One worker of all tries, once per `worker.probe_period`; its call has a slot of its own.

use crate::{
    catalog,
    claim::{self, Lease},
    context::Context,
};
use std::{sync::Arc, time::Duration};
use tokio::{
    sync::mpsc,
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;

/// Longest pause between two looks for something to try.
const LOOK: Duration = Duration::from_millis(250);
/// Longest wait for a list of models.
const PATIENCE: Duration = Duration::from_secs(5);

/// Tries until `stop`.
pub(crate) async fn keep(ctx: Arc<Context>, hand: mpsc::Sender<Lease>, stop: CancellationToken) {
    let trying = async {
        loop {
            sleep(LOOK.min(ctx.config.worker.probe_period / 4)).await;
            for upstream in ctx.backends.pauses.to_try() {
                one(&ctx, &hand, &upstream).await;
            }
        }
    };
    tokio::select! {
        () = stop.cancelled() => {}
        () = trying => {}
    }
}

async fn one(ctx: &Context, hand: &mpsc::Sender<Lease>, upstream: &str) {
    let Some(server) = ctx.servers.get(upstream) else { return };
    let (Some(worker), Ok(slot)) = (*ctx.worker.borrow(), ctx.trials.clone().try_acquire_owned()) else {
        return;
    };
    if !ctx.backends.pauses.probe(upstream, ctx.config.worker.probe_period).await {
        return;
    }
    let served = ctx.backends.pauses.waiting_for(upstream);
    let claim = ctx.backends.store.claim_ready(worker, &ctx.config.worker.queues, 1, &served);
    match claim::entered(ctx, claim).await {
        Ok(claimed) if claimed.is_empty() => {
            if timeout(PATIENCE, catalog::list(server)).await.is_ok_and(|list| list.is_some()) {
                tracing::info!(upstream, "the upstream lists its models again");
                ctx.backends.pauses.resume(upstream).await;
            }
        }
        Ok(claimed) => {
            tracing::info!(upstream, "a task tries the upstream");
            claim::hand_over(ctx, claimed, slot, hand, Some(server.name.clone()));
        }
        Err(error) => tracing::debug!(?error, upstream, "not tried: the database is away"),
    }
}
