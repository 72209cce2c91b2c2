//! The worker's verbs: claims, the fence, endings and leases.

use super::super::samples::*;
use futures_util::future::join_all;
use shared::{
    store::{Again, Cancelled, Finish, Finished, Rerun, Served, Store},
    task::{ErrorCode, NewTask, State, TaskId, WorkerId},
};
use std::time::Duration;

super::cases! {
    claimed_once, claims_carry_what_a_run_needs, stale_hints, dead_workers_claim_nothing, claim_without_a_doorbell,
    leases, completion, fence, repeated_finish, duplicates_in_one_finish, finish_after_cancel, gone, floors,
    again_waits, again_uncharged, released, floors_that_nobody_knows,
}

async fn claimed_once(store: &dyn Store) {
    let first = new_task();
    let tasks: Vec<NewTask> = (0..40).map(|_| beside(&first)).collect();
    store.submit(&tasks).await.expect("submit");
    let ids: Vec<TaskId> = tasks.iter().map(|task| task.id).collect();
    let back: Vec<TaskId> = ids.iter().rev().copied().collect();
    let worker = new_worker(store).await;
    let served = Served::default();
    let claims = (0..8).map(|turn| store.claim(worker, if turn % 2 == 0 { &ids } else { &back }, &served));
    let mut claimed: Vec<TaskId> = join_all(claims)
        .await
        .into_iter()
        .flat_map(|claims| claims.expect("claim"))
        .map(|claim| claim.task)
        .collect();
    claimed.sort_unstable();
    assert_eq!(claimed, ids, "every task came back to exactly one of the claims");
}

async fn claims_carry_what_a_run_needs(store: &dyn Store) {
    let sent = NewTask { priority: 3, ..new_task() };
    let (worker, claimed) = run(store, &sent).await;
    assert_eq!(
        (claimed.task, claimed.project, claimed.queue.clone()),
        (sent.id, sent.project, sent.queue.clone())
    );
    assert_eq!((claimed.attempt, claimed.failures, claimed.crashes, claimed.max_attempts), (1, 0, 0, 5));
    assert_eq!((&claimed.endpoint, &claimed.model, claimed.relay), (&sent.endpoint, &sent.model, sent.relay));
    assert_eq!((&claimed.payload, claimed.last_seq, claimed.batch), (&sent.payload, 1, None));
    assert_eq!(
        (claimed.execution_timeout, claimed.backoff),
        (sent.policy.execution_timeout, sent.policy.backoff)
    );
    assert!(claimed.time_left <= LONG && claimed.time_left > LONG / 2 && claimed.waited < LONG / 2);
    let task = get(store, &sent).await;
    assert_eq!(
        (task.state, task.attempt, task.worker, task.last_seq),
        (State::InProgress, 1, Some(worker), 1)
    );
    assert!(task.started_at.is_some());
}

async fn stale_hints(store: &dyn Store) {
    let sent = NewTask { delay: LONG, ..new_task() };
    accept(store, &sent).await;
    let worker = new_worker(store).await;
    assert!(
        store.claim(worker, &[sent.id, TaskId::new()], &Served::default()).await.expect("claim").is_empty()
    );
    assert!(store.claim(worker, &[], &Served::default()).await.expect("claim").is_empty());
}

async fn dead_workers_claim_nothing(store: &dyn Store) {
    let sent = new_task();
    accept(store, &sent).await;
    let stale = worker_for(store, Duration::ZERO).await;
    tokio::time::sleep(Duration::from_millis(5)).await;
    for worker in [stale, WorkerId::new()] {
        assert!(store.claim(worker, &[sent.id], &Served::default()).await.expect("claim").is_empty());
        let queues = std::slice::from_ref(&sent.queue);
        assert!(store.claim_ready(worker, queues, 10, &Served::default()).await.expect("claim").is_empty());
    }
    assert_eq!(get(store, &sent).await.state, State::Queued);
}

async fn claim_without_a_doorbell(store: &dyn Store) {
    let first = new_task();
    let urgent = NewTask { priority: 9, ..beside(&first) };
    let other = new_task();
    store.submit(&[first.clone(), beside(&first), urgent.clone(), other.clone()]).await.expect("submit");
    let worker = new_worker(store).await;
    let lanes = [first.queue.clone(), other.queue.clone(), new_queue()];
    let two = store.claim_ready(worker, &lanes, 2, &Served::default()).await.expect("claim");
    assert!(two.len() == 2 && two.iter().any(|claim| claim.task == urgent.id), "by priority, then age");
    assert_eq!(store.claim_ready(worker, &lanes, 10, &Served::default()).await.expect("claim").len(), 2);
    assert!(store.claim_ready(worker, &lanes, 10, &Served::default()).await.expect("claim").is_empty());
}

async fn leases(store: &dyn Store) {
    let sent = new_task();
    let (worker, claimed) = run(store, &sent).await;
    let held = store.heartbeat(worker, LONG, 1).await.expect("heartbeat");
    assert_eq!(held, Some(vec![(sent.id, 1)]));
    let row = store.workers().await.expect("workers").into_iter().find(|row| row.id == worker);
    let row = row.expect("a live worker is listed");
    assert_eq!((row.running, row.slots, row.name.as_str(), row.queues.len()), (1, 4, "host:1", 1));
    applied(finish(store, &completed(&claimed)).await);
    assert_eq!(store.heartbeat(worker, LONG, 0).await.expect("heartbeat"), Some(vec![]));
    store.retire(worker).await.expect("retire");
    assert_eq!(store.heartbeat(worker, LONG, 0).await.expect("heartbeat"), None);
    assert!(store.workers().await.expect("workers").iter().all(|row| row.id != worker));
}

async fn completion(store: &dyn Store) {
    let sent = new_task();
    let (_, claimed) = run(store, &sent).await;
    let change = applied(finish(store, &completed(&claimed)).await);
    assert_eq!((change.task, change.project, change.batch), (sent.id, sent.project, None));
    assert_eq!((change.attempt, change.seq, change.state), (1, 2, State::Completed));
    let task = get(store, &sent).await;
    assert_eq!((task.state, task.worker, task.error.clone()), (State::Completed, None, None));
    assert_eq!((task.usage, task.answer_status, task.last_seq), (Some(USAGE), Some(200), 2));
    let ended = task.finished_at.expect("it has ended");
    assert_eq!(task.result_expires_at, Some(ended.plus(sent.policy.result_ttl)));
    assert_eq!(store.answer(sent.project, sent.id).await.expect("answer"), Some(answer()));
}

async fn fence(store: &dyn Store) {
    let sent = new_task();
    let (worker, first) = run(store, &sent).await;
    store.release(worker, &[(sent.id, 1)]).await.expect("release");
    let second = claim(store, worker, &sent).await;
    assert_eq!(second.attempt, 2);
    match finish(store, &completed(&first)).await {
        Finished::Lost(change) => assert_eq!((change.attempt, change.state), (2, State::InProgress)),
        other => panic!("the older attempt got through: {other:?}"),
    }
    let late = store.again(&[again(&first, LONG)]).await.expect("again").remove(0);
    assert!(matches!(late, Finished::Lost(_)));
    applied(finish(store, &failed(&second)).await);
    assert!(matches!(finish(store, &completed(&first)).await, Finished::Lost(_)));
    let task = get(store, &sent).await;
    assert_eq!((task.state, task.error), (State::Failed, Some(error(ErrorCode::UpstreamFailed, 2))));
}

async fn repeated_finish(store: &dyn Store) {
    let sent = new_task();
    let (_, claimed) = run(store, &sent).await;
    let first = finish(store, &completed(&claimed)).await;
    assert_eq!(finish(store, &completed(&claimed)).await, first);
    assert!(matches!(finish(store, &failed(&claimed)).await, Finished::Lost(_)));
    assert_eq!(get(store, &sent).await.last_seq, 2, "a repeat changes nothing");
}

async fn duplicates_in_one_finish(store: &dyn Store) {
    let (_, one) = run(store, &new_task()).await;
    let (_, two) = run(store, &new_task()).await;
    let unknown = Finish { task: TaskId::new(), ..completed(&one) };
    let ends = [completed(&two), completed(&one), completed(&two), failed(&two), unknown];
    let told = store.finish(&ends).await.expect("finish");
    assert_eq!(told[0], told[2]);
    assert_eq!((applied(told[0].clone()).task, applied(told[1].clone()).task), (two.task, one.task));
    assert!(matches!(told[3], Finished::Lost(_)));
    assert_eq!(told[4], Finished::Gone);
    assert!(store.finish(&[]).await.expect("nothing").is_empty());
}

async fn finish_after_cancel(store: &dyn Store) {
    let sent = new_task();
    let (_, claimed) = run(store, &sent).await;
    let met = store.cancel(sent.project, sent.id, "Enough.").await.expect("cancel");
    assert!(matches!(met, Some(Cancelled::Applied(_))));
    assert!(matches!(finish(store, &completed(&claimed)).await, Finished::Lost(_)));
    let task = get(store, &sent).await;
    assert_eq!((task.state, task.answer_status), (State::Cancelled, None));
}

async fn gone(store: &dyn Store) {
    let sent = new_task();
    let (worker, claimed) = run(store, &sent).await;
    store.delete(sent.project, sent.id, true).await.expect("delete");
    assert_eq!(finish(store, &completed(&claimed)).await, Finished::Gone);
    assert_eq!(store.again(&[again(&claimed, LONG)]).await.expect("again"), [Finished::Gone]);
    assert_eq!(store.heartbeat(worker, LONG, 1).await.expect("heartbeat"), Some(vec![]));
}

async fn floors(store: &dyn Store) {
    let (_, claimed) = run(store, &new_task()).await;
    let end = Finish { floor: 41, ..completed(&claimed) };
    assert_eq!(applied(finish(store, &end).await).seq, 41);
}

async fn again_waits(store: &dyn Store) {
    let sent = new_task();
    let (worker, claimed) = run(store, &sent).await;
    let told = store.again(&[again(&claimed, LONG / 2)]).await.expect("again").remove(0);
    let change = applied(told.clone());
    assert_eq!((change.state, change.seq, change.attempt), (State::Scheduled, 2, 1));
    let task = get(store, &sent).await;
    assert_eq!((task.state, task.failures, task.worker), (State::Scheduled, 1, None));
    assert!(task.run_at.is_some_and(|at| at > task.created_at.plus(LONG / 4)));
    assert_eq!(task.error, Some(error(ErrorCode::UpstreamThrottled, 1)), "kept between attempts");
    assert_eq!(store.answer(sent.project, sent.id).await.expect("answer"), None);
    assert_eq!(store.again(&[again(&claimed, LONG / 2)]).await.expect("again").remove(0), told, "a repeat");
    assert!(store.claim(worker, &[sent.id], &Served::default()).await.expect("claim").is_empty());
}

async fn again_uncharged(store: &dyn Store) {
    let sent = new_task();
    let (worker, claimed) = run(store, &sent).await;
    let mut throttled = again(&claimed, Duration::ZERO);
    throttled.charged = false;
    applied(store.again(&[throttled]).await.expect("again").remove(0));
    sweep_until(store, &sent, State::Queued, || async { drop(store.due(1000).await.expect("due")) }).await;
    let second = claim(store, worker, &sent).await;
    assert_eq!((second.attempt, second.failures), (2, 0));
    applied(finish(store, &completed(&second)).await);
    let task = get(store, &sent).await;
    assert_eq!((task.state, task.error), (State::Completed, None), "success leaves no error");
}

async fn released(store: &dyn Store) {
    let sent = new_task();
    let (worker, claimed) = run(store, &sent).await;
    let stranger = new_worker(store).await;
    assert!(store.release(stranger, &[(sent.id, 1)]).await.expect("release").is_empty());
    assert!(store.release(worker, &[(sent.id, 2)]).await.expect("release").is_empty());
    let changes = store.release(worker, &[(sent.id, claimed.attempt)]).await.expect("release");
    assert_eq!(changes.len(), 1);
    assert_eq!((changes[0].task, changes[0].state, changes[0].seq), (sent.id, State::Queued, 2));
    let task = get(store, &sent).await;
    assert_eq!((task.state, task.failures, task.crashes, task.worker), (State::Queued, 0, 0, None));
}

async fn floors_that_nobody_knows(store: &dyn Store) {
    // What ends by itself has said how far it had told, whether it was charged or not and however often.
    let sent = new_task();
    let (worker, first) = run(store, &sent).await;
    assert!(!first.floor_unknown);
    let uncharged = Again { charged: false, ..again(&first, Duration::ZERO) };
    applied(store.again(&[uncharged]).await.expect("again").remove(0));
    sweep_until(store, &sent, State::Queued, || async { drop(store.due(1000).await.expect("due")) }).await;
    let second = claim(store, worker, &sent).await;
    assert!(!second.floor_unknown);
    applied(finish(store, &failed(&second)).await);
    store.retry(sent.project, sent.id, &Rerun::default()).await.expect("retry");
    let third = claim(store, worker, &sent).await;
    assert!(!third.floor_unknown);

    // What is given back has not.
    store.release(worker, &[(sent.id, third.attempt)]).await.expect("release");
    assert!(claim(store, worker, &sent).await.floor_unknown);

    // Nor has what is cancelled, unless it had not begun.
    for begun in [false, true] {
        let sent = new_task();
        accept(store, &sent).await;
        if begun {
            claim(store, worker, &sent).await;
        }
        store.cancel(sent.project, sent.id, "Enough.").await.expect("cancel");
        store.retry(sent.project, sent.id, &Rerun::default()).await.expect("retry");
        assert_eq!(claim(store, worker, &sent).await.floor_unknown, begun);
    }
}
