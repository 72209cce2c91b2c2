//! Sends what the ends of tasks and batches have left in the outbox: claims what is due, signs, sends, and writes down what became of it.
//!
//! At least once: what was sent and not written down is due again when its claim runs out, with the same id. A receiver has a share of
//! the requests that are under way and no more, and those that hang are counted apart ([`room`]): they keep the others waiting for a moment at most.

mod body;
mod room;

use crate::context::{Context, STORE_PATIENCE};
use room::{Room, Share, Shown};
use shared::{
    failpoint::{self, Point},
    store::{self, DeliveryClaim, Settle},
    webhook::{self, Attempt, Due, Guard, Message, Sender},
};
use std::{
    panic::resume_unwind,
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::{
    task::{JoinError, JoinSet},
    time::{error::Elapsed, sleep, timeout},
};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// Time after which a claim has run out: an attempt takes 15 s at most.
const LEASE: Duration = Duration::from_secs(60);
/// Time between two looks while nothing is due.
const PERIOD: Duration = Duration::from_millis(100);
/// The same for receivers that have failed: most of what is due again for them has waited for seconds.
const PERIOD_FAILED: Duration = Duration::from_secs(1);
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
    let mut post = Post {
        ctx,
        sender,
        under_way: JoinSet::new(),
        room: Room::default(),
        failed_from: Instant::now(),
        away: false,
        needed: false,
    };
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

/// A request that is over.
struct Ended {
    target: Uuid,
    shown: Shown,
    at: Instant,
    /// What is to be written down.
    settle: Settle,
}

struct Post {
    ctx: Arc<Context>,
    sender: Sender,
    under_way: JoinSet<Ended>,
    room: Room,
    /// Before this moment receivers that have failed are not looked after.
    failed_from: Instant,
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
        let found = self.start(self.room.for_the_living(Instant::now())).await;
        let now = Instant::now();
        let Some(share) = self.room.for_the_failed(now).filter(|_| now >= self.failed_from) else {
            return found;
        };
        let found_failed = self.start(share).await;
        if !found_failed {
            self.failed_from = now + PERIOD_FAILED;
        }
        found || found_failed
    }

    async fn start(&mut self, share: Share) -> bool {
        if share.limit == 0 {
            return false;
        }
        let claim = DeliveryClaim {
            limit: share.limit as u32,
            per_target: share.per_target as u32,
            receivers: share.receivers,
            lease: LEASE,
        };
        let look = timeout(STORE_PATIENCE, self.ctx.backends.webhooks.claim_deliveries(&claim)).await;
        let Some(due) = self.answered(look) else { return false };
        let found = !due.is_empty();
        for due in due {
            self.room.begin(due.target, Instant::now());
            let (ctx, sender) = (self.ctx.clone(), self.sender.clone());
            self.under_way.spawn(async move { attempt(&ctx, &sender, due).await });
        }
        found
    }

    /// Writes down what became of this request, and of all others that are through.
    async fn settle(&mut self, first: Result<Ended, JoinError>) {
        let mut ended = vec![first];
        ended.extend(std::iter::from_fn(|| self.under_way.try_join_next()));
        let mut settled = Vec::new();
        for ended in ended {
            let ended = ended.unwrap_or_else(|broken| resume_unwind(broken.into_panic()));
            if ended.shown == Shown::Fails {
                // More may be due for it.
                self.failed_from = Instant::now();
            }
            self.room.end(ended.target, ended.shown, ended.at);
            settled.push(ended.settle);
        }
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

async fn attempt(ctx: &Context, sender: &Sender, due: Due) -> Ended {
    let id = due.id.to_string();
    let (outcome, shown) = match body::of(ctx, &due).await {
        Ok(body) => {
            let outcome = sender.send(Message { url: &due.url, id: &id, body: &body }, &due.secrets).await;
            let is_silent = matches!(outcome, Attempt::Failed { status: None, .. });
            (outcome, if is_silent { Shown::Fails } else { Shown::Answers })
        }
        Err(error) => {
            let error = error.to_string();
            (Attempt::Failed { status: None, error, retry_after: None }, Shown::Nothing)
        }
    };
    let at = Instant::now();
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
    let settle = Settle { id: due.id, attempt: due.attempt, outcome, again };
    Ended { target: due.target, shown, at, settle }
}
