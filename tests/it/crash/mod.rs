//! Processes that die without a goodbye, services that go away, model servers that misbehave: nothing accepted is lost.
//!
//! Each drill has two sizes, see [`harness::size`]. What clients, rows and model saw is written down and judged at the end
//! ([`harness::check`]), so that a drill says what it does to the system and which figures it must keep.

mod aborts;
mod api_dies;
mod breaker;
mod cancel;
mod disk_full;
mod drain;
mod everything;
mod failpoints;
mod idempotency;
mod limits;
mod long_tasks;
mod lost_replies;
mod poison;
mod postgres_away;
mod readiness;
mod reconnects;
mod redis_away;
mod redis_forgets;
mod resume;
mod scopes;
mod slow_clients;
mod slow_readers;
mod slow_streams;
mod sqlite;
mod storm;
mod subscribers;
mod throttled;
mod untold;
mod upstream_faults;
mod webhooks;
mod worker_dies;
mod zombies;

use harness::{App, Client, History, Load, Seen, chat};
use serde_json::{Value, json};

/// A chat task for the simulated model, asked to behave so.
fn task(n: usize, sim: Value) -> Value {
    json!({"endpoint": "/v1/chat/completions", "body": chat(&format!("task {n}"), sim)})
}

/// A history of this app, with everything its rows go through.
async fn history(app: &App) -> anyhow::Result<History> {
    app.audit().await?;
    History::new(app.folder())
}

/// Clients of all its APIs.
fn load(app: &App, history: &History, name: &str) -> Load {
    Load { apis: app.apis.clone(), history: history.clone(), clients: 32, name: name.to_owned(), rate: None }
}

/// A name for one more load of a run.
fn fresh_name() -> String {
    format!("load-{:016x}", fastrand::u64(..))
}

/// Watches a task to its end.
async fn watch(client: Client, history: History, id: String) -> anyhow::Result<()> {
    let events = client.events(&id, None, usize::MAX).await?;
    let watcher = format!("watcher-{:016x} of {id}", fastrand::u64(..));
    for event in events {
        history.note(&Seen::Event { watcher: watcher.clone(), seq: event.id, name: event.name });
    }
    Ok(())
}
