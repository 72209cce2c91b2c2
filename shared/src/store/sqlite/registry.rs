//! Projects, keys and acts: each change is one transaction that also writes its act.

use super::{SqliteStore, rows::Fault, rows::millis};
use crate::{
    clock::UnixMs,
    identity::{Digest, Holder, Quotas},
    store::{self, Act, Grant, Key, KnownKey, NewKey, Page, Project, Registry, Store, Whose, codec},
    task::{ActId, KeyId, ProjectId},
};
use async_trait::async_trait;
use futures_util::FutureExt;
use serde_json::{Value, json};
use sqlx::{Row, SqliteConnection, sqlite::SqliteRow};
use std::time::Duration;
use uuid::Uuid;

/// Keys with the names of their projects.
macro_rules! keys {
    ($rest:literal) => {
        concat!(
            "select k.*, p.name as project_name from api_keys k join projects p on p.id = k.project ",
            $rest
        )
    };
}

fn unreadable(_: store::Error) -> Fault {
    Fault::Unreadable("api_keys")
}

fn project(row: &SqliteRow) -> Result<Project, Fault> {
    Ok(Project {
        id: ProjectId(row.try_get("id")?),
        name: row.try_get("name")?,
        created_at: UnixMs(row.try_get("created_at")?),
        quotas: codec::quotas(row.try_get("quotas")?).map_err(unreadable)?,
    })
}

fn key(row: &SqliteRow) -> Result<Key, Fault> {
    let moment = |column| row.try_get::<Option<i64>, _>(column).map(|at| at.map(UnixMs));
    Ok(Key {
        id: KeyId(row.try_get("id")?),
        project: ProjectId(row.try_get("project")?),
        project_name: row.try_get("project_name")?,
        name: row.try_get("name")?,
        hint: row.try_get("hint")?,
        scopes: codec::scopes(row.try_get("scopes")?).map_err(unreadable)?,
        created_at: UnixMs(row.try_get("created_at")?),
        expires_at: moment("expires_at")?,
        revoked_at: moment("revoked_at")?,
        used_at: moment("used_at")?,
        quotas: codec::quotas(row.try_get("quotas")?).map_err(unreadable)?,
    })
}

fn known(row: &SqliteRow) -> Result<KnownKey, Fault> {
    Ok(KnownKey {
        digest: codec::digest(row.try_get("digest")?).map_err(unreadable)?,
        id: KeyId(row.try_get("id")?),
        project: ProjectId(row.try_get("project")?),
        project_name: row.try_get::<&str, _>("project_name")?.into(),
        scopes: codec::scopes(row.try_get("scopes")?).map_err(unreadable)?,
        left: row.try_get::<Option<i64>, _>("left_ms")?.map(codec::span),
    })
}

fn act(row: &SqliteRow) -> Result<Act, Fault> {
    let text = |column| row.try_get::<&str, _>(column).map(Into::into);
    Ok(Act {
        id: ActId(row.try_get("id")?),
        at: UnixMs(row.try_get("at")?),
        actor: text("actor")?,
        action: text("action")?,
        project: row.try_get::<Option<Uuid>, _>("project")?.map(ProjectId),
        target: text("target")?,
        detail: text("detail")?,
    })
}

pub(super) fn page<T>(
    rows: &[SqliteRow],
    limit: u32,
    read: impl Fn(&SqliteRow) -> Result<T, Fault>,
) -> Result<Page<T>, Fault> {
    let limit = limit as usize;
    let items = rows.iter().take(limit).map(read).collect::<Result<_, _>>()?;
    Ok(Page { items, has_more: rows.len() > limit })
}

/// Who does something, and what.
pub(super) struct Doing {
    actor: String,
    action: &'static str,
}

impl Doing {
    pub(super) fn new(actor: &str, action: &'static str) -> Self {
        Self { actor: actor.to_owned(), action }
    }

    pub(super) async fn note(
        &self,
        db: &mut SqliteConnection,
        now: UnixMs,
        project: ProjectId,
        target: String,
        detail: Value,
    ) -> Result<(), Fault> {
        let sql = "insert into acts (id, at, actor, action, project, target, detail) values (?1, ?2, ?3, ?4, ?5, ?6, ?7)";
        let query = sqlx::query(sql).bind(Uuid::now_v7()).bind(now.0).bind(&self.actor).bind(self.action);
        query.bind(project.0).bind(target).bind(detail.to_string()).execute(db).await?;
        Ok(())
    }
}

async fn one_key(db: &mut SqliteConnection, id: KeyId) -> Result<Option<Key>, Fault> {
    let row = sqlx::query(keys!("where k.id = ?1")).bind(id.0).fetch_optional(db).await?;
    row.as_ref().map(key).transpose()
}

async fn create_project(
    db: &mut SqliteConnection,
    now: UnixMs,
    doing: Doing,
    id: ProjectId,
    name: String,
) -> Result<Option<Project>, Fault> {
    let sql =
        "insert into projects (id, name, created_at) values (?1, ?2, ?3) on conflict do nothing returning *";
    let row = sqlx::query(sql).bind(id.0).bind(&name).bind(now.0).fetch_optional(&mut *db).await?;
    let Some(made) = row.as_ref().map(project).transpose()? else { return Ok(None) };
    doing.note(db, now, id, id.to_string(), json!({ "name": name })).await?;
    Ok(Some(made))
}

/// Makes a key; the caller notes it.
async fn born(
    db: &mut SqliteConnection,
    now: UnixMs,
    new: &NewKey,
    grant: &Grant,
) -> Result<Option<Key>, Fault> {
    let sql = "insert into api_keys (id, project, name, hint, digest, scopes, lives_ms, quotas, created_at, \
                 expires_at) \
               select ?1, id, ?3, ?4, ?5, ?6, ?7, ?9, ?8, ?8 + ?7 from projects where id = ?2";
    let query = sqlx::query(sql).bind(new.id.0).bind(grant.project.0).bind(&grant.name).bind(&new.hint);
    let query = query.bind(new.digest.as_slice()).bind(grant.scopes.to_string());
    let query = query.bind(grant.lives.map(millis)).bind(now.0).bind(codec::kept_quotas(&grant.quotas));
    query.execute(&mut *db).await?;
    one_key(db, new.id).await
}

async fn create_key(
    db: &mut SqliteConnection,
    now: UnixMs,
    doing: Doing,
    new: NewKey,
    grant: Grant,
) -> Result<Option<Key>, Fault> {
    let Some(made) = born(db, now, &new, &grant).await? else { return Ok(None) };
    let detail = json!({ "name": grant.name, "scopes": grant.scopes.to_string() });
    doing.note(db, now, grant.project, new.id.to_string(), detail).await?;
    Ok(Some(made))
}

async fn rotate_key(
    db: &mut SqliteConnection,
    now: UnixMs,
    doing: Doing,
    id: KeyId,
    new: NewKey,
    overlap: Duration,
) -> Result<Option<Key>, Fault> {
    let sql = "update api_keys set expires_at = min(ifnull(expires_at, ?3), ?3) \
               where id = ?1 and revoked_at is null and (expires_at is null or expires_at > ?2) returning *";
    let query = sqlx::query(sql).bind(id.0).bind(now.0).bind(now.0 + millis(overlap));
    let Some(old) = query.fetch_optional(&mut *db).await? else { return Ok(None) };
    let grant = Grant {
        project: ProjectId(old.try_get("project")?),
        name: old.try_get("name")?,
        scopes: codec::scopes(old.try_get("scopes")?).map_err(unreadable)?,
        lives: old.try_get::<Option<i64>, _>("lives_ms")?.map(codec::span),
        quotas: codec::quotas(old.try_get("quotas")?).map_err(unreadable)?,
    };
    let made = born(db, now, &new, &grant).await?;
    doing.note(db, now, grant.project, id.to_string(), json!({ "new": new.id.to_string() })).await?;
    Ok(made)
}

async fn revoke_key(
    db: &mut SqliteConnection,
    now: UnixMs,
    doing: Doing,
    id: KeyId,
) -> Result<Option<Key>, Fault> {
    let sql = "update api_keys set revoked_at = ?2 where id = ?1 and revoked_at is null";
    let changed = sqlx::query(sql).bind(id.0).bind(now.0).execute(&mut *db).await?.rows_affected() > 0;
    let found = one_key(db, id).await?;
    if let Some(key) = found.as_ref().filter(|_| changed) {
        doing.note(db, now, key.project, id.to_string(), json!({ "name": key.name })).await?;
    }
    Ok(found)
}

async fn limit(
    db: &mut SqliteConnection,
    now: UnixMs,
    actor: String,
    whose: Whose,
    quotas: Quotas,
) -> Result<bool, Fault> {
    let (sql, action, id, target) = match whose {
        Whose::Project(id) => (
            "update projects set quotas = ?2 where id = ?1 returning id as project",
            "project.limit",
            id.0,
            id.to_string(),
        ),
        Whose::Key(id) => (
            "update api_keys set quotas = ?2 where id = ?1 returning project",
            "key.limit",
            id.0,
            id.to_string(),
        ),
    };
    let row = sqlx::query(sql).bind(id).bind(codec::kept_quotas(&quotas)).fetch_optional(&mut *db).await?;
    let Some(row) = row else { return Ok(false) };
    let project = ProjectId(row.try_get("project")?);
    Doing { actor, action }.note(db, now, project, target, json!(quotas)).await?;
    Ok(true)
}

async fn used(db: &mut SqliteConnection, now: UnixMs, keys: Vec<KeyId>) -> Result<(), Fault> {
    for id in keys {
        sqlx::query("update api_keys set used_at = ?2 where id = ?1")
            .bind(id.0)
            .bind(now.0)
            .execute(&mut *db)
            .await?;
    }
    Ok(())
}

async fn keep_ticket(
    db: &mut SqliteConnection,
    now: UnixMs,
    ticket: Digest,
    holder: Holder,
    lives: Duration,
) -> Result<UnixMs, Fault> {
    sqlx::query("delete from ws_tickets where expires_at <= ?1").bind(now.0).execute(&mut *db).await?;
    let until = now.plus(lives);
    let query = sqlx::query("insert into ws_tickets (digest, holder, expires_at) values (?1, ?2, ?3)");
    query.bind(ticket.as_slice()).bind(codec::json(&holder)).bind(until.0).execute(db).await?;
    Ok(until)
}

async fn take_ticket(
    db: &mut SqliteConnection,
    now: UnixMs,
    ticket: Digest,
) -> Result<Option<String>, Fault> {
    let query =
        sqlx::query_scalar("delete from ws_tickets where digest = ?1 and expires_at > ?2 returning holder");
    Ok(query.bind(ticket.as_slice()).bind(now.0).fetch_optional(db).await?)
}

#[async_trait]
impl Registry for SqliteStore {
    async fn create_project(&self, actor: &str, id: ProjectId, name: &str) -> store::Result<Option<Project>> {
        let (doing, name) = (Doing::new(actor, "project.create"), name.to_owned());
        self.write(move |db, now| create_project(db, now, doing, id, name).boxed()).await
    }

    async fn projects(&self) -> store::Result<Vec<Project>> {
        let query = sqlx::query("select * from projects order by name limit 10000");
        self.read(|db| async move { query.fetch_all(db).await?.iter().map(project).collect() }).await
    }

    async fn project(&self, name: &str) -> store::Result<Option<Project>> {
        let query = sqlx::query("select * from projects where name = ?1").bind(name.to_owned());
        self.read(|db| async move { query.fetch_optional(db).await?.as_ref().map(project).transpose() }).await
    }

    async fn project_by_id(&self, id: ProjectId) -> store::Result<Option<Project>> {
        let query = sqlx::query("select * from projects where id = ?1").bind(id.0);
        self.read(|db| async move { query.fetch_optional(db).await?.as_ref().map(project).transpose() }).await
    }

    async fn create_key(&self, actor: &str, new: &NewKey, grant: &Grant) -> store::Result<Option<Key>> {
        let (doing, new, grant) = (Doing::new(actor, "key.create"), new.clone(), grant.clone());
        self.write(move |db, now| create_key(db, now, doing, new, grant).boxed()).await
    }

    async fn key(&self, id: KeyId) -> store::Result<Option<Key>> {
        let query = sqlx::query(keys!("where k.id = ?1")).bind(id.0);
        self.read(|db| async move { query.fetch_optional(db).await?.as_ref().map(key).transpose() }).await
    }

    async fn rotate_key(
        &self,
        actor: &str,
        id: KeyId,
        new: &NewKey,
        overlap: Duration,
    ) -> store::Result<Option<Key>> {
        let (doing, new) = (Doing::new(actor, "key.rotate"), new.clone());
        self.write(move |db, now| rotate_key(db, now, doing, id, new, overlap).boxed()).await
    }

    async fn limit(&self, actor: &str, whose: Whose, quotas: &Quotas) -> store::Result<bool> {
        let (actor, quotas) = (actor.to_owned(), *quotas);
        self.write(move |db, now| limit(db, now, actor, whose, quotas).boxed()).await
    }

    async fn quotas(&self) -> store::Result<Vec<(Whose, Quotas)>> {
        let sql = "select 1 as is_project, id, quotas from projects where quotas is not null \
                   union all select 0, id, quotas from api_keys where quotas is not null and revoked_at is null";
        let read = |row: &SqliteRow| {
            let id: Uuid = row.try_get("id")?;
            let is_project = row.try_get::<u32, _>("is_project")? == 1;
            let whose = if is_project { Whose::Project(ProjectId(id)) } else { Whose::Key(KeyId(id)) };
            Ok((whose, codec::quotas(row.try_get("quotas")?).map_err(unreadable)?))
        };
        let query = sqlx::query(sql);
        self.read(|db| async move { query.fetch_all(db).await?.iter().map(read).collect() }).await
    }

    async fn revoke_key(&self, actor: &str, id: KeyId) -> store::Result<Option<Key>> {
        let doing = Doing::new(actor, "key.revoke");
        self.write(move |db, now| revoke_key(db, now, doing, id).boxed()).await
    }

    async fn keys(&self, after: Option<KeyId>, limit: u32) -> store::Result<Page<Key>> {
        let query = sqlx::query(keys!("where k.id < ?1 order by k.id desc limit ?2"));
        let query = query.bind(after.map_or(Uuid::max(), |id| id.0)).bind(i64::from(limit) + 1);
        self.read(|db| async move { page(&query.fetch_all(db).await?, limit, key) }).await
    }

    async fn know(&self, digests: &[Digest]) -> store::Result<Vec<KnownKey>> {
        let sql = "select digest, k.id, project, p.name as project_name, scopes, expires_at - now as left_ms \
                   from api_keys k join projects p on p.id = k.project, (select cast(unixepoch('subsec') * 1000 as integer) as now) \
                   where digest in (select unhex(value) from json_each(?1)) \
                     and revoked_at is null and (expires_at is null or expires_at > now)";
        let hex = |digest: &Digest| digest.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        let query = sqlx::query(sql).bind(codec::json(&digests.iter().map(hex).collect::<Vec<_>>()));
        self.read(|db| async move { query.fetch_all(db).await?.iter().map(known).collect() }).await
    }

    async fn used(&self, keys: &[KeyId]) -> store::Result<()> {
        let keys = keys.to_vec();
        self.write(move |db, now| used(db, now, keys).boxed()).await
    }

    async fn has_keys(&self) -> store::Result<bool> {
        let query = sqlx::query_scalar("select exists(select 1 from api_keys)");
        self.read(|db| async move { Ok(query.fetch_one(db).await?) }).await
    }

    async fn keep_ticket(&self, ticket: &Digest, holder: &Holder, lives: Duration) -> store::Result<UnixMs> {
        let (ticket, holder) = (*ticket, holder.clone());
        self.write(move |db, now| keep_ticket(db, now, ticket, holder, lives).boxed()).await
    }

    async fn take_ticket(&self, ticket: &Digest) -> store::Result<Option<Holder>> {
        let ticket = *ticket;
        let holder = self.write(move |db, now| take_ticket(db, now, ticket).boxed()).await?;
        codec::from_json(holder.as_deref(), "holder")
    }

    async fn now(&self) -> store::Result<UnixMs> {
        Store::now(self).await
    }

    async fn acts(&self, after: Option<ActId>, limit: u32) -> store::Result<Page<Act>> {
        let query = sqlx::query("select * from acts where id < ?1 order by id desc limit ?2");
        let query = query.bind(after.map_or(Uuid::max(), |id| id.0)).bind(i64::from(limit) + 1);
        self.read(|db| async move { page(&query.fetch_all(db).await?, limit, act) }).await
    }
}
