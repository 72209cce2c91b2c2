//! Of some projects only so many tasks may run at once.

use super::super::samples::{self, LONG, beside, completed, new_task};
use futures_util::future::join_all;
use shared::{
    store::{Cap, Capped, Claimed, Registry, Served, Store},
    task::{NewTask, ProjectId, TaskId},
};
use std::collections::HashSet;

pub(in super::super) async fn all<S: Store + Registry>(store: &S) {
    only_so_many_run(store).await;
    everybody_has_the_usual_cap(store).await;
    rivals_share_what_is_left(store).await;
}

fn capped(project: ProjectId, tasks: u32) -> Served {
    let own = [Cap { project, tasks }].into();
    Served { capped: Capped { own, usual: None }, ..Served::default() }
}

/// A project that has a row, with tasks of these priorities in one queue.
async fn backlog<S: Store + Registry>(store: &S, priorities: &[i16]) -> Vec<NewTask> {
    let id = ProjectId::new();
    let name = id.to_string().replace('_', "-");
    store.create_project("tester", id, &name).await.expect("create").expect("a new name");
    let first = NewTask { project: id, ..new_task() };
    let tasks: Vec<NewTask> =
        priorities.iter().map(|&priority| NewTask { priority, ..beside(&first) }).collect();
    store.submit(&tasks).await.expect("submit");
    tasks
}

fn ids(tasks: &[NewTask]) -> Vec<TaskId> {
    tasks.iter().map(|task| task.id).collect()
}

fn claimed(claimed: &[Claimed]) -> HashSet<TaskId> {
    claimed.iter().map(|claimed| claimed.task).collect()
}

async fn only_so_many_run<S: Store + Registry>(store: &S) {
    let tasks = backlog(store, &[0, 5, 0, 9, 0]).await;
    let other = NewTask { queue: tasks[0].queue.clone(), ..new_task() };
    store.submit(std::slice::from_ref(&other)).await.expect("submit");
    let (queue, served) = (&tasks[0].queue, capped(tasks[0].project, 2));
    let ready = async |capped: bool| {
        let found = match capped {
            true => store.ready_capped(std::slice::from_ref(queue), 10, &served).await,
            false => store.ready(queue, 10, &served).await,
        };
        found.expect("ready").into_iter().map(|bell| bell.task).collect::<HashSet<_>>()
    };
    assert_eq!(ready(false).await, HashSet::from([other.id]), "the others' are rung for as ever");
    assert_eq!(ready(true).await, HashSet::from([tasks[1].id, tasks[3].id]), "as many as may, best first");
    let worker = samples::new_worker(store).await;
    let all: Vec<TaskId> = ids(&tasks).into_iter().chain([other.id]).collect();
    let usual = store.claim(worker, &all, &served).await.expect("claim");
    assert_eq!(claimed(&usual), HashSet::from([other.id]));
    assert!(
        store.claim_ready(worker, std::slice::from_ref(queue), 10, &served).await.expect("claim").is_empty()
    );
    let mine = store.claim_capped(worker, &all, &served).await.expect("claim");
    assert_eq!(claimed(&mine), HashSet::from([tasks[1].id, tasks[3].id]));
    assert!(ready(true).await.is_empty());
    assert!(store.claim_capped(worker, &all, &served).await.expect("claim").is_empty(), "two run");
    samples::finish(store, &completed(&mine[0])).await;
    assert_eq!(ready(true).await.len(), 1);
    assert_eq!(store.claim_capped(worker, &all, &served).await.expect("claim").len(), 1, "one has ended");
    let more = capped(tasks[0].project, 10);
    assert_eq!(store.claim_capped(worker, &all, &more).await.expect("claim").len(), 2, "the cap was raised");
}

async fn everybody_has_the_usual_cap<S: Store + Registry>(store: &S) {
    let tasks = backlog(store, &[0, 3, 0]).await;
    let (queue, worker) = (&tasks[0].queue, samples::new_worker(store).await);
    let usual = Capped { usual: Some(1), ..Capped::default() };
    let served = Served { capped: usual.clone(), ..Served::default() };
    assert!(store.ready(queue, 10, &served).await.expect("ready").is_empty());
    assert!(store.claim(worker, &ids(&tasks), &served).await.expect("claim").is_empty());
    let best = store.ready_capped(std::slice::from_ref(queue), 10, &served).await.expect("ready");
    assert_eq!(best.iter().map(|bell| bell.task).collect::<Vec<_>>(), [tasks[1].id]);
    let mine = store.claim_capped(worker, &ids(&tasks), &served).await.expect("claim");
    assert_eq!(claimed(&mine), HashSet::from([tasks[1].id]));
    let own = [Cap { project: tasks[0].project, tasks: 2 }].into();
    let served = Served { capped: Capped { own, ..usual }, ..Served::default() };
    assert_eq!(
        store.claim_capped(worker, &ids(&tasks), &served).await.expect("claim").len(),
        1,
        "its own counts"
    );
}

async fn rivals_share_what_is_left<S: Store + Registry>(store: &S) {
    let tasks = backlog(store, &[0; 40]).await;
    let (all, served) = (ids(&tasks), capped(tasks[0].project, 7));
    let workers = join_all((0..8).map(|_| samples::worker_for(store, LONG))).await;
    let claims =
        workers.iter().zip(all.chunks(5)).map(|(&worker, ids)| store.claim_capped(worker, ids, &served));
    let claimed: usize =
        join_all(claims).await.into_iter().map(|claimed| claimed.expect("claim").len()).sum();
    assert_eq!(claimed, 7, "whoever comes first, no more than may");
}
