//! One suite per trait, run on every implementation.

mod events;
mod queue;
mod samples;
mod store;

use harness::{Redis, available, fresh_database, logs_folder};
use shared::{
    events::{MemoryEvents, RedisEvents},
    queue::{MemoryQueue, SortedQueue},
    store::{PostgresStore, SqliteStore, Store},
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn store_in_sqlite() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let store = SqliteStore::open(&folder.path().join("longhaul.db")).await?;
    store.migrate().await?;
    store::all(&store).await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn store_in_postgres() -> anyhow::Result<()> {
    if available() {
        store::all(&PostgresStore::open(&fresh_database().await?, 16).await?).await;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn queue_in_memory() {
    queue::all(&MemoryQueue::new(&queue::lanes(), queue::WINDOW)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn queue_in_sorted_sets() -> anyhow::Result<()> {
    if available() {
        let redis = Redis::start(&logs_folder()?).await?;
        queue::all(&SortedQueue::open(&redis.url, &queue::lanes(), queue::WINDOW).await?).await;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_in_memory() {
    events::all(&MemoryEvents::new()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_in_redis() -> anyhow::Result<()> {
    if available() {
        let redis = Redis::start(&logs_folder()?).await?;
        events::all(&RedisEvents::open(&redis.url).await?).await;
    }
    Ok(())
}
