//! Reads: pages, filters, glances, figures.

use super::super::samples::*;
use shared::{
    store::{ListQuery, METADATA_LOOKED_AT_MAX, Store},
    task::{NewTask, ProjectId, State, TaskId},
};

super::cases! { healthy, list_pages, list_filters, list_bounds, glances, positions, figures }

async fn healthy(store: &dyn Store) {
    store.migrate().await.expect("a second migration changes nothing");
    store.check().await.expect("the schema is the one of this program");
}

async fn ids(store: &dyn Store, project: ProjectId, query: ListQuery) -> (Vec<TaskId>, bool) {
    let page = store.list(project, &query).await.expect("list");
    (page.items.iter().map(|task| task.id).collect(), page.more_after.is_some())
}

async fn list_pages(store: &dyn Store) {
    let first = new_task();
    let tasks: Vec<NewTask> = (0..5).map(|_| beside(&first)).collect();
    store.submit(&tasks).await.expect("submit");
    let all: Vec<TaskId> = tasks.iter().map(|task| task.id).collect();
    for ascending in [true, false] {
        let mut wanted = all.clone();
        if !ascending {
            wanted.reverse();
        }
        let query = |after| ListQuery { ascending, limit: 2, after, ..ListQuery::default() };
        assert_eq!(ids(store, first.project, query(None)).await, (wanted[..2].to_vec(), true));
        assert_eq!(ids(store, first.project, query(Some(wanted[1]))).await, (wanted[2..4].to_vec(), true));
        assert_eq!(ids(store, first.project, query(Some(wanted[3]))).await, (wanted[4..].to_vec(), false));
        assert_eq!(ids(store, first.project, query(Some(wanted[4]))).await, (vec![], false));
    }
    let exact = ListQuery { limit: 5, ..ListQuery::default() };
    assert!(!ids(store, first.project, exact.clone()).await.1, "a full last page has no more");
    assert!(ids(store, ProjectId::new(), exact).await.0.is_empty());
}

/// A filter that hardly any row passes: pages end early, and lead to it all the same.
async fn list_bounds(store: &dyn Store) {
    let first = NewTask { metadata: Some(r#"{"team":"red"}"#.into()), delay: LONG, ..new_task() };
    accept(store, &first).await;
    let many: Vec<NewTask> =
        (0..2 * METADATA_LOOKED_AT_MAX).map(|_| NewTask { delay: LONG, ..beside(&first) }).collect();
    let many: Vec<NewTask> = many.into_iter().map(|task| NewTask { metadata: None, ..task }).collect();
    for tasks in many.chunks(500) {
        store.submit(tasks).await.expect("submit");
    }
    for (metadata, ascending, pages) in [("red", false, 3), ("red", true, 3), ("blue", false, 3)] {
        let metadata = vec![("team".to_owned(), metadata.to_owned())];
        let mut query = ListQuery { metadata, ascending, limit: 10, ..ListQuery::default() };
        let (mut found, mut looks) = (Vec::new(), 0);
        loop {
            let page = store.list(first.project, &query).await.expect("list");
            (found, looks) = (found.into_iter().chain(page.items).collect::<Vec<_>>(), looks + 1);
            query.after = page.more_after;
            if query.after.is_none() {
                break;
            }
        }
        let is_there = query.metadata[0].1 == "red";
        let found: Vec<TaskId> = found.iter().map(|task| task.id).collect();
        assert_eq!((found, looks), (is_there.then_some(first.id).into_iter().collect(), pages));
    }
}

async fn list_filters(store: &dyn Store) {
    let plain = new_task();
    let other = NewTask {
        queue: new_queue(),
        model: "other".into(),
        metadata: Some(r#"{"team":"red","run":"7"}"#.into()),
        ..beside(&plain)
    };
    let odd = NewTask { metadata: Some(r#"{"team":"a\u0000b"}"#.into()), delay: LONG, ..beside(&plain) };
    let (batch, mut lines) = new_batch(1);
    lines[0].project = plain.project;
    for task in [&plain, &other, &odd] {
        accept(store, task).await;
    }
    store
        .create_batch(&shared::store::NewBatch { project: plain.project, ..batch.clone() }, &lines)
        .await
        .expect("create");
    let at = get(store, &plain).await.created_at;
    let base = || ListQuery { limit: 10, ascending: true, ..ListQuery::default() };
    let pair = |key: &str, value: &str| vec![(key.to_owned(), value.to_owned())];
    let later = Some(at.plus(LONG));
    let cases = [
        (ListQuery { states: vec![State::Scheduled, State::Failed], ..base() }, vec![odd.id]),
        (ListQuery { queue: Some(other.queue.clone()), ..base() }, vec![other.id]),
        (ListQuery { model: Some("other".into()), ..base() }, vec![other.id]),
        (ListQuery { batch: Some(batch.id), ..base() }, vec![lines[0].id]),
        (ListQuery { metadata: pair("team", "red"), ..base() }, vec![other.id]),
        (ListQuery { metadata: pair("team", "blue"), ..base() }, vec![]),
        (ListQuery { metadata: pair("run", "7"), states: vec![State::Queued], ..base() }, vec![other.id]),
        (ListQuery { created_after: later, ..base() }, vec![]),
        (ListQuery { created_before: later, model: Some("other".into()), ..base() }, vec![other.id]),
        (ListQuery { created_after: Some(at), model: Some("other".into()), ..base() }, vec![other.id]),
    ];
    for (query, wanted) in cases {
        assert_eq!(ids(store, plain.project, query.clone()).await.0, wanted, "{query:?}");
    }
}

async fn glances(store: &dyn Store) {
    let (one, two) = (new_task(), new_task());
    accept(store, &one).await;
    run(store, &two).await;
    let mut found = store.glance(&[two.id, TaskId::new(), one.id]).await.expect("glance");
    found.sort_by_key(|change| change.task);
    let seen: Vec<_> =
        found.iter().map(|change| (change.task, change.project, change.state, change.seq)).collect();
    let wanted = [(one.id, one.project, State::Queued, 0), (two.id, two.project, State::InProgress, 1)];
    assert_eq!(seen, wanted);
    assert!(store.glance(&[]).await.expect("glance").is_empty());
}

async fn positions(store: &dyn Store) {
    let first = new_task();
    let tasks = [first.clone(), beside(&first), NewTask { priority: 9, ..beside(&first) }];
    store.submit(&tasks).await.expect("submit");
    let mut found = Vec::new();
    for task in &tasks {
        found.push(store.position(task.project, task.id).await.expect("position"));
    }
    assert_eq!(found, [Some(1), Some(2), Some(0)]);
    let worker = new_worker(store).await;
    claim(store, worker, &first).await;
    assert_eq!(store.position(first.project, first.id).await.expect("position"), None);
}

async fn figures(store: &dyn Store) {
    let first = new_task();
    let later = NewTask { delay: LONG, ..beside(&first) };
    store.submit(&[first.clone(), beside(&first), beside(&first), later]).await.expect("submit");
    let worker = new_worker(store).await;
    let claimed = claim(store, worker, &first).await;
    for project in [Some(first.project), None] {
        let figures = store.queues(project).await.expect("queues");
        let ours = figures.iter().find(|figure| figure.queue == first.queue).expect("the queue is listed");
        assert_eq!((ours.queued, ours.scheduled, ours.in_progress), (2, 1, 1));
        assert!(ours.oldest.is_some_and(|age| age < LONG));
    }
    applied(finish(store, &completed(&claimed)).await);
    let figures = store.queues(Some(first.project)).await.expect("queues");
    assert_eq!((figures.len(), figures[0].in_progress), (1, 0));
    assert!(
        store.queues(Some(ProjectId::new())).await.expect("queues").iter().all(|figure| figure.queued == 0)
    );
}
