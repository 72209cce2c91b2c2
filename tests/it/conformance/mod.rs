//! One suite per trait, run on every implementation.

mod apalis;
mod early_commits;
mod events;
mod limits;
mod queue;
mod registry;
mod samples;
mod store;
mod webhooks;

use self::queue::Order;
use harness::{Redis, available, fresh_database, logs_folder};
use shared::{
    events::{MemoryEvents, RedisEvents},
    limits::{MemoryLimits, RedisLimits, SharedLimits},
    queue::{ApalisQueue, MemoryQueue, Queue, SortedQueue},
    store::{PostgresStore, SqliteStore, Store},
};
use std::time::Duration;

/// How long logs are kept after their end, for the suite to see it.
const KEEP: Duration = Duration::from_secs(2);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn store_in_sqlite() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let store = SqliteStore::open(&folder.path().join("longhaul.db")).await?;
    store.migrate().await?;
    store::all(&store).await;
    registry::all(&store).await;
    store::caps::all(&store).await;
    webhooks::all(&store).await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn store_in_postgres() -> anyhow::Result<()> {
    if available() {
        let store = PostgresStore::open(&fresh_database().await?, 16).await?;
        store::all(&store).await;
        registry::all(&store).await;
        store::caps::all(&store).await;
        webhooks::all(&store).await;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn queue_in_memory() {
    queue::all(&MemoryQueue::new(&queue::lanes(), queue::WINDOW), Order::Fair).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn queue_in_sorted_sets() -> anyhow::Result<()> {
    if available() {
        let redis = Redis::start(&logs_folder()?).await?;
        let queue = SortedQueue::open(&redis.url, &queue::lanes(), queue::WINDOW).await?;
        in_redis(&queue, &redis, Order::Fair).await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn queue_in_apalis() -> anyhow::Result<()> {
    if available() {
        let redis = Redis::start(&logs_folder()?).await?;
        let queue = ApalisQueue::open(&redis.url, &queue::lanes(), queue::WINDOW).await?;
        in_redis(&queue, &redis, Order::Fifo).await?;
        apalis::all(&queue, &redis.url).await?;
    }
    Ok(())
}

/// The suite, and once more after Redis has lost everything, scripts included.
async fn in_redis(queue: &dyn Queue, redis: &Redis, order: Order) -> anyhow::Result<()> {
    queue::all(queue, order).await;
    let mut redis = redis::Client::open(redis.url.as_str())?.get_multiplexed_async_connection().await?;
    redis::cmd("FLUSHALL").exec_async(&mut redis).await?;
    redis::cmd("SCRIPT").arg("FLUSH").exec_async(&mut redis).await?;
    queue::all(queue, order).await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_in_memory() {
    events::all(&MemoryEvents::new(KEEP)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_in_redis() -> anyhow::Result<()> {
    if available() {
        let redis = Redis::start(&logs_folder()?).await?;
        events::all(&RedisEvents::open(&redis.url, KEEP).await?).await;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn limits_in_memory() {
    limits::all(&MemoryLimits::default()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn limits_in_redis() -> anyhow::Result<()> {
    if available() {
        let redis = Redis::start(&logs_folder()?).await?;
        limits::all(&RedisLimits::open(&redis.url).await?).await;
        let shared = SharedLimits::new(RedisLimits::open(&redis.url).await?);
        limits::all(&shared).await;
        // Without Redis each process has buckets of its own.
        drop(redis);
        limits::all(&shared).await;
    }
    Ok(())
}
