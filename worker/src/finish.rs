//! Writes what an attempt came to: large answers to the object store, then one group commit, then the news.
//!
//! A result is worth an upstream call, so that a commit is tried for as long as the database may come back; it is fenced, and late or
//! repeated writes do no harm.

use crate::{
    classify::{Failure, Kind},
    context::{Context, STORE_PATIENCE},
    decide::{Verdict, decide},
    tell::Floor,
    upstream::Reply,
};
use futures_util::future::BoxFuture;
use shared::{
    backends::Backends,
    batcher::{Batcher, Gather},
    clock::UnixMs,
    failpoint::{self, Point},
    limits::Ask,
    news::Herald,
    objects::{self, Part},
    store::{self, Again, Claimed, Finish, Finished, Store},
    task::{Answer, Ending, ErrorCode, Payload, State, TaskError, Usage},
};
use std::{sync::Arc, time::Duration};
use tokio::{
    task::JoinSet,
    time::{Instant, sleep, timeout},
};

/// How long a commit is tried while the database is away.
const PERSISTENCE: Duration = Duration::from_secs(600);
/// Longest pause between two tries.
const PAUSE_MAX: Duration = Duration::from_secs(2);
/// Tries to keep a large answer.
const KEEP_TRIES: u32 = 5;

/// What else is written with a verdict.
#[derive(Debug, Clone)]
pub(crate) struct Told {
    /// Lowest seqs of the event that follows.
    pub(crate) floor: Floor,
    /// Who was called.
    pub(crate) upstream: Option<Arc<str>>,
    /// Tokens spent.
    pub(crate) usage: Option<Usage>,
}

/// The group commits.
pub(crate) struct Ends {
    finishes: Batcher<Finish, Option<Finished>>,
    agains: Batcher<Again, Option<Finished>>,
    charges: Batcher<Ask, ()>,
}

impl Ends {
    pub(crate) fn start(commits: &mut JoinSet<()>, backends: &Backends, herald: &Herald) -> Self {
        let (store, limits) = (&backends.store, backends.limits.clone());
        let charges = Batcher::start(commits, Gather::default(), move |asks: Vec<Ask>| {
            let limits = limits.clone();
            async move {
                if let Err(error) = limits.take(&asks).await {
                    tracing::debug!(error = &error as &dyn std::error::Error, "tokens are not settled");
                }
                vec![(); asks.len()]
            }
        });
        Self { finishes: gather(commits, store, herald), agains: gather(commits, store, herald), charges }
    }

    /// Charges tokens, best effort.
    async fn charge(&self, ask: Ask) {
        let _ = self.charges.call(ask).await;
    }
}

fn gather<T: Write + 'static>(
    commits: &mut JoinSet<()>,
    store: &Arc<dyn Store>,
    herald: &Herald,
) -> Batcher<T, Option<Finished>> {
    let (store, herald) = (store.clone(), herald.clone());
    Batcher::start(commits, Gather::default(), move |items| commit(store.clone(), herald.clone(), items))
}

/// Something that the store writes in groups.
trait Write: Send + Sync + Sized {
    const TAKEN: Point;
    const COMMITTED: Point;
    fn write<'a>(store: &'a dyn Store, items: &'a [Self]) -> BoxFuture<'a, store::Result<Vec<Finished>>>;
}

impl Write for Finish {
    const TAKEN: Point = Point::FinishTaken;
    const COMMITTED: Point = Point::FinishCommitted;

    fn write<'a>(store: &'a dyn Store, items: &'a [Self]) -> BoxFuture<'a, store::Result<Vec<Finished>>> {
        store.finish(items)
    }
}

impl Write for Again {
    const TAKEN: Point = Point::AgainTaken;
    const COMMITTED: Point = Point::AgainCommitted;

    fn write<'a>(store: &'a dyn Store, items: &'a [Self]) -> BoxFuture<'a, store::Result<Vec<Finished>>> {
        store.again(items)
    }
}

/// Commits a group and tells the watchers. `None` for what could not be written.
async fn commit<T: Write>(store: Arc<dyn Store>, herald: Herald, items: Vec<T>) -> Vec<Option<Finished>> {
    let store = &*store;
    let written: Vec<_> = match persist(store, &items).await {
        Ok(written) => written.into_iter().map(Some).collect(),
        // One row that cannot be written must not take its neighbours along.
        Err(_) if items.len() > 1 => {
            let mut written = Vec::with_capacity(items.len());
            for item in &items {
                written.push(
                    persist(store, std::slice::from_ref(item)).await.ok().and_then(|mut one| one.pop()),
                );
            }
            written
        }
        Err(error) => {
            tracing::error!(
                error = &error as &dyn std::error::Error,
                "the end of an attempt could not be written"
            );
            vec![None]
        }
    };
    let applied = |finished: &Option<Finished>| match finished {
        Some(Finished::Applied(change)) => Some(change.clone()),
        _ => None,
    };
    herald.changed(written.iter().filter_map(applied).collect());
    written
}

/// Tries until it is written, or the database refuses it.
async fn persist<T: Write>(store: &dyn Store, items: &[T]) -> store::Result<Vec<Finished>> {
    let (begun, mut pause, mut told) = (Instant::now(), Duration::from_millis(50), false);
    loop {
        failpoint::pass(T::TAKEN);
        let writing = async { failpoint::reply(Point::FinishReply, T::write(store, items).await) };
        match timeout(STORE_PATIENCE, writing).await {
            Ok(Ok(written)) => {
                failpoint::pass(T::COMMITTED);
                return Ok(written);
            }
            Ok(Err(error)) if !error.passes() || begun.elapsed() > PERSISTENCE => {
                return Err(error);
            }
            failed if !std::mem::replace(&mut told, true) => {
                tracing::warn!(error = ?failed.ok().and_then(Result::err), attempts = items.len(), "cannot finish yet");
            }
            _ => {}
        }
        sleep(pause).await;
        pause = (pause * 2).min(PAUSE_MAX);
    }
}

/// Writes a verdict.
pub(crate) async fn settle(ctx: &Context, claimed: &Claimed, verdict: Verdict, told: Told) {
    let (spent, called) = (told.usage, told.upstream.is_some());
    let finished = match verdict {
        Verdict::Again { delay, charged, error } => again(ctx, claimed, (delay, charged, error), told).await,
        Verdict::End { state, reply, error } => {
            let answer = match reply {
                Some(reply) => keep(ctx, claimed, reply).await.map(Some),
                None => Ok(None),
            };
            match answer {
                Ok(answer) => {
                    end(ctx, claimed, Ending { state, answer, error, usage: told.usage }, told).await
                }
                Err(failure) => match decide(claimed, Err(failure), fastrand::f64()) {
                    Verdict::Again { delay, charged, error } => {
                        again(ctx, claimed, (delay, charged, error), told).await
                    }
                    Verdict::End { state, error, .. } => {
                        end(ctx, claimed, Ending { state, answer: None, error, usage: told.usage }, told)
                            .await
                    }
                },
            }
        }
    };
    count(claimed, finished.as_ref());
    let ended = matches!(&finished, Some(Finished::Applied(change)) if change.state.is_terminal());
    charge(ctx, claimed, ended, called, spent).await;
}

/// Accounts for a stopped attempt. The task is no longer this attempt's, so that the write is lost on it by construction, and
/// only its tokens are kept.
pub(crate) async fn settle_stopped(ctx: &Context, claimed: &Claimed, told: Told) {
    if told.usage.is_none() {
        return;
    }
    // Whether its task has ended or goes on elsewhere: more than was reserved is charged, and nothing given back.
    if let (Some(reserved), Some(usage)) = (&claimed.reserved, told.usage) {
        let more = tokens(usage).saturating_sub(reserved.tokens);
        if more > 0 {
            ctx.ends.charge(reserved.charged(more.into())).await;
        }
    }
    let error = Some(task_error(claimed, ErrorCode::Cancelled, "the attempt was stopped"));
    let ending = Ending { state: State::Failed, answer: None, error, usage: told.usage };
    end(ctx, claimed, ending, told).await;
}

async fn again(
    ctx: &Context,
    claimed: &Claimed,
    why: (Duration, bool, TaskError),
    told: Told,
) -> Option<Finished> {
    let (delay, charged, error) = why;
    let Told { floor, upstream, usage } = told;
    tracing::info!(task = %claimed.task, attempt = claimed.attempt, code = error.code.as_str(), charged, "another attempt follows");
    let (task, attempt) = (claimed.task, claimed.attempt);
    ctx.ends
        .agains
        .call(Again { task, attempt, delay, charged, error, usage, floor: floor.again, upstream })
        .await
        .ok()
        .flatten()
}

async fn end(ctx: &Context, claimed: &Claimed, ending: Ending, told: Told) -> Option<Finished> {
    let Told { floor, upstream, usage } = told;
    let had_answer = ending.answer.is_some();
    let floor = if had_answer { floor.answer } else { floor.end };
    let finish = Finish { task: claimed.task, attempt: claimed.attempt, ending, floor, upstream };
    let unheard = Finish {
        ending: Ending {
            state: State::Failed,
            answer: None,
            error: Some(task_error(
                claimed,
                ErrorCode::UpstreamMalformed,
                "the database does not take the answer",
            )),
            usage,
        },
        ..finish.clone()
    };
    match ctx.ends.finishes.call(finish).await.ok().flatten() {
        // Without this the attempt would be given back and the same answer bought again and again.
        None if had_answer => ctx.ends.finishes.call(unheard).await.ok().flatten(),
        finished => finished,
    }
}

/// Keeps an answer, in the object store if it is large.
async fn keep(ctx: &Context, claimed: &Claimed, reply: Reply) -> Result<Answer, Failure> {
    let Reply { status, content_type, request_id, body } = reply;
    let part = Part::Answer { attempt: claimed.attempt };
    for tried in 1..=KEEP_TRIES {
        let kept = timeout(
            STORE_PATIENCE,
            ctx.backends.objects.keep(claimed.project, claimed.task, part, body.clone()),
        )
        .await;
        match kept {
            Ok(Ok(body)) => {
                if matches!(body, Payload::Object { .. }) {
                    failpoint::pass(Point::FinishKept);
                }
                return Ok(Answer { status, content_type, request_id, body });
            }
            Ok(Err(error @ objects::Error::TooLarge { .. })) => {
                return Err(Failure::new(Kind::Permanent, ErrorCode::UpstreamMalformed, error.to_string()));
            }
            failed => {
                let error = failed.ok().and_then(Result::err);
                tracing::warn!(?error, tried, task = %claimed.task, "cannot keep the answer yet");
            }
        }
        sleep(Duration::from_millis(200) * tried).await;
    }
    Err(Failure::new(Kind::Transient, ErrorCode::BodyMissing, "the object store does not take the answer"))
}

fn task_error(claimed: &Claimed, code: ErrorCode, message: &str) -> TaskError {
    TaskError {
        code,
        message: message.to_owned(),
        retryable: true,
        attempt: claimed.attempt,
        upstream_status: None,
        upstream_code: None,
        upstream_message: None,
    }
}

/// Puts the tokens that were spent in the place of those that were reserved; as long as more attempts follow, beside them. Where a
/// model server was called and does not say what it spent, the reservation stands.
async fn charge(ctx: &Context, claimed: &Claimed, ended: bool, called: bool, spent: Option<Usage>) {
    let Some(reserved) = &claimed.reserved else { return };
    let ask = match (spent.map(tokens), ended) {
        (Some(tokens), true) => reserved.settled(tokens, UnixMs::now()),
        (Some(tokens), false) => reserved.charged(tokens.into()),
        (None, true) if !called => reserved.settled(0, UnixMs::now()),
        (None, _) => return,
    };
    ctx.ends.charge(ask).await;
}

/// Tokens in and out, as they are charged. Upstreams say absurd things.
fn tokens(usage: Usage) -> u32 {
    u32::try_from(usage.input_tokens.saturating_add(usage.output_tokens).max(0)).unwrap_or(u32::MAX)
}

fn count(claimed: &Claimed, finished: Option<&Finished>) {
    match finished {
        Some(Finished::Applied(change)) if change.state.is_terminal() => {
            let queue = claimed.queue.to_string();
            metrics::counter!("longhaul_tasks_finished_total", "state" => change.state.as_str(), "queue" => queue).increment(1);
        }
        Some(Finished::Lost(change)) => {
            let (task, attempt) = (claimed.task, claimed.attempt);
            metrics::counter!("longhaul_fenced_writes_total", "what" => "end").increment(1);
            tracing::info!(%task, attempt, state = change.state.as_str(), "the task had moved on: this attempt's end is not used");
        }
        _ => {}
    }
}
