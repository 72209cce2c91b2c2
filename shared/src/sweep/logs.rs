//! Event logs that nobody has ended: of tasks that ended while the log was away, and of tasks that are no more.
//!
//! A log lives for a day while its task runs. Its terminal event shortens that; where it could not be told, the row tells it here. A few
//! logs are looked at in each round, so that a walk over all of them takes its time.

use super::{Error, PATIENCE, PATIENCE_BELL};
use crate::{backends::Backends, task::TaskId};
use std::collections::HashMap;
use tokio::time::timeout;

/// Looks at some logs from `cursor` on; where to go on.
pub(super) async fn step(backends: &Backends, cursor: u64) -> Result<u64, Error> {
    let events = &backends.events;
    let looked = timeout(PATIENCE_BELL, events.unfinished(cursor)).await;
    let Ok(Ok((next, tasks))) = looked else {
        tracing::debug!(error = ?looked.ok().and_then(Result::err), "left-over event logs are looked for later");
        return Ok(cursor);
    };
    if tasks.is_empty() {
        return Ok(next);
    }
    let rows = timeout(PATIENCE, backends.store.glance(&tasks)).await??;
    let ended: HashMap<TaskId, bool> =
        rows.into_iter().map(|row| (row.task, row.state.is_terminal())).collect();
    let over: Vec<TaskId> = tasks.iter().filter(|task| ended.get(task) == Some(&true)).copied().collect();
    let gone = tasks.iter().filter(|task| !ended.contains_key(task));
    let ending = async {
        events.finish(&over).await?;
        for task in gone {
            events.remove(*task).await?;
        }
        crate::events::Result::Ok(())
    };
    match timeout(PATIENCE_BELL, ending).await {
        Ok(Ok(())) => Ok(next),
        failed => {
            tracing::debug!(error = ?failed.ok().and_then(Result::err), "left-over event logs are ended later");
            Ok(cursor)
        }
    }
}
