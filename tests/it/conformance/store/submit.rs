//! Submit: one answer per input, one task per id and per key.

use super::super::samples::*;
use futures_util::future::join_all;
use shared::{
    store::{Store, Submitted},
    task::{NewTask, Payload, ProjectId, State, TaskId},
};
use std::{collections::HashMap, time::Duration};

super::cases! {
    accepted_as_sent, bodies_are_bytes, objects_are_references, repeated_id, replayed_key, reused_key, keys_belong_to_projects,
    duplicates_in_one_call, a_bad_row_fails_alone, many_rivals_few_keys, later,
}

async fn accepted_as_sent(store: &dyn Store) {
    let before = now(store).await;
    let sent = NewTask { priority: -7, metadata: Some(r#"{"b":"1","a":"2"}"#.into()), ..new_task() };
    let task = accept(store, &sent).await;
    assert_eq!((task.id, task.project, task.queue.clone()), (sent.id, sent.project, sent.queue.clone()));
    assert_eq!((task.state, task.priority, task.attempt, task.last_seq), (State::Queued, -7, 0, 0));
    assert_eq!(
        (task.metadata.clone(), task.relay, task.max_attempts),
        (sent.metadata.clone(), sent.relay, 5)
    );
    assert!(task.created_at >= before && task.created_at <= now(store).await);
    assert_eq!(task.expires_at, task.created_at.plus(sent.policy.ttl));
    assert_eq!(task, get(store, &sent).await, "what is answered is what is stored");
    assert!(store.submit(&[]).await.expect("nothing").is_empty());
}

async fn bodies_are_bytes(store: &dyn Store) {
    for body in [b"".as_slice(), b"{\"t\":\"a\0b\\u0000\"}", b"{\"n\": 12345678901234567890 }", b"\xff\xfe"] {
        let sent = NewTask { payload: Payload::Inline(body.into()), ..new_task() };
        let (_, claimed) = run(store, &sent).await;
        assert_eq!(claimed.payload, sent.payload);
        assert_eq!(store.payload(sent.project, sent.id).await.expect("payload"), Some(sent.payload));
    }
}

async fn objects_are_references(store: &dyn Store) {
    let sent = NewTask { payload: Payload::Object { key: "k/1".into(), len: 5_000_000_000 }, ..new_task() };
    let (_, claimed) = run(store, &sent).await;
    assert_eq!(claimed.payload, sent.payload);
    assert_eq!(store.payload(sent.project, sent.id).await.expect("payload"), Some(sent.payload));
}

async fn repeated_id(store: &dyn Store) {
    let sent = NewTask { idempotency: key("k", 1), ..new_task() };
    let first = accept(store, &sent).await;
    let worker = new_worker(store).await;
    claim(store, worker, &sent).await;
    let second = accept(store, &sent).await;
    assert_eq!((second.id, second.created_at, second.state), (first.id, first.created_at, State::InProgress));
}

async fn replayed_key(store: &dyn Store) {
    let first = NewTask { idempotency: key("k", 1), ..new_task() };
    accept(store, &first).await;
    let second = beside(&first);
    assert_eq!(submit_one(store, &second).await, Submitted::Replayed(first.id));
    assert_eq!(store.get(second.project, second.id).await.expect("get"), None);
}

async fn reused_key(store: &dyn Store) {
    let first = NewTask { idempotency: key("k", 1), ..new_task() };
    accept(store, &first).await;
    let second = NewTask { idempotency: key("k", 2), ..beside(&first) };
    assert_eq!(submit_one(store, &second).await, Submitted::KeyReused);
    assert_eq!(store.get(second.project, second.id).await.expect("get"), None);
}

async fn keys_belong_to_projects(store: &dyn Store) {
    let first = NewTask { idempotency: key("k", 1), ..new_task() };
    accept(store, &first).await;
    accept(store, &NewTask { project: ProjectId::new(), ..beside(&first) }).await;
}

async fn duplicates_in_one_call(store: &dyn Store) {
    let first = NewTask { idempotency: key("k", 1), ..new_task() };
    let other = NewTask { idempotency: key("k", 2), ..beside(&first) };
    let plain = new_task();
    let call = [plain.clone(), first.clone(), beside(&first), other, first.clone(), plain.clone()];
    let answers = store.submit(&call).await.expect("submit");
    let ids: Vec<_> = answers
        .iter()
        .map(|answer| match answer {
            Submitted::Accepted(task) => Some(task.id),
            _ => None,
        })
        .collect();
    assert_eq!(ids, [Some(plain.id), Some(first.id), None, None, Some(first.id), Some(plain.id)]);
    assert_eq!((&answers[2], &answers[3]), (&Submitted::Replayed(first.id), &Submitted::KeyReused));
}

async fn a_bad_row_fails_alone(store: &dyn Store) {
    // An engine may store it; if it cannot, its neighbours do not notice.
    let bad = NewTask { metadata: Some("{\"a\":\"\0\"}".into()), ..new_task() };
    let bad_key = NewTask { idempotency: key("a\0b", 1), ..new_task() };
    let known = NewTask { idempotency: key("k", 1), ..new_task() };
    accept(store, &known).await;
    let call = [new_task(), bad, beside(&known), bad_key.clone(), beside(&bad_key), new_task()];
    let answers = store.submit(&call).await.expect("submit");
    assert!(matches!(&answers[0], Submitted::Accepted(task) if task.id == call[0].id));
    assert!(matches!(&answers[1], Submitted::Accepted(_) | Submitted::Refused(_)));
    assert_eq!(answers[2], Submitted::Replayed(known.id));
    assert!(matches!(&answers[5], Submitted::Accepted(task) if task.id == call[5].id));
    assert_eq!(get(store, &call[5]).await.state, State::Queued);
}

async fn many_rivals_few_keys(store: &dyn Store) {
    let first = new_task();
    let rival =
        |number: usize| NewTask { idempotency: key(&format!("k{}", number % 100), 1), ..beside(&first) };
    let rivals: Vec<NewTask> = (0..1000).map(rival).collect();
    let calls = rivals.chunks(8).map(|chunk| store.submit(chunk));
    let answers: Vec<Submitted> =
        join_all(calls).await.into_iter().flat_map(|answers| answers.expect("submit")).collect();
    let mut holders: HashMap<&str, TaskId> = HashMap::new();
    for (rival, answer) in rivals.iter().zip(&answers) {
        let id = match answer {
            Submitted::Accepted(task) => task.id,
            Submitted::Replayed(id) => *id,
            other => panic!("{other:?}"),
        };
        let key = rival.idempotency.as_ref().map_or("", |key| &key.key);
        assert_eq!(*holders.entry(key).or_insert(id), id, "one task per key");
    }
    let stored = answers.iter().filter(|answer| matches!(answer, Submitted::Accepted(_))).count();
    assert_eq!((holders.len(), stored), (100, 100));
}

async fn later(store: &dyn Store) {
    let delayed = NewTask { delay: LONG, ..new_task() };
    let task = accept(store, &delayed).await;
    assert_eq!((task.state, task.run_at), (State::Scheduled, Some(task.created_at.plus(LONG))));
    let named =
        NewTask { delay: LONG, run_at: Some(task.created_at.plus(Duration::from_secs(9))), ..new_task() };
    let task = accept(store, &named).await;
    assert_eq!(task.run_at, named.run_at);
    assert_eq!(
        task.expires_at,
        task.created_at.plus(named.policy.ttl),
        "the wait is part of the time to live"
    );
    let past = NewTask { delay: LONG, run_at: Some(shared::clock::UnixMs(1)), ..new_task() };
    let task = accept(store, &past).await;
    assert_eq!((task.state, task.run_at), (State::Queued, None));
}
