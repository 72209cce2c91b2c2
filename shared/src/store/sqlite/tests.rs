//! What is this engine's own, and one walk through every verb. The contract is held by the conformance suite.

mod fences;

use super::*;
use crate::task::{
    Answer, Backoff, BatchLine, Ending, ErrorCode, Idempotency, Policy, Relay, State, TaskError, Usage,
};
use std::sync::Arc;

const P: ProjectId = ProjectId::DEFAULT;
const MINUTE: Duration = Duration::from_secs(60);
const TOKENS: Usage = Usage { input_tokens: 5, cached_tokens: 1, output_tokens: 7, reasoning_tokens: 2 };

struct Db {
    store: SqliteStore,
    folder: tempfile::TempDir,
}

async fn db() -> Db {
    let folder = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(&folder.path().join("t.db")).await.unwrap();
    assert!(matches!(store.check().await, Err(Error::Schema(_))));
    store.migrate().await.unwrap();
    store.migrate().await.unwrap();
    store.check().await.unwrap();
    Db { store, folder }
}

fn lane() -> QueueName {
    QueueName::new("default").unwrap()
}

fn task() -> NewTask {
    NewTask {
        id: TaskId::new(),
        project: P,
        queue: lane(),
        priority: 0,
        endpoint: "/v1/chat/completions".into(),
        model: "m".into(),
        payload: Payload::Inline(b"{\"a\":\0}".as_slice().into()),
        relay: Relay::Deltas,
        delay: Duration::ZERO,
        run_at: None,
        policy: Policy {
            queue_timeout: None,
            execution_timeout: MINUTE,
            ttl: MINUTE,
            max_attempts: 3,
            backoff: Backoff { base: Duration::from_secs(1), max: MINUTE },
            result_ttl: MINUTE,
        },
        metadata: Some("{\"$a.b\":\"x\"}".into()),
        idempotency: None,
        batch: None,
        reserved: None,
        moderation: Vec::new(),
        webhook: None,
    }
}

fn keyed(key: &str, print: u8) -> NewTask {
    NewTask { idempotency: Some(Idempotency { key: key.into(), fingerprint: [print; 32] }), ..task() }
}

fn ended(task: TaskId, attempt: u32, state: State) -> Finish {
    let failed = (state == State::Failed).then(|| error(attempt));
    let answer = (state == State::Completed).then(|| Answer {
        status: 200,
        content_type: "application/json".into(),
        request_id: None,
        body: Payload::Inline(b"{}\0".as_slice().into()),
    });
    let ending = Ending { state, answer, error: failed, usage: Some(TOKENS) };
    Finish { task, attempt, ending, floor: 9, upstream: Some("u".into()) }
}

fn error(attempt: u32) -> TaskError {
    let (code, message) = (ErrorCode::UpstreamFailed, "no".to_owned());
    TaskError {
        code,
        message,
        retryable: true,
        attempt,
        upstream_status: Some(500),
        upstream_code: None,
        upstream_message: None,
    }
}

fn again(task: TaskId, attempt: u32, delay: Duration) -> Again {
    let (error, upstream) = (error(attempt), None);
    Again { task, attempt, delay, charged: true, error, usage: Some(TOKENS), floor: 0, upstream }
}

impl Db {
    async fn worker(&self, ttl: Duration) -> WorkerId {
        let id = WorkerId::new();
        let worker = NewWorker { id, name: "w".into(), slots: 1, queues: vec![lane()], ttl };
        self.store.register(&worker).await.unwrap();
        id
    }

    async fn submit(&self, task: NewTask) -> Task {
        match self.store.submit(&[task]).await.unwrap().remove(0) {
            Submitted::Accepted(task) => *task,
            other => panic!("{other:?}"),
        }
    }

    async fn get(&self, id: TaskId) -> Task {
        self.store.get(P, id).await.unwrap().unwrap()
    }

    async fn number(&self, sql: &'static str) -> i64 {
        self.store.read(|db| async move { Ok(sqlx::query_scalar(sql).fetch_one(db).await?) }).await.unwrap()
    }
}

#[tokio::test]
async fn a_task_walks_through_its_life() {
    let db = db().await;
    let worker = db.worker(MINUTE).await;
    let new = task();
    let born = db.submit(new.clone()).await;
    assert_eq!(born, db.get(born.id).await);
    assert_eq!(born, db.submit(new.clone()).await);
    assert_eq!(db.store.position(P, born.id).await.unwrap(), Some(0));

    let claims =
        db.store.claim(worker, &[TaskId::new(), born.id, born.id], &Served::default()).await.unwrap();
    assert_eq!(claims.len(), 1);
    assert_eq!((claims[0].attempt, claims[0].last_seq, &claims[0].payload), (1, 1, &new.payload));
    assert!(db.store.claim(worker, &[born.id], &Served::default()).await.unwrap().is_empty());
    assert_eq!(db.store.heartbeat(worker, MINUTE, 1).await.unwrap(), Some(vec![(born.id, 1)]));

    let next = db.store.again(&[again(born.id, 1, Duration::ZERO)]).await.unwrap();
    assert!(
        matches!(&next[0], Finished::Applied(change) if change.state == State::Scheduled && change.seq == 2)
    );
    assert_eq!(db.store.due(10).await.unwrap().len(), 1);
    let claimed = db.store.claim_ready(worker, &[lane()], 5, &Served::default()).await.unwrap();
    assert_eq!((claimed[0].attempt, claimed[0].failures), (2, 1));
    assert!(db.get(born.id).await.error.is_some());

    let end = ended(born.id, 2, State::Completed);
    let applied = db.store.finish(std::slice::from_ref(&end)).await.unwrap();
    assert!(matches!(&applied[0], Finished::Applied(change) if change.seq == 9));
    assert_eq!(applied, db.store.finish(std::slice::from_ref(&end)).await.unwrap());
    let late = [ended(born.id, 1, State::Failed), ended(TaskId::new(), 1, State::Failed)];
    let met = db.store.finish(&late).await.unwrap();
    assert!(matches!(met[..], [Finished::Lost(_), Finished::Gone]));
    let done = db.get(born.id).await;
    assert_eq!(
        (done.state, done.usage, done.answer_status, done.error),
        (State::Completed, Some(TOKENS), Some(200), None)
    );
    assert_eq!(db.store.answer(P, born.id).await.unwrap(), end.ending.answer);
    assert_eq!(db.number("select count(*) from attempts").await, 1);

    assert_eq!(
        db.store.retry(P, born.id, &Rerun::default()).await.unwrap(),
        Some(Retried::Refused(State::Completed))
    );
    assert_eq!(db.store.cancel(P, born.id, "x").await.unwrap(), Some(Cancelled::Terminal(State::Completed)));
    assert_eq!(db.store.delete(P, born.id, false).await.unwrap(), Some(Deleted::Applied(vec![])));
    assert_eq!(db.store.get(P, born.id).await.unwrap(), None);
}

#[tokio::test]
async fn a_key_stands_for_one_task() {
    let db = db().await;
    let (a, b, c) = (keyed("k", 1), keyed("k", 1), keyed("k", 2));
    let met = db.store.submit(&[a.clone(), b.clone(), c.clone(), task()]).await.unwrap();
    assert!(matches!(&met[0], Submitted::Accepted(task) if task.id == a.id));
    assert_eq!(met[1..3], [Submitted::Replayed(a.id), Submitted::KeyReused]);
    assert!(
        matches!(&db.store.submit(std::slice::from_ref(&a)).await.unwrap()[0], Submitted::Accepted(task) if task.id == a.id)
    );
    db.store.delete(P, a.id, true).await.unwrap();
    assert!(
        matches!(&db.store.submit(std::slice::from_ref(&c)).await.unwrap()[0], Submitted::Accepted(task) if task.id == c.id)
    );
}

#[tokio::test]
async fn dead_workers_are_reaped_and_crashes_bounded() {
    let db = db().await;
    let born = db.submit(task()).await;
    for crash in 1..=2 {
        let worker = db.worker(MINUTE).await;
        assert_eq!(db.store.claim(worker, &[born.id], &Served::default()).await.unwrap().len(), 1);
        assert!(db.store.reap(9, Duration::ZERO, 2).await.unwrap().is_empty());
        db.store.heartbeat(worker, Duration::ZERO, 1).await.unwrap();
        let taken = db.store.reap(9, Duration::ZERO, 2).await.unwrap();
        assert_eq!(taken[0].state, if crash < 2 { State::Scheduled } else { State::Failed });
        assert_eq!(db.store.heartbeat(worker, MINUTE, 1).await.unwrap(), None);
        db.store.due(9).await.unwrap();
    }
    let dead = db.get(born.id).await;
    assert_eq!((dead.crashes, dead.error.unwrap().code), (2, ErrorCode::WorkerCrashed));
    assert!(db.store.workers().await.unwrap().is_empty());
    assert!(
        matches!(db.store.retry(P, born.id, &Rerun::default()).await.unwrap(), Some(Retried::Applied(_, bell)) if bell.task == born.id)
    );
    assert_eq!((db.get(born.id).await.crashes, db.get(born.id).await.error), (0, None));
}

#[tokio::test]
async fn batch_counts_follow_retries_to_the_close() {
    let db = db().await;
    let worker = db.worker(MINUTE).await;
    let id = BatchId::new();
    let batch = NewBatch {
        id,
        project: P,
        endpoint: "/v1/embeddings".into(),
        completion_window: "24h".into(),
        window: MINUTE,
        model: None,
        metadata: None,
        errors: None,
        result_ttl: Duration::ZERO,
        idempotency: None,
    };
    let line = |line: u32| BatchLine { batch: id, line, custom_id: Arc::from(line.to_string()) };
    let tasks = [0, 1, 2].map(|n| NewTask { batch: Some(line(n)), ..task() });
    db.store.create_batch(&batch, &tasks).await.unwrap();
    db.store.create_batch(&batch, &tasks).await.unwrap();
    let [a, b, c] = tasks.map(|task| task.id);
    assert_eq!(db.get(b).await.batch, Some(line(1)));
    db.store.claim(worker, &[a, b], &Served::default()).await.unwrap();
    db.store.finish(&[ended(a, 1, State::Completed), ended(b, 1, State::Failed)]).await.unwrap();
    let counts = async || {
        let batch = db.store.batch(P, id).await.unwrap().unwrap();
        (batch.total, batch.completed, batch.failed, batch.usage.output_tokens)
    };
    assert_eq!(counts().await, (3, 1, 1, 14));
    assert!(matches!(db.store.retry(P, b, &Rerun::default()).await.unwrap(), Some(Retried::Applied(..))));
    assert_eq!(counts().await, (3, 1, 0, 14));
    assert!(db.store.close_batches(9).await.unwrap().is_empty());
    db.store.cancel_batch(P, id).await.unwrap();
    let mut stopped: Vec<_> =
        db.store.cancel_batch_tasks(9).await.unwrap().iter().map(|change| change.task).collect();
    stopped.sort();
    assert_eq!(stopped, [b, c]);
    assert_eq!(counts().await, (3, 1, 2, 14));
    assert_eq!(db.store.close_batches(9).await.unwrap(), [id]);
    assert_eq!(db.store.retry(P, b, &Rerun::default()).await.unwrap(), Some(Retried::BatchClosed));
    let page = db.store.batches(P, None, 10).await.unwrap();
    assert_eq!((page.items[0].state, page.has_more), (BatchState::Cancelled, false));
    db.store.forget(9).await.unwrap();
    assert_eq!(db.store.batches(P, None, 10).await.unwrap().items.len(), 1, "it still has tasks");
}

#[tokio::test]
async fn shares_are_equal_and_lists_filtered() {
    let db = db().await;
    let other = ProjectId::new();
    let mine: Vec<_> = (0..6).map(|n| NewTask { priority: n % 2, ..task() }).collect();
    db.store.submit(&mine).await.unwrap();
    let theirs = db.submit(NewTask { project: other, ..task() }).await;
    let bells = db.store.ready(&lane(), 3, &Served::default()).await.unwrap();
    assert_eq!(bells.iter().map(|bell| bell.task).collect::<Vec<_>>(), [mine[1].id, theirs.id, mine[3].id]);
    assert_eq!(db.store.position(P, mine[0].id).await.unwrap(), Some(3));
    assert_eq!(db.store.position(other, mine[0].id).await.unwrap(), None);
    let pair = |key: &str, value: &str| vec![(key.to_owned(), value.to_owned())];
    let query = ListQuery {
        limit: 4,
        metadata: pair("$a.b", "x"),
        states: vec![State::Queued],
        ..ListQuery::default()
    };
    let page = db.store.list(P, &query).await.unwrap();
    assert_eq!((page.items.len(), page.more_after.is_some(), page.items[0].id), (4, true, mine[5].id));
    let rest = db.store.list(P, &ListQuery { after: Some(page.items[3].id), ..query.clone() }).await.unwrap();
    assert_eq!((rest.items.len(), rest.more_after.is_some()), (2, false));
    let none = db.store.list(P, &ListQuery { metadata: pair("$a.b", "y"), ..query }).await.unwrap();
    assert!(none.items.is_empty());
    let figures = db.store.queues(Some(P)).await.unwrap();
    assert_eq!((figures.len(), figures[0].queued, figures[0].in_progress), (1, 6, 0));
    assert!(figures[0].oldest.is_some());
}

#[tokio::test]
async fn deadlines_expire_and_retention_forgets() {
    let db = db().await;
    let mut hasty = task();
    (hasty.policy.queue_timeout, hasty.policy.result_ttl) = (Some(Duration::ZERO), Duration::ZERO);
    hasty.payload = Payload::Object { key: "o".into(), len: 3 };
    let mut late = NewTask { delay: MINUTE, ..task() };
    late.policy.ttl = Duration::MAX;
    let (hasty, late) = (db.submit(hasty).await, db.submit(late).await);
    assert_eq!((late.state, late.run_at.is_some()), (State::Scheduled, true));
    assert_eq!(db.get(late.id).await, late);
    let expired = db.store.expire(9).await.unwrap();
    assert_eq!((expired.len(), expired[0].state), (1, State::Expired));
    assert_eq!(db.get(hasty.id).await.error.unwrap().code, ErrorCode::QueueTimeout);
    let forgotten = db.store.forget(9).await.unwrap();
    assert_eq!((forgotten.tasks, forgotten.objects), (1, vec!["o".to_owned()]));
}

#[tokio::test]
async fn a_dropped_caller_leaves_nothing_half_way() {
    let db = db().await;
    for micros in 0..60 {
        let write = [task(), task()];
        let gone = tokio::time::timeout(Duration::from_micros(micros * 20), db.store.submit(&write)).await;
        drop(gone);
    }
    db.submit(task()).await;
    assert_eq!(db.number("select count(*) % 2 from tasks").await, 1);
}

#[tokio::test]
async fn a_full_disk_is_unavailable_and_passes() {
    let db = db().await;
    let pages = |sql: &'static str| {
        db.store.write(move |db, _| {
            Box::pin(async move {
                sqlx::query(sql).execute(db).await?;
                Ok(())
            })
        })
    };
    pages("pragma max_page_count = 60").await.unwrap();
    let large = NewTask { payload: Payload::Inline(vec![7; 1 << 20].into()), ..task() };
    let full = db.store.submit(&[task(), large.clone()]).await;
    assert!(matches!(full, Err(Error::Full(_))), "{full:?}");
    // The connection was replaced, and with it the bound that stood for the disk.
    db.submit(large).await;
    assert_eq!(db.number("select count(*) from tasks").await, 1);
}

#[tokio::test]
async fn what_cannot_be_opened_says_why_at_once() {
    let db = db().await;
    let folder = db.folder.path();
    let second = SqliteStore::open(&folder.join("t.db")).await.err().unwrap();
    assert!(
        matches!(&second, Error::Unavailable(cause) if cause.to_string().contains("another Longhaul process"))
    );
    let missing = SqliteStore::open(&folder.join("none").join("t.db")).await;
    assert!(matches!(missing, Err(Error::Unavailable(_))));
    let other = tempfile::tempdir().unwrap();
    let corrupt = other.path().join("t.db");
    std::fs::write(&corrupt, [b'x'; 8192]).unwrap();
    assert!(matches!(SqliteStore::open(&corrupt).await, Err(Error::Broken(_))));
    let path = folder.join("t.db");
    drop(db.store);
    SqliteStore::open(&path).await.unwrap().check().await.unwrap();
}
