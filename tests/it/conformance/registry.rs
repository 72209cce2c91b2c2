//! What every registry promises: the docs of trait `Registry`, case by case.

use shared::{
    identity::{ApiKey, Holder, Quotas, Scope, Scopes, Ticket},
    store::{Grant, Key, NewKey, Project, Registry},
    task::{KeyId, ProjectId},
};
use std::time::Duration;

const LONG: Duration = Duration::from_secs(3_600);

/// Runs every case on one registry, one after the other.
pub(super) async fn all(registry: &dyn Registry) {
    no_key_at_first(registry).await;
    names_are_unique(registry).await;
    a_key_is_known_while_it_lives(registry).await;
    rotation_overlaps(registry).await;
    a_ticket_is_good_once(registry).await;
    pages(registry).await;
}

async fn project(registry: &dyn Registry) -> Project {
    let id = ProjectId::new();
    let name = id.to_string().replace('_', "-");
    registry.create_project("tester", id, &name).await.expect("create").expect("a new name")
}

async fn made(registry: &dyn Registry, project: ProjectId, lives: Option<Duration>) -> (NewKey, Key) {
    let (_, new) = NewKey::generate();
    let scopes: Scopes = [Scope::Read, Scope::Submit].into_iter().collect();
    let grant = Grant { project, name: "mine".into(), scopes, lives, quotas: Quotas::default() };
    let key = registry.create_key("tester", &new, &grant).await.expect("create").expect("a project");
    assert_eq!((key.id, key.project, key.scopes, &*key.name), (new.id, project, scopes, "mine"));
    (new, key)
}

async fn is_known(registry: &dyn Registry, key: &NewKey) -> bool {
    let known = registry.know(&[ApiKey::digest("another"), key.digest]).await.expect("know");
    assert!(known.iter().all(|known| known.digest == key.digest && known.id == key.id));
    known.len() == 1
}

async fn no_key_at_first(registry: &dyn Registry) {
    assert!(!registry.has_keys().await.expect("has keys"));
    let (_, new) = NewKey::generate();
    let grant = Grant {
        project: ProjectId::new(),
        name: String::new(),
        scopes: Scopes::ALL,
        lives: None,
        quotas: Quotas::default(),
    };
    assert_eq!(registry.create_key("tester", &new, &grant).await.expect("create"), None, "no such project");
    assert!(!registry.has_keys().await.expect("has keys"));
    made(registry, ProjectId::DEFAULT, None).await;
    assert!(registry.has_keys().await.expect("has keys"));
}

async fn names_are_unique(registry: &dyn Registry) {
    let mine = project(registry).await;
    let again = registry.create_project("tester", ProjectId::new(), &mine.name).await;
    assert_eq!(again.expect("create"), None);
    assert_eq!(registry.project(&mine.name).await.expect("project").as_ref(), Some(&mine));
    assert_eq!(registry.project_by_id(mine.id).await.expect("project").as_ref(), Some(&mine));
    assert_eq!(registry.project("nobody").await.expect("project"), None);
    assert_eq!(registry.project_by_id(ProjectId::new()).await.expect("project"), None);
    assert!(registry.projects().await.expect("projects").contains(&mine));
}

async fn a_key_is_known_while_it_lives(registry: &dyn Registry) {
    let mine = project(registry).await.id;
    let (brief, _) = made(registry, mine, Some(Duration::from_millis(200))).await;
    let (new, key) = made(registry, mine, Some(LONG)).await;
    let known = registry.know(&[new.digest]).await.expect("know").pop().expect("known");
    assert_eq!((known.id, known.project, known.scopes), (key.id, mine, key.scopes));
    assert!(known.left.is_some_and(|left| left <= LONG && left > LONG / 2), "{known:?}");
    tokio::time::sleep(Duration::from_millis(250)).await;
    assert!(!is_known(registry, &brief).await, "it has expired");
    registry.used(&[new.id]).await.expect("used");
    let revoked = registry.revoke_key("tester", new.id).await.expect("revoke").expect("a key");
    assert!(revoked.revoked_at.is_some() && revoked.used_at.is_some(), "{revoked:?}");
    assert!(!is_known(registry, &new).await, "it is revoked");
    let twice = registry.revoke_key("tester", new.id).await.expect("revoke");
    assert_eq!(twice, Some(revoked), "once is enough");
    assert_eq!(registry.revoke_key("tester", KeyId::new()).await.expect("revoke"), None);
    let acts = acts_on(registry, &new.id.to_string()).await;
    assert_eq!(acts, ["key.revoke", "key.create"], "nothing was done twice");
}

async fn rotation_overlaps(registry: &dyn Registry) {
    let (old, before) = made(registry, project(registry).await.id, Some(LONG)).await;
    let (_, next) = NewKey::generate();
    let overlap = Duration::from_millis(300);
    let after =
        registry.rotate_key("tester", old.id, &next, overlap).await.expect("rotate").expect("a live key");
    assert_eq!((after.project, &after.name, after.scopes), (before.project, &before.name, before.scopes));
    assert!(after.expires_at >= before.expires_at, "{after:?}");
    assert!(is_known(registry, &old).await && is_known(registry, &next).await);
    tokio::time::sleep(Duration::from_millis(350)).await;
    assert!(!is_known(registry, &old).await && is_known(registry, &next).await);
    let (_, third) = NewKey::generate();
    let late = registry.rotate_key("tester", old.id, &third, overlap).await.expect("rotate");
    assert_eq!(late, None, "it has ended");
    let found = registry.key(old.id).await.expect("key").map(|key| (key.id, key.name));
    assert_eq!(found, Some((old.id, before.name)), "it is known all the same");
    assert_eq!(registry.key(KeyId::new()).await.expect("key"), None);
    assert_eq!(acts_on(registry, &old.id.to_string()).await, ["key.rotate", "key.create"]);
}

async fn pages(registry: &dyn Registry) {
    let mine = project(registry).await.id;
    let first = made(registry, mine, None).await.1;
    let second = made(registry, mine, None).await.1;
    let page = registry.keys(None, 1).await.expect("keys");
    assert_eq!((page.items, page.has_more), (vec![second.clone()], true));
    let page = registry.keys(Some(second.id), 1).await.expect("keys");
    assert_eq!(page.items, [first]);
    let newest = registry.acts(None, 1).await.expect("acts");
    let after = registry.acts(Some(newest.items[0].id), 1).await.expect("acts");
    assert!(newest.has_more && newest.items[0].id > after.items[0].id);
    assert_eq!((&*newest.items[0].actor, newest.items[0].project), ("tester", Some(mine)));
}

/// What was done to it, newest first.
async fn acts_on(registry: &dyn Registry, target: &str) -> Vec<String> {
    let acts = registry.acts(None, 100).await.expect("acts").items.into_iter();
    acts.filter(|act| &*act.target == target).map(|act| act.action.to_string()).collect()
}

async fn a_ticket_is_good_once(registry: &dyn Registry) {
    let digest = || ApiKey::digest(Ticket::generate().expose());
    let (mine, late, holder) = (digest(), digest(), Holder::Key { digest: [7; 32] });
    let now = registry.now().await.expect("now");
    let until = registry.keep_ticket(&mine, &holder, LONG).await.expect("keep");
    assert!((0..60_000).contains(&(until.0 - now.0 - 3_600_000)), "{until:?} is an hour from {now:?}");
    registry.keep_ticket(&late, &holder, Duration::ZERO).await.expect("keep");
    assert_eq!(registry.take_ticket(&late).await.expect("take"), None, "its time is over");
    assert_eq!(registry.take_ticket(&digest()).await.expect("take"), None, "nobody's");
    let (one, other) = tokio::join!(registry.take_ticket(&mine), registry.take_ticket(&mine));
    let taken: Vec<Holder> = [one, other].into_iter().filter_map(|taken| taken.expect("take")).collect();
    assert_eq!(taken, [holder], "one of two has it");
    assert_eq!(registry.take_ticket(&mine).await.expect("take"), None);
}
