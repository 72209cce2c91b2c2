//! The pump: permit first, then ids, then one guarded claim, then hand over.
//!
//! An id is popped only for a free slot, so that what waits, waits in the database where everybody sees it. While the queue is
//! away, ready tasks are claimed straight from the database. A lost claim is found by the heartbeat.

use crate::{
    context::{Context, Hold, STORE_PATIENCE},
    tell::has_a_past,
};
use shared::{
    failpoint::{self, Point},
    store::{self, Claimed, Served},
    task::{Change, State, TaskId, WorkerId},
};
use std::{sync::Arc, time::Duration};
use tokio::{
    sync::{OwnedSemaphorePermit, mpsc},
    task::yield_now,
    time::{Instant, sleep, timeout},
};
use tokio_util::sync::CancellationToken;

/// Most tasks of one claim.
const CLAIM_MAX: usize = 256;
/// Longest wait for the first id.
const WAIT: Duration = Duration::from_secs(1);
/// Longest wait for a queue's answer.
const QUEUE_PATIENCE: Duration = Duration::from_secs(1);
/// Pause after an error, and between claims without a doorbell.
const PAUSE: Duration = Duration::from_millis(250);

/// One attempt on its way to its handler. Dropping it frees the slot, whoever drops it.
pub(crate) struct Lease {
    pub(crate) claimed: Claimed,
    /// Stops the attempt.
    pub(crate) stop: CancellationToken,
    /// When the claim was answered: time limits count from here.
    pub(crate) since: Instant,
    /// The failing upstream that this attempt tries.
    pub(crate) trial: Option<Arc<str>>,
    /// The slot: whoever calls the model holds it.
    pub(crate) slot: OwnedSemaphorePermit,
    /// The place in the register, until the end is written.
    pub(crate) hold: Hold,
}

/// A claimed attempt in the register, with its stop.
pub(crate) type Entered = (Claimed, Hold, CancellationToken);

/// What is away, so that an outage is told once.
#[derive(Default)]
struct Outage {
    queue: bool,
    store: bool,
}

/// Claims until `stop`.
pub(crate) async fn pump(ctx: Arc<Context>, hand: mpsc::Sender<Lease>, stop: CancellationToken) {
    let mut outage = Outage::default();
    let mut worker = ctx.worker.subscribe();
    let pumping = async {
        loop {
            while ctx.backends.pauses.open().is_nothing() {
                sleep(PAUSE).await;
            }
            // The incarnation may change while the pump waits for a slot: it is looked up last.
            let slots = free_slots(&ctx).await;
            let reserved = ctx.reserve(slots.num_permits());
            let Ok(id) = worker.wait_for(Option::is_some).await.map(|id| *id) else { return };
            let Some(id) = id else { continue };
            let claimed = next(&ctx, id, slots.num_permits(), &mut outage).await;
            hand_over(&ctx, claimed, slots, &hand, None);
            drop(reserved);
            // Their calls go out before the next ids are asked for.
            yield_now().await;
        }
    };
    // Dropped at any point nothing is lost: popped ids come again with the sweep, a claim without an owner is released.
    tokio::select! {
        () = stop.cancelled() => {}
        () = pumping => {}
    }
}

async fn free_slots(ctx: &Context) -> OwnedSemaphorePermit {
    let mut slots = ctx.slots.clone().acquire_owned().await.expect("the slots are never closed");
    let more = ctx.slots.available_permits().min(CLAIM_MAX - 1);
    if let Ok(more) = ctx.slots.clone().try_acquire_many_owned(u32::try_from(more).unwrap_or(0)) {
        slots.merge(more);
    }
    slots
}

/// Claims for up to `free` slots: what the doorbell names, or what is ready while it is away.
async fn next(ctx: &Context, worker: WorkerId, free: usize, outage: &mut Outage) -> Vec<Entered> {
    let queues = &ctx.config.worker.queues;
    // A queue that hangs must not keep us from the database for long.
    let wait = if outage.queue { WAIT / 20 } else { WAIT };
    let ids = match timeout(wait + QUEUE_PATIENCE, ctx.backends.queue.pop(queues, free, wait)).await {
        Ok(Ok(ids)) => {
            if std::mem::take(&mut outage.queue) {
                tracing::info!("the queue is back");
            }
            Some(ids)
        }
        failed => {
            if !std::mem::replace(&mut outage.queue, true) {
                let error = failed.ok().and_then(Result::err);
                tracing::warn!(?error, "the queue is away: claiming straight from the database");
            }
            None
        }
    };
    if ids.as_ref().is_some_and(Vec::is_empty) {
        return Vec::new();
    }
    failpoint::pass(Point::ClaimPopped);
    let claimed = claim(ctx, worker, ids.as_deref(), free).await;
    let down = claimed.is_err();
    let claimed = claimed.unwrap_or_else(|error| {
        if !outage.store {
            tracing::warn!(?error, "cannot claim: the database is away");
        }
        Vec::new()
    });
    outage.store = down;
    // Where projects have caps, that many ids are left over says nothing: who looks for suspects looks by itself.
    let capped = !ctx.backends.caps.known().is_nobody();
    if ids.as_ref().is_some_and(|ids| !capped && !down && claimed.len() < ids.len()) {
        ctx.suspicion.notify_one();
    }
    if down || (ids.is_none() && claimed.len() < free) {
        sleep(PAUSE).await;
    }
    claimed
}

/// Claims these, or without a doorbell what is ready; then, with the slots that are left, for projects with a cap.
async fn claim(
    ctx: &Context,
    worker: WorkerId,
    ids: Option<&[TaskId]>,
    free: usize,
) -> Result<Vec<Entered>, Option<store::Error>> {
    let (store, served) = (&ctx.backends.store, ctx.backends.served());
    let mut claimed = match ids {
        Some(ids) => entered(ctx, store.claim(worker, ids, &served)).await?,
        None => {
            let limit = u32::try_from(free).unwrap_or(u32::MAX);
            entered(ctx, store.claim_ready(worker, &ctx.config.worker.queues, limit, &served)).await?
        }
    };
    let left = free.saturating_sub(claimed.len());
    if served.capped.is_nobody() || left == 0 {
        return Ok(claimed);
    }
    let mut ids = match ids {
        Some(ids) => ids.to_vec(),
        None => capped(ctx, left, &served).await,
    };
    ids.retain(|id| !claimed.iter().any(|(claimed, ..)| claimed.task == *id));
    ids.truncate(left);
    if !ids.is_empty() {
        let more = entered(ctx, store.claim_capped(worker, &ids, &served)).await;
        claimed.extend(more.unwrap_or_else(|error| {
            tracing::debug!(?error, "no claim for projects with a cap: the database is away");
            Vec::new()
        }));
    }
    Ok(claimed)
}

/// What may run of projects with a cap.
async fn capped(ctx: &Context, limit: usize, served: &Served) -> Vec<TaskId> {
    let limit = u32::try_from(limit).unwrap_or(u32::MAX);
    let ready = ctx.backends.store.ready_capped(&ctx.config.worker.queues, limit, served);
    match timeout(STORE_PATIENCE, ready).await {
        Ok(Ok(bells)) => bells.iter().map(|bell| bell.task).collect(),
        failed => {
            let error = failed.ok().and_then(Result::err);
            tracing::debug!(?error, "no look for tasks of projects with a cap");
            Vec::new()
        }
    }
}

/// Claims, and enters what was claimed into the register; no error means that there was no answer in time.
pub(crate) async fn entered(
    ctx: &Context,
    claim: impl Future<Output = store::Result<Vec<Claimed>>>,
) -> Result<Vec<Entered>, Option<store::Error>> {
    let mut turn = ctx.claim_turn.lock().await;
    let entered = in_turn(ctx, claim).await;
    *turn = Instant::now();
    entered
}

/// As [`entered`], for who holds the turn.
pub(crate) async fn in_turn(
    ctx: &Context,
    claim: impl Future<Output = store::Result<Vec<Claimed>>>,
) -> Result<Vec<Entered>, Option<store::Error>> {
    let claiming = ctx.claiming();
    let claimed = timeout(STORE_PATIENCE, claim).await.map_err(|_| None)?;
    let claimed = failpoint::reply(Point::ClaimReply, claimed).map_err(Some)?;
    if !claimed.is_empty() {
        failpoint::pass(Point::ClaimCommitted);
    }
    // Entered before the claim counts as over: the heartbeat never sees one of them as unknown.
    let entered = claimed.into_iter().map(|claimed| {
        let (hold, stop) = ctx.held.enter(claimed.task, claimed.attempt);
        (claimed, hold, stop)
    });
    let entered = entered.collect();
    drop(claiming);
    Ok(entered)
}

/// Hands claimed attempts to their handlers, each with a slot; one of them tries an upstream.
pub(crate) fn hand_over(
    ctx: &Context,
    claimed: Vec<Entered>,
    mut slots: OwnedSemaphorePermit,
    hand: &mpsc::Sender<Lease>,
    trial: Option<Arc<str>>,
) {
    let is_any = !claimed.is_empty();
    // First, so that what was woken last, which is what runs next, is an attempt.
    // Who must ask the log for its seq says by itself that it has begun.
    let untold = claimed.iter().filter(|(claimed, ..)| !has_a_past(claimed, &*ctx.backends.events));
    ctx.herald.changed(untold.map(|(claimed, ..)| started(claimed)).collect());
    for (claimed, hold, stop) in claimed {
        // More than asked for would be a store's mistake: what has no slot is dropped here and released by the heartbeat.
        let Some(slot) = slots.split(1).or_else(|| ctx.slots.clone().try_acquire_owned().ok()) else {
            continue;
        };
        metrics::histogram!("longhaul_task_wait_seconds").record(claimed.waited.as_secs_f64());
        let lease = Lease { claimed, stop, since: Instant::now(), trial: trial.clone(), slot, hold };
        // The channel has room for every slot; it is closed only when the worker is gone, and then the heartbeat releases.
        if hand.try_send(lease).is_err() {
            tracing::error!("the worker takes no more attempts");
        }
    }
    drop(slots);
    if is_any {
        failpoint::pass(Point::ClaimHanded);
    }
}

/// The change that a claim is.
pub(crate) fn started(claimed: &Claimed) -> Change {
    Change {
        task: claimed.task,
        project: claimed.project,
        batch: claimed.batch,
        attempt: claimed.attempt,
        seq: claimed.last_seq,
        state: State::InProgress,
        at: Some(claimed.started_at),
    }
}
