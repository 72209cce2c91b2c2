//! The load: requests as a client sends them, and how it learns that a task has ended.

pub(crate) mod by_hand;
pub(crate) mod connection;
pub(crate) mod follow;
pub(crate) mod socket;
pub(crate) mod submit;
