//! What Longhaul adds to the time to the first token: the same call straight to the model and through Longhaul, in turns within one
//! run, so that whatever disturbs the box disturbs both.
//!
//! From the moment the request is sent until the first chunk with text is read. Through Longhaul once by an open WebSocket
//! (`task.create`, `subscribe` after its ack) and once by `POST /v1/tasks` and its event stream on one connection. And once by hand, while
//! nothing else goes on: what Postgres and Redis alone take on this box for two commits, a bell and a message ([`ByHand`]).
//! `…_over_p99_ms` is the difference of two percentiles, not a percentile of differences.

use super::{Figures, Load, Model, USUAL, all, percentiles, warm_up};
use crate::{
    gauge::tree,
    load::{
        by_hand::ByHand,
        connection::{Connection, id},
        socket::{Socket, TOKEN},
    },
    system::{Running, Wish, longhaul},
};
use anyhow::{Context, ensure};
use std::time::Duration;
use tokio::time::{Instant, sleep, sleep_until};

/// Turns of each way when nobody else asks.
const TURNS: u32 = 300;
/// The first token comes late enough that Longhaul keeps the task's log by then.
const IDLE: Model = Model { first_ms: 100, between_ms: 5, tokens: 4 };

/// Longer than the end of a task takes once its last event is told.
const REST: Duration = Duration::from_millis(5);

/// Streams at once.
const STREAMS: u32 = 200;
/// A stream of 1.1 s.
const BUSY: Model = Model { first_ms: 100, between_ms: 25, tokens: 41 };
const LASTS: Duration = Duration::from_millis(1_100);
/// Each way has so many stretches of this length.
const STRETCHES: usize = 2;
const STRETCH_S: f64 = 6.0;

/// How the answer is asked for.
#[derive(Debug, Clone, Copy)]
enum Way {
    Direct,
    Socket,
    Sse,
    ByHand,
}

const WAYS: [(Way, &str); 3] = [(Way::Direct, "direct"), (Way::Socket, "socket"), (Way::Sse, "sse")];
const BY_HAND: (Way, &str) = (Way::ByHand, "by_hand");

pub(super) async fn run(load: Load) -> anyhow::Result<Figures> {
    let running = Running::start(load.system, Wish { slots: STREAMS + 56, ..USUAL }).await?;
    warm_up(&running, 1_000, true).await?;
    let mut figures = Figures::new();
    let turns = (f64::from(TURNS) * load.scale) as usize;
    let mut times = idle(&running, turns.max(10)).await?;
    add(&mut figures, "", &mut times)?;
    let stretch = Duration::from_secs_f64((STRETCH_S * load.scale).max(2.5));
    let mut times = busy(&running, stretch, &mut figures).await?;
    add(&mut figures, "_200", &mut times)?;
    running.stop().await?;
    Ok(figures)
}

/// Times by way.
type Times = [Vec<f64>; 4];

fn add(figures: &mut Figures, when: &str, times: &mut Times) -> anyhow::Result<()> {
    for ((_, name), times) in WAYS.iter().chain([&BY_HAND]).zip(times).filter(|(_, times)| !times.is_empty())
    {
        percentiles(figures, &format!("{name}{when}"), std::mem::take(times));
    }
    for percent in [50, 99] {
        let of = |figures: &Figures, name: &str| {
            figures.get(&format!("{name}{when}_p{percent}_ms")).copied().context("no times")
        };
        let direct = of(figures, "direct")?;
        for (name, over) in [("socket", "first_token"), ("sse", "first_token_sse"), ("by_hand", "by_hand")] {
            match of(figures, name) {
                Err(_) if name == BY_HAND.1 => {}
                ms => {
                    figures.insert(format!("{over}{when}_over_p{percent}_ms"), ms? - direct);
                }
            }
        }
    }
    Ok(())
}

#[expect(
    clippy::disallowed_methods,
    reason = "nobody else is on this thread, and tokio's timers tick in milliseconds"
)]
async fn idle(running: &Running, turns: usize) -> anyhow::Result<Times> {
    let (mut caller, mut times) = (Caller::open(running, IDLE).await?, Times::default());
    caller.by_hand = ByHand::open(running).await?;
    let ways: Vec<_> = WAYS.into_iter().chain(caller.by_hand.as_ref().map(|_| BY_HAND)).collect();
    // The first ones open what is opened late.
    for turn in 0..turns + 10 {
        // Who comes right after the model's own turn finds Longhaul colder.
        let mut ways = ways.clone();
        fastrand::shuffle(&mut ways);
        for (way, _) in ways {
            let ms = caller.first(way).await?;
            times[way as usize].extend((turn >= 10).then_some(ms));
            sleep(REST).await;
            // Timers tick in milliseconds, here and in the model: without this, each way would meet the model's tick at a moment of its own.
            std::thread::sleep(Duration::from_micros(fastrand::u64(0..1_000)));
        }
    }
    Ok(times)
}

/// A new stream begins as soon as one of the others has ended. Those at the edges of a stretch, when fewer are open, do not count.
async fn busy(running: &Running, stretch: Duration, figures: &mut Figures) -> anyhow::Result<Times> {
    let (mut times, mut idle_cores) = (Times::default(), [0.0; 3]);
    for _ in 0..STRETCHES {
        for (way, _) in WAYS {
            // Not before: an API closes a connection on which nobody says anything.
            let mut callers = Vec::new();
            for _ in 0..STREAMS {
                callers.push(Caller::open(running, BUSY).await?);
            }
            let (began, idle) = (Instant::now(), tree::idle_s());
            let one = |mut caller: Caller, place: u32| async move {
                let mut counted = Vec::new();
                sleep_until(began + LASTS.mul_f64(f64::from(place) / f64::from(STREAMS))).await;
                while began.elapsed() < stretch {
                    let counts = began.elapsed() >= LASTS;
                    let ms = caller.first(way).await?;
                    counted.extend(counts.then_some(ms));
                }
                Ok(counted)
            };
            let counted = all(callers.into_iter().zip(0..).map(|(caller, place)| one(caller, place))).await?;
            times[way as usize].extend(counted.into_iter().flatten());
            idle_cores[way as usize] += (tree::idle_s() - idle) / began.elapsed().as_secs_f64();
        }
    }
    for (way, name) in WAYS {
        figures.insert(format!("{name}_200_idle_cores"), idle_cores[way as usize] / STRETCHES as f64);
    }
    Ok(times)
}

/// One client, with an open connection for each way.
struct Caller {
    model: Connection,
    direct: Vec<u8>,
    socket: Socket,
    task: String,
    http: Connection,
    submit: Vec<u8>,
    host: String,
    by_hand: Option<ByHand>,
}

impl Caller {
    async fn open(running: &Running, model: Model) -> anyhow::Result<Self> {
        let task = longhaul::streamed(model);
        Ok(Self {
            model: Connection::open(running.model_at).await?,
            direct: running.direct(model),
            socket: Socket::open(running.api).await?,
            submit: running.submit_task(&task),
            task,
            http: Connection::open(running.api).await?,
            host: running.api.to_string(),
            by_hand: None,
        })
    }

    /// Milliseconds to the first token; reads the rest of the stream before it returns.
    async fn first(&mut self, way: Way) -> anyhow::Result<f64> {
        let (began, mut first) = (Instant::now(), None);
        match way {
            Way::Direct => first = Some(self.model.first(&self.direct, TOKEN).await?),
            Way::Socket => {
                let task = self.socket.create(&self.task).await?;
                self.socket.subscribe(&task).await?;
                self.socket.follow(|_| first = first.or_else(|| Some(Instant::now()))).await?;
            }
            Way::Sse => {
                let answer = self.http.call(&self.submit).await?;
                ensure!(answer.status == 202, "status {}", answer.status);
                let task = id(answer.body).context("an accepted task without an id")?;
                let get = format!("GET /v1/tasks/{task}/events HTTP/1.1\r\nhost: {}\r\n\r\n", self.host);
                first = Some(self.http.first(get.as_bytes(), TOKEN).await?);
            }
            Way::ByHand => {
                let by_hand = self.by_hand.as_mut().context("nothing to do it with")?;
                return by_hand.first(&self.direct, TOKEN).await;
            }
        }
        Ok((first.context("an answer without a token")? - began).as_secs_f64() * 1e3)
    }
}
