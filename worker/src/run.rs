//! One attempt, from the lease to the finish.

use crate::{
    breaker,
    claim::Lease,
    classify::{Failure, Kind},
    context::Context,
    decide::{decide, overtime},
    finish::{Told, settle, settle_stopped},
    moderate,
    tell::Teller,
    upstream::{Call, Reply, client::Server},
};
use futures_util::FutureExt;
use shared::{
    catalog,
    failpoint::{self, Point},
    objects,
    store::Claimed,
    task::{ErrorCode, Usage},
};
use std::{convert::Infallible, panic::AssertUnwindSafe, sync::Arc};
use tokio::{
    sync::SemaphorePermit,
    time::{Instant, timeout, timeout_at},
};

/// Runs the attempt and writes what it came to. A stopped attempt writes nothing but the tokens it spent.
///
/// Its slot is free for the next call as soon as its own is over, while its end is being written.
pub(crate) async fn attempt(lease: Lease, ctx: &Arc<Context>) -> Result<(), Infallible> {
    let Lease { claimed, stop, since, trial, slot, hold: _hold } = lease;
    let claimed = &claimed;
    let begun = Instant::now();
    let mut spent = None;
    let mut upstream = None;
    let mut teller = Teller::new(ctx.shout.clone(), claimed, stop.clone());
    let deadline = since + claimed.execution_timeout.min(claimed.time_left);
    let running = execute(ctx, claimed, trial, &mut teller, &mut spent, &mut upstream);
    let running = AssertUnwindSafe(running).catch_unwind();
    let mut answered = false;
    let mut outcome = tokio::select! {
        biased;
        () = stop.cancelled() => None,
        outcome = timeout_at(deadline, running) => Some(match outcome {
            Ok(Ok(outcome)) => {
                answered = true;
                outcome
            }
            Ok(Err(_panic)) => Err(panicked()),
            Err(_) => Err(overtime(claimed)),
        }),
    };
    metrics::histogram!("longhaul_task_run_seconds").record(begun.elapsed().as_secs_f64());
    count(spent.as_ref());
    let _ending = match &outcome {
        Some(_) => ending(ctx).await,
        None => None,
    };
    drop(slot);
    // Our own limits say nothing about the upstream, its own answers and failures do.
    if let (true, Some(outcome), Some(name)) = (answered, &mut outcome, &upstream)
        && let Some(server) = ctx.servers.get(&**name)
    {
        let (task, model, backoff) = (claimed.task, &*claimed.model, claimed.backoff);
        breaker::note(ctx, server, breaker::Called { task, model, begun, backoff }, outcome).await;
    }
    let told = Told { floor: teller.floor(), upstream, usage: spent };
    match outcome {
        Some(outcome) => settle(ctx, claimed, decide(claimed, outcome, fastrand::f64()), told).await,
        None => settle_stopped(ctx, claimed, told).await,
    }
    Ok(())
}

/// Its place among the ends that are being written. At the end of the process there are no more calls to make room for: what is
/// known is handed in at once.
async fn ending(ctx: &Context) -> Option<SemaphorePermit<'_>> {
    tokio::select! {
        biased;
        () = ctx.drain.cancelled() => None,
        permit = ctx.endings.acquire() => permit.ok(),
    }
}

async fn execute(
    ctx: &Context,
    claimed: &Claimed,
    trial: Option<Arc<str>>,
    teller: &mut Teller,
    spent: &mut Option<Usage>,
    upstream: &mut Option<Arc<str>>,
) -> Result<Reply, Failure> {
    teller.begin().await;
    let body = open(ctx, claimed).await?;
    failpoint::pass(Point::RunOpened);
    failpoint::poison(&body);
    moderate::pass(ctx, claimed, trial.as_deref(), &body).await?;
    let server = match trial.and_then(|name| ctx.servers.get(&*name)) {
        Some(server) => server,
        None => choose(ctx, claimed)?,
    };
    *upstream = Some(server.name.clone());
    let limits = &ctx.config.worker;
    let outcome = Call { claimed, body: body.clone(), server, limits, teller, spent }.make().await;
    failpoint::pass(Point::RunCalled);
    match outcome {
        Err(mut failure) => {
            if let Some(said) = failure.said.take() {
                failure.said = Some(Box::new(said.without_echo(body, claimed.model.clone()).await));
            }
            Err(failure)
        }
        answered => answered,
    }
}

async fn open(ctx: &Context, claimed: &Claimed) -> Result<bytes::Bytes, Failure> {
    let opened =
        timeout(ctx.config.worker.first_byte_timeout, ctx.backends.objects.open(&claimed.payload)).await;
    let (kind, message) = match opened {
        Ok(Ok(body)) => return Ok(body),
        Ok(Err(objects::Error::Missing)) => {
            (Kind::Permanent, "the request body is gone from the object store")
        }
        // Our own store is no fault of the task: it comes again, uncharged.
        Ok(Err(_)) | Err(_) => (Kind::Throttled(None), "the object store does not give the request body"),
    };
    Err(Failure::new(kind, ErrorCode::BodyMissing, message))
}

/// The upstream of this attempt: each attempt takes the next one of those that serve the model and may be called. Where all
/// of them are paused, the task has done nothing wrong: it comes back, uncharged.
fn choose<'a>(ctx: &'a Context, claimed: &Claimed) -> Result<&'a Server, Failure> {
    let noted = ctx.noted.borrow().clone();
    let serving = catalog::route(&ctx.config, &noted, &claimed.endpoint, &claimed.model);
    let names = || serving.iter().map(|upstream| upstream.name.as_str());
    let pauses = &ctx.backends.pauses;
    let open: Vec<&str> = names().filter(|name| pauses.may_call(name, &claimed.model)).collect();
    let turn = claimed.attempt.saturating_sub(1) as usize;
    let chosen = open.get(turn % open.len().max(1)).and_then(|name| ctx.servers.get(*name));
    chosen.ok_or_else(|| {
        let kind = match serving.is_empty() {
            // Nobody knows the model: that may last.
            true => Kind::Transient,
            false => {
                Kind::Throttled(Some(pauses.left(names(), &claimed.model)).filter(|wait| !wait.is_zero()))
            }
        };
        Failure::new(
            kind,
            ErrorCode::NoUpstream,
            "no upstream serves the model at this endpoint at the moment",
        )
    })
}

/// Counts tokens, whoever pays for them in the end.
fn count(spent: Option<&Usage>) {
    let tokens = |count: i64| u64::try_from(count).unwrap_or(0);
    if let Some(usage) = spent {
        metrics::counter!("longhaul_tokens_total", "direction" => "input")
            .increment(tokens(usage.input_tokens));
        metrics::counter!("longhaul_tokens_total", "direction" => "output")
            .increment(tokens(usage.output_tokens));
    }
}

fn panicked() -> Failure {
    tracing::error!("an attempt panicked");
    Failure::new(Kind::Transient, ErrorCode::WorkerPanicked, "the attempt panicked in the worker")
}
