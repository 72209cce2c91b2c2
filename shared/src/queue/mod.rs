//! The doorbell: ids of ready tasks, a bounded window of them, on their way to a worker that has a free slot.
//!
//! It may lose everything at any moment: `sweep` refills it from the store, and a stale or duplicate id is harmless because
//! the claim is guarded. `tests/it/conformance/queue.rs` holds every implementation to the docs below.

mod apalis;
mod blocking;
mod memory;
mod rotation;
mod sorted;

pub use apalis::{ApalisQueue, WINDOW_MAX as APALIS_WINDOW_MAX};
pub use memory::MemoryQueue;
pub use sorted::SortedQueue;

use crate::{
    store::Bell,
    task::{QueueName, TaskId},
};
use async_trait::async_trait;
use redis::RedisError;
use std::time::Duration;
use uuid::Uuid;

/// Lanes are numbered in one byte.
const LANES_MAX: usize = 200;

/// The transport is away; nothing is lost, the sweep rings again.
#[derive(Debug, thiserror::Error)]
#[error("the queue is unavailable")]
pub struct Error(#[source] pub Box<dyn std::error::Error + Send + Sync>);

impl From<RedisError> for Error {
    fn from(error: RedisError) -> Self {
        Self(Box::new(error))
    }
}

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

/// The way through Redis. `docs/decisions/0001-queue-transports.md` compares them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    /// [`SortedQueue`].
    Sorted,
    /// [`ApalisQueue`].
    Apalis,
}

impl Transport {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::Sorted, Self::Apalis];

    /// The name, as it is set.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Sorted => "sorted",
            Self::Apalis => "apalis",
        }
    }
}

/// The doorbell.
#[async_trait]
pub trait Queue: Send + Sync {
    /// Rings for ready tasks. An id that is already there stays as it is; ids beyond the window (`window` per lane) are
    /// dropped: the sweep brings them when there is room. Of one lane's bells the first are taken. Orphans ([`Bell::orphan`]) go in
    /// before all others, however full it is, and move there if they wait further back. Returns how many were taken in.
    async fn push(&self, bells: &[Bell]) -> Result<usize>;

    /// Up to `max` ids of these lanes, waiting up to `wait` for the first. While several lanes have work they are served by
    /// weight. An id is given to one caller only.
    ///
    /// Inside a lane the order is the transport's: [`MemoryQueue`] and [`SortedQueue`] go by priority (higher first), then fair
    /// between projects, then by age. [`ApalisQueue`] is first in, first out, and by age among ids that came in together.
    ///
    /// # Cancel safety
    /// Dropping the future may lose ids that were just popped: the sweep brings them again, and they may be pushed at once.
    async fn pop(&self, lanes: &[QueueName], max: usize, wait: Duration) -> Result<Vec<TaskId>>;

    /// Ids in the lane.
    async fn depth(&self, lane: &QueueName) -> Result<usize>;
}

/// The places of the lanes asked for, each once. An unknown lane has none.
fn places(asked: &[QueueName], place: impl Fn(&QueueName) -> Option<usize>) -> Vec<usize> {
    let mut places: Vec<usize> = asked.iter().filter_map(place).collect();
    places.sort_unstable();
    places.dedup();
    places
}

/// Ids from their bytes. What is no id was put there by somebody else and is dropped.
fn ids(bytes: impl IntoIterator<Item = Vec<u8>>) -> Vec<TaskId> {
    bytes.into_iter().filter_map(|bytes| Uuid::from_slice(&bytes).ok().map(TaskId)).collect()
}
