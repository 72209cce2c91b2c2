//! Processes that die without a goodbye, and services that go away: nothing accepted is lost.

mod redis_forgets;
mod worker_dies;
