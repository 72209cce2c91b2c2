//! Who is left alone after a call, and what the call's failure means for its task.
//!
//! `pulse.rs` says whose trouble it is. A model or an upstream in trouble is paused for everyone: for as long as it asked, or until a
//! trial succeeds (`probe.rs`, one per `worker.probe_period`). What goes wrong meanwhile says nothing about the task, and is not
//! charged. A task in trouble that is its own waits longer each time, and in the end is charged or fails.

use crate::{
    classify::{Failure, Kind},
    context::Context,
    pulse::{Trouble, Verdict, Width},
    upstream::{Reply, client::Server},
};
use shared::{
    pauses::scope,
    store::{Cause, Scope},
    task::{Backoff, TaskId, full_jitter},
};
use std::time::Duration;
use tokio::time::Instant;

/// The least wait of a throttled model, one after the other.
const FLOOR: Backoff = Backoff { base: Duration::from_millis(500), max: Duration::from_secs(30) };
/// Waits that differ by less are the same.
const SAME: Duration = Duration::from_millis(100);
/// Throttles of a task's own, in a row, that are not charged.
const OWN_THROTTLES: u32 = 3;
/// Refusals of a task's own after which it is taken at its word.
const OWN_REFUSALS: u32 = 2;
/// Most models of an upstream with a pause of their own.
const MODELS_MAX: usize = 64;

/// A call, as far as it matters here.
#[derive(Clone, Copy)]
pub(crate) struct Called<'a> {
    pub(crate) task: TaskId,
    pub(crate) model: &'a str,
    pub(crate) begun: Instant,
    pub(crate) backoff: Backoff,
}

/// Takes note of what a call came to, and judges what its failure means for the task.
pub(crate) async fn note(
    ctx: &Context,
    server: &Server,
    called: Called<'_>,
    outcome: &mut Result<Reply, Failure>,
) {
    let model = &*scope(&server.name, called.model).model.unwrap_or_default();
    let called = Called { model, ..called };
    let failure = match outcome {
        Ok(_) => {
            server.pulse.well(model, called.task, called.begun);
            return recover(ctx, server, model).await;
        }
        Err(failure) => failure,
    };
    let trouble = match failure.kind {
        Kind::Throttled(_) => Trouble::Throttled,
        Kind::TooLarge(_) => Trouble::TooLarge,
        Kind::Refused => Trouble::Refused,
        Kind::Unavailable => Trouble::Unavailable,
        Kind::Away => Trouble::Away,
        Kind::Transient => Trouble::Failed,
        Kind::Permanent | Kind::Deadline | Kind::Later { .. } => {
            server.pulse.refused(model, called.task);
            return recover(ctx, server, model).await;
        }
    };
    let failing = !ctx.backends.pauses.failing(&server.name, model).is_empty();
    let limit = ctx.config.worker.breaker_failures;
    let verdict = server.pulse.trouble(model, called.task, trouble, (limit, failing), Instant::now());
    match failure.kind {
        Kind::Throttled(asked) | Kind::TooLarge(asked) => {
            failure.kind = throttled(ctx, server, called, verdict, asked).await;
        }
        _ => failure.kind = ill(ctx, server, called, verdict, failure).await,
    }
}

/// It answered: whatever failed before does no longer.
async fn recover(ctx: &Context, server: &Server, model: &str) {
    let pauses = &ctx.backends.pauses;
    for (scope, _) in pauses.failing(&server.name, model) {
        let (upstream, model) = (&*scope.upstream, scope.model.as_deref());
        tracing::info!(upstream, model, "the upstream is well again");
        pauses.resume(&scope).await;
    }
}

/// What is to be paused.
fn wide(ctx: &Context, server: &Server, model: &str, width: Width) -> Scope {
    match width {
        Width::Model if ctx.backends.pauses.models(&server.name) < MODELS_MAX => scope(&server.name, model),
        _ => Scope::upstream(&server.name),
    }
}

async fn throttled(
    ctx: &Context,
    server: &Server,
    called: Called<'_>,
    verdict: Verdict,
    asked: Option<Duration>,
) -> Kind {
    let (pauses, name) = (&ctx.backends.pauses, &*server.name);
    // Who asks for fewer requests is there.
    recover(ctx, server, called.model).await;
    let asked = asked.unwrap_or_default();
    if let Some(width) = verdict.width {
        let left = pauses.left([name].into_iter(), called.model);
        // Somebody else was told as much, or nobody was told a time and the pause goes on.
        if left.is_zero() || left + SAME < asked {
            let floor = grown(FLOOR, server.pulse.throttle(called.model));
            let (scope, wait) = (wide(ctx, server, called.model, width), asked.max(floor));
            let model = scope.model.as_deref();
            tracing::info!(upstream = name, model, ?wait, "the upstream asked for fewer requests: paused");
            pauses.pause(&scope, wait, Cause::Throttled).await;
        }
    }
    let left = pauses.left([name].into_iter(), called.model);
    let wait = match verdict.width {
        Some(_) => left,
        None => left.max(asked).max(grown(called.backoff, verdict.alone)),
    };
    Kind::Later { wait, charged: verdict.own > OWN_THROTTLES }
}

/// A failure, a refusal or an absence.
async fn ill(
    ctx: &Context,
    server: &Server,
    called: Called<'_>,
    verdict: Verdict,
    failure: &Failure,
) -> Kind {
    let (pauses, period) = (&ctx.backends.pauses, ctx.config.worker.probe_period);
    let cause = match failure.kind {
        Kind::Refused => Cause::Credentials,
        Kind::Unavailable => Cause::Unavailable,
        Kind::Away => Cause::Unreachable,
        _ => Cause::Failing,
    };
    match (cause, verdict.own) {
        (Cause::Credentials, OWN_REFUSALS..) => return Kind::Permanent,
        (Cause::Unavailable, 1..) => return Kind::Transient,
        _ => {}
    }
    let failing = pauses.failing(&server.name, called.model);
    if let Some(width) = verdict.width {
        let wide = failing
            .first()
            .map_or_else(|| wide(ctx, server, called.model, width), |(scope, _)| scope.clone());
        if failing.iter().all(|(_, known)| *known != cause) {
            // Calls that fail at the same time all come here.
            if pauses.pause(&wide, period, cause).await {
                warn(&wide, cause, failure);
                metrics::counter!("longhaul_upstream_breaks_total", "upstream" => server.name.to_string())
                    .increment(1);
            }
        }
    }
    if !pauses.failing(&server.name, called.model).is_empty() {
        // Past the next trial, which is another task's turn.
        return Kind::Later { wait: period.mul_f64(1.5), charged: false };
    }
    match cause {
        Cause::Credentials | Cause::Unavailable => {
            Kind::Later { wait: grown(called.backoff, verdict.alone).min(period), charged: false }
        }
        _ => failure.kind,
    }
}

/// Once per change: the pause itself is told no more.
fn warn(scope: &Scope, cause: Cause, failure: &Failure) {
    let (upstream, model, code) = (&*scope.upstream, scope.model.as_deref(), failure.code.as_str());
    let (status, why) = (failure.reply.as_ref().map(|reply| reply.status), &*failure.message);
    match cause {
        Cause::Credentials => tracing::error!(
            upstream,
            model,
            status,
            "the upstream refuses the operator's key: paused, and tasks wait until it is mended"
        ),
        Cause::Unreachable => {
            tracing::error!(upstream, why, "the upstream cannot be reached: paused, and tasks wait");
        }
        Cause::Unavailable => {
            tracing::warn!(upstream, model, status, "the upstream does not serve at the moment: paused");
        }
        Cause::Throttled | Cause::Failing => {
            tracing::warn!(upstream, model, code, "the upstream fails again and again: paused");
        }
    }
}

/// The `times`-th wait: at least half of its bound, so that it grows.
fn grown(backoff: Backoff, times: u32) -> Duration {
    full_jitter(backoff, times.max(1), 0.5 + fastrand::f64() / 2.0)
}
