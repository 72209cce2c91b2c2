//! The owner's verbs: cancel, retry, delete.

use super::super::samples::*;
use shared::{
    store::{Cancelled, Deleted, Rerun, Retried, Store},
    task::{ErrorCode, NewTask, Payload, ProjectId, State, TaskId},
};
use std::time::Duration;

super::cases! { cancel_in_each_state, cancel_is_final, retry_starts_a_run, retry_refused, deleted, strangers }

async fn cancel_in_each_state(store: &dyn Store) {
    let scheduled = NewTask { delay: LONG, ..new_task() };
    accept(store, &scheduled).await;
    let queued = new_task();
    accept(store, &queued).await;
    let running = new_task();
    let (worker, _) = run(store, &running).await;
    for sent in [&scheduled, &queued, &running] {
        let before = get(store, sent).await;
        let met = store.cancel(sent.project, sent.id, "Not\0needed.").await.expect("cancel");
        let Some(Cancelled::Applied(change)) = met else { panic!("{met:?}") };
        assert_eq!((change.task, change.state, change.seq), (sent.id, State::Cancelled, before.last_seq + 1));
        let task = get(store, sent).await;
        assert_eq!((task.state, task.attempt, task.worker), (State::Cancelled, before.attempt, None));
        assert!(task.finished_at.is_some() && task.result_expires_at.is_some());
        let error = task.error.expect("a cancelled task says why");
        assert_eq!(
            (error.code, error.attempt, error.upstream_status),
            (ErrorCode::Cancelled, before.attempt, None)
        );
        assert!(error.message.contains("needed."));
    }
    assert_eq!(store.heartbeat(worker, LONG, 1).await.expect("heartbeat"), Some(vec![]));
}

async fn cancel_is_final(store: &dyn Store) {
    let sent = new_task();
    let (_, claimed) = run(store, &sent).await;
    applied(finish(store, &completed(&claimed)).await);
    let met = store.cancel(sent.project, sent.id, "Late.").await.expect("cancel");
    assert_eq!(met, Some(Cancelled::Terminal(State::Completed)));
    assert_eq!(store.cancel(sent.project, TaskId::new(), "").await.expect("cancel"), None);
}

async fn retry_starts_a_run(store: &dyn Store) {
    let sent = NewTask { priority: 4, ..new_task() };
    let (worker, first) = run(store, &sent).await;
    applied(store.again(&[again(&first, Duration::ZERO)]).await.expect("again").remove(0));
    sweep_until(store, &sent, State::Queued, || async { drop(store.due(1000).await.expect("due")) }).await;
    let second = claim(store, worker, &sent).await;
    assert_eq!((second.attempt, second.failures), (2, 1));
    applied(finish(store, &failed(&second)).await);
    let met = store.retry(sent.project, sent.id, &Rerun::default()).await.expect("retry");
    let Some(Retried::Applied(change, bell)) = met else { panic!("{met:?}") };
    assert_eq!((change.state, change.attempt), (State::Queued, 2));
    assert_eq!(
        (bell.task, bell.project, bell.queue, bell.priority),
        (sent.id, sent.project, sent.queue.clone(), 4)
    );
    let task = get(store, &sent).await;
    assert_eq!((task.state, task.failures, task.crashes, task.attempt), (State::Queued, 0, 0, 2));
    assert_eq!((task.error, task.usage, task.finished_at), (None, None, None));
    assert!(task.result_expires_at.is_none() && task.last_seq == change.seq);
    let third = claim(store, worker, &sent).await;
    assert_eq!((third.attempt, third.failures), (3, 0));
}

async fn retry_refused(store: &dyn Store) {
    let sent = new_task();
    let (_, claimed) = run(store, &sent).await;
    let met = store.retry(sent.project, sent.id, &Rerun::default()).await.expect("retry");
    assert_eq!(met, Some(Retried::Refused(State::InProgress)));
    applied(finish(store, &completed(&claimed)).await);
    let met = store.retry(sent.project, sent.id, &Rerun::default()).await.expect("retry");
    assert_eq!(met, Some(Retried::Refused(State::Completed)));
    assert_eq!(store.retry(sent.project, TaskId::new(), &Rerun::default()).await.expect("retry"), None);
}

async fn deleted(store: &dyn Store) {
    let sent = NewTask { payload: Payload::Object { key: "in".into(), len: 1 }, ..new_task() };
    let (_, claimed) = run(store, &sent).await;
    let active = store.delete(sent.project, sent.id, false).await.expect("delete");
    assert_eq!(active, Some(Deleted::Active(State::InProgress)));
    let mut end = completed(&claimed);
    if let Some(answer) = &mut end.ending.answer {
        answer.body = Payload::Object { key: "out".into(), len: 2 };
    }
    applied(finish(store, &end).await);
    let Some(Deleted::Applied(mut keys)) = store.delete(sent.project, sent.id, false).await.expect("delete")
    else {
        panic!("a finished task can be deleted");
    };
    keys.sort_unstable();
    assert_eq!(keys, ["in", "out"]);
    assert_eq!(store.get(sent.project, sent.id).await.expect("get"), None);
    assert_eq!(store.payload(sent.project, sent.id).await.expect("payload"), None);
    assert_eq!(store.delete(sent.project, sent.id, true).await.expect("delete"), None);
    let forced = new_task();
    accept(store, &forced).await;
    let met = store.delete(forced.project, forced.id, true).await.expect("delete");
    assert_eq!(met, Some(Deleted::Applied(vec![])));
}

async fn strangers(store: &dyn Store) {
    let sent = new_task();
    accept(store, &sent).await;
    let other = ProjectId::new();
    assert_eq!(store.get(other, sent.id).await.expect("get"), None);
    assert_eq!(store.payload(other, sent.id).await.expect("payload"), None);
    assert_eq!(store.position(other, sent.id).await.expect("position"), None);
    assert_eq!(store.cancel(other, sent.id, "").await.expect("cancel"), None);
    assert_eq!(store.retry(other, sent.id, &Rerun::default()).await.expect("retry"), None);
    assert_eq!(store.delete(other, sent.id, true).await.expect("delete"), None);
    assert_eq!(get(store, &sent).await.state, State::Queued);
}
