//! Whether an upstream is well, judged by what its calls come to.
//!
//! `worker.breaker_failures` failures in a row pause it for everyone; then one caller per `worker.probe_period` tries it
//! (`probe.rs`), until one succeeds. An upstream that asks for fewer requests is paused for the time that it names. What goes wrong
//! while it is failing says nothing about the task, and is not charged.

use crate::{
    classify::{Failure, Kind},
    context::Context,
    upstream::{Reply, client::Server},
};
use shared::task::{Backoff, full_jitter};
use std::{
    sync::atomic::{AtomicU32, Ordering::Relaxed},
    time::Duration,
};

/// Pauses for throttles without a time, one after the other.
const UNNAMED: Backoff = Backoff { base: Duration::from_millis(250), max: Duration::from_secs(30) };

/// Waits that differ by less are the same.
const SAME: Duration = Duration::from_millis(100);

/// What this worker remembers of an upstream.
#[derive(Debug, Default)]
pub(crate) struct Pulse {
    /// Failures since the last answer.
    failures: AtomicU32,
    /// Pauses for throttles since the last answer that was none.
    throttles: AtomicU32,
}

impl Pulse {
    /// The next failure pauses the upstream: it lists its models, which is no proof that it generates.
    pub(crate) fn doubt(&self, limit: u32) {
        self.failures.store(limit.saturating_sub(1), Relaxed);
    }
}

/// Takes note of what a call came to, and excuses the task where the failure is the upstream's own.
pub(crate) async fn note(ctx: &Context, server: &Server, outcome: &mut Result<Reply, Failure>) {
    let (pauses, pulse, name) = (&ctx.backends.pauses, &server.pulse, &*server.name);
    match outcome {
        Err(Failure { kind: Kind::Throttled(asked), .. }) => {
            pulse.failures.store(0, Relaxed);
            throttled(ctx, server, *asked).await;
        }
        Err(failure @ Failure { kind: Kind::Transient | Kind::Away, .. }) => {
            let (failures, limit) =
                (pulse.failures.fetch_add(1, Relaxed).saturating_add(1), ctx.config.worker.breaker_failures);
            if failures > limit && !pauses.is_failing(name) {
                // Another worker has found it well since: the count begins anew.
                pulse.failures.store(1, Relaxed);
            } else if failures == limit && !pauses.is_failing(name) {
                tracing::warn!(
                    upstream = name,
                    failures,
                    code = failure.code.as_str(),
                    "the upstream fails again and again: paused"
                );
                metrics::counter!("longhaul_upstream_breaks_total", "upstream" => server.name.to_string())
                    .increment(1);
                pauses.pause(name, ctx.config.worker.probe_period, true).await;
            }
            if pauses.is_failing(name) {
                // Past the next trial, which is another task's turn.
                failure.kind = Kind::Throttled(Some(ctx.config.worker.probe_period.mul_f64(1.5)));
            }
        }
        // It answered, if only to refuse.
        Ok(_) | Err(Failure { kind: Kind::Permanent | Kind::Deadline, .. }) => {
            pulse.failures.store(0, Relaxed);
            pulse.throttles.store(0, Relaxed);
            if pauses.is_failing(name) {
                tracing::info!(upstream = name, "the upstream is well again");
                pauses.resume(name).await;
            }
        }
    }
}

/// One pause for all that were turned away by the same moment.
async fn throttled(ctx: &Context, server: &Server, asked: Option<Duration>) {
    let (pauses, name) = (&ctx.backends.pauses, &*server.name);
    if pauses.is_failing(name) {
        pauses.resume(name).await;
    }
    let wait = match asked {
        // Somebody else was told as much.
        Some(wait) if pauses.left([name].into_iter()) + SAME >= wait => return,
        Some(wait) => wait,
        None if pauses.may_call(name) => {
            let throttles = server.pulse.throttles.fetch_add(1, Relaxed).saturating_add(1);
            full_jitter(UNNAMED, throttles, 1.0)
        }
        None => return,
    };
    tracing::info!(upstream = name, ?wait, "the upstream asked for fewer requests: paused");
    pauses.pause(name, wait, false).await;
}
