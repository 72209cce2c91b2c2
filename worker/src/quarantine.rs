//! Tasks that took their worker down twice, and may do it again: the third time should be their own doing, and hurt nobody else.
//!
//! A crash is charged to every task that its worker held. So a suspect is not claimed with others ([`Store::claim`] leaves it), and
//! starts alone: no attempt beside it is young, and none starts until it is old itself or has ended. What crashes usually does
//! so soon; to wait for long calls to end would be to starve the suspect. What crashes later beside it is still charged to it: a
//! task that kills slowly must not go on for ever. One worker runs one suspect at a time.
//!
//! [`Store::claim`]: shared::store::Store::claim

use crate::{
    claim::{self, Lease, Start},
    context::{Context, STORE_PATIENCE},
};
use shared::task::TaskId;
use std::{pin::pin, sync::Arc, time::Duration};
use tokio::{
    sync::mpsc,
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;

/// Lists of doubtful ids on their way; what finds no room is rung for again.
pub(crate) const DOUBTS: usize = 64;
/// How long an attempt is young.
const YOUNG: Duration = Duration::from_secs(5);
/// Between two looks whether a suspect has ended.
const LOOK: Duration = Duration::from_millis(20);

/// Runs an attempt; its part in the right to start is given back when it is old.
///
/// # Cancel safety
/// As that of `work`.
pub(crate) async fn young<T>(start: Start, work: impl Future<Output = T>) -> T {
    let mut work = pin!(work);
    tokio::select! {
        biased;
        done = &mut work => return done,
        () = sleep(YOUNG) => drop(start),
    }
    work.await
}

/// Runs suspects, one by one, until `stop`.
pub(crate) async fn keep(
    ctx: Arc<Context>,
    hand: mpsc::Sender<Lease>,
    mut doubtful: mpsc::Receiver<Vec<TaskId>>,
    stop: CancellationToken,
) {
    let running = async {
        while let Some(ids) = doubtful.recv().await {
            let served = ctx.backends.pauses.served();
            match timeout(STORE_PATIENCE, ctx.backends.store.suspects(&ids, &served)).await {
                Ok(Ok(suspects)) => {
                    for id in suspects {
                        one(&ctx, &hand, id).await;
                    }
                }
                failed => {
                    let error = failed.ok().and_then(Result::err);
                    tracing::debug!(?error, "no look for suspects: the database is away");
                }
            }
        }
    };
    // Dropped before the claim nothing is lost, and after it the attempt is handed over without a pause between.
    tokio::select! {
        () = stop.cancelled() => {}
        () = running => {}
    }
}

async fn one(ctx: &Context, hand: &mpsc::Sender<Lease>, id: TaskId) {
    let Ok(slot) = ctx.slots.clone().acquire_owned().await else { return };
    let start: Start = Arc::new(ctx.starts.clone().write_owned().await);
    let Some(worker) = *ctx.worker.borrow() else { return };
    let served = ctx.backends.pauses.served();
    let claim = async {
        let claimed = ctx.backends.store.claim_suspect(worker, id, &served).await?;
        Ok(claimed.into_iter().collect())
    };
    let claimed = match claim::entered(ctx, claim).await {
        Ok(claimed) => claimed,
        Err(error) => return tracing::debug!(?error, "no claim of a suspect: the database is away"),
    };
    let Some((task, attempt)) = claimed.first().map(|(claimed, ..)| (claimed.task, claimed.attempt)) else {
        return;
    };
    tracing::info!(%task, attempt, "a task that took workers down is tried alone");
    claim::hand_over(ctx, claimed, slot, hand, None, &start);
    drop(start);
    while ctx.held.has(task, attempt) {
        sleep(LOOK).await;
    }
}
