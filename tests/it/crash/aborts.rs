//! Clients that leave in the middle of a request: no connection of the pool is left in a bad way.

use super::{history, load, task};
use crate::journey::both_modes;
use harness::{App, Mode, report, size};
use serde_json::json;
use std::{sync::Arc, time::Duration};
use tokio::{io::AsyncWriteExt, net::TcpStream, sync::Semaphore, task::JoinSet, time::sleep};

both_modes!(the_pool_stays_whole);

async fn the_pool_stays_whole(mode: Mode) -> anyhow::Result<()> {
    let aborts = size(1_000, 10_000);
    let mut app = App::with(mode).quick().start().await?;
    let history = history(&app).await?;
    let address = app.client().base().trim_start_matches("http://").to_owned();
    let body = task(0, json!({})).to_string();
    let head = format!(
        "POST /v1/tasks HTTP/1.1\r\nhost: {address}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    let (request, permits) = (Arc::new(head + &body), Arc::new(Semaphore::new(64)));
    let mut clients = JoinSet::new();
    for _ in 0..aborts {
        let (request, address, permit) =
            (request.clone(), address.clone(), permits.clone().acquire_owned().await?);
        clients.spawn(async move {
            let mut connection = TcpStream::connect(address).await?;
            connection.write_all(request.as_bytes()).await?;
            sleep(Duration::from_micros(fastrand::u64(0..5_000))).await;
            drop((connection, permit));
            anyhow::Ok(())
        });
    }
    while let Some(done) = clients.join_next().await {
        done??;
    }
    // The pool is as good as new: 64 at once are served.
    let mut again = load(&app, &history, "again");
    again.clients = 64;
    let met = again.run(256, |n| task(n, json!({}))).await?;
    assert_eq!((met.turned_away, met.broken), (0, 0));
    app.judge(&history, Duration::from_secs(60)).await?;
    let said = app.api_process(0).said()?;
    assert!(!said.contains("25P02"), "no statement met another's transaction");
    report(
        "10",
        "clients that leave within 5 ms",
        &json!({"mode": mode.name(), "aborts": aborts, "25P02": 0, "transactions without an owner": 0}),
    )
}
