//! The world around the tests: real processes, real HTTP, a Postgres database and a Redis of one's own.
//!
//! In: a [`Mode`] and a few wishes. Out: a running [`App`] that stops what it started. Never here: what is expected of Longhaul.

mod app;
mod audit;
mod canary;
mod check;
mod client;
mod disk;
mod drill;
mod eventually;
mod follower;
mod history;
mod load;
mod names;
mod operations;
mod postgres;
mod process;
mod proxy;
mod receiver;
mod services;
mod stream;
mod tenant;
mod traces;
mod upstream;

pub use app::{App, Builder, Edge, Edges, Mode, journey, logs_folder};
pub use audit::{extra_calls, integrity};
pub use canary::{Canaries, Net};
pub use check::check;
pub use client::{Client, Reply, chat};
pub use disk::{SmallDisk, can_mount};
pub use drill::{report, size};
pub use eventually::{PATIENCE, eventually, within};
pub use follower::{Follower, Heard, Story, Way};
pub use history::{History, Seen};
pub use load::{Load, Met};
pub use names::Names;
pub use operations::Operation;
pub use postgres::Postgres;
pub use process::{Process, free_address, output, program};
pub use proxy::{Fault, FaultProxy};
pub use receiver::{Received, Receiver};
pub use services::{Redis, available, failpoints, foreign, fresh_database};
pub use simulator::Outage;
pub use stream::{SseEvent, Watch};
pub use tenant::Tenant;
pub use upstream::{Scripted, ScriptedUpstream, Then};
