//! What every outbox promises: the docs of trait `Webhooks`, case by case.

use super::samples::{LONG, accept, beside, claim, completed, finish, new_batch, new_task, new_worker};
use shared::{
    store::{
        DeliveryClaim, DeliveryQuery, ENDPOINTS_MAX, EndpointChange, NewEndpoint, Receivers, Registry,
        Settle, Store, Webhooks,
    },
    task::{EndpointId, NewTask, ProjectId},
    webhook::{Attempt, Delivery, DeliveryState, Due, Endpoint, EventType, OwnWebhook, SigningSecret},
};
use std::{collections::HashSet, time::Duration};

/// Runs every case on one store, one after the other.
pub(super) async fn all<S: Store + Registry + Webhooks>(store: &S) {
    endpoints_are_their_projects_own(store).await;
    an_end_is_written_down_for_whoever_wants_it(store).await;
    a_batch_is_told_of_as_a_whole(store).await;
    a_task_may_have_a_webhook_of_its_own(store).await;
    a_claim_holds_and_runs_out(store).await;
    a_long_backlog_of_one_hides_no_other(store).await;
    attempts_are_settled_once(store).await;
    an_endpoint_that_is_gone_is_disabled(store).await;
    secrets_overlap(store).await;
    what_has_ended_is_forgotten(store).await;
}

const URL: &str = "https://example.com/hook";

fn wanted(types: &[EventType]) -> NewEndpoint {
    NewEndpoint {
        name: "mine".into(),
        url: URL.into(),
        event_types: types.to_vec(),
        secret: SigningSecret::generate(),
    }
}

async fn project<S: Registry>(store: &S) -> ProjectId {
    let id = ProjectId::new();
    let name = id.to_string().replace('_', "-");
    store.create_project("tester", id, &name).await.expect("create").expect("a new name").id
}

async fn made<S: Webhooks>(store: &S, project: ProjectId, types: &[EventType]) -> Endpoint {
    store.create_endpoint("tester", project, &wanted(types)).await.expect("create").expect("room")
}

/// A task of this project that has completed.
async fn ended<S: Store>(store: &S, project: ProjectId) -> NewTask {
    let task = NewTask { project, ..new_task() };
    end(store, &task).await;
    task
}

async fn end<S: Store>(store: &S, task: &NewTask) {
    accept(store, task).await;
    let worker = new_worker(store).await;
    let claimed = claim(store, worker, task).await;
    finish(store, &completed(&claimed)).await;
}

fn of_all() -> DeliveryClaim {
    DeliveryClaim { limit: 1_000, per_target: 1_000, receivers: Receivers::AllBut(Vec::new()), lease: LONG }
}

/// What is due of one project: others' rows may be there as well, and are claimed with them.
async fn due<S: Webhooks>(store: &S, project: ProjectId, wanted: &DeliveryClaim) -> Vec<Due> {
    let due = store.claim_deliveries(wanted).await.expect("claim");
    due.into_iter().filter(|due| due.project == project).collect()
}

async fn deliveries<S: Webhooks>(store: &S, project: ProjectId) -> Vec<Delivery> {
    let query = DeliveryQuery { limit: 100, ..DeliveryQuery::default() };
    store.deliveries(project, &query).await.expect("list").items
}

async fn one<S: Webhooks>(store: &S, project: ProjectId) -> Delivery {
    let mut all = deliveries(store, project).await;
    assert_eq!(all.len(), 1, "{all:?}");
    all.remove(0)
}

fn settle(due: &Due, outcome: Attempt, again: Option<Duration>) -> Settle {
    Settle { id: due.id, attempt: due.attempt, outcome, again }
}

fn failed(status: u16) -> Attempt {
    Attempt::Failed { status: Some(status), error: format!("status {status}"), retry_after: None }
}

async fn endpoints_are_their_projects_own<S: Store + Registry + Webhooks>(store: &S) {
    let (mine, other) = (project(store).await, project(store).await);
    let first = made(store, mine, &[EventType::TaskFailed, EventType::BatchCompleted]).await;
    assert_eq!((first.name.as_str(), first.url.as_str(), first.disabled_at), ("mine", URL, None));
    let second = made(store, mine, &[EventType::TaskCompleted]).await;
    let ids = async |after, limit| {
        let page = store.endpoints(mine, after, limit).await.expect("list");
        (page.items.iter().map(|endpoint| endpoint.id).collect::<Vec<_>>(), page.has_more)
    };
    assert_eq!(ids(None, 10).await, (vec![second.id, first.id], false));
    assert_eq!(ids(None, 1).await, (vec![second.id], true));
    assert_eq!(ids(Some(second.id), 10).await, (vec![first.id], false));
    assert!(store.endpoint(other, first.id).await.expect("get").is_none());
    let change = EndpointChange { name: Some("yours".into()), ..EndpointChange::default() };
    assert!(store.update_endpoint("tester", other, first.id, &change).await.expect("update").is_none());
    assert!(!store.delete_endpoint("tester", other, first.id).await.expect("delete"));
    assert!(
        store
            .rotate_secret("tester", other, first.id, &SigningSecret::generate(), LONG)
            .await
            .expect("rotate")
            .is_none()
    );
    let changed =
        store.update_endpoint("tester", mine, first.id, &change).await.expect("update").expect("it is there");
    assert_eq!(
        (changed.name.as_str(), changed.url.as_str(), changed.event_types),
        ("yours", URL, first.event_types)
    );
    assert!(store.delete_endpoint("tester", mine, first.id).await.expect("delete"));
    assert!(!store.delete_endpoint("tester", mine, first.id).await.expect("delete"));
    for _ in 1..ENDPOINTS_MAX {
        made(store, mine, &[EventType::TaskFailed]).await;
    }
    assert!(
        store
            .create_endpoint("tester", mine, &wanted(&[EventType::TaskFailed]))
            .await
            .expect("create")
            .is_none()
    );
    let acts = store.acts(None, 100).await.expect("acts").items;
    let of =
        |action: &str| acts.iter().any(|act| &*act.action == action && *act.target == first.id.to_string());
    assert!(of("webhook.create") && of("webhook.update") && of("webhook.delete"), "{acts:?}");
    assert!(!format!("{acts:?}").contains(first.secret.expose()));
}

async fn an_end_is_written_down_for_whoever_wants_it<S: Store + Registry + Webhooks>(store: &S) {
    let (mine, other) = (project(store).await, project(store).await);
    let wants = made(store, mine, &[EventType::TaskCompleted, EventType::TaskCancelled]).await;
    made(store, mine, &[EventType::TaskFailed]).await;
    let off = made(store, mine, &[EventType::TaskCompleted]).await;
    let disable = EndpointChange { enabled: Some(false), ..EndpointChange::default() };
    store.update_endpoint("tester", mine, off.id, &disable).await.expect("update");
    made(store, other, &[EventType::TaskCompleted]).await;
    let task = ended(store, mine).await;
    let told = one(store, mine).await;
    assert_eq!(
        (told.endpoint, told.event_type, told.subject),
        (Some(wants.id), EventType::TaskCompleted, task.id.0)
    );
    assert_eq!((told.state, told.attempts, told.last_error), (DeliveryState::Pending, 0, None));
    assert!(deliveries(store, other).await.is_empty());
    let cancelled = NewTask { project: mine, ..new_task() };
    accept(store, &cancelled).await;
    for _ in 0..2 {
        store.cancel(mine, cancelled.id, "enough").await.expect("cancel");
    }
    let told = deliveries(store, mine).await;
    assert_eq!(
        (told.len(), told[0].event_type, told[0].subject),
        (2, EventType::TaskCancelled, cancelled.id.0)
    );
    let late = NewTask {
        project: other,
        policy: shared::task::Policy { ttl: Duration::from_millis(1), ..task.policy },
        ..new_task()
    };
    made(store, other, &[EventType::TaskExpired]).await;
    accept(store, &late).await;
    tokio::time::sleep(Duration::from_millis(5)).await;
    while !store.expire(1_000).await.expect("expire").is_empty() {}
    assert_eq!(one(store, other).await.event_type, EventType::TaskExpired);
}

async fn a_batch_is_told_of_as_a_whole<S: Store + Registry + Webhooks>(store: &S) {
    let mine = project(store).await;
    made(store, mine, &EventType::ALL).await;
    let (mut batch, mut lines) = new_batch(2);
    batch.project = mine;
    lines.iter_mut().for_each(|line| line.project = mine);
    store.create_batch(&batch, &lines).await.expect("create");
    let worker = new_worker(store).await;
    for line in &lines {
        let claimed = claim(store, worker, line).await;
        finish(store, &completed(&claimed)).await;
    }
    assert!(deliveries(store, mine).await.is_empty(), "lines are not told of");
    while !store.close_batches(100).await.expect("close").is_empty() {}
    let told = one(store, mine).await;
    assert_eq!((told.event_type, told.subject), (EventType::BatchCompleted, batch.id.0));
}

async fn a_task_may_have_a_webhook_of_its_own<S: Store + Registry + Webhooks>(store: &S) {
    let mine = project(store).await;
    let own = EndpointId(mine.0);
    assert!(store.endpoint(mine, own).await.expect("get").is_none());
    let secret = SigningSecret::generate();
    store.rotate_secret("tester", mine, own, &secret, LONG).await.expect("rotate").expect("it is made");
    assert!(store.endpoints(mine, None, 10).await.expect("list").items.is_empty());
    assert!(!store.delete_endpoint("tester", mine, own).await.expect("delete"));
    let mut targets = HashSet::new();
    for (url, types) in [
        ("https://a.example/1", &[EventType::TaskCompleted][..]),
        ("https://a.example/2", &EventType::ALL),
        ("https://b.example/1", &EventType::ALL),
        ("https://c.example/", &[EventType::TaskFailed]),
    ] {
        let webhook = Some(OwnWebhook::new(mine, url, types).to_json());
        end(store, &NewTask { project: mine, webhook, ..new_task() }).await;
        let due = due(store, mine, &of_all()).await;
        assert_eq!(due.len(), usize::from(url != "https://c.example/"), "{url}");
        for due in due {
            assert_eq!((due.url.as_str(), due.secrets[0].expose()), (url, secret.expose()));
            targets.insert(due.target);
        }
    }
    assert_eq!(targets.len(), 2, "URLs of one origin share a receiver");
    assert!(deliveries(store, mine).await.iter().all(|delivery| delivery.endpoint.is_none()));
}

async fn a_claim_holds_and_runs_out<S: Store + Registry + Webhooks>(store: &S) {
    let mine = project(store).await;
    let endpoint = made(store, mine, &[EventType::TaskCompleted]).await;
    ended(store, mine).await;
    let short = DeliveryClaim { lease: Duration::from_millis(1), ..of_all() };
    let first = due(store, mine, &short).await;
    assert_eq!(
        (first.len(), first[0].attempt, first[0].url.as_str(), first[0].target),
        (1, 1, URL, endpoint.id.0)
    );
    tokio::time::sleep(Duration::from_millis(5)).await;
    let again = due(store, mine, &of_all()).await;
    assert_eq!((again.len(), again[0].attempt, again[0].id), (1, 2, first[0].id), "the same id");
    assert!(due(store, mine, &of_all()).await.is_empty(), "somebody has it");
    // The first one's word counts no more.
    store.settle_deliveries(&[settle(&first[0], failed(500), None)]).await.expect("settle");
    assert_eq!(one(store, mine).await.state, DeliveryState::Pending);
}

async fn a_long_backlog_of_one_hides_no_other<S: Store + Registry + Webhooks>(store: &S) {
    let (slow, quick) = (project(store).await, project(store).await);
    let busy = made(store, slow, &[EventType::TaskCompleted]).await;
    made(store, quick, &[EventType::TaskCompleted]).await;
    for _ in 0..6 {
        ended(store, slow).await;
    }
    ended(store, quick).await;
    let only = DeliveryClaim { receivers: Receivers::Only(vec![busy.id.0]), per_target: 1, ..of_all() };
    let claimed = store.claim_deliveries(&only).await.expect("claim");
    assert_eq!(claimed.iter().map(|due| due.target).collect::<Vec<_>>(), [busy.id.0], "nobody else");
    let few = DeliveryClaim { per_target: 2, ..of_all() };
    let claimed = store.claim_deliveries(&few).await.expect("claim");
    let of = |project| claimed.iter().filter(|due| due.project == project).count();
    assert_eq!((of(slow), of(quick)), (2, 1));
    let except = DeliveryClaim { receivers: Receivers::AllBut(vec![busy.id.0]), ..of_all() };
    assert!(due(store, slow, &except).await.is_empty());
    let most = DeliveryClaim { limit: 3, ..of_all() };
    assert!(store.claim_deliveries(&most).await.expect("claim").len() <= 3);
}

async fn attempts_are_settled_once<S: Store + Registry + Webhooks>(store: &S) {
    let mine = project(store).await;
    let endpoint = made(store, mine, &[EventType::TaskCompleted]).await;
    ended(store, mine).await;
    let first = due(store, mine, &of_all()).await.remove(0);
    store.settle_deliveries(&[settle(&first, failed(503), Some(Duration::ZERO))]).await.expect("settle");
    let told = one(store, mine).await;
    assert_eq!(
        (told.state, told.last_status, told.last_error.as_deref()),
        (DeliveryState::Pending, Some(503), Some("status 503"))
    );
    let failing =
        async || store.endpoint(mine, endpoint.id).await.expect("get").expect("it is there").failing_since;
    assert!(failing().await.is_some());
    let second = due(store, mine, &of_all()).await.remove(0);
    let taken = settle(&second, Attempt::Taken { status: 204 }, None);
    for _ in 0..2 {
        store.settle_deliveries(std::slice::from_ref(&taken)).await.expect("settle");
    }
    let told = one(store, mine).await;
    assert_eq!(
        (told.state, told.attempts, told.last_status, told.due_at),
        (DeliveryState::Delivered, 2, Some(204), None)
    );
    assert!(told.ended_at.is_some() && failing().await.is_none());
    assert!(due(store, mine, &of_all()).await.is_empty());
    let again = store.redeliver(mine, told.id).await.expect("redeliver").expect("it is there");
    assert_eq!((again.id, again.state), (told.id, DeliveryState::Pending));
    let third = due(store, mine, &of_all()).await.remove(0);
    store.settle_deliveries(&[settle(&third, failed(500), None)]).await.expect("settle");
    assert_eq!(one(store, mine).await.state, DeliveryState::Failed);
    assert!(
        store.redeliver(project(store).await, told.id).await.expect("redeliver").is_none(),
        "another project's"
    );
    let query = DeliveryQuery {
        state: Some(DeliveryState::Failed),
        endpoint: Some(endpoint.id),
        limit: 1,
        after: None,
    };
    assert_eq!(store.deliveries(mine, &query).await.expect("list").items.len(), 1);
    let others = DeliveryQuery { state: Some(DeliveryState::Delivered), ..query };
    assert!(store.deliveries(mine, &others).await.expect("list").items.is_empty());
}

async fn an_endpoint_that_is_gone_is_disabled<S: Store + Registry + Webhooks>(store: &S) {
    let mine = project(store).await;
    let endpoint = made(store, mine, &[EventType::TaskCompleted]).await;
    let first = ended(store, mine).await;
    end(store, &beside(&first)).await;
    let due_now = due(store, mine, &DeliveryClaim { per_target: 1, ..of_all() }).await;
    store.settle_deliveries(&[settle(&due_now[0], Attempt::Gone, None)]).await.expect("settle");
    let found = store.endpoint(mine, endpoint.id).await.expect("get").expect("it is there");
    assert!(found.disabled_at.is_some());
    assert!(due(store, mine, &of_all()).await.is_empty(), "what waits for it waits");
    end(store, &beside(&first)).await;
    assert_eq!(deliveries(store, mine).await.len(), 2, "it is told of nothing more");
    let enable = EndpointChange { enabled: Some(true), ..EndpointChange::default() };
    let found = store
        .update_endpoint("tester", mine, endpoint.id, &enable)
        .await
        .expect("update")
        .expect("it is there");
    assert_eq!((found.disabled_at, found.failing_since), (None, None));
    assert_eq!(due(store, mine, &of_all()).await.len(), 1);
}

async fn secrets_overlap<S: Store + Registry + Webhooks>(store: &S) {
    let mine = project(store).await;
    let endpoint = made(store, mine, &[EventType::TaskCompleted]).await;
    let (second, third) = (SigningSecret::generate(), SigningSecret::generate());
    let rotate = async |secret: &SigningSecret, overlap| {
        store
            .rotate_secret("tester", mine, endpoint.id, secret, overlap)
            .await
            .expect("rotate")
            .expect("it is there");
        let task = ended(store, mine).await;
        let due = due(store, mine, &of_all()).await;
        let due = due.into_iter().find(|due| due.subject == task.id.0).expect("it is due");
        due.secrets.iter().map(|secret| secret.expose().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(rotate(&second, LONG).await, [second.expose(), endpoint.secret.expose()]);
    assert_eq!(rotate(&third, Duration::ZERO).await, [third.expose()]);
}

async fn what_has_ended_is_forgotten<S: Store + Registry + Webhooks>(store: &S) {
    let mine = project(store).await;
    let endpoint = made(store, mine, &[EventType::TaskCompleted]).await;
    ended(store, mine).await;
    let first = due(store, mine, &of_all()).await.remove(0);
    store.settle_deliveries(&[settle(&first, Attempt::Taken { status: 200 }, None)]).await.expect("settle");
    ended(store, mine).await;
    store.forget_deliveries(1_000, LONG).await.expect("forget");
    assert_eq!(deliveries(store, mine).await.len(), 2);
    tokio::time::sleep(Duration::from_millis(5)).await;
    assert!(store.forget_deliveries(1_000, Duration::from_millis(1)).await.expect("forget") >= 1);
    assert_eq!(one(store, mine).await.state, DeliveryState::Pending);
    let disable = EndpointChange { enabled: Some(false), ..EndpointChange::default() };
    store.update_endpoint("tester", mine, endpoint.id, &disable).await.expect("update");
    tokio::time::sleep(Duration::from_millis(5)).await;
    store.forget_deliveries(1_000, Duration::from_millis(1)).await.expect("forget");
    let told = one(store, mine).await;
    assert_eq!((told.state, told.due_at), (DeliveryState::Failed, None), "nobody waits for ever");
    assert!(store.delete_endpoint("tester", mine, endpoint.id).await.expect("delete"));
    assert!(deliveries(store, mine).await.is_empty(), "they go with their endpoint");
}
