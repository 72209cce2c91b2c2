//! The worker's incarnation: one row with a lease, kept alive by a heartbeat.
//!
//! The database decides who holds what. Each heartbeat brings the list of attempts that it thinks are ours: one we do not know
//! is a claim whose reply was lost, and is given back; one of ours that is not listed is stopped. Without an answer for a whole
//! lease nothing new is claimed; running attempts go on, because their finish is fenced. An incarnation that was reaped ends with
//! all its attempts, and a new one begins.

use crate::context::{Context, STORE_PATIENCE, slots};
use shared::{
    backends::Backends,
    events::announce,
    failpoint::{self, Point},
    store::NewWorker,
    task::{TaskId, WorkerId},
};
use std::{
    collections::HashMap,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout};
use tokio_util::sync::CancellationToken;

/// Pause between two tries to register.
const PAUSE: Duration = Duration::from_millis(500);

/// Registers a new incarnation, trying until it succeeds. It may claim from now on.
async fn register(ctx: &Context) -> WorkerId {
    let mut told = false;
    loop {
        let worker = NewWorker {
            id: WorkerId::new(),
            name: format!("{}:{}", host(), std::process::id()),
            slots: ctx.config.worker.slots,
            queues: ctx.config.worker.queues.clone(),
            ttl: ctx.config.lease.ttl,
        };
        match timeout(STORE_PATIENCE, ctx.backends.store.register(&worker)).await {
            Ok(Ok(())) => {
                tracing::info!(worker = %worker.id, slots = worker.slots, "registered");
                failpoint::pass(Point::LeaseRegistered);
                // With its slots more caps may be reached; if this fails, the sweep's look comes a period later.
                let _ = timeout(STORE_PATIENCE, ctx.backends.caps.refresh()).await;
                ctx.worker.send_replace(Some(worker.id));
                return worker.id;
            }
            failed if !told => {
                told = true;
                tracing::warn!(error = ?failed.ok().and_then(Result::err), "cannot register yet");
            }
            _ => {}
        }
        sleep(PAUSE).await;
    }
}

fn host() -> String {
    // Best effort: the name is for people only.
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    if name.trim().is_empty() { "localhost".to_owned() } else { name.trim().to_owned() }
}

/// Keeps an incarnation alive until `stop`.
pub(crate) async fn keep(ctx: Arc<Context>, stop: CancellationToken) {
    let mut worker = tokio::select! {
        () = stop.cancelled() => return,
        worker = register(&ctx) => worker,
    };
    let beating = async {
        let mut beat = Beat { answered: Instant::now(), suspects: HashMap::new(), away: false };
        let mut ticks = interval(ctx.config.lease.heartbeat);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            if !beat.once(&ctx, worker).await {
                ctx.worker.send_replace(None);
                let stopped = ctx.held.stop_unlisted(&[], Instant::now());
                tracing::warn!(%worker, attempts = stopped, "the lease was lost: stopping and starting anew");
                worker = register(&ctx).await;
                beat.answered = Instant::now();
            }
        }
    };
    tokio::select! {
        () = stop.cancelled() => {}
        () = beating => {}
    }
}

struct Beat {
    answered: Instant,
    /// Listed but unknown, and the claim under way when that was seen: its reply may name them yet.
    suspects: HashMap<(TaskId, u32), u64>,
    away: bool,
}

impl Beat {
    /// One heartbeat; `false` if the incarnation was reaped.
    async fn once(&mut self, ctx: &Context, worker: WorkerId) -> bool {
        let lease = ctx.config.lease;
        let sent = Instant::now();
        let running = u32::try_from(count_slots(ctx)).unwrap_or(u32::MAX);
        match timeout(lease.ttl, ctx.backends.store.heartbeat(worker, lease.ttl, running)).await {
            Ok(Ok(None)) => return false,
            Ok(Ok(Some(listed))) => {
                if std::mem::take(&mut self.away) {
                    tracing::info!("heartbeats are answered again");
                }
                failpoint::pass(Point::LeaseAnswered);
                self.answered = sent;
                ctx.worker.send_if_modified(|current| current.replace(worker) != Some(worker));
                let stopped = ctx.held.stop_unlisted(&listed, sent);
                if stopped > 0 {
                    tracing::info!(attempts = stopped, "stopped attempts that are no longer this worker's");
                }
                self.release_unknown(ctx, worker, &listed).await;
            }
            failed => {
                if !std::mem::replace(&mut self.away, true) {
                    tracing::warn!(error = ?failed.ok().and_then(Result::err), "a heartbeat was not answered");
                }
                if self.answered.elapsed() > lease.ttl {
                    ctx.worker.send_if_modified(|current| current.take().is_some());
                }
            }
        }
        true
    }

    async fn release_unknown(&mut self, ctx: &Context, worker: WorkerId, listed: &[(TaskId, u32)]) {
        let round = ctx.claims.load(Ordering::Acquire);
        let unknown = ctx.held.unknown(listed);
        let known = std::mem::take(&mut self.suspects);
        // Even: no claim is under way. A suspect of an earlier round: the claim that could name it is over.
        let over = |attempt: &(TaskId, u32)| {
            round.is_multiple_of(2) || known.get(attempt).is_some_and(|&seen| seen < round)
        };
        let (lost, open): (Vec<_>, Vec<_>) = unknown.into_iter().partition(over);
        self.suspects =
            open.into_iter().map(|attempt| (attempt, *known.get(&attempt).unwrap_or(&round))).collect();
        release(&ctx.backends, worker, &lost).await;
    }
}

/// Gives the number of slots with a call.
fn count_slots(ctx: &Context) -> usize {
    let free = ctx.slots.available_permits() + ctx.reserved.load(Ordering::Acquire);
    let busy = slots(&ctx.config).saturating_sub(free);
    metrics::gauge!("longhaul_worker_slots", "state" => "busy").set(busy as f64);
    metrics::gauge!("longhaul_worker_slots", "state" => "free").set(free as f64);
    busy
}

/// Gives claims back uncharged. Failing that, the reaper finds them.
pub(crate) async fn release(backends: &Backends, worker: WorkerId, claims: &[(TaskId, u32)]) {
    if claims.is_empty() {
        return;
    }
    match timeout(STORE_PATIENCE, backends.store.release(worker, claims)).await {
        Ok(Ok(changes)) => {
            failpoint::pass(Point::LeaseReleased);
            // None: they ended between the look and the release.
            if !changes.is_empty() {
                tracing::info!(%worker, attempts = changes.len(), "gave attempts back");
            }
            let _ = timeout(STORE_PATIENCE, announce(&*backends.events, &changes)).await;
        }
        failed => {
            let error = failed.ok().and_then(Result::err);
            tracing::warn!(?error, attempts = claims.len(), "could not give attempts back");
        }
    }
}

/// Releases whatever the database still lists as this worker's, and takes it off the list.
pub(crate) async fn hand_back(backends: &Backends, worker: WorkerId, ttl: Duration) {
    let store = &backends.store;
    if let Ok(Ok(Some(listed))) = timeout(STORE_PATIENCE, store.heartbeat(worker, ttl, 0)).await {
        release(backends, worker, &listed).await;
    }
    match timeout(STORE_PATIENCE, store.retire(worker)).await {
        Ok(Ok(())) => tracing::info!(%worker, "retired"),
        failed => {
            tracing::warn!(error = ?failed.ok().and_then(Result::err), %worker, "could not retire: the lease runs out")
        }
    }
}
