//! Sends what the ends of tasks and batches have left in the outbox: claims what is due, signs, sends, and writes down what became of it.
//!
//! At least once: what was sent and not written down is due again when its claim runs out, with the same id. A receiver has a share of
//! the requests that are under way and no more, so that one that hangs keeps none of the others waiting.

mod body;

use crate::context::{Context, STORE_PATIENCE};
use shared::{
    failpoint::{self, Point},
    store::{self, DeliveryClaim, Settle},
    webhook::{self, Attempt, Due, Guard, Message, Sender},
};
use std::{collections::HashMap, panic::resume_unwind, sync::Arc, time::Duration};
use tokio::{
    task::{JoinError, JoinSet},
    time::{error::Elapsed, sleep, timeout},
};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// Requests under way, of one worker.
const MOST: usize = 256;
/// Deliveries of one receiver that one claim takes; more are claimed when half of them are through.
const PER_TARGET: usize = 8;
/// Time after which a claim has run out: an attempt takes 15 s at most.
const LEASE: Duration = Duration::from_secs(60);
/// Time between two looks while nothing is due.
const PERIOD: Duration = Duration::from_millis(100);
/// Time for requests that are under way when the worker ends.
const GRACE: Duration = Duration::from_secs(5);

/// Sends until `stop`.
pub(crate) async fn keep(ctx: Arc<Context>, stop: CancellationToken) {
    let sender = match Sender::new(Guard::new(ctx.config.webhooks.private_networks.clone())) {
        Ok(sender) => sender,
        Err(error) => {
            tracing::error!(error = &error as &dyn std::error::Error, "no HTTP client for webhooks");
            return;
        }
    };
    let mut post =
        Post { ctx, sender, under_way: JoinSet::new(), busy: HashMap::new(), away: false, needed: false };
    while !stop.is_cancelled() {
        let pause = match post.is_needed().await {
            true if post.claim().await => Duration::ZERO,
            true => PERIOD,
            false => post.ctx.config.sweep_period,
        };
        let ended = tokio::select! {
            Some(ended) = post.under_way.join_next() => Some(ended),
            () = sleep(pause) => None,
            () = stop.cancelled() => None,
        };
        if let Some(ended) = ended {
            post.settle(ended).await;
        }
    }
    // What is not through by then is due again when its claim runs out.
    let rest = async {
        while let Some(ended) = post.under_way.join_next().await {
            post.settle(ended).await;
        }
    };
    let _ = timeout(GRACE, rest).await;
}

struct Post {
    ctx: Arc<Context>,
    sender: Sender,
    /// Each gives the receiver that it was for, and what is to be written down.
    under_way: JoinSet<(Uuid, Settle)>,
    /// Requests under way by receiver.
    busy: HashMap<Uuid, usize>,
    away: bool,
    /// Somebody has an endpoint, or had one: until then nothing is claimed.
    needed: bool,
}

impl Post {
    async fn is_needed(&mut self) -> bool {
        if !self.needed {
            let look = timeout(STORE_PATIENCE, self.ctx.backends.webhooks.has_endpoints()).await;
            self.needed = self.answered(look).unwrap_or_default();
        }
        self.needed
    }

    /// What the database answered, if it did; that it did not is told once.
    fn answered<T>(&mut self, look: Result<store::Result<T>, Elapsed>) -> Option<T> {
        match look.unwrap_or_else(|_| Err(store::Error::silent())) {
            Ok(answer) => {
                self.away = false;
                Some(answer)
            }
            Err(error) => {
                if !std::mem::replace(&mut self.away, true) {
                    tracing::warn!(
                        error = &error as &dyn std::error::Error,
                        "webhooks wait for the database"
                    );
                }
                None
            }
        }
    }

    /// Starts what is due. Whether there was anything.
    async fn claim(&mut self) -> bool {
        let room = MOST - self.under_way.len();
        if room == 0 {
            return false;
        }
        let full = self.busy.iter().filter(|(_, count)| **count > PER_TARGET / 2);
        let claim = DeliveryClaim {
            limit: room as u32,
            per_target: PER_TARGET as u32,
            except: full.map(|(target, _)| *target).collect(),
            lease: LEASE,
        };
        let look = timeout(STORE_PATIENCE, self.ctx.backends.webhooks.claim_deliveries(&claim)).await;
        let Some(due) = self.answered(look) else { return false };
        let found = !due.is_empty();
        for due in due {
            *self.busy.entry(due.target).or_default() += 1;
            let (ctx, sender) = (self.ctx.clone(), self.sender.clone());
            self.under_way.spawn(async move { (due.target, attempt(&ctx, &sender, due).await) });
        }
        found
    }

    /// Writes down what became of this request, and of all others that are through.
    async fn settle(&mut self, first: Result<(Uuid, Settle), JoinError>) {
        let mut ended = vec![first];
        ended.extend(std::iter::from_fn(|| self.under_way.try_join_next()));
        let mut settled = Vec::new();
        for ended in ended {
            let (target, settle) = ended.unwrap_or_else(|broken| resume_unwind(broken.into_panic()));
            settled.push(settle);
            if let Some(count) = self.busy.get_mut(&target) {
                *count -= 1;
            }
        }
        self.busy.retain(|_, count| *count > 0);
        failpoint::pass(Point::WebhookSent);
        let written = timeout(STORE_PATIENCE, self.ctx.backends.webhooks.settle_deliveries(&settled)).await;
        if let Err(error) = written.unwrap_or_else(|_| Err(store::Error::silent())) {
            let error = &error as &dyn std::error::Error;
            tracing::warn!(
                error,
                deliveries = settled.len(),
                "deliveries are repeated: they could not be written down"
            );
        }
    }
}

async fn attempt(ctx: &Context, sender: &Sender, due: Due) -> Settle {
    let id = due.id.to_string();
    let outcome = match body::of(ctx, &due).await {
        Ok(body) => sender.send(Message { url: &due.url, id: &id, body: &body }, &due.secrets).await,
        Err(error) => Attempt::Failed { status: None, error: error.to_string(), retry_after: None },
    };
    let (told, again) = match &outcome {
        Attempt::Taken { .. } => ("delivered", None),
        Attempt::Gone => ("gone", None),
        Attempt::Failed { retry_after, .. } => {
            match webhook::wait(due.attempt, *retry_after, fastrand::f64()) {
                Some(wait) => ("retried", Some(wait)),
                None => ("failed", None),
            }
        }
    };
    metrics::counter!("longhaul_webhook_attempts_total", "outcome" => told).increment(1);
    Settle { id: due.id, attempt: due.attempt, outcome, again }
}
