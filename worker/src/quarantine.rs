//! Tasks whose worker died twice: the next time it must be clear who has done it.
//!
//! A crash is charged to every task that its worker held, and most of them were only there. So a suspect is not claimed with others
//! ([`Store::claim`] leaves it): nothing else starts for [`START_GAP`] before it, and for a while after it. What crashes usually does so
//! at once, and then nobody but the suspect can have done it: that crash counts against it ([`Store::reap`]). One that goes down beside
//! later starts comes back, and has a longer while, four times as long with each crash: whatever takes workers down late is alone with
//! its deed in the end, and who is only unlucky completes.
//!
//! [`Store::claim`]: shared::store::Store::claim
//! [`Store::reap`]: shared::store::Store::reap

use crate::{
    claim::{self, Lease},
    context::{Context, STORE_PATIENCE},
};
use shared::store::{START_GAP, SUSPECT_CRASHES};
use std::{sync::Arc, time::Duration};
use tokio::{
    sync::mpsc,
    time::{Instant, sleep, sleep_until, timeout},
};
use tokio_util::sync::CancellationToken;

/// Starts suspects, one after the other, until `stop`.
pub(crate) async fn keep(ctx: Arc<Context>, hand: mpsc::Sender<Lease>, stop: CancellationToken) {
    let running = async {
        loop {
            // Without a word from the pump there is a look all the same: the queue may be away.
            let _ = timeout(ctx.config.sweep_period, ctx.suspicion.notified()).await;
            while is_one_there(&ctx).await && one(&ctx, &hand).await {}
        }
    };
    // Dropped before the claim nothing is lost, and after it the attempt is handed over without a pause between.
    tokio::select! {
        () = stop.cancelled() => {}
        () = running => {}
    }
}

async fn is_one_there(ctx: &Context) -> bool {
    let served = ctx.backends.served();
    let looking = ctx.backends.store.has_suspects(&ctx.config.worker.queues, &served);
    match timeout(STORE_PATIENCE, looking).await {
        Ok(Ok(there)) => there,
        failed => {
            let error = failed.ok().and_then(Result::err);
            tracing::debug!(?error, "no look for suspects: the database is away");
            false
        }
    }
}

/// Starts the first suspect, and lets nothing else start for a while; `false` if there was none to be had.
async fn one(ctx: &Context, hand: &mpsc::Sender<Lease>) -> bool {
    let Ok(slot) = ctx.slots.clone().acquire_owned().await else { return false };
    let mut turn = ctx.claim_turn.lock().await;
    sleep_until(*turn + START_GAP).await;
    let Some(worker) = *ctx.worker.borrow() else { return false };
    let served = ctx.backends.served();
    let claim = async {
        let claimed = ctx.backends.store.claim_suspect(worker, &ctx.config.worker.queues, &served).await?;
        Ok(claimed.into_iter().collect())
    };
    let claimed = claim::in_turn(ctx, claim).await.unwrap_or_else(|error| {
        tracing::debug!(?error, "no claim of a suspect: the database is away");
        Vec::new()
    });
    *turn = Instant::now();
    let suspect = claimed.first().map(|(claimed, ..)| (claimed.task, claimed.attempt, claimed.crashes));
    let Some((task, attempt, crashes)) = suspect else { return false };
    tracing::info!(%task, attempt, "a task that took workers down is tried alone");
    claim::hand_over(ctx, claimed, slot, hand, None);
    // Over or not: afterwards others start.
    let _ = timeout(quiet(crashes).saturating_sub(START_GAP), ctx.held.over(task, attempt)).await;
    sleep(START_GAP).await;
    true
}

/// How long a suspect is the last one that has started, if it does not end before.
fn quiet(crashes: u32) -> Duration {
    let doublings = 2 * crashes.saturating_sub(SUSPECT_CRASHES);
    START_GAP.saturating_mul(1_u32.checked_shl(doublings).unwrap_or(u32::MAX))
}
