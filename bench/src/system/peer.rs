//! What people build today: the programs under `bench/peers`, by the contract of its README.

use super::{ModelServer, Running, System, Wish, chat, logs, post};
use crate::{gauge::rows::Rows, load::follow::Follow};
use harness::{Process, Redis, free_address};
use std::path::{Path, PathBuf};

/// The folder of a peer.
fn folder(system: System) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("peers").join(system.to_string())
}

/// Both of a peer's programs; the worker only when asked.
pub(super) async fn start(system: System, wish: Wish, model: ModelServer) -> anyhow::Result<Running> {
    let schema = folder(system).with_file_name("schema.sql");
    let database = crate::gauge::rows::create(&std::fs::read_to_string(schema)?).await?;
    let redis = Redis::durable(&logs()?).await?;
    let listen = free_address()?;
    // Celery's processes are best where the model answers at once, threads where it takes its time.
    let (pool, slots) = match (system, wish.model.first_ms) {
        (System::Celery, 0) => ("prefork", 4),
        _ => ("threads", wish.slots),
    };
    let env = [
        ("DATABASE_URL", database.clone()),
        ("REDIS_URL", redis.url.clone()),
        ("UPSTREAM_URL", format!("{}/v1/chat/completions", model.url)),
        ("PORT", listen.port().to_string()),
        ("SLOTS", slots.to_string()),
        ("POOL", pool.to_owned()),
    ];
    let start = move |name: &str| {
        let command = |command: &mut std::process::Command| {
            command.envs(env.iter().map(|(name, value)| (name, value)));
        };
        Process::start(&format!("{system}-{name}"), &folder(system).join(name), command, &logs()?)
    };
    let api = start("api")?;
    Ok(Running {
        api: listen,
        model_at: model.listen,
        rows: Rows::peer(&database).await?,
        follow: Follow::Redis(redis.url.clone()),
        path: "/tasks/",
        submit: post("/tasks", listen, None, &chat().to_string()),
        keys: Vec::new(),
        workers: Vec::new(),
        start_worker: Box::new(move || start("worker")),
        works: |line| line == "ready",
        apis: vec![api],
        model: model.process,
        redis: Some(redis),
    })
}
