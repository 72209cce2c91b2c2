//! One project asks for ten times what the worker can do, the other for a little: what the other one feels, beside the same half
//! minute without the first.
//!
//! `pick_up` counts from the row's first stamp, in whole milliseconds; `start` from the moment the request was due.
//!
//! Limits as an operator sets them: of a project no more than three quarters of the slots, so many requests a minute as the worker can
//! do, and five hundred tasks that wait. What is too much is refused.

use super::{Figures, Load, Model, USUAL, all_done, now_ms, percentiles, warm_up};
use crate::{
    load::submit::{Pace, Sent, send},
    system::{Running, Wish, longhaul::Limits},
};
use anyhow::Context;

/// Calls of 100 ms: 320 a second.
const SLOTS: u32 = 32;
const CALL_MS: u32 = 100;
const PER_S: f64 = 320.0;
/// Tasks a second of the one who behaves.
const GUEST_PER_S: f64 = 50.0;
/// How long each of them asks, seconds.
const LASTS: u32 = 30;

const LIMITS: Limits = Limits { requests: 320 * 60, waiting: 500, running: SLOTS / 4 * 3 };

pub(super) async fn run(load: Load) -> anyhow::Result<Figures> {
    let model = Model { first_ms: CALL_MS, ..USUAL.model };
    let running = Running::limited(Wish { slots: SLOTS, model, ..USUAL }, LIMITS).await?;
    warm_up(&running, 500, true).await?;
    let mut figures = Figures::new();
    guest(load, &running, "alone", &mut figures).await?;
    all_done(&running).await?;
    let flood = async {
        let request = running.submit_with(running.keys.get(1).context("no second key")?);
        let count = load.count((PER_S * 10.0) as u32 * LASTS);
        send(running.api, &request, (count, 64), Pace::PerSecond(PER_S * 10.0), &[202, 429]).await
    };
    let (guest, flood): (anyhow::Result<()>, anyhow::Result<Sent>) =
        tokio::join!(guest(load, &running, "beside", &mut figures), flood);
    guest?;
    let flood = flood?;
    figures.insert("flood_per_s".into(), flood.per_s());
    figures.insert("flood_accepted_share".into(), flood.ids.len() as f64 / flood.took_ms.len() as f64);
    for name in ["accept", "pick_up", "start"] {
        for percent in [50, 99] {
            let of = |when: &str| figures.get(&format!("{when}_{name}_p{percent}_ms")).copied();
            let times = of("beside").context("no figure")? / of("alone").context("no figure")?;
            figures.insert(format!("{name}_p{percent}_times"), times);
        }
    }
    running.stop().await?;
    Ok(figures)
}

/// The first project's half minute.
async fn guest(load: Load, running: &Running, when: &str, figures: &mut Figures) -> anyhow::Result<()> {
    let (count, since) = (load.count(GUEST_PER_S as u32 * LASTS), now_ms());
    let sent = send(running.api, &running.submit, (count, 16), Pace::PerSecond(GUEST_PER_S), &[202]).await?;
    percentiles(figures, &format!("{when}_accept"), sent.took_ms);
    tokio::time::sleep(std::time::Duration::from_secs(1)).await;
    let lives = running.rows.started(since, "acme").await?;
    anyhow::ensure!(lives.len() == sent.ids.len(), "{} of {} have started", lives.len(), sent.ids.len());
    let waits = lives.values().map(|(created, started)| started - created).collect();
    percentiles(figures, &format!("{when}_pick_up"), waits);
    let mut starts = Vec::new();
    for (id, due) in sent.ids.iter().zip(&sent.due_ms) {
        starts.push(lives.get(&id.parse()?).context("it has not started")?.1 - due);
    }
    percentiles(figures, &format!("{when}_start"), starts);
    Ok(())
}
