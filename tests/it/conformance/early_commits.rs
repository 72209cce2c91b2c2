//! Postgres dies the moment after it has answered. What it lets others see before it is on the disk, nobody has been promised; what was
//! answered is there when it comes back.

use super::samples::{accept, beside, key, new_task};
use harness::{Postgres, logs_folder};
use shared::{
    store::{PostgresStore, Store, Submitted},
    task::NewTask,
};
use sqlx::{Executor, PgConnection};
use std::sync::Mutex;

/// A server that writes to the disk only when somebody waits for it, with an open store.
async fn server() -> anyhow::Result<(Postgres, PostgresStore)> {
    let postgres = Postgres::with(&logs_folder()?, &["-c wal_writer_delay=10s"]).await?;
    let store = PostgresStore::open(&postgres.url, 4).await?;
    Ok((postgres, store))
}

async fn dies_and_comes_back(postgres: &mut Postgres, store: &mut PostgresStore) -> anyhow::Result<()> {
    postgres.kill_9().await?;
    postgres.restart().await?;
    *store = PostgresStore::open(&postgres.url, 4).await?;
    Ok(())
}

/// Changes something as a neighbour does who has not been answered yet.
async fn unanswered(postgres: &Postgres, change: &str) -> anyhow::Result<PgConnection> {
    let mut db = postgres.admin().await?;
    db.execute("set synchronous_commit = off").await?;
    sqlx::raw_sql(sqlx::AssertSqlSafe(change.to_owned())).execute(&mut db).await?;
    Ok(db)
}

async fn priority(store: &PostgresStore, task: &NewTask) -> anyhow::Result<Option<i16>> {
    Ok(store.get(task.project, task.id).await?.map(|task| task.priority))
}

#[tokio::test]
async fn what_was_answered_is_kept() -> anyhow::Result<()> {
    let (mut postgres, mut store) = server().await?;
    let task = new_task();
    let lost = accept(&store, &task).await;
    let _db = unanswered(&postgres, "update tasks set priority = 7").await?;
    dies_and_comes_back(&mut postgres, &mut store).await?;
    assert_eq!(priority(&store, &task).await?, Some(lost.priority), "or this server would keep everything");

    // Alone and with others, with a key and without.
    let (keyed, alone) = (NewTask { idempotency: key("first", 1), ..beside(&task) }, beside(&task));
    for inputs in [vec![keyed.clone()], vec![alone.clone()], vec![beside(&task), beside(&task)]] {
        let seen = Mutex::default();
        let early = |answers: &[Submitted]| *seen.lock().unwrap() = answers.to_vec();
        let answers = store.submit_early(&inputs, &early).await?;
        dies_and_comes_back(&mut postgres, &mut store).await?;
        assert_eq!(*seen.lock().unwrap(), answers, "told early what it was told in the end");
        for input in &inputs {
            assert_eq!(priority(&store, input).await?, Some(0), "{} inputs", inputs.len());
        }
    }

    // What a neighbour has not been answered yet, somebody else is.
    let _db = unanswered(&postgres, "update tasks set priority = 7").await?;
    assert!(
        matches!(&store.submit(std::slice::from_ref(&alone)).await?[0], Submitted::Accepted(task) if task.priority == 7)
    );
    dies_and_comes_back(&mut postgres, &mut store).await?;
    assert_eq!(priority(&store, &alone).await?, Some(7), "the id was known");

    let again = NewTask { idempotency: key("second", 1), ..beside(&task) };
    let _db = unanswered(&postgres, "update idempotency set key = 'second'").await?;
    let replayed = [Submitted::Replayed(keyed.id)];
    assert_eq!(store.submit(std::slice::from_ref(&again)).await?, replayed);
    dies_and_comes_back(&mut postgres, &mut store).await?;
    assert_eq!(store.submit(&[again]).await?, replayed, "the key was known");

    let _db = unanswered(&postgres, "update idempotency set key = 'third'").await?;
    let kept = Some((keyed.id, [1; 32]));
    assert_eq!(store.keyed(task.project, "third").await?, kept);
    dies_and_comes_back(&mut postgres, &mut store).await?;
    assert_eq!(store.keyed(task.project, "third").await?, kept, "the key was found");
    Ok(())
}
