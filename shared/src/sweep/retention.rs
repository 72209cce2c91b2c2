//! Tasks whose keeping time is over: rows first, then their objects, so that no row ever names an object that is gone.

use super::{LIMIT, PATIENCE, Step};
use crate::backends::Backends;
use tokio::time::timeout;

pub(super) async fn step(backends: &Backends) -> Step {
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
    Ok(forgotten.tasks >= u64::from(LIMIT))
}
