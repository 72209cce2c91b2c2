//! What the tests of several parts share.

use shared::{
    clock::UnixMs,
    store::Claimed,
    task::{Backoff, Payload, ProjectId, QueueName, Relay, TaskId},
};
use std::time::Duration;

/// A first attempt at a small task.
pub(crate) fn claimed(endpoint: &str) -> Claimed {
    Claimed {
        task: TaskId::new(),
        project: ProjectId::DEFAULT,
        batch: None,
        attempt: 1,
        failures: 0,
        crashes: 0,
        max_attempts: 3,
        queue: QueueName::new("default").unwrap(),
        endpoint: endpoint.into(),
        model: "m".into(),
        relay: Relay::Deltas,
        payload: Payload::Inline("{}".into()),
        last_seq: 2,
        floor_unknown: false,
        started_at: UnixMs(0),
        time_left: Duration::from_secs(3_600),
        execution_timeout: Duration::from_secs(60),
        backoff: Backoff { base: Duration::from_secs(1), max: Duration::from_secs(60) },
        waited: Duration::ZERO,
        reserved: None,
        moderation: Vec::new(),
    }
}
