//! Batches: all or none, exact counts, one end.

use super::super::samples::*;
use shared::{
    store::{Batch, BatchState, NewBatch, Rerun, Retried, Served, Store},
    task::{BatchId, NewTask, Policy, ProjectId, State},
};
use std::time::Duration;

super::cases! {
    created_once, refused_input, counts_and_close, cancelled, expired, deleted_lines_count, retry_needs_an_open_batch, pages,
    many_counts_fold,
}

async fn find(store: &dyn Store, batch: &NewBatch) -> Batch {
    store.batch(batch.project, batch.id).await.expect("batch").expect("the batch is there")
}

async fn close(store: &dyn Store, batch: &NewBatch) -> Batch {
    for _ in 0..100 {
        store.close_batches(1000).await.expect("close");
        let found = find(store, batch).await;
        if found.finished_at.is_some() {
            return found;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("the batch was never closed: {:?}", find(store, batch).await);
}

fn counts(batch: &Batch) -> (u64, u64, u64) {
    (batch.total, batch.completed, batch.failed)
}

async fn created_once(store: &dyn Store) {
    let (batch, tasks) = new_batch(5);
    for _ in 0..2 {
        store.create_batch(&batch, &tasks).await.expect("create");
        let found = find(store, &batch).await;
        assert_eq!((found.state, counts(&found)), (BatchState::InProgress, (5, 0, 0)));
        assert_eq!((found.metadata, found.model), (batch.metadata.clone(), batch.model.clone()));
        assert_eq!(
            (found.completion_window, found.in_progress_at),
            (batch.completion_window.clone(), Some(found.created_at))
        );
        assert_eq!(found.expires_at, found.created_at.plus(batch.window));
    }
    let task = get(store, &tasks[3]).await;
    assert_eq!((task.state, task.batch), (State::Queued, tasks[3].batch.clone()));
    assert!(store.batch(ProjectId::new(), batch.id).await.expect("batch").is_none());
}

async fn refused_input(store: &dyn Store) {
    let (batch, _) = new_batch(0);
    let batch = NewBatch { errors: Some(r#"{"object":"list","data":[]}"#.into()), ..batch };
    store.create_batch(&batch, &[]).await.expect("create");
    let found = find(store, &batch).await;
    assert_eq!((found.state, found.errors), (BatchState::Failed, batch.errors));
    assert!(found.finished_at.is_some() && found.in_progress_at.is_none());
}

async fn counts_and_close(store: &dyn Store) {
    let (batch, tasks) = new_batch(3);
    store.create_batch(&batch, &tasks).await.expect("create");
    let worker = new_worker(store).await;
    let first = claim(store, worker, &tasks[0]).await;
    assert_eq!(first.batch, Some(batch.id));
    assert_eq!(applied(finish(store, &completed(&first)).await).batch, Some(batch.id));
    finish(store, &completed(&first)).await;
    let second = claim(store, worker, &tasks[1]).await;
    assert_eq!(find(store, &batch).await.usage, USAGE, "a repeat counts once");
    let mut lost = failed(&second);
    lost.ending.usage = Some(USAGE);
    applied(finish(store, &lost).await);
    assert_eq!(counts(&find(store, &batch).await), (3, 1, 1), "a repeat counts once");
    let spent = find(store, &batch).await.usage;
    assert_eq!(spent.output_tokens, 2 * USAGE.output_tokens);

    let met = store.retry(batch.project, tasks[1].id, &Rerun::default()).await.expect("retry");
    assert!(matches!(met, Some(Retried::Applied(..))));
    assert_eq!(counts(&find(store, &batch).await), (3, 1, 0), "a retry takes its line back");
    assert_eq!(find(store, &batch).await.usage, spent, "tokens are spent for good");
    store.cancel(batch.project, tasks[2].id, "Enough.").await.expect("cancel");
    assert_eq!(counts(&find(store, &batch).await), (3, 1, 1));
    store.close_batches(1000).await.expect("close");
    assert_eq!(find(store, &batch).await.state, BatchState::InProgress, "one line is unfinished");

    let third = claim(store, worker, &tasks[1]).await;
    applied(finish(store, &completed(&third)).await);
    let closed = close(store, &batch).await;
    assert_eq!((closed.state, counts(&closed)), (BatchState::Completed, (3, 2, 1)));
    assert!(closed.finalizing_at.is_some());
}

async fn cancelled(store: &dyn Store) {
    let (batch, tasks) = new_batch(4);
    store.create_batch(&batch, &tasks).await.expect("create");
    let worker = new_worker(store).await;
    let first = claim(store, worker, &tasks[0]).await;
    applied(finish(store, &completed(&first)).await);
    claim(store, worker, &tasks[1]).await;
    assert!(store.cancel_batch(ProjectId::new(), batch.id).await.expect("cancel").is_none());
    let asked =
        store.cancel_batch(batch.project, batch.id).await.expect("cancel").expect("the batch is there");
    assert!(asked.state == BatchState::Cancelling && asked.cancelling_at.is_some());
    let again =
        store.cancel_batch(batch.project, batch.id).await.expect("cancel").expect("the batch is there");
    assert_eq!(again.cancelling_at, asked.cancelling_at);
    for task in &tasks[1..] {
        let sweep = || async { drop(store.cancel_batch_tasks(2).await.expect("cancel")) };
        sweep_until(store, task, State::Cancelled, sweep).await;
    }
    let closed = close(store, &batch).await;
    assert_eq!((closed.state, counts(&closed)), (BatchState::Cancelled, (4, 1, 3)));
    let late =
        store.cancel_batch(batch.project, batch.id).await.expect("cancel").expect("the batch is there");
    assert_eq!(late.state, BatchState::Cancelled);
}

async fn expired(store: &dyn Store) {
    let short = Duration::from_millis(20);
    let (batch, tasks) = new_batch(2);
    let batch = NewBatch { window: short, ..batch };
    let short_lived = |task: NewTask| NewTask { policy: Policy { ttl: short, ..policy() }, ..task };
    let tasks: Vec<NewTask> = tasks.into_iter().map(short_lived).collect();
    store.create_batch(&batch, &tasks).await.expect("create");
    for task in &tasks {
        sweep_until(store, task, State::Expired, || async {
            drop(store.expire(1000).await.expect("expire"))
        })
        .await;
    }
    let closed = close(store, &batch).await;
    assert_eq!((closed.state, counts(&closed)), (BatchState::Expired, (2, 0, 2)));
}

async fn deleted_lines_count(store: &dyn Store) {
    let (batch, tasks) = new_batch(1);
    store.create_batch(&batch, &tasks).await.expect("create");
    store.delete(batch.project, tasks[0].id, true).await.expect("delete");
    let closed = close(store, &batch).await;
    assert_eq!((closed.state, counts(&closed)), (BatchState::Completed, (1, 0, 1)));
}

async fn retry_needs_an_open_batch(store: &dyn Store) {
    let (batch, tasks) = new_batch(1);
    store.create_batch(&batch, &tasks).await.expect("create");
    store.cancel(batch.project, tasks[0].id, "Enough.").await.expect("cancel");
    close(store, &batch).await;
    let met = store.retry(batch.project, tasks[0].id, &Rerun::default()).await.expect("retry");
    assert_eq!(met, Some(Retried::BatchClosed));
}

async fn pages(store: &dyn Store) {
    let project = ProjectId::new();
    let mut ids = Vec::new();
    for _ in 0..3 {
        let batch = NewBatch { project, ..new_batch(0).0 };
        store.create_batch(&batch, &[]).await.expect("create");
        ids.push(batch.id);
    }
    ids.reverse();
    let first = store.batches(project, None, 2).await.expect("batches");
    assert_eq!(
        (first.items.iter().map(|batch| batch.id).collect::<Vec<BatchId>>(), first.has_more),
        (ids[..2].to_vec(), true)
    );
    let rest = store.batches(project, Some(ids[1]), 2).await.expect("batches");
    assert_eq!((rest.items.len(), rest.items[0].id, rest.has_more), (1, ids[2], false));
}

async fn many_counts_fold(store: &dyn Store) {
    let (batch, tasks) = new_batch(250);
    store.create_batch(&batch, &tasks).await.expect("create");
    let worker = new_worker(store).await;
    let ids: Vec<_> = tasks.iter().map(|task| task.id).collect();
    let claims = store.claim(worker, &ids, &Served::default()).await.expect("claim");
    let (some, rest) = claims.split_at(240);
    store.finish(&some.iter().map(completed).collect::<Vec<_>>()).await.expect("finish");
    for _ in 0..2 {
        store.close_batches(1000).await.expect("close");
        let found = find(store, &batch).await;
        assert_eq!((found.state, counts(&found)), (BatchState::InProgress, (250, 240, 0)));
        assert_eq!(found.usage.output_tokens, 240 * USAGE.output_tokens);
    }
    store.finish(&rest.iter().map(failed).collect::<Vec<_>>()).await.expect("finish");
    assert_eq!(counts(&close(store, &batch).await), (250, 240, 10));
}
