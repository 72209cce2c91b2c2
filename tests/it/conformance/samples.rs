//! Tasks, workers and endings for the suites. Every call makes fresh ids, so that cases do not meet on one database.

use shared::{
    clock::UnixMs,
    store::{Again, Claimed, Finish, Finished, NewBatch, NewWorker, Open, Served, Store, Submitted},
    task::{
        Answer, Backoff, BatchId, BatchLine, Change, Ending, ErrorCode, Idempotency, NewTask, Payload,
        Policy, ProjectId, QueueName, Relay, State, Task, TaskError, TaskId, Usage, WorkerId,
    },
};
use std::{sync::Arc, time::Duration};

/// Long enough for nothing to end by itself.
pub(super) const LONG: Duration = Duration::from_secs(3600);

pub(super) const USAGE: Usage =
    Usage { input_tokens: 11, cached_tokens: 5, output_tokens: 7, reasoning_tokens: 3 };

pub(super) fn new_queue() -> QueueName {
    let id = TaskId::new().0.simple().to_string();
    QueueName::new(&format!("q{id}")).expect("a letter and digits")
}

/// A task of a new project, in a new queue.
pub(super) fn new_task() -> NewTask {
    NewTask {
        id: TaskId::new(),
        project: ProjectId::new(),
        queue: new_queue(),
        priority: 0,
        endpoint: "/v1/chat/completions".into(),
        model: "sim".into(),
        payload: Payload::Inline(r#"{"model":"sim","seed":12345678901234567890}"#.into()),
        relay: Relay::Deltas,
        delay: Duration::ZERO,
        run_at: None,
        policy: policy(),
        metadata: None,
        idempotency: None,
        batch: None,
        reserved: None,
        moderation: Vec::new(),
        webhook: None,
    }
}

/// Another task of the same project and queue.
pub(super) fn beside(task: &NewTask) -> NewTask {
    NewTask { id: TaskId::new(), ..task.clone() }
}

pub(super) fn policy() -> Policy {
    Policy {
        queue_timeout: None,
        execution_timeout: Duration::from_secs(60),
        ttl: LONG,
        max_attempts: 5,
        backoff: Backoff { base: Duration::from_millis(250), max: Duration::from_secs(30) },
        result_ttl: LONG,
    }
}

pub(super) fn key(key: &str, fingerprint: u8) -> Option<Idempotency> {
    Some(Idempotency { key: key.into(), fingerprint: [fingerprint; 32] })
}

/// A batch of `lines` tasks that all share one queue and project.
pub(super) fn new_batch(lines: u32) -> (NewBatch, Vec<NewTask>) {
    let (id, first) = (BatchId::new(), new_task());
    let line = |line| NewTask {
        batch: Some(BatchLine { batch: id, line, custom_id: format!("line-{line}").into() }),
        ..beside(&first)
    };
    let batch = NewBatch {
        id,
        project: first.project,
        endpoint: first.endpoint.clone(),
        completion_window: "24h".into(),
        window: LONG,
        model: Some("sim".into()),
        metadata: Some(r#"{"run":"7"}"#.into()),
        errors: None,
        result_ttl: LONG,
        idempotency: None,
    };
    (batch, (0..lines).map(line).collect())
}

pub(super) async fn submit_one(store: &dyn Store, task: &NewTask) -> Submitted {
    let mut answers = store.submit(std::slice::from_ref(task)).await.expect("submit");
    assert_eq!(answers.len(), 1);
    answers.remove(0)
}

pub(super) async fn accept(store: &dyn Store, task: &NewTask) -> Task {
    match submit_one(store, task).await {
        Submitted::Accepted(task) => *task,
        other => panic!("not accepted: {other:?}"),
    }
}

pub(super) async fn get(store: &dyn Store, task: &NewTask) -> Task {
    store.get(task.project, task.id).await.expect("get").expect("the task is there")
}

/// A worker with a long lease.
pub(super) async fn new_worker(store: &dyn Store) -> WorkerId {
    worker_for(store, LONG).await
}

pub(super) async fn worker_for(store: &dyn Store, ttl: Duration) -> WorkerId {
    let id = WorkerId::new();
    let worker = NewWorker { id, name: "host:1".into(), slots: 4, queues: vec![new_queue()], ttl };
    store.register(&worker).await.expect("register");
    id
}

pub(super) async fn claim(store: &dyn Store, worker: WorkerId, task: &NewTask) -> Claimed {
    let mut claimed = store.claim(worker, &[task.id], &Served::default()).await.expect("claim");
    // One that took workers down has a claim of its own.
    let queues = std::slice::from_ref(&task.queue);
    claimed.extend(store.claim_suspect(worker, queues, &Served::default()).await.expect("claim"));
    assert_eq!(claimed.len(), 1, "exactly the queued task is claimed");
    claimed.remove(0)
}

/// What has an upstream: tasks whose `endpoint model` begins so, and the other way round for these.
pub(super) fn only(prefixes: &[&str], except: &[&str]) -> Served {
    let owned = |words: &[&str]| words.iter().map(|&word| word.to_owned()).collect();
    let open = Open::Only { prefixes: owned(prefixes), except: owned(except) };
    Served { open: Arc::new(open), ..Served::default() }
}

/// A task with a running attempt.
pub(super) async fn run(store: &dyn Store, task: &NewTask) -> (WorkerId, Claimed) {
    accept(store, task).await;
    let worker = new_worker(store).await;
    (worker, claim(store, worker, task).await)
}

pub(super) fn answer() -> Answer {
    Answer {
        status: 200,
        content_type: "application/json".into(),
        request_id: Some("up-1".into()),
        body: Payload::Inline(b"{\"n\":12345678901234567890,\"nul\":\"\0\"}".as_slice().into()),
    }
}

pub(super) fn error(code: ErrorCode, attempt: u32) -> TaskError {
    TaskError {
        code,
        message: "It did not work.".into(),
        retryable: true,
        attempt,
        upstream_status: Some(503),
        upstream_code: Some("busy".into()),
        upstream_message: Some("Too much to do.".into()),
    }
}

pub(super) fn completed(claimed: &Claimed) -> Finish {
    let ending = Ending { state: State::Completed, answer: Some(answer()), error: None, usage: Some(USAGE) };
    Finish { task: claimed.task, attempt: claimed.attempt, ending, floor: 0, upstream: Some("up".into()) }
}

pub(super) fn failed(claimed: &Claimed) -> Finish {
    let error = Some(error(ErrorCode::UpstreamFailed, claimed.attempt));
    let ending = Ending { state: State::Failed, answer: None, error, usage: None };
    Finish { task: claimed.task, attempt: claimed.attempt, ending, floor: 0, upstream: Some("up".into()) }
}

pub(super) fn again(claimed: &Claimed, delay: Duration) -> Again {
    Again {
        task: claimed.task,
        attempt: claimed.attempt,
        delay,
        charged: true,
        error: error(ErrorCode::UpstreamThrottled, claimed.attempt),
        usage: Some(USAGE),
        floor: 0,
        upstream: Some("up".into()),
    }
}

pub(super) async fn finish(store: &dyn Store, end: &Finish) -> Finished {
    store.finish(std::slice::from_ref(end)).await.expect("finish").remove(0)
}

/// The change of an applied write.
pub(super) fn applied(finished: Finished) -> Change {
    match finished {
        Finished::Applied(change) => change,
        other => panic!("not applied: {other:?}"),
    }
}

/// Repeats `sweep` until the task stands in `state`: other suites may sweep the same database, and rows that somebody else has
/// locked are skipped.
pub(super) async fn sweep_until<F: Future<Output = ()>>(
    store: &dyn Store,
    task: &NewTask,
    state: State,
    sweep: impl Fn() -> F,
) -> Task {
    for _ in 0..200 {
        sweep().await;
        let found = get(store, task).await;
        if found.state == state {
            return found;
        }
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
    panic!("{} never became {state}, it is {}", task.id, get(store, task).await.state);
}

pub(super) async fn now(store: &dyn Store) -> UnixMs {
    store.now().await.expect("now")
}
