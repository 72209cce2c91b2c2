//! A Postgres of one's own is killed, frozen and filled, and keeps what it has promised.

use harness::{Postgres, available, can_mount, eventually, logs_folder};
use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection};
use std::time::{Duration, Instant};

async fn client(postgres: &Postgres) -> anyhow::Result<PgConnection> {
    Ok(PgConnection::connect(&postgres.url).await?)
}

async fn run(client: &mut PgConnection, statement: &str) -> Result<(), sqlx::Error> {
    client.execute(AssertSqlSafe(statement.to_owned())).await.map(drop)
}

async fn count(postgres: &Postgres, table: &str) -> anyhow::Result<i64> {
    let statement = format!("select count(*) from {table}");
    Ok(sqlx::query_scalar(AssertSqlSafe(statement)).fetch_one(&mut client(postgres).await?).await?)
}

#[tokio::test]
async fn it_comes_back_with_what_was_committed() -> anyhow::Result<()> {
    if !available() {
        return Ok(());
    }
    let mut postgres = Postgres::start(&logs_folder()?).await?;
    assert_eq!(count(&postgres, "tasks").await?, 0, "it is migrated");
    let mut held = client(&postgres).await?;
    run(&mut held, "create table kept as select 1 as one").await?;
    let fsync: String = sqlx::query_scalar("show fsync").fetch_one(&mut held).await?;
    assert_eq!(fsync, "on");

    postgres.kill_9().await?;
    assert!(run(&mut held, "select 1").await.is_err());
    assert!(client(&postgres).await.is_err());
    let started = Instant::now();
    postgres.restart().await?;
    let took = started.elapsed();
    assert_eq!(count(&postgres, "kept").await?, 1);

    // Orphans that cannot end by themselves do not keep it from starting.
    let _held = client(&postgres).await?;
    postgres.freeze().await?;
    postgres.kill_first()?;
    postgres.restart().await?;
    assert_eq!(count(&postgres, "kept").await?, 1);
    assert!(postgres.stop().await?.success());
    assert!(took < Duration::from_secs(10), "{took:?}");
    Ok(())
}

#[tokio::test]
async fn a_frozen_one_is_silent_until_it_thaws() -> anyhow::Result<()> {
    if !available() {
        return Ok(());
    }
    let postgres = Postgres::start(&logs_folder()?).await?;
    let mut held = client(&postgres).await?;
    postgres.freeze().await?;
    let short = Duration::from_millis(200);
    let mut answer = std::pin::pin!(run(&mut held, "select 1"));
    let mut newcomer = std::pin::pin!(client(&postgres));
    assert!(tokio::time::timeout(short, &mut answer).await.is_err());
    assert!(tokio::time::timeout(short, &mut newcomer).await.is_err());
    postgres.thaw()?;
    answer.await?;
    newcomer.await.map(drop)
}

#[tokio::test]
async fn its_clients_are_thrown_out() -> anyhow::Result<()> {
    if !available() {
        return Ok(());
    }
    let postgres = Postgres::with(&logs_folder()?, &["-c max_connections=8"]).await?;
    let (mut one, mut two) = (client(&postgres).await?, client(&postgres).await?);
    assert_eq!(postgres.terminate_backends().await?, 2);
    assert!(run(&mut one, "select 1").await.is_err() && run(&mut two, "select 1").await.is_err());

    let (mut one, mut two) = (client(&postgres).await?, client(&postgres).await?);
    postgres.kill_backend().await?;
    let thrown_out = async || {
        let gone = [run(&mut one, "select 1").await.is_err(), run(&mut two, "select 1").await.is_err()];
        Ok((gone == [true, true]).then_some(()))
    };
    eventually("both are thrown out", thrown_out).await?;
    eventually("it has recovered", async || Ok(client(&postgres).await.ok())).await?;

    let mut all = Vec::new();
    while let Ok(client) = client(&postgres).await {
        all.push(client);
        assert!(all.len() <= 5, "three of eight are kept");
    }
    assert!(all.len() > 3, "{} only", all.len());
    postgres.admin().await?;
    Ok(())
}

#[tokio::test]
async fn its_disk_is_full_and_freed() -> anyhow::Result<()> {
    if !available() || !can_mount() {
        return Ok(());
    }
    let mut postgres = Postgres::on_small_disk(&logs_folder()?, 96).await?;
    run(&mut client(&postgres).await?, "create table kept as select 1 as one").await?;
    let filled = postgres.fill_disk()?;
    assert!(filled > 16 << 20, "{filled} bytes were free");
    let much = "create table much as select repeat(md5(n::text), 200) from generate_series(1, 20000) n";
    let refused = run(&mut client(&postgres).await?, much).await.expect_err("there is no space");
    assert!(refused.to_string().contains("No space left"), "{refused}");

    postgres.free_disk()?;
    postgres.restart().await?;
    assert_eq!(count(&postgres, "kept").await?, 1);
    run(&mut client(&postgres).await?, "insert into kept values (2)").await?;
    postgres.restart().await?;
    assert_eq!(count(&postgres, "kept").await?, 2, "the disk outlives its server");
    Ok(())
}
