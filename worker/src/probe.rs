//! Tries upstreams that fail again and again: with one task that waits for it, or, where none does, by asking for its list of
//! models; where these say nothing, the pause ends and the next call tries it. One worker of all tries, once per `worker.probe_period`; its call has a slot of its own.
//!
//! The task is drawn by lot from those in front: some requests fail wherever they are sent, and must not keep the others waiting.

use crate::{
    catalog,
    claim::{self, Lease},
    context::{Context, STORE_PATIENCE},
    upstream::client::Server,
};
use futures_util::future::join_all;
use shared::{
    store::{self, Cause, Scope, Served},
    task::TaskId,
};
use std::{sync::Arc, time::Duration};
use tokio::{
    sync::mpsc,
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;

/// Longest pause between two looks for something to try.
const LOOK: Duration = Duration::from_millis(250);
/// Tasks of each queue that the lot is drawn from.
const FRONT: u32 = 64;

/// Tries until `stop`.
pub(crate) async fn keep(ctx: Arc<Context>, hand: mpsc::Sender<Lease>, stop: CancellationToken) {
    let trying = async {
        loop {
            sleep(LOOK.min(ctx.config.worker.probe_period / 4)).await;
            let to_try = ctx.backends.pauses.to_try();
            let servers = to_try.iter().filter_map(|scope| Some((scope, ctx.servers.get(&scope.upstream)?)));
            join_all(servers.map(|(scope, server)| one(&ctx, &hand, server, scope))).await;
        }
    };
    tokio::select! {
        () = stop.cancelled() => {}
        () = trying => {}
    }
}

async fn one(ctx: &Context, hand: &mpsc::Sender<Lease>, server: &Server, scope: &Scope) {
    let (upstream, model) = (&*server.name, scope.model.as_deref());
    let (Some(worker), Ok(slot)) = (*ctx.worker.borrow(), server.trial.clone().try_acquire_owned()) else {
        return;
    };
    let open = Arc::new(ctx.backends.pauses.waiting_for(scope));
    let served = Served { open, capped: ctx.backends.caps.known() };
    let listed = is_told_by_its_list(ctx, scope);
    let drawn = match draw(ctx, &served).await {
        Ok(drawn) => drawn,
        Err(error) => return tracing::debug!(?error, upstream, "not tried: the database is away"),
    };
    if !ctx.backends.pauses.probe(scope, ctx.config.worker.probe_period).await {
        return;
    }
    let claimed = match drawn {
        None => Ok(Vec::new()),
        Some(id) => claim::entered(ctx, ctx.backends.store.claim(worker, &[id], &served)).await,
    };
    match claimed {
        // Nobody waits for it, or only tasks that no other may run beside.
        Ok(claimed) if claimed.is_empty() => {
            if !listed || catalog::is_alive(server).await {
                match listed {
                    true => tracing::info!(upstream, model, "the upstream answers again"),
                    // Those that wait may run only so many at once, or alone, or ask it to moderate.
                    false => tracing::debug!(upstream, model, "no task can be drawn: the next one tries it"),
                }
                server.pulse.doubt(model, ctx.config.worker.breaker_failures);
                ctx.backends.pauses.resume(scope).await;
            }
        }
        Ok(claimed) => {
            tracing::info!(upstream, model, tasks = claimed.len(), "a task tries the upstream");
            claim::hand_over(ctx, claimed, slot, hand, Some(server.name.clone()));
        }
        Err(error) => tracing::debug!(?error, upstream, "not tried: the database is away"),
    }
}

/// Whether an upstream that lists its models may be well again. One that refuses a key, or loads a model, may list them all the same.
fn is_told_by_its_list(ctx: &Context, scope: &Scope) -> bool {
    let failing = ctx.backends.pauses.failing(&scope.upstream, scope.model.as_deref().unwrap_or_default());
    let silent = |cause| matches!(cause, Cause::Credentials | Cause::Unavailable);
    !failing.iter().any(|(failing, cause)| failing == scope && silent(*cause))
}

/// One of the tasks in front that wait for it.
async fn draw(ctx: &Context, served: &Served) -> Result<Option<TaskId>, Option<store::Error>> {
    for queue in &ctx.config.worker.queues {
        let ready = timeout(STORE_PATIENCE, ctx.backends.store.ready(queue, FRONT, served)).await;
        let ready = ready.map_err(|_| None)?.map_err(Some)?;
        if !ready.is_empty() {
            return Ok(Some(ready[fastrand::usize(..ready.len())].task));
        }
    }
    Ok(None)
}
