//! Tasks and deliveries whose keeping time is over. Of tasks rows first, then their objects, so that no row ever names an object that is gone.

use super::{LIMIT, PATIENCE, Step};
use crate::{backends::Backends, config::Config};
use tokio::time::timeout;

pub(super) async fn step(backends: &Backends, config: &Config) -> Step {
    let deliveries = backends.webhooks.forget_deliveries(LIMIT, config.webhooks.keep);
    let deliveries = timeout(PATIENCE, deliveries).await??;
    let forgotten = timeout(PATIENCE, backends.store.forget(LIMIT)).await??;
    if forgotten.tasks > 0 {
        tracing::info!(
            tasks = forgotten.tasks,
            objects = forgotten.objects.len(),
            "removed tasks that were kept long enough"
        );
    }
    match timeout(PATIENCE, backends.objects.remove(&forgotten.objects)).await {
        Ok(Ok(())) => {}
        // They are orphans now: a rule of the bucket that removes what is old gets them.
        failed => {
            let error = failed.ok().and_then(Result::err);
            tracing::warn!(
                ?error,
                objects = forgotten.objects.len(),
                "objects of removed tasks are left over"
            );
        }
    }
    Ok(forgotten.tasks.max(deliveries) >= u64::from(LIMIT))
}
