//! Ten thousand sockets on one API process at which nothing happens: memory of the process for each of them, without a topic, with one
//! that many share, and with one of its own; and beside them a thousand streams of which every token must come.
//!
//! Memory is the process's share of its pages (PSS). What the kernel keeps for a socket is not in it.

use super::{CONNECTIONS, Figures, Load, USUAL, all, fan_out, sockets, warm_up};
use crate::{
    gauge::tree,
    load::{
        socket::Socket,
        submit::{Pace, send},
    },
    system::{Running, Wish, longhaul},
};
use anyhow::{Context, ensure};
use std::time::Duration;
use tokio::{
    task::JoinSet,
    time::{Instant, sleep},
};

const SOCKETS: u32 = 10_000;
/// Tasks that wait and are watched by many.
const SHARED: u32 = 200;
const STREAMS: u32 = 1_000;
/// Subscriptions at once.
const AT_ONCE: usize = 250;
/// The allocator gives back what it does not need, and the look at the watched rows comes once a second.
const SETTLES: Duration = Duration::from_secs(5);

pub(super) async fn run(load: Load) -> anyhow::Result<Figures> {
    let (count, streams) = (load.count(SOCKETS), load.count(STREAMS));
    let (limit, needed) = (open_files()?, u64::from(count + streams) + 1_000);
    ensure!(limit >= needed, "{limit} open files are too few: allow {needed} with `ulimit -n`");
    let running = Running::start(load.system, Wish { slots: STREAMS + 24, ..USUAL }).await?;
    warm_up(&running, 1_000, true).await?;
    let wait = async |tasks: u32| {
        let submit = running.submit_task(&longhaul::waiting());
        send(running.api, &submit, (tasks, CONNECTIONS), Pace::Closed, &[202]).await
    };
    let (shared, own) = (wait(SHARED).await?.ids, wait(count).await?.ids);
    drop(sockets(&running, 100).await?);
    let (mut figures, before) = (Figures::new(), quiet(&running).await?);
    let mut look = async |name: &str| {
        let now = quiet(&running).await?;
        figures.insert(format!("kib_{name}"), (now.kib - before.kib) / f64::from(count));
        figures.insert(format!("api_cores_{name}"), now.cores);
        anyhow::Ok(())
    };

    let mut open = sockets(&running, count).await?;
    look("socket").await?;
    for (name, topics, former) in [("shared_topic", &shared, None), ("own_topic", &own, Some(&shared))] {
        let turn = async |mut socket: Socket, former: Option<String>, topic: String| {
            if let Some(former) = former {
                socket.unsubscribe(&former).await?;
            }
            socket.subscribe(&topic).await?;
            Ok(socket)
        };
        let topics = (0..).zip(open).map(|(place, socket)| {
            let of = |topics: &Vec<String>| topics[place % topics.len()].clone();
            turn(socket, former.map(of), of(topics))
        });
        let (mut topics, mut turned) = (topics.collect::<Vec<_>>(), Vec::new());
        while !topics.is_empty() {
            turned.extend(all(topics.split_off(topics.len().saturating_sub(AT_ONCE))).await?);
        }
        open = turned;
        look(name).await?;
    }
    let mut rest: JoinSet<_> = open.into_iter().map(async |mut socket| socket.rest().await).collect();
    fan_out::many_tasks(&running, streams, "beside", &mut figures).await?;
    if let Some(broken) = rest.try_join_next() {
        broken?.context("an idle socket broke")?;
    }
    drop(rest);
    running.stop().await?;
    Ok(figures)
}

/// The API process when nothing happens.
struct Quiet {
    kib: f64,
    /// Cores that it kept busy all the same.
    cores: f64,
}

async fn quiet(running: &Running) -> anyhow::Result<Quiet> {
    let classes = running.classes().await?;
    let cpu = || tree::cpu_s(&classes).get("api").copied().context("no API");
    sleep(SETTLES).await;
    let (began, spent) = (Instant::now(), cpu()?);
    sleep(SETTLES).await;
    let cores = (cpu()? - spent) / began.elapsed().as_secs_f64();
    let mb = tree::pss_mb(&classes).get("api").copied().context("no API")?;
    Ok(Quiet { kib: mb * 1e6 / 1024.0, cores })
}

/// Files that a process started from here may open.
fn open_files() -> anyhow::Result<u64> {
    let limits = std::fs::read_to_string("/proc/self/limits")?;
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"));
    let soft = line.and_then(|line| line.split_whitespace().next()).context("no limit")?;
    Ok(if soft == "unlimited" { u64::MAX } else { soft.parse()? })
}
