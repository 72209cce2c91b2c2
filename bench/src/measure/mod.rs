//! The measurements. Each starts a system from nothing, warms it up, loads it, and gives figures by name.
//!
//! Names say the unit and so which way is better: `…_per_s`, `slot_use` and `hot_share` should be high, all others low.

mod accept;
mod backlog;
mod cost;
mod fan_out;
mod first_token;
mod hostile;
mod idle;
mod idle_sockets;
mod in_flight;
mod read;
mod relay;
mod slots;
mod through;

use crate::{
    load::{
        socket::Socket,
        submit::{Pace, send},
    },
    system::{Model, Running, System, Wish},
};
use anyhow::Context;
use clap::ValueEnum;
use shared::clock::UnixMs;
use std::{collections::BTreeMap, fmt, time::Duration};
use through::Way;
use tokio::{
    task::JoinSet,
    time::{Instant, sleep, timeout},
};

/// Figures by name.
pub(crate) type Figures = BTreeMap<String, f64>;

/// What can be measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Measure {
    /// Submits on 64 connections while nothing is worked on.
    Accept,
    /// The same, 10,000 a second: what each of them costs.
    AcceptPaced,
    /// Submits with a worker and a model that answers at once: until the last row is done.
    Through,
    /// 200 a second: what a task waits when the system is neither idle nor full.
    Steady,
    /// One task at a time: until its event is there and GET shows the answer.
    Idle,
    /// GETs of a finished task on 64 connections.
    Read,
    /// 64 slots and a model that takes 200 ms.
    Slots,
    /// 200,000 tasks wait when the worker starts, and more come in while it drains them.
    Backlog,
    /// 4,000 slots and a model that takes a second.
    InFlight,
    /// Token streams, each with a watcher.
    Relay,
    /// The time to the first token, beside that of the model itself.
    FirstToken,
    /// One task with a thousand watchers, and a thousand tasks with one each.
    FanOut,
    /// Ten thousand sockets that wait.
    IdleSockets,
    /// One project asks for ten times what there is: what another one feels.
    Hostile,
}

impl fmt::Display for Measure {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        to.write_str(self.to_possible_value().as_ref().map_or("", |value| value.get_name()))
    }
}

impl Measure {
    /// Whether this system can be asked for it.
    pub(crate) fn suits(self, system: System) -> bool {
        match self {
            // Sockets are opened without a key.
            Self::Relay | Self::FirstToken | Self::FanOut => {
                system.is_longhaul() && system != System::LonghaulGuarded
            }
            // The memory of an API process alone.
            Self::IdleSockets => system == System::Longhaul,
            Self::Hostile => system == System::LonghaulGuarded,
            // They are followed without a key.
            Self::Idle => system != System::LonghaulGuarded,
            // An embedded process cannot be without its worker.
            Self::Backlog => system.is_longhaul() && system != System::LonghaulEmbedded,
            // Threads by the thousand thrash.
            Self::InFlight => system != System::Celery,
            _ => true,
        }
    }
}

/// Measures one thing of one system. `scale` multiplies every count of tasks.
///
/// # Errors
/// The system does not start, refuses a request, or loses a task.
pub(crate) async fn run(measure: Measure, system: System, scale: f64) -> anyhow::Result<Figures> {
    let load = Load { system, scale };
    match measure {
        Measure::Accept => accept::run(load, Pace::Closed).await,
        Measure::AcceptPaced => accept::paced(load).await,
        Measure::Through => through::run(load, Way::Flood).await,
        Measure::Steady => through::run(load, Way::Steady).await,
        Measure::Idle => idle::run(load).await,
        Measure::Read => read::run(load).await,
        Measure::Slots => slots::run(load).await,
        Measure::Backlog => backlog::run(load).await,
        Measure::InFlight => in_flight::run(load).await,
        Measure::Relay => relay::run(load).await,
        Measure::FirstToken => first_token::run(load).await,
        Measure::FanOut => fan_out::run(load).await,
        Measure::IdleSockets => idle_sockets::run(load).await,
        Measure::Hostile => hostile::run(load).await,
    }
}

/// Connections of a busy client.
const CONNECTIONS: u32 = 64;

/// A model that answers at once, with some 500 bytes.
const AT_ONCE: Model = Model { first_ms: 0, between_ms: 0, tokens: 32 };

/// A worker with 64 slots and a model that answers at once.
const USUAL: Wish = Wish { slots: 64, model: AT_ONCE, worker: true, deltas: false };

/// How much is sent to whom.
#[derive(Debug, Clone, Copy)]
struct Load {
    system: System,
    scale: f64,
}

impl Load {
    /// Tasks that keep this system busy for some seconds, when the fastest gets `of_fastest`.
    fn share(self, of_fastest: u32) -> u32 {
        self.count(self.system.share(of_fastest))
    }

    /// A count that is the same for all.
    fn count(self, count: u32) -> u32 {
        ((f64::from(count) * self.scale) as u32).max(CONNECTIONS)
    }
}

/// Median, 95th and 99th percentile of milliseconds, as `<name>_p50_ms`…
fn percentiles(figures: &mut Figures, name: &str, mut ms: Vec<f64>) {
    ms.sort_by(f64::total_cmp);
    for percent in [50, 95, 99] {
        if let Some(value) = ms.get((ms.len() * percent).saturating_sub(1) / 100) {
            figures.insert(format!("{name}_p{percent}_ms"), *value);
        }
    }
}

/// Milliseconds since the epoch, by this machine's clock, which is the databases' too.
fn now_ms() -> f64 {
    UnixMs::now().0 as f64
}

/// Opens pools, compiles what is compiled late, and lets the pages of the start be written.
async fn warm_up(running: &Running, tasks: u32, works: bool) -> anyhow::Result<()> {
    send(running.api, &running.submit, (tasks, CONNECTIONS), Pace::Closed, &[202]).await?;
    if works {
        all_done(running).await?;
    }
    running.rows.settle().await
}

/// Waits until no task is left undone. When the last one was done the rows say; so a look now and then will do.
async fn all_done(running: &Running) -> anyhow::Result<()> {
    let began = Instant::now();
    while running.rows.open().await? {
        anyhow::ensure!(began.elapsed() < Duration::from_secs(300), "tasks are left undone");
        sleep(Duration::from_millis(100)).await;
    }
    Ok(())
}

/// So many open sockets.
async fn sockets(running: &Running, count: u32) -> anyhow::Result<Vec<Socket>> {
    let mut sockets = Vec::new();
    for _ in 0..count {
        sockets.push(Socket::open(running.api).await?);
    }
    Ok(sockets)
}

/// What many clients do at the same time, each as a task of its own, within two minutes.
async fn all<T: Send + 'static>(
    clients: impl IntoIterator<Item = impl Future<Output = anyhow::Result<T>> + Send + 'static>,
) -> anyhow::Result<Vec<T>> {
    let (mut set, mut done) = (clients.into_iter().collect::<JoinSet<_>>(), Vec::new());
    let joined = async {
        while let Some(client) = set.join_next().await {
            done.push(client??);
        }
        Ok(done)
    };
    timeout(Duration::from_secs(120), joined).await.context("clients do not come to an end")?
}
