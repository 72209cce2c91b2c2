//! The doorbell: ids of ready tasks, a bounded window of them, on their way to a worker that has a free slot.
//!
//! It may lose everything at any moment: `sweep` refills it from the store, and a stale or duplicate id is harmless because
//! the claim is guarded. `tests/it/conformance/queue.rs` holds every implementation to the docs below.

mod memory;
mod rotation;
mod sorted;

pub use memory::MemoryQueue;
pub use sorted::SortedQueue;

use crate::{
    store::Bell,
    task::{QueueName, TaskId},
};
use async_trait::async_trait;
use std::time::Duration;

/// The transport is away; nothing is lost, the sweep rings again.
#[derive(Debug, thiserror::Error)]
#[error("the queue is unavailable")]
pub struct Error(#[source] pub Box<dyn std::error::Error + Send + Sync>);

/// Shorthand of this module's results.
pub type Result<T> = std::result::Result<T, Error>;

/// A named lane and its share.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lane {
    /// Its name.
    pub name: QueueName,
    /// Its weight against the other lanes that have work: `interactive` 8, `default` 4, `batch` 1.
    pub weight: u32,
}

/// The doorbell.
#[async_trait]
pub trait Queue: Send + Sync {
    /// Rings for ready tasks. An id that is already there stays as it is; ids beyond the window (`window` per lane) are
    /// dropped: the sweep brings them when there is room. Returns how many were taken in.
    async fn push(&self, bells: &[Bell]) -> Result<usize>;

    /// Up to `max` ids of these lanes, waiting up to `wait` for the first. While several lanes have work they are served by
    /// weight; inside a lane by priority (higher first), then fair between projects, then by age. An id is given to one
    /// caller only.
    ///
    /// # Cancel safety
    /// Dropping the future may lose ids that were just popped: the sweep brings them again.
    async fn pop(&self, lanes: &[QueueName], max: usize, wait: Duration) -> Result<Vec<TaskId>>;

    /// Ids in the lane.
    async fn depth(&self, lane: &QueueName) -> Result<usize>;
}
