//! Listings of tasks look at a bounded number of rows: a filter that hardly any row passes must not cost more than one that all pass.

use super::ListQuery;
use crate::task::{Task, TaskId};

/// A page of tasks, and where the next one begins.
#[derive(Debug, Clone)]
pub struct TaskPage {
    /// The rows.
    pub items: Vec<Task>,
    /// The last row that was looked at, if more follow.
    pub more_after: Option<TaskId>,
}

/// Rows that one page with filters looks at, at most; a page that ends there may have few rows or none.
pub const LOOKED_AT_MAX: u32 = 10_000;
/// As [`LOOKED_AT_MAX`], with a filter by metadata, which are read for it.
pub const METADATA_LOOKED_AT_MAX: u32 = 2_000;

impl ListQuery {
    /// Rows that may be looked at; `None`: as many as are returned, or those of one batch.
    pub(super) fn looks_at(&self) -> Option<u32> {
        let is_filtered = !self.states.is_empty()
            || self.queue.is_some()
            || self.model.is_some()
            || self.created_after.is_some()
            || self.created_before.is_some();
        match (self.batch, self.metadata.is_empty()) {
            (Some(_), _) => None,
            (None, false) => Some(METADATA_LOOKED_AT_MAX),
            (None, true) => is_filtered.then_some(LOOKED_AT_MAX),
        }
    }

    /// The page of `found`, of which one more than the limit was asked for, down to `bound`.
    pub(super) fn page(&self, mut found: Vec<Task>, bound: Option<TaskId>) -> TaskPage {
        let limit = usize::try_from(self.limit).unwrap_or(usize::MAX);
        let is_full = found.len() > limit;
        found.truncate(limit);
        let more_after = if is_full { found.last().map(|task| task.id) } else { bound };
        TaskPage { items: found, more_after }
    }
}
