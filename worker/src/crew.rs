//! What runs beside the attempts: the pump, the heartbeat, the ear for cancels, the catalogue, webhooks, the sweep, health. One that ends
//! unasked ends the worker: a supervisor that starts it again is better than a worker that limps.
//!
//! The end has two stages. `drain`: nothing new is claimed, what has not started is given back, heartbeats go on. `ended`, once no
//! attempt runs: the rest stops, finishes are flushed, and what the database still lists is given back.

use crate::{
    backend::Leases, cancel, catalog, claim, context::Context, lease, listen, probe, quarantine, webhook,
};
use futures_util::FutureExt;
use std::{
    panic::AssertUnwindSafe,
    sync::{Arc, OnceLock},
    time::Duration,
};
use tokio::{sync::mpsc, task::JoinSet, time::timeout};
use tokio_util::sync::CancellationToken;

/// Longest look at the upstreams before the first claim.
const FIRST_LOOK: Duration = Duration::from_secs(2);
/// Longest wait for members to stop and for the last commits.
const PATIENCE: Duration = Duration::from_secs(10);

/// The members and their two signals.
pub(crate) struct Crew {
    members: JoinSet<()>,
    drain: CancellationToken,
    ended: CancellationToken,
    lost: Arc<OnceLock<&'static str>>,
    /// apalis must never see the end of its stream: it would keep a worker that does nothing.
    _spare: mpsc::Sender<claim::Lease>,
}

impl Crew {
    /// Starts everybody; the first claim comes after a look at the upstreams.
    pub(crate) async fn start(
        ctx: &Arc<Context>,
        hand: mpsc::Sender<claim::Lease>,
        leases: Leases,
    ) -> anyhow::Result<Self> {
        let listener = match ctx.config.worker.listen {
            Some(address) => Some(listen::bind(address).await?),
            None => None,
        };
        // A slow upstream is no reason not to serve the others.
        let (pauses, caps) = (&ctx.backends.pauses, &ctx.backends.caps);
        let looks = async { tokio::join!(catalog::note(ctx), pauses.refresh(), caps.refresh()) };
        let _ = timeout(FIRST_LOOK, looks).await;
        let (drain, ended) = (ctx.drain.clone(), CancellationToken::new());
        let mut crew =
            Self { members: JoinSet::new(), drain, ended, lost: Arc::default(), _spare: hand.clone() };
        let (drain, ended) = (crew.drain.clone(), crew.ended.clone());
        crew.join("probes", &drain, probe::keep(ctx.clone(), hand.clone(), drain.clone()));
        crew.join("quarantine", &drain, quarantine::keep(ctx.clone(), hand.clone(), drain.clone()));
        crew.join("pump", &drain, claim_until(ctx.clone(), hand, leases, drain.clone()));
        crew.join("heartbeat", &ended, lease::keep(ctx.clone(), ended.clone()));
        crew.join("cancels", &ended, cancel::listen(ctx.clone(), ended.clone()));
        crew.join("catalogue", &drain, catalog::keep(ctx.clone(), drain.clone()));
        crew.join("webhooks", &ended, webhook::keep(ctx.clone(), ended.clone()));
        crew.join(
            "sweep",
            &ended,
            shared::sweep::run(ctx.backends.clone(), ctx.config.clone(), ended.clone()),
        );
        if let Some(listener) = listener {
            crew.join("health", &ended, listen::serve(listener, ctx.clone(), ended.clone()));
        }
        Ok(crew)
    }

    fn join(
        &mut self,
        name: &'static str,
        until: &CancellationToken,
        member: impl Future<Output = ()> + Send + 'static,
    ) {
        let (drain, until, lost) = (self.drain.clone(), until.clone(), self.lost.clone());
        self.members.spawn(async move {
            // The panic itself has been told by the panic hook.
            let _ = AssertUnwindSafe(member).catch_unwind().await;
            if !until.is_cancelled() {
                tracing::error!(name, "a part of the worker ended unasked: draining");
                let _ = lost.set(name);
                drain.cancel();
            }
        });
    }

    /// Ends the second stage: no attempt runs any more.
    ///
    /// # Errors
    /// The member that ended unasked.
    pub(crate) async fn end(mut self, ctx: Arc<Context>, mut commits: JoinSet<()>) -> anyhow::Result<()> {
        let worker = *ctx.worker.borrow();
        let (backends, ttl) = (ctx.backends.clone(), ctx.config.lease.ttl);
        self.ended.cancel();
        if timeout(PATIENCE, async { while self.members.join_next().await.is_some() {} }).await.is_err() {
            tracing::warn!(members = self.members.len(), "parts of the worker did not stop in time");
            self.members.shutdown().await;
        }
        // With the context the last handle of the group commits goes: they flush and end.
        drop(ctx);
        if timeout(PATIENCE, async { while commits.join_next().await.is_some() {} }).await.is_err() {
            tracing::warn!("the last finishes could not be written: the attempts are repeated");
        }
        if let Some(worker) = worker {
            lease::hand_back(&backends, worker, ttl).await;
        }
        match self.lost.get() {
            Some(name) => Err(anyhow::anyhow!("the worker's {name} ended unasked")),
            None => Ok(()),
        }
    }
}

/// The pump, and then the way back for what it claimed and nobody has started.
async fn claim_until(
    ctx: Arc<Context>,
    hand: mpsc::Sender<claim::Lease>,
    leases: Leases,
    drain: CancellationToken,
) {
    claim::pump(ctx.clone(), hand, drain).await;
    let unstarted: Vec<_> = std::iter::from_fn(|| leases.take_back()).collect();
    let claims: Vec<_> = unstarted.iter().map(|lease| (lease.claimed.task, lease.claimed.attempt)).collect();
    let worker = *ctx.worker.borrow();
    if let Some(worker) = worker {
        lease::release(&ctx.backends, worker, &claims).await;
    }
}
