//! What a task costs at least where it is kept in Postgres and goes through Redis: the same steps, each as plain as it can be, by one
//! program that has no API, no worker, no fence and no fairness. What it takes is the box's and the services' own.

use super::connection::Connection;
use crate::system::Running;
use anyhow::{Context, ensure};
use futures_util::StreamExt;
use redis::aio::{MultiplexedConnection, PubSub};
use sqlx::{Connection as _, Executor, PgConnection, PgPool};
use tokio::time::Instant;
use uuid::Uuid;

const LIST: &str = "by_hand:ids";
const LOG: &str = "by_hand:log";
const CHANNEL: &str = "by_hand:events";

/// One client, API and worker.
pub(crate) struct ByHand {
    submits: PgConnection,
    claims: PgConnection,
    rings: MultiplexedConnection,
    waits: MultiplexedConnection,
    hears: PubSub,
    model: Connection,
}

impl ByHand {
    /// On the services of a system that does nothing meanwhile; `None` where there are none.
    ///
    /// # Errors
    /// One of them cannot be reached.
    pub(crate) async fn open(running: &Running) -> anyhow::Result<Option<Self>> {
        let (Some(pool), Some(redis)) = (running.rows.postgres(), running.redis()) else { return Ok(None) };
        let connect = async |pool: &PgPool| PgConnection::connect_with(&pool.connect_options()).await;
        let mut submits = connect(pool).await?;
        submits.execute("create table by_hand (id uuid primary key, state text not null)").await?;
        let mut hears = redis::Client::open(redis.url.as_str())?.get_async_pubsub().await?;
        hears.subscribe(CHANNEL).await?;
        Ok(Some(Self {
            submits,
            claims: connect(pool).await?,
            rings: redis.connection().await?,
            waits: redis.connection().await?,
            hears,
            model: Connection::open(running.model_at).await?,
        }))
    }

    /// Milliseconds from the insert to the message with the first token; reads the rest of the model's answer before it returns.
    ///
    /// # Errors
    /// A service failed.
    pub(crate) async fn first(&mut self, request: &[u8], token: &str) -> anyhow::Result<f64> {
        let (id, began) = (Uuid::now_v7(), Instant::now());
        let submit = async {
            sqlx::query("insert into by_hand values ($1, 'queued')")
                .bind(id)
                .execute(&mut self.submits)
                .await?;
            redis::cmd("LPUSH").arg(LIST).arg(id.as_bytes()).exec_async(&mut self.rings).await?;
            anyhow::Ok(())
        };
        let wait = async {
            let mut pop = redis::cmd("BLPOP");
            anyhow::Ok(pop.arg(LIST).arg(5).query_async::<(String, Vec<u8>)>(&mut self.waits).await?.1)
        };
        // The one who waits is there first.
        let (popped, ()) = tokio::try_join!(wait, submit)?;
        let claim = "update by_hand set state = 'in_progress' where id = $1 and state = 'queued'";
        let claim = sqlx::query(claim).bind(Uuid::from_slice(&popped)?).execute(&mut self.claims).await?;
        ensure!(claim.rows_affected() == 1, "the row was not there");
        let called = self.model.first(request, token).await? - began;
        let told = Instant::now();
        let mut tell = redis::pipe();
        tell.cmd("XADD").arg(LOG).arg("MAXLEN").arg(100).arg("*").arg("e").arg(token).ignore();
        tell.cmd("PUBLISH").arg(CHANNEL).arg(token).ignore();
        let tell = async { anyhow::Ok(tell.exec_async(&mut self.rings).await?) };
        let hear = async {
            self.hears.on_message().next().await.context("the channel was closed").map(|_| told.elapsed())
        };
        let (heard, ()) = tokio::try_join!(hear, tell)?;
        Ok((called + heard).as_secs_f64() * 1e3)
    }
}
