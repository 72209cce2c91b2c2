//! Clients under fire: they submit with a key each and repeat until they are told 202, as a careful client does.

use crate::{Client, History, Seen};
use anyhow::Context;
use serde_json::Value;
use std::{
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::{sync::Semaphore, task::JoinSet, time::sleep};

/// Longest time that one submit is repeated for.
const PATIENCE: Duration = Duration::from_secs(120);
/// Pause between two tries.
const PAUSE: Duration = Duration::from_millis(20);

/// Submits tasks with up to `clients` requests at a time, each to the next API.
#[derive(Debug, Clone)]
pub struct Load {
    /// Where to.
    pub apis: Vec<Client>,
    /// What is written down.
    pub history: History,
    /// Requests at a time.
    pub clients: usize,
    /// Begins every key, so that loads of one run differ.
    pub name: String,
    /// Submits per second at most; none: as fast as they are answered.
    pub rate: Option<f64>,
}

/// What clients met on the way.
#[derive(Debug, Clone, Copy, Default)]
pub struct Met {
    /// Answers 503 and 507.
    pub turned_away: u64,
    /// Connections that broke, or could not be made.
    pub broken: u64,
    /// Longest wait for any answer.
    pub slowest: Duration,
}

impl Load {
    /// The same at this many submits per second.
    #[must_use]
    pub fn paced(self, rate: f64) -> Self {
        Self { rate: Some(rate), ..self }
    }

    /// Submits `count` tasks that `task` makes.
    ///
    /// # Errors
    /// One was not accepted within two minutes, or refused for good.
    pub async fn run(self, count: usize, task: impl Fn(usize) -> Value) -> anyhow::Result<Met> {
        let (mut submits, permits) = (JoinSet::new(), Arc::new(Semaphore::new(self.clients)));
        let mut met = Met::default();
        let mut add = |one: Met| {
            met.turned_away += one.turned_away;
            met.broken += one.broken;
            met.slowest = met.slowest.max(one.slowest);
        };
        let begun = Instant::now();
        for n in 0..count {
            if let Some(rate) = self.rate {
                sleep(Duration::from_secs_f64(n as f64 / rate).saturating_sub(begun.elapsed())).await;
            }
            let permit = permits.clone().acquire_owned().await?;
            let (load, body) = (self.clone(), task(n));
            submits.spawn(async move {
                let one = load.submit(n, &body).await;
                drop(permit);
                one
            });
            while let Some(one) = submits.try_join_next() {
                add(one??);
            }
        }
        while let Some(one) = submits.join_next().await {
            add(one??);
        }
        Ok(met)
    }

    async fn submit(&self, n: usize, body: &Value) -> anyhow::Result<Met> {
        let (key, begun, mut met) = (format!("{}-{n}", self.name), Instant::now(), Met::default());
        for turn in n.. {
            anyhow::ensure!(begun.elapsed() < PATIENCE, "{key} was not accepted within {PATIENCE:?}");
            let api = &self.apis[turn % self.apis.len()];
            let request = api.request(reqwest::Method::POST, "/v1/tasks").header("idempotency-key", &key);
            let asked = Instant::now();
            match Client::send(request.json(body)).await {
                Ok(reply) if matches!(reply.status, 503 | 507) => met.turned_away += 1,
                Ok(reply) => {
                    let task = reply.expect(202)?["id"].as_str().context("a task without an id")?.to_owned();
                    self.history.note(&Seen::Accepted { task, key: Some(key) });
                    met.slowest = met.slowest.max(asked.elapsed());
                    return Ok(met);
                }
                Err(_) => met.broken += 1,
            }
            met.slowest = met.slowest.max(asked.elapsed());
            sleep(PAUSE).await;
        }
        anyhow::bail!("never: the turns do not end")
    }
}
