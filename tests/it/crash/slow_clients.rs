//! Callers who hold connections and do nothing with them: slow heads, slow bodies, answers that nobody takes. All of them are shown
//! out in time, and whoever else calls notices nothing.

use crate::journey::both_modes;
use anyhow::Context;
use harness::{App, Client, Mode, chat, report, size, within};
use serde_json::json;
use socket2::SockRef;
use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};
use tokio::{
    io::AsyncWriteExt,
    net::{TcpSocket, TcpStream},
    task::JoinSet,
    time::sleep,
};

both_modes!(slow_clients_are_shown_out);

/// Longest time until the last of them is gone.
const GONE: Duration = Duration::from_secs(30);
/// Longest time for an honest request meanwhile.
const HONEST: Duration = Duration::from_secs(5);
const DRIP: Duration = Duration::from_millis(200);

async fn slow_clients_are_shown_out(mode: Mode) -> anyhow::Result<()> {
    // The full size has the time limits of a server that nothing was set for.
    let (count, limits) = size((200, Some("2s")), (2_000, None));
    let mut app = App::with(mode);
    for name in ["HEADER_TIMEOUT", "BODY_TIMEOUT", "WRITE_TIMEOUT"] {
        app = limits.iter().fold(app, |app, limit| app.env(&format!("LONGHAUL_API__{name}"), limit));
    }
    let mut app = app.start().await?;
    let pid = app.api_process(0).pid();
    let client = app.client().without_pool()?;
    let address: SocketAddr = client.base().trim_start_matches("http://").parse()?;
    warm_up(&client).await?;
    let before = within(GONE, "connections are closed", async || steady(pid).await).await?;

    let begun = Instant::now();
    let mut slow = JoinSet::new();
    for n in 0..count {
        slow.spawn(async move {
            match n % 3 {
                0 => drip(address, "GET /livez HTTP/1.1\r\nhost: localhost\r\nx-slow: ", "").await,
                1 => {
                    drip(
                        address,
                        "POST /v1/tasks HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n",
                        "content-length: 9999\r\n\r\n",
                    )
                    .await
                }
                _ => take_nothing(address).await,
            }
        });
    }
    let held = within(GONE, "they are there", async || {
        Ok(Some(open_files(pid)?).filter(|open| *open >= before + count / 2))
    })
    .await?;
    let (mut served, mut slowest) = (0, Duration::ZERO);
    let open = loop {
        let asked = Instant::now();
        let id = client.ask("meanwhile", json!({})).await?;
        assert_eq!(client.ended(&id).await?["status"], "completed");
        (served, slowest) = (served + 1, slowest.max(asked.elapsed()));
        let open = open_files(pid)?;
        if open <= before || begun.elapsed() > GONE {
            break open;
        }
        sleep(DRIP).await;
    };
    let gone = begun.elapsed();
    assert!(open <= before, "{open} open files, {before} before, {held} in between");
    assert!(slowest <= HONEST, "an honest task took {slowest:?}");
    slow.shutdown().await;
    report(
        "slow clients",
        "slow heads, slow bodies, answers that nobody takes",
        &json!({"mode": mode.name(), "connections": count, "gone after, s": gone.as_secs_f64(), "files before": before, "files meanwhile": held,
                "files after": open, "honest tasks": served, "slowest, s": slowest.as_secs_f64()}),
    )
}

/// Fills the pools of the process, so that what it opens later is not its own.
async fn warm_up(client: &Client) -> anyhow::Result<()> {
    let mut tasks = JoinSet::new();
    for n in 0..64 {
        let client = client.clone();
        tasks.spawn(async move {
            let task =
                json!({"endpoint": "/v1/chat/completions", "body": chat(&format!("warm {n}"), json!({}))});
            let id = client.submit(&task).await?;
            client.ended(&id).await
        });
    }
    while let Some(done) = tasks.join_next().await {
        done??;
    }
    Ok(())
}

/// The open files of a process, once their number does not fall any more.
async fn steady(pid: u32) -> anyhow::Result<Option<usize>> {
    let first = open_files(pid)?;
    sleep(Duration::from_millis(500)).await;
    Ok(Some(first).filter(|first| open_files(pid).is_ok_and(|now| now == *first)))
}

fn open_files(pid: u32) -> anyhow::Result<usize> {
    Ok(std::fs::read_dir(format!("/proc/{pid}/fd")).context("the process is gone")?.count())
}

/// A byte now and then, for as long as it is taken.
async fn drip(address: SocketAddr, head: &str, rest: &str) -> std::io::Result<()> {
    let mut stream = TcpStream::connect(address).await?;
    stream.write_all(head.as_bytes()).await?;
    stream.write_all(rest.as_bytes()).await?;
    while stream.write_all(b" ").await.is_ok() {
        sleep(DRIP).await;
    }
    Ok(())
}

/// Asks for megabytes and takes nothing of them. Small segments keep what the kernel holds for it small.
async fn take_nothing(address: SocketAddr) -> std::io::Result<()> {
    let socket = TcpSocket::new_v4()?;
    SockRef::from(&socket).set_tcp_mss(1_400)?;
    socket.set_recv_buffer_size(4_096)?;
    let mut stream = socket.connect(address).await?;
    stream.write_all("GET /openapi.json HTTP/1.1\r\nhost: localhost\r\n\r\n".repeat(100).as_bytes()).await?;
    std::future::pending().await
}
