//! Who may claim what, and what a late write may still do.

use super::*;

impl Db {
    async fn claim(&self, worker: WorkerId, ids: &[TaskId]) -> Vec<TaskId> {
        let claimed = self.store.claim(worker, ids, &Served::default()).await.unwrap();
        claimed.into_iter().map(|claimed| claimed.task).collect()
    }
}

#[tokio::test]
async fn a_project_runs_as_many_as_its_cap() {
    let db = db().await;
    let (worker, other) = (db.worker(MINUTE).await, ProjectId::new());
    let mine = [0, 1, 2].map(|priority| NewTask { priority, ..task() });
    let others = [0, 1].map(|priority| NewTask { project: other, priority, ..task() });
    let free = NewTask { project: ProjectId::new(), ..task() };
    db.store.submit(&[&mine[..], &others, std::slice::from_ref(&free)].concat()).await.unwrap();
    let own = [Cap { project: P, tasks: 2 }, Cap { project: other, tasks: 1 }].into();
    let served = Served { capped: Capped { own, usual: None }, ..Served::default() };
    let ids: Vec<_> = mine.iter().chain(&others).chain([&free]).map(|task| task.id).collect();
    let mut capped: Vec<_> = db
        .store
        .claim_capped(worker, &ids, &served)
        .await
        .unwrap()
        .iter()
        .map(|claimed| claimed.task)
        .collect();
    capped.sort();
    let mut best = vec![mine[1].id, mine[2].id, others[1].id];
    best.sort();
    assert_eq!(capped, best);
    assert!(db.store.claim_capped(worker, &ids, &served).await.unwrap().is_empty(), "they run");
    let rest = db.store.claim(worker, &ids, &served).await.unwrap();
    assert_eq!(rest.iter().map(|claimed| claimed.task).collect::<Vec<_>>(), [free.id]);
}

#[tokio::test]
async fn a_suspect_is_claimed_on_its_own() {
    let db = db().await;
    let (born, served) = (db.submit(task()).await, Served::default());
    for _ in 0..SUSPECT_CRASHES {
        assert!(!db.store.has_suspects(&[lane()], &served).await.unwrap());
        let worker = db.worker(MINUTE).await;
        assert_eq!(db.claim(worker, &[born.id]).await, [born.id]);
        db.store.heartbeat(worker, Duration::ZERO, 1).await.unwrap();
        db.store.reap(9, Duration::ZERO, 9).await.unwrap();
        db.store.due(9).await.unwrap();
    }
    let worker = db.worker(MINUTE).await;
    assert!(db.store.has_suspects(&[lane()], &served).await.unwrap());
    assert!(db.claim(worker, &[born.id]).await.is_empty());
    let claimed = db.store.claim_suspect(worker, &[lane()], &served).await.unwrap().unwrap();
    assert_eq!((claimed.task, claimed.crashes), (born.id, SUSPECT_CRASHES));
    assert!(db.store.claim_suspect(worker, &[lane()], &served).await.unwrap().is_none());
}

#[tokio::test]
async fn leases_end_and_claims_are_given_back() {
    let db = db().await;
    let worker = db.worker(MINUTE).await;
    assert_eq!(db.number("select lease_until - seen_at from workers").await, 60_000);
    db.store.heartbeat(worker, 2 * MINUTE, 5).await.unwrap();
    assert_eq!(db.number("select lease_until - seen_at from workers").await, 120_000);
    let live = db.store.workers().await.unwrap().remove(0);
    assert_eq!((live.id, &*live.name, live.slots, live.running), (worker, "w", 1, 5));
    assert_eq!(live.queues, [lane()]);

    let slow = QueueName::new("slow").unwrap();
    let tasks = [0, 1, 2, 3].map(|n| NewTask { queue: if n < 2 { lane() } else { slow.clone() }, ..task() });
    db.store.submit(&tasks).await.unwrap();
    let queues = [lane(), slow];
    let claimed = db.store.claim_ready(worker, &queues, 3, &Served::default()).await.unwrap();
    let ids: Vec<_> = claimed.iter().map(|claimed| claimed.task).collect();
    assert_eq!(ids, [0, 1, 2].map(|n| tasks[n].id), "queue after queue");

    let released = db.store.release(worker, &[(ids[0], 1), (ids[1], 2)]).await.unwrap();
    assert_eq!((released.len(), released[0].task, released[0].state), (1, ids[0], State::Queued));
    db.store.retire(worker).await.unwrap();
    assert!(db.store.workers().await.unwrap().is_empty());
    assert!(db.claim(worker, &[ids[0]]).await.is_empty(), "it has gone");
}

#[tokio::test]
async fn who_lost_a_race_still_pays() {
    let db = db().await;
    let (worker, born) = (db.worker(MINUTE).await, db.submit(task()).await);
    db.claim(worker, &[born.id]).await;
    db.store.release(worker, &[(born.id, 1)]).await.unwrap();
    db.claim(worker, &[born.id]).await;
    db.store.finish(&[ended(born.id, 2, State::Completed)]).await.unwrap();
    let met = db.store.finish(&[ended(born.id, 1, State::Completed)]).await.unwrap();
    assert!(matches!(&met[0], Finished::Lost(change) if change.attempt == 2), "{met:?}");
    assert_eq!(db.number("select sum(output_tokens) from attempts where attempt = 1").await, 7);
}

#[tokio::test]
async fn the_next_attempt_waits_and_who_stops_a_task_says_whether_to_repeat_it() {
    let db = db().await;
    let (worker, born) = (db.worker(MINUTE).await, db.submit(task()).await);
    db.claim(worker, &[born.id]).await;
    db.store.again(&[again(born.id, 1, MINUTE)]).await.unwrap();
    let wait = "select ready_at - cast(unixepoch('subsec') * 1000 as integer) from tasks";
    assert!((30_000..=60_000).contains(&db.number(wait).await));
    db.store.cancel(P, born.id, "enough").await.unwrap();
    let cancelled = db.get(born.id).await.error.unwrap();
    assert_eq!((cancelled.code, cancelled.retryable), (ErrorCode::Cancelled, false));
    let mut hasty = task();
    hasty.policy.queue_timeout = Some(Duration::ZERO);
    let hasty = db.submit(hasty).await;
    db.store.expire(9).await.unwrap();
    assert!(db.get(hasty.id).await.error.unwrap().retryable);
}
