//! Endpoints and deliveries. Each change of an endpoint is one statement that also writes its act.

use super::{
    PostgresStore, VERB,
    read::page,
    registry::acted,
    rows::{get, moment},
    within,
};
use crate::{
    clock::{UnixMs, ms},
    store::{
        DeliveryClaim, DeliveryQuery, EndpointChange, NewEndpoint, Page, Result, Settle, Webhooks, codec,
        webhooks::{ENDPOINTS_MAX, FAILING_MAX},
    },
    task::{DeliveryId, EndpointId, ProjectId},
    webhook::{Delivery, DeliveryState, Due, Endpoint, SigningSecret},
};
use async_trait::async_trait;
use sqlx::{Postgres, postgres::PgArguments, postgres::PgRow, query::Query};
use std::time::Duration;
use uuid::Uuid;

/// Writes deliveries for the tasks that ended in the table `$ended`, which has their columns and `webhook`. Lines of batches are told
/// of by their batch.
macro_rules! told {
    ($ended:literal) => {
        concat!(
            "told as (
               insert into webhook_deliveries (id, project, endpoint, target, url, event_type, subject, created_at, due_at)
               select uuid7(), d.project, e.id, e.id, null, 'task.' || d.state, d.id, now_ms(), now_ms()
               from ",
            $ended,
            " d join webhook_endpoints e on e.project = d.project
               where d.batch is null and e.url is not null and e.disabled_at is null
                 and position(' task.' || d.state || ' ' in e.event_types) > 0
               union all
               select uuid7(), d.project, d.project, (d.webhook::json ->> 'target')::uuid, d.webhook::json ->> 'url',
                 'task.' || d.state, d.id, now_ms(), now_ms()
               from ",
            $ended,
            " d where d.webhook is not null and position(' task.' || d.state || ' ' in d.webhook::json ->> 'event_types') > 0
             ) "
        )
    };
}
pub(super) use told;

const CREATE: &str = concat!(
    "with born as (
       insert into webhook_endpoints (id, project, name, url, event_types, secret, created_at, updated_at)
       select $3, $4, $5, $6, $7, $8, now_ms(), now_ms()
       where (select count(*) from webhook_endpoints where project = $4 and url is not null) < $10
       returning *)",
    acted!("webhook.create", "project", "$9", "json_build_object('name', name)", "born"),
    " select * from born"
);

const UPDATE: &str = concat!(
    "with changed as (
       update webhook_endpoints set name = coalesce($5, name), url = coalesce($6, url), event_types = coalesce($7, event_types),
         updated_at = now_ms(), failing_since = case when $8 then null else failing_since end,
         disabled_at = case when $8 then null when not $8 then coalesce(disabled_at, now_ms()) else disabled_at end
       where project = $3 and id = $4 and url is not null returning *)",
    acted!("webhook.update", "project", "$9", "json_build_object('name', name)", "changed"),
    " select * from changed"
);

const DELETE: &str = concat!(
    "with gone as (
       delete from webhook_endpoints where project = $3 and id = $4 and url is not null returning *
     ), cleared as (
       delete from webhook_deliveries d using gone where d.endpoint = gone.id
     )",
    acted!("webhook.delete", "project", "$5", "json_build_object('name', name)", "gone"),
    " select id from gone"
);

const ROTATE: &str = concat!(
    "with changed as (
       update webhook_endpoints set old_secret = secret, old_until = now_ms() + $5, secret = $6, updated_at = now_ms()
       where project = $3 and id = $4 returning *), ",
    "born as (
       insert into webhook_endpoints (id, project, name, event_types, secret, created_at, updated_at)
       select $3, $3, '', '', $6, now_ms(), now_ms() where $4 = $3 and not exists (select from changed)
       on conflict do nothing returning *), ",
    "either as (select * from changed union all select * from born)",
    acted!("webhook.rotate", "project", "$7", "'{}'", "either"),
    " select * from either"
);

/// From receiver to receiver along the index, of each the oldest: a long backlog of one hides nothing of the others.
/// Whether an endpoint is disabled is asked for row by row: as a join the planner goes through all endpoints for every receiver.
const CLAIM: &str = "with recursive targets as (
    (select target from webhook_deliveries where due_at is not null order by target limit 1)
    union all
    select (select d.target from webhook_deliveries d where d.due_at is not null and d.target > t.target order by d.target limit 1)
    from targets t where t.target is not null
  ), picked as materialized (
    select d.id from targets t, lateral (
      select d.id, d.due_at from webhook_deliveries d
      where d.target = t.target and d.due_at <= now_ms()
        and (select e.disabled_at is null from webhook_endpoints e where e.id = d.endpoint)
      order by d.due_at limit $2 for update of d skip locked) d
    where (t.target = any($3)) = $5 order by d.due_at limit $1
  ), taken as (
    update webhook_deliveries d set attempts = d.attempts + 1, due_at = now_ms() + $4
    from picked where d.id = picked.id returning d.*
  )
  select taken.id, taken.project, taken.target, taken.event_type, taken.subject, taken.created_at, taken.attempts,
    coalesce(taken.url, e.url) as url, e.secret, case when e.old_until > now_ms() then e.old_secret end as old_secret
  from taken join webhook_endpoints e on e.id = taken.endpoint";

/// Endpoints are locked in the order of their ids, so that two workers do not wait for each other.
const SETTLE: &str = "with done as (
    update webhook_deliveries d set state = i.state, last_status = i.status, last_error = i.error, due_at = now_ms() + i.again,
      ended_at = case when i.again is null then now_ms() end
    from unnest($1::uuid[], $2::int[], $3::text[], $4::smallint[], $5::text[], $6::bigint[], $7::bool[])
      as i(id, attempt, state, status, error, again, gone)
    where d.id = i.id and d.attempts = i.attempt and d.due_at is not null
    returning d.endpoint, i.state = 'delivered' as taken, i.gone
  ), judged as (
    select endpoint, bool_or(taken) as taken, bool_or(gone) as gone from done group by endpoint
  ), met as materialized (
    select e.id, j.taken, j.gone from webhook_endpoints e join judged j on j.endpoint = e.id
    where e.url is not null and e.disabled_at is null and (e.failing_since is not null or j.gone or not j.taken)
    order by e.id for update of e
  )
  update webhook_endpoints e set
    failing_since = case when met.taken then null else coalesce(e.failing_since, now_ms()) end,
    disabled_at = case when met.gone or (not met.taken and e.failing_since <= now_ms() - $8) then now_ms() end
  from met where e.id = met.id";

fn endpoint(row: &PgRow) -> Result<Endpoint> {
    Ok(Endpoint {
        id: EndpointId(get(row, "id")?),
        name: get(row, "name")?,
        url: get::<Option<String>>(row, "url")?.unwrap_or_default(),
        event_types: codec::event_types(get(row, "event_types")?)?,
        secret: SigningSecret::kept(get(row, "secret")?),
        created_at: UnixMs(get(row, "created_at")?),
        updated_at: UnixMs(get(row, "updated_at")?),
        failing_since: moment(row, "failing_since")?,
        disabled_at: moment(row, "disabled_at")?,
    })
}

fn delivery(row: &PgRow) -> Result<Delivery> {
    let (project, endpoint): (Uuid, Uuid) = (get(row, "project")?, get(row, "endpoint")?);
    Ok(Delivery {
        id: DeliveryId(get(row, "id")?),
        endpoint: (endpoint != project).then_some(EndpointId(endpoint)),
        event_type: codec::event_type(get(row, "event_type")?)?,
        subject: get(row, "subject")?,
        created_at: UnixMs(get(row, "created_at")?),
        state: codec::delivery_state(get(row, "state")?)?,
        attempts: codec::small(get(row, "attempts")?),
        due_at: moment(row, "due_at")?,
        last_status: codec::status(get(row, "last_status")?),
        last_error: get(row, "last_error")?,
        ended_at: moment(row, "ended_at")?,
    })
}

fn due(row: &PgRow) -> Result<Due> {
    let secrets = [Some(get::<String>(row, "secret")?), get(row, "old_secret")?];
    Ok(Due {
        id: DeliveryId(get(row, "id")?),
        project: ProjectId(get(row, "project")?),
        target: get(row, "target")?,
        url: get(row, "url")?,
        secrets: secrets.into_iter().flatten().map(SigningSecret::kept).collect(),
        event_type: codec::event_type(get(row, "event_type")?)?,
        subject: get(row, "subject")?,
        created_at: UnixMs(get(row, "created_at")?),
        attempt: codec::small(get(row, "attempts")?),
    })
}

impl PostgresStore {
    async fn row(&self, query: Query<'_, Postgres, PgArguments>) -> Result<Option<PgRow>> {
        within(VERB, async { Ok(query.fetch_optional(&self.pool).await?) }).await
    }

    async fn rows(&self, query: Query<'_, Postgres, PgArguments>) -> Result<Vec<PgRow>> {
        within(VERB, async { Ok(query.fetch_all(&self.pool).await?) }).await
    }
}

/// An act of this moment.
fn by<'q>(sql: &'static str, actor: &'q str) -> Query<'q, Postgres, PgArguments> {
    sqlx::query(sql).bind(Uuid::now_v7()).bind(actor)
}

#[async_trait]
impl Webhooks for PostgresStore {
    async fn create_endpoint(
        &self,
        actor: &str,
        project: ProjectId,
        new: &NewEndpoint,
    ) -> Result<Option<Endpoint>> {
        let id = EndpointId::new();
        let query = by(CREATE, actor).bind(id.0).bind(project.0).bind(&new.name).bind(&new.url);
        let query = query.bind(codec::kept_event_types(&new.event_types)).bind(new.secret.expose());
        let query = query.bind(id.to_string()).bind(i64::from(ENDPOINTS_MAX));
        self.row(query).await?.as_ref().map(endpoint).transpose()
    }

    async fn endpoint(&self, project: ProjectId, id: EndpointId) -> Result<Option<Endpoint>> {
        let query = sqlx::query("select * from webhook_endpoints where project = $1 and id = $2");
        self.row(query.bind(project.0).bind(id.0)).await?.as_ref().map(endpoint).transpose()
    }

    async fn endpoints(
        &self,
        project: ProjectId,
        after: Option<EndpointId>,
        limit: u32,
    ) -> Result<Page<Endpoint>> {
        let sql = "select * from webhook_endpoints where project = $1 and url is not null and ($2::uuid is null or id < $2)
          order by id desc limit $3";
        let query = sqlx::query(sql).bind(project.0).bind(after.map(|id| id.0)).bind(i64::from(limit) + 1);
        page(&self.rows(query).await?, limit, endpoint)
    }

    async fn update_endpoint(
        &self,
        actor: &str,
        project: ProjectId,
        id: EndpointId,
        change: &EndpointChange,
    ) -> Result<Option<Endpoint>> {
        let query = by(UPDATE, actor).bind(project.0).bind(id.0).bind(&change.name).bind(&change.url);
        let query = query.bind(change.event_types.as_deref().map(codec::kept_event_types));
        let query = query.bind(change.enabled).bind(id.to_string());
        self.row(query).await?.as_ref().map(endpoint).transpose()
    }

    async fn delete_endpoint(&self, actor: &str, project: ProjectId, id: EndpointId) -> Result<bool> {
        let query = by(DELETE, actor).bind(project.0).bind(id.0).bind(id.to_string());
        Ok(self.row(query).await?.is_some())
    }

    async fn rotate_secret(
        &self,
        actor: &str,
        project: ProjectId,
        id: EndpointId,
        secret: &SigningSecret,
        overlap: Duration,
    ) -> Result<Option<Endpoint>> {
        let query = by(ROTATE, actor).bind(project.0).bind(id.0).bind(ms(overlap)).bind(secret.expose());
        self.row(query.bind(id.to_string())).await?.as_ref().map(endpoint).transpose()
    }

    async fn has_endpoints(&self) -> Result<bool> {
        let query = sqlx::query("select exists(select from webhook_endpoints) as found");
        Ok(self.row(query).await?.map(|row| get(&row, "found")).transpose()?.unwrap_or_default())
    }

    async fn claim_deliveries(&self, claim: &DeliveryClaim) -> Result<Vec<Due>> {
        let (named, meant) = claim.receivers.named();
        let query = sqlx::query(CLAIM).bind(i64::from(claim.limit)).bind(i64::from(claim.per_target));
        let query = query.bind(named).bind(ms(claim.lease)).bind(meant);
        self.rows(query).await?.iter().map(due).collect()
    }

    async fn settle_deliveries(&self, settled: &[Settle]) -> Result<()> {
        let said: Vec<_> = settled.iter().map(codec::settled).collect();
        let query = sqlx::query(SETTLE)
            .bind(settled.iter().map(|settle| settle.id.0).collect::<Vec<_>>())
            .bind(settled.iter().map(|settle| codec::int(settle.attempt)).collect::<Vec<_>>())
            .bind(said.iter().map(|said| said.state.as_str()).collect::<Vec<_>>())
            .bind(said.iter().map(|said| said.status).collect::<Vec<_>>())
            .bind(said.iter().map(|said| said.error.as_deref()).collect::<Vec<_>>())
            .bind(said.iter().map(|said| said.again).collect::<Vec<_>>())
            .bind(said.iter().map(|said| said.gone).collect::<Vec<_>>())
            .bind(ms(FAILING_MAX));
        within(VERB, async { Ok(query.execute(&self.pool).await.map(drop)?) }).await
    }

    async fn deliveries(&self, project: ProjectId, query: &DeliveryQuery) -> Result<Page<Delivery>> {
        let sql =
            "select * from webhook_deliveries where project = $1 and ($2::uuid is null or endpoint = $2)
            and ($3::text is null or state = $3) and ($4::uuid is null or id < $4) order by id desc limit $5";
        let rows = sqlx::query(sql).bind(project.0).bind(query.endpoint.map(|id| id.0));
        let rows = rows.bind(query.state.map(DeliveryState::as_str)).bind(query.after.map(|id| id.0));
        page(&self.rows(rows.bind(i64::from(query.limit) + 1)).await?, query.limit, delivery)
    }

    async fn redeliver(&self, project: ProjectId, id: DeliveryId) -> Result<Option<Delivery>> {
        let sql = "update webhook_deliveries set state = 'pending', due_at = now_ms(), ended_at = null
          where project = $1 and id = $2 returning *";
        self.row(sqlx::query(sql).bind(project.0).bind(id.0)).await?.as_ref().map(delivery).transpose()
    }

    async fn forget_deliveries(&self, limit: u32, keep: Duration) -> Result<u64> {
        let sql = "with stuck as (
            update webhook_deliveries set state = 'failed', due_at = null, ended_at = now_ms(), last_error = $3
            where due_at is not null and id in (
              select d.id from webhook_deliveries d left join webhook_endpoints e on e.id = d.endpoint
              where d.due_at is not null and (e.id is null or e.disabled_at <= now_ms() - $2) limit $1)
          )
          delete from webhook_deliveries where id in (
            select id from webhook_deliveries where ended_at <= now_ms() - $2 order by ended_at limit $1)";
        let query = sqlx::query(sql).bind(i64::from(limit)).bind(ms(keep)).bind(codec::DISABLED);
        within(VERB, async { Ok(query.execute(&self.pool).await?.rows_affected()) }).await
    }
}
