//! The sweep's verbs.

use super::super::samples::*;
use shared::{
    store::{Rerun, START_GAP, SUSPECT_CRASHES, Served, Store},
    task::{ErrorCode, NewTask, Policy, ProjectId, State, TaskId},
};
use std::time::Duration;

super::cases! {
    due_tasks_are_queued, deadlines, queue_timeouts, running_tasks_expire, queue_timeout_ends_with_the_first_attempt,
    crashes, too_many_crashes, crashes_in_doubt, live_workers_keep_theirs, retired_workers_lose_theirs, equal_shares, forgotten,
}

/// All suites that share a database give up at the same number of crashes.
const CRASHES_MAX: u32 = 3;

async fn expire(store: &dyn Store) {
    drop(store.expire(1000).await.expect("expire"));
}

async fn due(store: &dyn Store) {
    drop(store.due(1000).await.expect("due"));
}

async fn reap(store: &dyn Store) {
    drop(store.reap(1000, Duration::ZERO, CRASHES_MAX).await.expect("reap"));
}

async fn due_tasks_are_queued(store: &dyn Store) {
    let soon = NewTask { delay: Duration::from_millis(30), priority: 2, ..new_task() };
    let late = NewTask { delay: LONG, ..new_task() };
    accept(store, &soon).await;
    accept(store, &late).await;
    let task = sweep_until(store, &soon, State::Queued, || due(store)).await;
    assert_eq!((task.last_seq, task.run_at, task.attempt), (1, None, 0));
    let bells = store.ready(&soon.queue, 10, &Served::default()).await.expect("ready");
    assert_eq!(bells.iter().map(|bell| (bell.task, bell.priority)).collect::<Vec<_>>(), [(soon.id, 2)]);
    assert_eq!(get(store, &late).await.state, State::Scheduled);
}

async fn deadlines(store: &dyn Store) {
    let short = Policy { ttl: Duration::from_millis(20), ..policy() };
    let queued = NewTask { policy: short.clone(), ..new_task() };
    let scheduled = NewTask { policy: short, delay: LONG, ..new_task() };
    let patient = new_task();
    for sent in [&queued, &scheduled, &patient] {
        accept(store, sent).await;
    }
    for sent in [&queued, &scheduled] {
        let task = sweep_until(store, sent, State::Expired, || expire(store)).await;
        let error = task.error.expect("an expired task says why");
        assert_eq!((error.code, error.attempt), (ErrorCode::DeadlineExceeded, 0));
        assert!(task.finished_at.is_some() && task.result_expires_at.is_some() && task.last_seq >= 1);
    }
    assert_eq!(get(store, &patient).await.state, State::Queued);
}

async fn queue_timeouts(store: &dyn Store) {
    let hurried = Policy { queue_timeout: Some(Duration::from_millis(20)), ..policy() };
    let sent = NewTask { policy: hurried.clone(), ..new_task() };
    let delayed = NewTask { policy: hurried, delay: Duration::from_millis(30), ..new_task() };
    accept(store, &sent).await;
    accept(store, &delayed).await;
    let task = sweep_until(store, &sent, State::Expired, || expire(store)).await;
    assert_eq!(task.error.map(|error| error.code), Some(ErrorCode::QueueTimeout));
    let sweep = || async {
        due(store).await;
        expire(store).await;
    };
    let task = sweep_until(store, &delayed, State::Expired, sweep).await;
    assert_eq!(task.error.map(|error| error.code), Some(ErrorCode::QueueTimeout));
}

async fn running_tasks_expire(store: &dyn Store) {
    let sent = NewTask { policy: Policy { ttl: Duration::from_millis(150), ..policy() }, ..new_task() };
    let (worker, claimed) = run(store, &sent).await;
    let task = sweep_until(store, &sent, State::Expired, || expire(store)).await;
    assert_eq!((task.worker, task.attempt), (None, claimed.attempt));
    assert_eq!(store.heartbeat(worker, LONG, 1).await.expect("heartbeat"), Some(vec![]));
}

async fn queue_timeout_ends_with_the_first_attempt(store: &dyn Store) {
    let hurried = Policy { queue_timeout: Some(Duration::from_millis(300)), ..policy() };
    let sent = NewTask { policy: hurried, ..new_task() };
    let (worker, _) = run(store, &sent).await;
    store.release(worker, &[(sent.id, 1)]).await.expect("release");
    tokio::time::sleep(Duration::from_millis(350)).await;
    expire(store).await;
    assert_eq!(get(store, &sent).await.state, State::Queued);
}

/// A task whose worker is about to be found dead.
async fn abandoned(store: &dyn Store, sent: &NewTask) -> u32 {
    let worker = worker_for(store, Duration::from_millis(500)).await;
    let claimed = claim(store, worker, sent).await;
    assert!(store.heartbeat(worker, Duration::ZERO, 1).await.expect("heartbeat").is_some());
    claimed.attempt
}

async fn crashes(store: &dyn Store) {
    let sent = new_task();
    accept(store, &sent).await;
    let attempt = abandoned(store, &sent).await;
    let task = sweep_until(store, &sent, State::Scheduled, || reap(store)).await;
    assert_eq!((task.crashes, task.failures, task.attempt, task.worker), (1, 0, attempt, None));
    let error = task.error.expect("a crash is told");
    assert_eq!((error.code, error.attempt), (ErrorCode::WorkerCrashed, attempt));
    sweep_until(store, &sent, State::Queued, || due(store)).await;
    let next = claim(store, new_worker(store).await, &sent).await;
    assert!(next.floor_unknown, "nobody knows how far it had told");
}

async fn crashes_in_doubt(store: &dyn Store) {
    let sent = twice_crashed(store).await;
    for crashes in SUSPECT_CRASHES + 1..3 * CRASHES_MAX {
        let worker = new_worker(store).await;
        claim(store, worker, &sent).await;
        claim(store, worker, &another(store, &sent).await).await;
        store.retire(worker).await.expect("retire");
        let task = sweep_until(store, &sent, State::Scheduled, || reap(store)).await;
        assert_eq!(task.crashes, crashes, "it may have been the other");
        sweep_until(store, &sent, State::Queued, || due(store)).await;
    }
    abandoned(store, &sent).await;
    sweep_until(store, &sent, State::Failed, || reap(store)).await;
    clearly_its_own(store).await;
}

/// Another one started long before: that one is old.
async fn clearly_its_own(store: &dyn Store) {
    let sent = twice_crashed(store).await;
    let worker = new_worker(store).await;
    let old = another(store, &sent).await;
    assert_eq!(store.claim(worker, &[old.id], &Served::default()).await.expect("claim").len(), 1);
    tokio::time::sleep(2 * START_GAP).await;
    claim(store, worker, &sent).await;
    store.retire(worker).await.expect("retire");
    let task = sweep_until(store, &sent, State::Failed, || reap(store)).await;
    assert_eq!(task.crashes, CRASHES_MAX);
}

async fn twice_crashed(store: &dyn Store) -> NewTask {
    let sent = new_task();
    accept(store, &sent).await;
    for _ in 0..SUSPECT_CRASHES {
        abandoned(store, &sent).await;
        sweep_until(store, &sent, State::Scheduled, || reap(store)).await;
        sweep_until(store, &sent, State::Queued, || due(store)).await;
    }
    sent
}

/// An accepted task beside this one.
async fn another(store: &dyn Store, task: &NewTask) -> NewTask {
    let other = beside(task);
    accept(store, &other).await;
    other
}

async fn too_many_crashes(store: &dyn Store) {
    let sent = new_task();
    accept(store, &sent).await;
    let queues = std::slice::from_ref(&sent.queue);
    let suspects = async |served: &Served| store.has_suspects(queues, served).await.expect("suspects");
    for _ in 1..CRASHES_MAX {
        assert!(!suspects(&Served::default()).await);
        abandoned(store, &sent).await;
        sweep_until(store, &sent, State::Scheduled, || reap(store)).await;
        sweep_until(store, &sent, State::Queued, || due(store)).await;
    }
    assert!(suspects(&Served::default()).await);
    assert!(!suspects(&only(&[], &[])).await, "paused");
    assert!(
        !store.has_suspects(&[new_queue()], &Served::default()).await.expect("suspects"),
        "another queue"
    );
    let worker = new_worker(store).await;
    let nothing = store.claim(worker, &[sent.id], &Served::default()).await.expect("claim");
    assert!(nothing.is_empty(), "a suspect is not claimed with others");
    let ready = store.claim_ready(worker, queues, 10, &Served::default()).await;
    assert!(ready.expect("claim").is_empty(), "nor where there is no queue");
    abandoned(store, &sent).await;
    assert!(!suspects(&Served::default()).await, "it runs");
    let task = sweep_until(store, &sent, State::Failed, || reap(store)).await;
    assert_eq!((task.crashes, task.attempt), (CRASHES_MAX, CRASHES_MAX));
    assert_eq!(task.error.map(|error| error.code), Some(ErrorCode::WorkerCrashed));
    assert!(task.finished_at.is_some() && task.result_expires_at.is_some());
    store.retry(sent.project, sent.id, &Rerun::default()).await.expect("retry");
    let task = get(store, &sent).await;
    assert_eq!((task.state, task.crashes), (State::Queued, 0));
}

async fn live_workers_keep_theirs(store: &dyn Store) {
    let sent = new_task();
    let (worker, _) = run(store, &sent).await;
    let stale = worker_for(store, Duration::ZERO).await;
    tokio::time::sleep(Duration::from_millis(5)).await;
    reap(store).await;
    assert_eq!(get(store, &sent).await.state, State::InProgress);
    assert_eq!(store.heartbeat(worker, LONG, 1).await.expect("heartbeat"), Some(vec![(sent.id, 1)]));
    assert_eq!(store.heartbeat(stale, LONG, 0).await.expect("heartbeat"), None, "once reaped, always reaped");
}

async fn retired_workers_lose_theirs(store: &dyn Store) {
    let sent = new_task();
    let (worker, _) = run(store, &sent).await;
    store.retire(worker).await.expect("retire");
    sweep_until(store, &sent, State::Scheduled, || reap(store)).await;
}

async fn equal_shares(store: &dyn Store) {
    let many = new_task();
    let few = NewTask { project: ProjectId::new(), ..beside(&many) };
    let mut tasks: Vec<NewTask> = (0..50).map(|_| beside(&many)).collect();
    tasks.extend((0..3).map(|_| beside(&few)));
    let urgent = NewTask { priority: 50, ..beside(&many) };
    tasks.push(urgent.clone());
    store.submit(&tasks).await.expect("submit");
    let bells = store.ready(&many.queue, 8, &Served::default()).await.expect("ready");
    let of = |project| {
        bells.iter().filter(|bell| bell.project == project).map(|bell| bell.task).collect::<Vec<_>>()
    };
    let (theirs, ours) = (of(many.project), of(few.project));
    assert_eq!((theirs.len(), ours.len()), (5, 3), "what one project leaves, another may use");
    assert_eq!(bells[0].task, urgent.id);
    let oldest: Vec<TaskId> = tasks.iter().map(|task| task.id).take(4).collect();
    assert_eq!((theirs[0], &theirs[1..]), (urgent.id, oldest.as_slice()), "by priority, then age");
    assert_eq!(
        store
            .ready(&many.queue, 4, &Served::default())
            .await
            .expect("ready")
            .iter()
            .filter(|b| b.project == few.project)
            .count(),
        2
    );
    assert_eq!(store.ready(&many.queue, 1000, &Served::default()).await.expect("ready").len(), 54);
    assert!(store.ready(&new_queue(), 10, &Served::default()).await.expect("ready").is_empty());
}

async fn forgotten(store: &dyn Store) {
    let sent = NewTask { policy: Policy { result_ttl: Duration::from_millis(10), ..policy() }, ..new_task() };
    let kept = new_task();
    for sent in [&sent, &kept] {
        let (_, claimed) = run(store, sent).await;
        applied(finish(store, &completed(&claimed)).await);
    }
    for _ in 0..200 {
        store.forget(1000).await.expect("forget");
        if store.get(sent.project, sent.id).await.expect("get").is_none() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(store.get(sent.project, sent.id).await.expect("get"), None);
    assert_eq!(store.answer(sent.project, sent.id).await.expect("answer"), None);
    assert_eq!(get(store, &kept).await.state, State::Completed);
}
