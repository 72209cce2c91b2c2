//! A Redis of one's own goes away and comes back.

use harness::{Redis, logs_folder};
use std::time::Duration;

async fn set(redis: &Redis) -> anyhow::Result<()> {
    Ok(redis::cmd("SET").arg("key").arg("kept").exec_async(&mut redis.connection().await?).await?)
}

async fn get(redis: &Redis) -> anyhow::Result<Option<String>> {
    Ok(redis::cmd("GET").arg("key").query_async(&mut redis.connection().await?).await?)
}

#[tokio::test]
async fn it_comes_back_on_the_same_port_and_has_forgotten() -> anyhow::Result<()> {
    if !harness::available() {
        return Ok(());
    }
    let mut redis = Redis::start(&logs_folder()?).await?;
    set(&redis).await?;
    redis.process.kill_9()?;
    assert!(redis.connection().await.is_err());
    redis.restart().await?;
    assert_eq!(get(&redis).await?, None);
    set(&redis).await?;
    redis.restart().await?;
    assert_eq!(get(&redis).await?, None, "one that runs is killed first");

    set(&redis).await?;
    redis.flush().await?;
    assert_eq!(get(&redis).await?, None);

    let load = redis::cmd("SCRIPT").arg("LOAD").arg("return 7").clone();
    let digest: String = load.query_async(&mut redis.connection().await?).await?;
    let call = redis::cmd("EVALSHA").arg(&digest).arg(0).clone();
    assert_eq!(call.query_async::<u8>(&mut redis.connection().await?).await?, 7);
    redis.script_flush().await?;
    assert!(call.query_async::<u8>(&mut redis.connection().await?).await.is_err());

    redis.config("maxmemory", "1mb").await?;
    assert!(set(&redis).await.is_err(), "it is full");
    assert!(redis.config("no-such-setting", "1").await.is_err());
    Ok(())
}

#[tokio::test]
async fn a_durable_one_remembers() -> anyhow::Result<()> {
    if !harness::available() {
        return Ok(());
    }
    let mut redis = Redis::durable(&logs_folder()?).await?;
    set(&redis).await?;
    redis.restart().await?;
    assert_eq!(get(&redis).await?.as_deref(), Some("kept"));
    Ok(())
}

#[tokio::test]
async fn a_frozen_one_is_silent_until_it_thaws() -> anyhow::Result<()> {
    if !harness::available() {
        return Ok(());
    }
    let redis = Redis::start(&logs_folder()?).await?;
    set(&redis).await?;
    let asks = redis::cmd("GET").arg("key").clone();
    let config = redis::AsyncConnectionConfig::new().set_response_timeout(Some(harness::PATIENCE));
    let client = redis::Client::open(redis.url.as_str())?;
    let mut connection = client.get_multiplexed_async_connection_with_config(&config).await?;
    redis.freeze().await?;
    let mut answer = std::pin::pin!(asks.query_async::<String>(&mut connection));
    assert!(tokio::time::timeout(Duration::from_millis(200), &mut answer).await.is_err());
    redis.thaw()?;
    assert_eq!(answer.await?, "kept");
    Ok(())
}
