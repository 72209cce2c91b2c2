//! How much a project, a key or a user may do.

use serde::{Deserialize, Serialize};

/// Limits; what is left out is not limited here. All of them are at least 1.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Quotas {
    /// Requests in any minute.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub requests_per_minute: Option<u32>,
    /// Tokens, in and out, in any minute.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tokens_per_minute: Option<u32>,
    /// Tasks that have not started.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub queued_tasks: Option<u32>,
    /// Tasks that run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub concurrent_tasks: Option<u32>,
}

impl Quotas {
    /// Largest limit: the arithmetic is exact up to here.
    pub const MAX: u32 = 1_000_000_000;

    /// Names and values, in the order of the fields.
    #[must_use]
    pub fn named(&self) -> [(&'static str, Option<u32>); 4] {
        [
            ("requests_per_minute", self.requests_per_minute),
            ("tokens_per_minute", self.tokens_per_minute),
            ("queued_tasks", self.queued_tasks),
            ("concurrent_tasks", self.concurrent_tasks),
        ]
    }

    /// The first field outside its limits.
    #[must_use]
    pub fn stray(&self) -> Option<&'static str> {
        let out = |limit: &u32| !(1..=Self::MAX).contains(limit);
        self.named().into_iter().find(|(_, limit)| limit.as_ref().is_some_and(out)).map(|(name, _)| name)
    }

    /// These, and where they say nothing, the others.
    #[must_use]
    pub fn or(self, others: Self) -> Self {
        Self {
            requests_per_minute: self.requests_per_minute.or(others.requests_per_minute),
            tokens_per_minute: self.tokens_per_minute.or(others.tokens_per_minute),
            queued_tasks: self.queued_tasks.or(others.queued_tasks),
            concurrent_tasks: self.concurrent_tasks.or(others.concurrent_tasks),
        }
    }
}
