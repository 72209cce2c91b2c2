//! Projects, keys and acts: each change is one statement that also writes its act.

use super::{PostgresStore, VERB, read::page, rows::get, within};
use crate::{
    clock::{UnixMs, ms},
    identity::{Digest, Holder, Quotas},
    store::{Act, Error, Grant, Key, KnownKey, NewKey, Page, Project, Registry, Result, Store, Whose, codec},
    task::{ActId, KeyId, ProjectId},
};
use async_trait::async_trait;
use sqlx::{Row, postgres::PgRow};
use std::time::Duration;
use uuid::Uuid;

/// Writes the act of a change: its id and actor are the first two arguments.
macro_rules! acted {
    ($action:literal, $project:literal, $target:literal, $detail:literal, $from:literal) => {
        concat!(
            ", noted as (insert into acts (id, at, actor, action, project, target, detail) select $1, now_ms(), $2, '",
            $action,
            "', ",
            $project,
            ", ",
            $target,
            ", ",
            $detail,
            "::text from ",
            $from,
            ")"
        )
    };
}

pub(super) use acted;

/// Makes a key ($3 to $5) of a grant: project, name, scopes, lives_ms.
macro_rules! born {
    ($grant:literal) => {
        concat!(
            "born as (insert into api_keys
                 (id, project, name, hint, digest, scopes, lives_ms, quotas, created_at, expires_at)
               select $3, g.project, g.name, $4, $5, g.scopes, g.lives_ms, g.quotas, now_ms(), now_ms() + g.lives_ms from ",
            $grant,
            " returning *)"
        )
    };
}

const CREATE_PROJECT: &str = concat!(
    "with born as (insert into projects (id, name, created_at) values ($3, $4, now_ms())
       on conflict do nothing returning *)",
    acted!("project.create", "id", "$5", "json_build_object('name', name)", "born"),
    " select * from born"
);

const CREATE_KEY: &str = concat!(
    "with ",
    born!(
        "(select id as project, $7 as name, $8 as scopes, $9::bigint as lives_ms, $11::text as quotas
          from projects where id = $6) g"
    ),
    acted!("key.create", "project", "$10", "json_build_object('name', name, 'scopes', scopes)", "born"),
    " select b.*, p.name as project_name from born b join projects p on p.id = b.project"
);

const ROTATE_KEY: &str = concat!(
    "with g as (update api_keys set expires_at = least(expires_at, now_ms() + $7)
       where id = $6 and revoked_at is null and (expires_at is null or expires_at > now_ms()) returning *), ",
    born!("g"),
    acted!("key.rotate", "project", "$9", "json_build_object('new', $8::text)", "born"),
    " select b.*, p.name as project_name from born b join projects p on p.id = b.project"
);

const LIMIT_PROJECT: &str = concat!(
    "with changed as (update projects set quotas = $3 where id = $4 returning *)",
    acted!("project.limit", "id", "$5", "coalesce(quotas, '{}')", "changed"),
    " select id from changed"
);

const LIMIT_KEY: &str = concat!(
    "with changed as (update api_keys set quotas = $3 where id = $4 returning *)",
    acted!("key.limit", "project", "$5", "coalesce(quotas, '{}')", "changed"),
    " select id from changed"
);

const REVOKE_KEY: &str = concat!(
    "with changed as (update api_keys set revoked_at = now_ms() where id = $3 and revoked_at is null returning *)",
    acted!("key.revoke", "project", "$4", "json_build_object('name', name)", "changed"),
    " select k.*, p.name as project_name
      from (select * from changed union all
            select * from api_keys where id = $3 and not exists (select from changed)) k
      join projects p on p.id = k.project"
);

fn project(row: &PgRow) -> Result<Project> {
    Ok(Project {
        id: ProjectId(get(row, "id")?),
        name: get(row, "name")?,
        created_at: UnixMs(get(row, "created_at")?),
        quotas: codec::quotas(get(row, "quotas")?)?,
    })
}

fn key(row: &PgRow) -> Result<Key> {
    let moment = |column| get::<Option<i64>>(row, column).map(|at| at.map(UnixMs));
    Ok(Key {
        id: KeyId(get(row, "id")?),
        project: ProjectId(get(row, "project")?),
        project_name: get(row, "project_name")?,
        name: get(row, "name")?,
        hint: get(row, "hint")?,
        scopes: codec::scopes(get(row, "scopes")?)?,
        created_at: UnixMs(get(row, "created_at")?),
        expires_at: moment("expires_at")?,
        revoked_at: moment("revoked_at")?,
        used_at: moment("used_at")?,
        quotas: codec::quotas(get(row, "quotas")?)?,
    })
}

fn known(row: &PgRow) -> Result<KnownKey> {
    Ok(KnownKey {
        digest: codec::digest(get(row, "digest")?)?,
        id: KeyId(get(row, "id")?),
        project: ProjectId(get(row, "project")?),
        project_name: get::<&str>(row, "project_name")?.into(),
        scopes: codec::scopes(get(row, "scopes")?)?,
        left: get::<Option<i64>>(row, "left_ms")?.map(codec::span),
    })
}

fn act(row: &PgRow) -> Result<Act> {
    let text = |column| get::<&str>(row, column).map(Into::into);
    Ok(Act {
        id: ActId(get(row, "id")?),
        at: UnixMs(get(row, "at")?),
        actor: text("actor")?,
        action: text("action")?,
        project: get::<Option<Uuid>>(row, "project")?.map(ProjectId),
        target: text("target")?,
        detail: text("detail")?,
    })
}

#[async_trait]
impl Registry for PostgresStore {
    async fn create_project(&self, actor: &str, id: ProjectId, name: &str) -> Result<Option<Project>> {
        let query = sqlx::query(CREATE_PROJECT).bind(Uuid::now_v7()).bind(actor);
        let query = query.bind(id.0).bind(name).bind(id.to_string());
        let row = within(VERB, async { Ok(query.fetch_optional(&self.pool).await?) }).await?;
        row.as_ref().map(project).transpose()
    }

    async fn projects(&self) -> Result<Vec<Project>> {
        let query = sqlx::query("select * from projects order by name limit 10000");
        within(VERB, async { query.fetch_all(&self.pool).await?.iter().map(project).collect() }).await
    }

    async fn project(&self, name: &str) -> Result<Option<Project>> {
        let query = sqlx::query("select * from projects where name = $1").bind(name);
        let row = within(VERB, async { Ok(query.fetch_optional(&self.pool).await?) }).await?;
        row.as_ref().map(project).transpose()
    }

    async fn project_by_id(&self, id: ProjectId) -> Result<Option<Project>> {
        let query = sqlx::query("select * from projects where id = $1").bind(id.0);
        let row = within(VERB, async { Ok(query.fetch_optional(&self.pool).await?) }).await?;
        row.as_ref().map(project).transpose()
    }

    async fn create_key(&self, actor: &str, new: &NewKey, grant: &Grant) -> Result<Option<Key>> {
        let query = sqlx::query(CREATE_KEY).bind(Uuid::now_v7()).bind(actor);
        let query = query.bind(new.id.0).bind(&new.hint).bind(new.digest.as_slice());
        let query = query.bind(grant.project.0).bind(&grant.name).bind(grant.scopes.to_string());
        let query = query.bind(grant.lives.map(ms)).bind(new.id.to_string());
        let query = query.bind(codec::kept_quotas(&grant.quotas));
        let row = within(VERB, async { Ok(query.fetch_optional(&self.pool).await?) }).await?;
        row.as_ref().map(key).transpose()
    }

    async fn key(&self, id: KeyId) -> Result<Option<Key>> {
        let sql = "select k.*, p.name as project_name from api_keys k join projects p on p.id = k.project where k.id = $1";
        let query = sqlx::query(sql).bind(id.0);
        let row = within(VERB, async { Ok(query.fetch_optional(&self.pool).await?) }).await?;
        row.as_ref().map(key).transpose()
    }

    async fn rotate_key(
        &self,
        actor: &str,
        id: KeyId,
        new: &NewKey,
        overlap: Duration,
    ) -> Result<Option<Key>> {
        let query = sqlx::query(ROTATE_KEY).bind(Uuid::now_v7()).bind(actor);
        let query = query.bind(new.id.0).bind(&new.hint).bind(new.digest.as_slice());
        let query = query.bind(id.0).bind(ms(overlap)).bind(new.id.to_string()).bind(id.to_string());
        let row = within(VERB, async { Ok(query.fetch_optional(&self.pool).await?) }).await?;
        row.as_ref().map(key).transpose()
    }

    async fn limit(&self, actor: &str, whose: Whose, quotas: &Quotas) -> Result<bool> {
        let (sql, id, target) = match whose {
            Whose::Project(id) => (LIMIT_PROJECT, id.0, id.to_string()),
            Whose::Key(id) => (LIMIT_KEY, id.0, id.to_string()),
        };
        let query = sqlx::query(sql).bind(Uuid::now_v7()).bind(actor);
        let query = query.bind(codec::kept_quotas(quotas)).bind(id).bind(target);
        let row = within(VERB, async { Ok(query.fetch_optional(&self.pool).await?) }).await?;
        Ok(row.is_some())
    }

    async fn quotas(&self) -> Result<Vec<(Whose, Quotas)>> {
        let sql = "select true as is_project, id, quotas from projects where quotas is not null
          union all select false, id, quotas from api_keys where quotas is not null and revoked_at is null";
        let read = |row: &PgRow| {
            let id: Uuid = get(row, "id")?;
            let is_project = get(row, "is_project")?;
            let whose = if is_project { Whose::Project(ProjectId(id)) } else { Whose::Key(KeyId(id)) };
            Ok((whose, codec::quotas(get(row, "quotas")?)?))
        };
        let query = sqlx::query(sql);
        within(VERB, async { query.fetch_all(&self.pool).await?.iter().map(read).collect() }).await
    }

    async fn revoke_key(&self, actor: &str, id: KeyId) -> Result<Option<Key>> {
        let query = sqlx::query(REVOKE_KEY).bind(Uuid::now_v7()).bind(actor);
        let query = query.bind(id.0).bind(id.to_string());
        let row = within(VERB, async { Ok(query.fetch_optional(&self.pool).await?) }).await?;
        row.as_ref().map(key).transpose()
    }

    async fn keys(&self, after: Option<KeyId>, limit: u32) -> Result<Page<Key>> {
        let sql = "select k.*, p.name as project_name from api_keys k join projects p on p.id = k.project
          where $1::uuid is null or k.id < $1 order by k.id desc limit $2";
        let query = sqlx::query(sql).bind(after.map(|id| id.0)).bind(i64::from(limit) + 1);
        let rows = within(VERB, async { Ok(query.fetch_all(&self.pool).await?) }).await?;
        page(&rows, limit, key)
    }

    async fn know(&self, digests: &[Digest]) -> Result<Vec<KnownKey>> {
        let sql = "select k.digest, k.id, k.project, p.name as project_name, k.scopes, k.expires_at - now_ms() as left_ms
          from api_keys k join projects p on p.id = k.project
          where digest = any($1) and revoked_at is null and (expires_at is null or expires_at > now_ms())";
        let digests: Vec<&[u8]> = digests.iter().map(<[u8; 32]>::as_slice).collect();
        let query = sqlx::query(sql).bind(digests);
        within(VERB, async { query.fetch_all(&self.pool).await?.iter().map(known).collect() }).await
    }

    async fn used(&self, keys: &[KeyId]) -> Result<()> {
        // Another process may have noted it a moment ago.
        let sql = "update api_keys set used_at = now_ms()
          where id = any($1) and (used_at is null or used_at < now_ms() - 50000)";
        let ids: Vec<Uuid> = keys.iter().map(|id| id.0).collect();
        let query = sqlx::query(sql).bind(ids);
        within(VERB, async { Ok(query.execute(&self.pool).await.map(drop)?) }).await
    }

    async fn has_keys(&self) -> Result<bool> {
        let query = sqlx::query("select exists(select from api_keys) as found");
        let row = within(VERB, async { Ok(query.fetch_one(&self.pool).await?) }).await?;
        row.try_get("found").map_err(Error::from)
    }

    async fn keep_ticket(&self, ticket: &Digest, holder: &Holder, lives: Duration) -> Result<UnixMs> {
        let sql = "with gone as (delete from ws_tickets where expires_at <= now_ms())
          insert into ws_tickets (digest, holder, expires_at) values ($1, $2, now_ms() + $3) returning expires_at";
        let query = sqlx::query_scalar(sql).bind(ticket.as_slice()).bind(codec::json(holder)).bind(ms(lives));
        within(VERB, async { Ok(UnixMs(query.fetch_one(&self.pool).await?)) }).await
    }

    async fn take_ticket(&self, ticket: &Digest) -> Result<Option<Holder>> {
        let sql = "delete from ws_tickets where digest = $1 and expires_at > now_ms() returning holder";
        let query = sqlx::query_scalar::<_, String>(sql).bind(ticket.as_slice());
        let holder = within(VERB, async { Ok(query.fetch_optional(&self.pool).await?) }).await?;
        codec::from_json(holder.as_deref(), "holder")
    }

    async fn now(&self) -> Result<UnixMs> {
        Store::now(self).await
    }

    async fn acts(&self, after: Option<ActId>, limit: u32) -> Result<Page<Act>> {
        let sql = "select * from acts where $1::uuid is null or id < $1 order by id desc limit $2";
        let query = sqlx::query(sql).bind(after.map(|id| id.0)).bind(i64::from(limit) + 1);
        let rows = within(VERB, async { Ok(query.fetch_all(&self.pool).await?) }).await?;
        page(&rows, limit, act)
    }
}
