//! What is noted of upstreams, and what is claimed while they are paused.

use super::super::samples::*;
use shared::{
    store::{Cause, Pause, Scope, Served, Store, UpstreamModels},
    task::{NewTask, TaskId},
};
use std::time::Duration;

super::cases! { models, pauses, trials, only_what_is_served }

async fn models(store: &dyn Store) {
    let upstream = new_queue().to_string();
    let mine = |list: Vec<UpstreamModels>| list.into_iter().find(|entry| entry.upstream == upstream);
    let names = ["a".to_owned(), "b".to_owned()];
    store.put_models(&upstream, Some(&names)).await.expect("put");
    let found = mine(store.models(LONG).await.expect("models"));
    assert_eq!(found.and_then(|entry| entry.models), Some(names.to_vec()));
    store.put_models(&upstream, None).await.expect("put");
    assert_eq!(mine(store.models(LONG).await.expect("models")).map(|entry| entry.models), Some(None));
    tokio::time::sleep(Duration::from_millis(20)).await;
    assert_eq!(mine(store.models(Duration::from_millis(10)).await.expect("models")), None);
}

async fn paused(store: &dyn Store, scope: &Scope) -> Option<Pause> {
    store.pauses().await.expect("pauses").into_iter().find(|pause| pause.scope == *scope)
}

async fn pauses(store: &dyn Store) {
    let upstream = new_queue().to_string();
    let (whole, model) = (Scope::upstream(&upstream), Scope::model(&upstream, "a b"));
    for scope in [&whole, &model] {
        assert_eq!(paused(store, scope).await, None);
        store.pause(scope, LONG, Cause::Throttled).await.expect("pause");
        store.pause(scope, Duration::from_millis(1), Cause::Throttled).await.expect("pause");
        let pause = paused(store, scope).await.expect("the later end counts");
        assert!(pause.left > LONG / 2 && pause.left <= LONG, "{pause:?}");
        assert_eq!(pause.cause, Cause::Throttled);
    }
    store.resume(&model).await.expect("resume");
    store.resume(&model).await.expect("twice is as good as once");
    assert_eq!(paused(store, &model).await, None);
    assert!(paused(store, &whole).await.is_some(), "only the model's pause has ended");
    store.pause(&model, Duration::ZERO, Cause::Throttled).await.expect("pause");
    tokio::time::sleep(Duration::from_millis(5)).await;
    assert_eq!(paused(store, &model).await, None, "a pause that is over is none");
}

async fn trials(store: &dyn Store) {
    let scope = Scope::model(&new_queue().to_string(), "m");
    assert!(!store.probe(&scope, LONG).await.expect("probe"), "there is nothing to try");
    store.pause(&scope, Duration::ZERO, Cause::Unreachable).await.expect("pause");
    store.pause(&scope, Duration::ZERO, Cause::Credentials).await.expect("pause");
    // Another pause does not make it well.
    store.pause(&scope, Duration::ZERO, Cause::Throttled).await.expect("pause");
    tokio::time::sleep(Duration::from_millis(5)).await;
    let pause = paused(store, &scope).await.expect("it is failing");
    assert_eq!((pause.left, pause.cause), (Duration::ZERO, Cause::Credentials));
    let asked = futures_util::future::join_all((0..8).map(|_| store.probe(&scope, LONG))).await;
    assert_eq!(asked.into_iter().filter(|asked| *asked.as_ref().expect("probe")).count(), 1, "one tries");
    assert!(paused(store, &scope).await.is_some_and(|pause| !pause.left.is_zero()));
}

async fn only_what_is_served(store: &dyn Store) {
    let other = NewTask { endpoint: "/v1/embeddings".into(), ..new_task() };
    let chat = NewTask { endpoint: "/v1/chat/completions".into(), model: "a b".into(), ..beside(&other) };
    let tasks = [other.clone(), chat.clone()];
    store.submit(&tasks).await.expect("submit");
    let only = super::super::samples::only;
    let listed = only(&[], &["/v1/chat/completions a b"]);
    let both = ["/v1/embeddings ", "/v1/chat/completions "];
    let but = only(&both, &["/v1/chat/completions a b"]);
    let (chat_a, chat_a_b) = ("/v1/chat/completions a", "/v1/chat/completions a b");
    for (served, wanted) in [
        (Served::default(), vec![other.id, chat.id]),
        (only(&[], &[]), vec![]),
        (only(&both[..1], &[]), vec![other.id]),
        (only(&[chat_a], &[]), vec![chat.id]),
        (only(&[both[0], both[1], chat_a], &[]), vec![other.id]),
        (only(&[chat_a], &[chat_a_b]), vec![]),
        (only(&["/v1/chat/completions b", "/v1/chat/completions_ "], &[]), vec![]),
        (listed.clone(), vec![chat.id]),
        (but.clone(), vec![other.id]),
    ] {
        let bells = store.ready(&other.queue, 10, &served).await.expect("ready");
        let mut found: Vec<TaskId> = bells.iter().map(|bell| bell.task).collect();
        found.sort_unstable();
        assert_eq!(found, wanted, "{served:?}");
    }
    let worker = new_worker(store).await;
    let ids = [other.id, chat.id];
    assert!(store.claim(worker, &ids, &only(&[], &[])).await.expect("claim").is_empty());
    let claimed = store.claim(worker, &ids, &listed).await.expect("claim");
    assert_eq!(claimed.iter().map(|claimed| claimed.task).collect::<Vec<_>>(), [chat.id]);
    let lanes = [other.queue.clone()];
    let claimed = store.claim_ready(worker, &lanes, 10, &but).await.expect("claim");
    assert_eq!(claimed.iter().map(|claimed| claimed.task).collect::<Vec<_>>(), [other.id]);
}
