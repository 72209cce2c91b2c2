//! Requests by the thousand: in a closed loop (as fast as answers come) or an open one (at a given rate, come what may).

use super::connection::{Connection, id};
use anyhow::{Context, bail};
use shared::clock::UnixMs;
use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};
use tokio::{
    task::JoinSet,
    time::{Instant, sleep_until},
};

/// What came of it.
#[derive(Debug, Default)]
pub(crate) struct Sent {
    /// Ids in answers, if they were asked for.
    pub(crate) ids: Vec<String>,
    /// Milliseconds of each request. In an open loop they count from the moment it was due.
    pub(crate) took_ms: Vec<f64>,
    /// That moment, milliseconds since the epoch.
    pub(crate) due_ms: Vec<f64>,
    /// From the first request to the last answer.
    pub(crate) seconds: f64,
}

impl Sent {
    /// Answers per second.
    pub(crate) fn per_s(&self) -> f64 {
        self.took_ms.len() as f64 / self.seconds
    }
}

/// When requests go out.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Pace {
    /// Each connection sends as soon as it has its answer.
    Closed,
    /// So many a second, over all connections.
    PerSecond(f64),
}

/// Sends `count` requests over `connections`; every answer must have one of the statuses `expect`.
///
/// # Errors
/// Another status, or a broken connection.
pub(crate) async fn send(
    api: SocketAddr,
    request: &[u8],
    (count, connections): (u32, u32),
    pace: Pace,
    expect: &'static [u16],
) -> anyhow::Result<Sent> {
    let mut opened = Vec::new();
    for _ in 0..connections {
        opened.push(Connection::open(api).await?);
    }
    let (request, next): (Arc<[u8]>, _) = (request.into(), Arc::new(AtomicU32::new(0)));
    let began = (Instant::now(), UnixMs::now());
    let mut senders = JoinSet::new();
    for connection in opened {
        senders.spawn(sender(connection, request.clone(), next.clone(), count, pace, expect, began));
    }
    let mut all = Sent::default();
    while let Some(sent) = senders.join_next().await {
        let sent = sent??;
        all.ids.extend(sent.ids);
        all.took_ms.extend(sent.took_ms);
        all.due_ms.extend(sent.due_ms);
    }
    all.seconds = began.0.elapsed().as_secs_f64();
    Ok(all)
}

async fn sender(
    mut connection: Connection,
    request: Arc<[u8]>,
    next: Arc<AtomicU32>,
    count: u32,
    pace: Pace,
    expect: &'static [u16],
    began: (Instant, UnixMs),
) -> anyhow::Result<Sent> {
    let mut sent = Sent::default();
    loop {
        let number = next.fetch_add(1, Ordering::Relaxed);
        if number >= count {
            return Ok(sent);
        }
        let due = match pace {
            Pace::Closed => Instant::now(),
            Pace::PerSecond(rate) => {
                let due = began.0 + Duration::from_secs_f64(f64::from(number) / rate);
                sleep_until(due).await;
                due
            }
        };
        let answer = connection.call(&request).await?;
        sent.took_ms.push(due.elapsed().as_secs_f64() * 1e3);
        sent.due_ms.push(began.1.0 as f64 + (due - began.0).as_secs_f64() * 1e3);
        if !expect.contains(&answer.status) {
            bail!("status {}: {}", answer.status, String::from_utf8_lossy(answer.body));
        }
        if answer.status == 202 {
            sent.ids.push(id(answer.body).context("an accepted task without an id")?);
        }
    }
}
