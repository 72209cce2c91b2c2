//! What both rooms speak: the task, the truth, the doorbell and the shout.
//!
//! In: configuration. Out: [`backends::Backends`], the traits behind it, and the sweep that walks behind every task.
//! Never here: HTTP from clients, calls to models.

pub mod task;

pub mod identity;

pub mod clock;

pub mod config;

pub mod store;

pub mod queue;

pub mod events;
pub mod failpoint;

mod link;

pub mod objects;
pub mod outage;

pub mod backends;
pub mod folder;

pub mod batcher;

pub mod news;

pub mod catalog;

pub mod sweep;

pub mod telemetry;

pub mod rooms;

pub mod input;

pub mod limits;

pub mod webhook;

pub mod retry_after;

pub mod caps;
pub mod pauses;
pub mod process;

pub mod redact;
