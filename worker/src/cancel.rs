//! Hears of cancelled tasks at once. A signal that is missed costs one heartbeat.

use crate::context::Context;
use shared::{
    events::Subscription,
    task::{EventKind, Topic},
};
use std::{sync::Arc, time::Duration};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

/// Longest wait for a subscription.
const PATIENCE: Duration = Duration::from_secs(5);
/// Pause between two tries to subscribe.
const PAUSE: Duration = Duration::from_secs(1);

/// Stops attempts at cancelled tasks until `stop`.
pub(crate) async fn listen(ctx: Arc<Context>, stop: CancellationToken) {
    tokio::select! {
        () = stop.cancelled() => {}
        () = hear(&ctx) => {}
    }
}

async fn hear(ctx: &Context) {
    let mut subscription = subscribe(ctx).await;
    loop {
        // Lagged: what was missed comes with the next heartbeat.
        let Ok(event) = subscription.next().await else { continue };
        if event.kind == EventKind::Cancelled {
            ctx.held.stop(event.task_id, event.attempt);
        }
    }
}

/// Tries until it succeeds; later outages are the subscription's own business.
async fn subscribe(ctx: &Context) -> Subscription {
    let mut told = false;
    loop {
        match timeout(PATIENCE, ctx.backends.events.subscribe(Topic::Control)).await {
            Ok(Ok(subscription)) => return subscription,
            failed if !std::mem::replace(&mut told, true) => {
                let error = failed.ok().and_then(Result::err);
                tracing::warn!(?error, "cancelled tasks are noticed by heartbeat only");
            }
            _ => {}
        }
        sleep(PAUSE).await;
    }
}
