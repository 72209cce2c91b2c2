//! Endpoints and deliveries. Each change of an endpoint is one transaction that also writes its act.

use super::{
    SqliteStore,
    registry::{Doing, page},
    rows::{Fault, id_list, millis},
};
use crate::{
    clock::UnixMs,
    store::{
        self, DeliveryClaim, DeliveryQuery, EndpointChange, NewEndpoint, Page, Settle, Webhooks, codec,
        webhooks::{ENDPOINTS_MAX, FAILING_MAX},
    },
    task::{DeliveryId, EndpointId, ProjectId},
    webhook::{Delivery, DeliveryState, Due, Endpoint, SigningSecret},
};
use async_trait::async_trait;
use futures_util::FutureExt;
use serde_json::json;
use sqlx::{Row, SqliteConnection, sqlite::SqliteRow};
use std::time::Duration;
use uuid::Uuid;

fn unreadable(_: store::Error) -> Fault {
    Fault::Unreadable("webhook_deliveries")
}

fn moment(row: &SqliteRow, column: &str) -> Result<Option<UnixMs>, Fault> {
    Ok(row.try_get::<Option<i64>, _>(column)?.map(UnixMs))
}

fn endpoint(row: &SqliteRow) -> Result<Endpoint, Fault> {
    Ok(Endpoint {
        id: EndpointId(row.try_get("id")?),
        name: row.try_get("name")?,
        url: row.try_get::<Option<String>, _>("url")?.unwrap_or_default(),
        event_types: codec::event_types(row.try_get("event_types")?).map_err(unreadable)?,
        secret: SigningSecret::kept(row.try_get("secret")?),
        created_at: UnixMs(row.try_get("created_at")?),
        updated_at: UnixMs(row.try_get("updated_at")?),
        failing_since: moment(row, "failing_since")?,
        disabled_at: moment(row, "disabled_at")?,
    })
}

fn delivery(row: &SqliteRow) -> Result<Delivery, Fault> {
    let (project, endpoint): (Uuid, Uuid) = (row.try_get("project")?, row.try_get("endpoint")?);
    Ok(Delivery {
        id: DeliveryId(row.try_get("id")?),
        endpoint: (endpoint != project).then_some(EndpointId(endpoint)),
        event_type: codec::event_type(row.try_get("event_type")?).map_err(unreadable)?,
        subject: row.try_get("subject")?,
        created_at: UnixMs(row.try_get("created_at")?),
        state: codec::delivery_state(row.try_get("state")?).map_err(unreadable)?,
        attempts: row.try_get("attempts")?,
        due_at: moment(row, "due_at")?,
        last_status: codec::status(row.try_get("last_status")?),
        last_error: row.try_get("last_error")?,
        ended_at: moment(row, "ended_at")?,
    })
}

fn due(row: &SqliteRow) -> Result<Due, Fault> {
    let secrets = [Some(row.try_get::<String, _>("secret")?), row.try_get("old_secret")?];
    Ok(Due {
        id: DeliveryId(row.try_get("id")?),
        project: ProjectId(row.try_get("project")?),
        target: row.try_get("target")?,
        url: row.try_get("url")?,
        secrets: secrets.into_iter().flatten().map(SigningSecret::kept).collect(),
        event_type: codec::event_type(row.try_get("event_type")?).map_err(unreadable)?,
        subject: row.try_get("subject")?,
        created_at: UnixMs(row.try_get("created_at")?),
        attempt: row.try_get("attempts")?,
    })
}

/// Writes deliveries of this event for the project's endpoints, and for the task's own webhook.
pub(super) async fn tell(
    db: &mut SqliteConnection,
    now: UnixMs,
    project: ProjectId,
    event_type: &str,
    subject: Uuid,
) -> Result<(), Fault> {
    let sql = "select id as endpoint, id as target, null as url from webhook_endpoints \
               where project = ?1 and url is not null and disabled_at is null and instr(event_types, ' ' || ?2 || ' ') > 0 \
               union all \
               select ?1, unhex(replace(webhook ->> 'target', '-', '')), webhook ->> 'url' from payloads \
               where task = ?3 and webhook is not null and instr(webhook ->> 'event_types', ' ' || ?2 || ' ') > 0";
    let told = sqlx::query(sql).bind(project.0).bind(event_type).bind(subject).fetch_all(&mut *db).await?;
    for row in told {
        let sql = "insert into webhook_deliveries (id, project, endpoint, target, url, event_type, subject, created_at, due_at) \
                   values (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?8)";
        let query =
            sqlx::query(sql).bind(Uuid::now_v7()).bind(project.0).bind(row.try_get::<Uuid, _>("endpoint")?);
        let query =
            query.bind(row.try_get::<Uuid, _>("target")?).bind(row.try_get::<Option<String>, _>("url")?);
        query.bind(event_type).bind(subject).bind(now.0).execute(&mut *db).await?;
    }
    Ok(())
}

async fn create(
    db: &mut SqliteConnection,
    now: UnixMs,
    doing: Doing,
    project: ProjectId,
    new: NewEndpoint,
) -> Result<Option<Endpoint>, Fault> {
    let id = EndpointId::new();
    let sql = "insert into webhook_endpoints (id, project, name, url, event_types, secret, created_at, updated_at) \
               select ?1, ?2, ?3, ?4, ?5, ?6, ?7, ?7 \
               where (select count(*) from webhook_endpoints where project = ?2 and url is not null) < ?8 returning *";
    let query = sqlx::query(sql).bind(id.0).bind(project.0).bind(&new.name).bind(&new.url);
    let query = query.bind(codec::kept_event_types(&new.event_types)).bind(new.secret.expose().to_owned());
    let row = query.bind(now.0).bind(ENDPOINTS_MAX).fetch_optional(&mut *db).await?;
    noted(db, now, doing, project, id, row).await
}

/// Notes what was done to an endpoint, if anything was.
async fn noted(
    db: &mut SqliteConnection,
    now: UnixMs,
    doing: Doing,
    project: ProjectId,
    id: EndpointId,
    row: Option<SqliteRow>,
) -> Result<Option<Endpoint>, Fault> {
    let Some(found) = row.as_ref().map(endpoint).transpose()? else { return Ok(None) };
    let detail = json!({ "name": found.name });
    doing.note(db, now, project, id.to_string(), detail).await?;
    Ok(Some(found))
}

async fn update(
    db: &mut SqliteConnection,
    now: UnixMs,
    doing: Doing,
    (project, id): (ProjectId, EndpointId),
    change: EndpointChange,
) -> Result<Option<Endpoint>, Fault> {
    let sql = "update webhook_endpoints set name = ifnull(?3, name), url = ifnull(?4, url), event_types = ifnull(?5, event_types), \
                 updated_at = ?7, failing_since = case when ?6 then null else failing_since end, \
                 disabled_at = case when ?6 then null when not ?6 then ifnull(disabled_at, ?7) else disabled_at end \
               where project = ?1 and id = ?2 and url is not null returning *";
    let query = sqlx::query(sql).bind(project.0).bind(id.0).bind(change.name).bind(change.url);
    let query = query.bind(change.event_types.as_deref().map(codec::kept_event_types));
    let row = query.bind(change.enabled).bind(now.0).fetch_optional(&mut *db).await?;
    noted(db, now, doing, project, id, row).await
}

async fn delete(
    db: &mut SqliteConnection,
    now: UnixMs,
    doing: Doing,
    project: ProjectId,
    id: EndpointId,
) -> Result<bool, Fault> {
    let sql = "delete from webhook_deliveries where endpoint = ?2 and project = ?1 and ?1 <> ?2; \
               delete from webhook_endpoints where project = ?1 and id = ?2 and url is not null returning *";
    let rows = sqlx::query(sql).bind(project.0).bind(id.0).fetch_all(&mut *db).await?;
    Ok(noted(db, now, doing, project, id, rows.into_iter().next()).await?.is_some())
}

async fn rotate(
    db: &mut SqliteConnection,
    now: UnixMs,
    doing: Doing,
    (project, id): (ProjectId, EndpointId),
    secret: SigningSecret,
    overlap: Duration,
) -> Result<Option<Endpoint>, Fault> {
    if id.0 == project.0 {
        let sql = "insert or ignore into webhook_endpoints (id, project, name, event_types, secret, created_at, updated_at) \
                   values (?1, ?1, '', '', ?2, ?3, ?3) returning *";
        let query = sqlx::query(sql).bind(id.0).bind(secret.expose().to_owned()).bind(now.0);
        if let Some(born) = query.fetch_optional(&mut *db).await? {
            return noted(db, now, doing, project, id, Some(born)).await;
        }
    }
    let sql = "update webhook_endpoints set old_secret = secret, old_until = ?3, secret = ?4, updated_at = ?5 \
               where project = ?1 and id = ?2 returning *";
    let query = sqlx::query(sql).bind(project.0).bind(id.0).bind(now.0 + millis(overlap));
    let row = query.bind(secret.expose().to_owned()).bind(now.0).fetch_optional(&mut *db).await?;
    noted(db, now, doing, project, id, row).await
}

/// From receiver to receiver along the index, of each the oldest: a long backlog of one hides nothing of the others.
async fn claim(db: &mut SqliteConnection, now: UnixMs, claim: DeliveryClaim) -> Result<Vec<Due>, Fault> {
    let sql = "select distinct target from webhook_deliveries \
               where due_at is not null and (target in (select unhex(value) from json_each(?1))) = ?2";
    let (named, meant) = claim.receivers.named();
    let query = sqlx::query_scalar(sql).bind(id_list(named.iter().copied())).bind(meant);
    let targets: Vec<Uuid> = query.fetch_all(&mut *db).await?;
    let mut all = Vec::new();
    for target in targets {
        let room =
            claim.per_target.min(claim.limit.saturating_sub(u32::try_from(all.len()).unwrap_or(u32::MAX)));
        if room == 0 {
            break;
        }
        let sql = "update webhook_deliveries set attempts = attempts + 1, due_at = ?2 + ?3 where id in ( \
                     select d.id from webhook_deliveries d join webhook_endpoints e on e.id = d.endpoint \
                     where d.target = ?1 and d.due_at <= ?2 and e.disabled_at is null order by d.due_at limit ?4) \
                   returning id, project, target, event_type, subject, created_at, attempts, \
                     ifnull(url, (select url from webhook_endpoints where id = endpoint)) as url, \
                     (select secret from webhook_endpoints where id = endpoint) as secret, \
                     (select old_secret from webhook_endpoints where id = endpoint and old_until > ?2) as old_secret";
        let query = sqlx::query(sql).bind(target).bind(now.0).bind(millis(claim.lease)).bind(room);
        let found = query.fetch_all(&mut *db).await?;
        all.extend(found.iter().map(due).collect::<Result<Vec<_>, Fault>>()?);
    }
    Ok(all)
}

async fn settle(db: &mut SqliteConnection, now: UnixMs, settled: Vec<Settle>) -> Result<(), Fault> {
    for settle in &settled {
        let said = codec::settled(settle);
        let sql = "update webhook_deliveries set state = ?3, last_status = ?4, last_error = ?5, due_at = ?6 + ?7, \
                     ended_at = iif(?7 is null, ?6, null) \
                   where id = ?1 and attempts = ?2 and due_at is not null returning endpoint";
        let query = sqlx::query(sql)
            .bind(settle.id.0)
            .bind(settle.attempt)
            .bind(said.state.as_str())
            .bind(said.status);
        let row = query.bind(said.error).bind(now.0).bind(said.again).fetch_optional(&mut *db).await?;
        let Some(row) = row else { continue };
        let sql = "update webhook_endpoints set failing_since = iif(?2, null, ifnull(failing_since, ?4)), \
                     disabled_at = iif(?3 or (not ?2 and failing_since <= ?4 - ?5), ?4, null) \
                   where id = ?1 and url is not null and disabled_at is null and (failing_since is not null or ?3 or not ?2)";
        let query = sqlx::query(sql).bind(row.try_get::<Uuid, _>("endpoint")?);
        let query = query.bind(said.state == DeliveryState::Delivered).bind(said.gone).bind(now.0);
        query.bind(millis(FAILING_MAX)).execute(&mut *db).await?;
    }
    Ok(())
}

async fn redeliver(
    db: &mut SqliteConnection,
    now: UnixMs,
    project: ProjectId,
    id: DeliveryId,
) -> Result<Option<Delivery>, Fault> {
    let sql = "update webhook_deliveries set state = 'pending', due_at = ?3, ended_at = null \
               where project = ?1 and id = ?2 returning *";
    let row = sqlx::query(sql).bind(project.0).bind(id.0).bind(now.0).fetch_optional(db).await?;
    row.as_ref().map(delivery).transpose()
}

async fn forget(db: &mut SqliteConnection, now: UnixMs, limit: u32, keep: Duration) -> Result<u64, Fault> {
    let sql = "update webhook_deliveries set state = 'failed', due_at = null, ended_at = ?1, last_error = ?4 where id in ( \
                 select d.id from webhook_deliveries d left join webhook_endpoints e on e.id = d.endpoint \
                 where d.due_at is not null and (e.id is null or e.disabled_at <= ?1 - ?3) limit ?2)";
    let bind = |sql| sqlx::query(sql).bind(now.0).bind(limit).bind(millis(keep)).bind(codec::DISABLED);
    bind(sql).execute(&mut *db).await?;
    let sql = "delete from webhook_deliveries where id in ( \
                 select id from webhook_deliveries where ended_at <= ?1 - ?3 order by ended_at limit ?2) and ?4 is not null";
    Ok(bind(sql).execute(&mut *db).await?.rows_affected())
}

#[async_trait]
impl Webhooks for SqliteStore {
    async fn create_endpoint(
        &self,
        actor: &str,
        project: ProjectId,
        new: &NewEndpoint,
    ) -> store::Result<Option<Endpoint>> {
        let (doing, new) = (Doing::new(actor, "webhook.create"), new.clone());
        self.write(move |db, now| create(db, now, doing, project, new).boxed()).await
    }

    async fn endpoint(&self, project: ProjectId, id: EndpointId) -> store::Result<Option<Endpoint>> {
        let query = sqlx::query("select * from webhook_endpoints where project = ?1 and id = ?2");
        let query = query.bind(project.0).bind(id.0);
        self.read(|db| async move { query.fetch_optional(db).await?.as_ref().map(endpoint).transpose() })
            .await
    }

    async fn endpoints(
        &self,
        project: ProjectId,
        after: Option<EndpointId>,
        limit: u32,
    ) -> store::Result<Page<Endpoint>> {
        let sql = "select * from webhook_endpoints where project = ?1 and url is not null and id < ?2 order by id desc limit ?3";
        let query = sqlx::query(sql)
            .bind(project.0)
            .bind(after.map_or(Uuid::max(), |id| id.0))
            .bind(i64::from(limit) + 1);
        self.read(|db| async move { page(&query.fetch_all(db).await?, limit, endpoint) }).await
    }

    async fn update_endpoint(
        &self,
        actor: &str,
        project: ProjectId,
        id: EndpointId,
        change: &EndpointChange,
    ) -> store::Result<Option<Endpoint>> {
        let (doing, change) = (Doing::new(actor, "webhook.update"), change.clone());
        self.write(move |db, now| update(db, now, doing, (project, id), change).boxed()).await
    }

    async fn delete_endpoint(&self, actor: &str, project: ProjectId, id: EndpointId) -> store::Result<bool> {
        let doing = Doing::new(actor, "webhook.delete");
        self.write(move |db, now| delete(db, now, doing, project, id).boxed()).await
    }

    async fn rotate_secret(
        &self,
        actor: &str,
        project: ProjectId,
        id: EndpointId,
        secret: &SigningSecret,
        overlap: Duration,
    ) -> store::Result<Option<Endpoint>> {
        let (doing, secret) = (Doing::new(actor, "webhook.rotate"), secret.clone());
        self.write(move |db, now| rotate(db, now, doing, (project, id), secret, overlap).boxed()).await
    }

    async fn has_endpoints(&self) -> store::Result<bool> {
        let query = sqlx::query_scalar("select exists(select 1 from webhook_endpoints)");
        self.read(|db| async move { Ok(query.fetch_one(db).await?) }).await
    }

    async fn claim_deliveries(&self, wanted: &DeliveryClaim) -> store::Result<Vec<Due>> {
        // Most of the time nothing is due: no reason for a transaction.
        let sql = "select exists(select 1 from webhook_deliveries where due_at <= cast(unixepoch('subsec') * 1000 as integer))";
        let query = sqlx::query_scalar::<_, bool>(sql);
        if !self.read(|db| async move { Ok(query.fetch_one(db).await?) }).await? {
            return Ok(Vec::new());
        }
        let wanted = wanted.clone();
        self.write(move |db, now| claim(db, now, wanted).boxed()).await
    }

    async fn settle_deliveries(&self, settled: &[Settle]) -> store::Result<()> {
        let settled = settled.to_vec();
        self.write(move |db, now| settle(db, now, settled).boxed()).await
    }

    async fn deliveries(&self, project: ProjectId, query: &DeliveryQuery) -> store::Result<Page<Delivery>> {
        let sql = "select * from webhook_deliveries where project = ?1 and (?2 is null or endpoint = ?2) \
                     and (?3 is null or state = ?3) and id < ?4 order by id desc limit ?5";
        let limit = query.limit;
        let rows = sqlx::query(sql).bind(project.0).bind(query.endpoint.map(|id| id.0));
        let rows = rows
            .bind(query.state.map(DeliveryState::as_str))
            .bind(query.after.map_or(Uuid::max(), |id| id.0));
        let rows = rows.bind(i64::from(limit) + 1);
        self.read(|db| async move { page(&rows.fetch_all(db).await?, limit, delivery) }).await
    }

    async fn redeliver(&self, project: ProjectId, id: DeliveryId) -> store::Result<Option<Delivery>> {
        self.write(move |db, now| redeliver(db, now, project, id).boxed()).await
    }

    async fn forget_deliveries(&self, limit: u32, keep: Duration) -> store::Result<u64> {
        self.write(move |db, now| forget(db, now, limit, keep).boxed()).await
    }
}
