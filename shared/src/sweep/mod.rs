//! What walks behind every task, in every process, once a second: it takes no input, is safe to run twice, and mends whatever
//! a lost message, a lost process or the mere passing of time has left. One file per duty.
//!
//! Duties stand in the order in which they help each other: what becomes ready is rung for in the same round.

mod batches;
mod due;
mod expire;
mod logs;
mod reap;
mod refill;
mod retention;

use crate::{backends::Backends, config::Config, queue, store, task::Change};
use std::{sync::Arc, time::Duration};
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

/// Rows of one call: small enough that no call holds locks for long.
const LIMIT: u32 = 500;
/// Calls of one duty in one round, while they come back full.
const CALLS_MAX: usize = 8;
/// Longest wait for one call of a store.
const PATIENCE: Duration = Duration::from_secs(10);
/// Longest wait for queue and events: short, because while they hang the database is what counts.
const PATIENCE_BELL: Duration = Duration::from_secs(1);
/// Between two rounds of retention: nobody waits for it.
const RETENTION_PERIOD: Duration = Duration::from_secs(60);

/// Periods between two looks at a few event logs.
const LOGS_EVERY: u32 = 5;

/// Why a round was cut short.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error(transparent)]
    Store(#[from] store::Error),
    #[error("no answer within {PATIENCE:?}")]
    Slow(#[from] tokio::time::error::Elapsed),
}

/// Whether a call came back full, so that there may be more.
type Step = Result<bool, Error>;

/// Walks until `stop`.
pub async fn run(backends: Backends, config: Arc<Config>, stop: CancellationToken) {
    let (to_fill, windows) = (backends.clone(), config.clone());
    let mut sweep = Sweep {
        backends,
        judge: reap::Judge::new(config.lease.ttl, Instant::now()),
        forgotten: Instant::now(),
        logs: (0, Instant::now()),
        away: false,
        config,
    };
    let walking = async {
        loop {
            sweep.round().await;
            sleep(uneven(sweep.config.sweep_period)).await;
        }
    };
    tokio::select! {
        () = stop.cancelled() => {}
        () = walking => {}
        () = refill::walk(&to_fill, &windows) => {}
    }
}

/// ± 20 %, so that processes that started together do not walk together.
fn uneven(period: Duration) -> Duration {
    period.mul_f64(0.8 + 0.4 * fastrand::f64())
}

struct Sweep {
    backends: Backends,
    config: Arc<Config>,
    judge: reap::Judge,
    forgotten: Instant,
    /// Where the look for left-over event logs goes on, and when it last went.
    logs: (u64, Instant),
    away: bool,
}

impl Sweep {
    async fn round(&mut self) {
        match self.duties().await {
            Ok(()) if std::mem::take(&mut self.away) => tracing::info!("the sweep is back"),
            Ok(()) => {}
            Err(error) if !std::mem::replace(&mut self.away, true) => {
                tracing::warn!(error = &error as &dyn std::error::Error, "the sweep waits for the database");
            }
            Err(_) => {}
        }
    }

    async fn duties(&mut self) -> Result<(), Error> {
        let Self { backends, config, judge, forgotten, logs, .. } = self;
        timeout(PATIENCE, backends.pauses.refresh()).await??;
        timeout(PATIENCE, backends.caps.refresh()).await??;
        if judge.may_judge(Instant::now()) {
            full(|| reap::step(backends, config)).await?;
        }
        full(|| expire::step(backends)).await?;
        full(|| due::step(backends)).await?;
        judge.answered(Instant::now());
        full(|| batches::cancel(backends)).await?;
        full(|| batches::close(backends)).await?;
        judge.answered(Instant::now());
        if forgotten.elapsed() >= RETENTION_PERIOD {
            full(|| retention::step(backends, config)).await?;
            *forgotten = Instant::now();
        }
        if logs.1.elapsed() >= LOGS_EVERY * config.sweep_period {
            *logs = (logs::step(backends, logs.0).await?, Instant::now());
        }
        Ok(())
    }
}

/// Repeats a duty while it comes back full, a few times: the other duties want their turn.
async fn full<F: Future<Output = Step>>(step: impl Fn() -> F) -> Result<(), Error> {
    for _ in 0..CALLS_MAX {
        if !step().await? {
            break;
        }
    }
    Ok(())
}

/// Rings, best effort: what is not taken in is refilled. Tells whether the queue heard.
async fn ring(backends: &Backends, bells: &[store::Bell]) -> bool {
    if bells.is_empty() {
        return true;
    }
    match timeout(PATIENCE_BELL, backends.queue.push(bells)).await {
        Ok(Ok(_)) => true,
        failed => {
            unheard(failed.ok().and_then(Result::err), bells.len());
            false
        }
    }
}

fn unheard(error: Option<queue::Error>, bells: usize) {
    tracing::debug!(?error, bells, "the queue did not hear: refilled later");
}

/// Tells the watchers, best effort.
async fn tell(backends: &Backends, changes: &[Change]) {
    if timeout(PATIENCE_BELL, crate::events::announce(&*backends.events, changes)).await.is_err() {
        tracing::debug!(changes = changes.len(), "watchers learn of changes later");
    }
}

fn is_full(len: usize) -> bool {
    len >= LIMIT as usize
}
