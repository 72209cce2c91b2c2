//! Secrets and what projects write and read, through everything that the API can do, with processes that say all they can: none of
//! it is in logs, in figures, in errors, in rows and keys that are not made for it, or in what a bad setting is answered with.
//!
//! The logs are searched at the end of every app: see [`harness::Canaries`].

mod estate;
mod places;
mod settings;
mod walk;

use super::{both_modes, tokens};
use estate::Estate;
use harness::{App, Fault, Mode, Reply, Tenant, chat, eventually, free_address};
use serde_json::json;
use std::time::Duration;
use walk::Stranger;

both_modes!(nothing_gets_out);

const SCOPES: &str = "submit,read,batch,webhooks";

/// A house with two projects.
struct House {
    app: App,
    mine: Tenant,
    other: Tenant,
    /// Somebody of `mine`, by a token.
    token: String,
    /// The operator's key.
    operator: String,
    /// Where the worker tells its figures; embedded: where the API does.
    figures: String,
    words: Words,
}

/// What `mine` writes and reads.
struct Words {
    prompt: String,
    answer: String,
    metadata: String,
    custom_id: String,
    reason: String,
    idempotency_key: String,
    /// In a field that is not made for it.
    field: String,
    /// In a URL, or in a name that errors repeat.
    question: String,
}

/// Answers that are searched once all is known that must not be in them.
#[derive(Default)]
struct Heard {
    /// What `mine` got: errors may repeat the names that were asked for.
    own: Vec<(String, Reply)>,
    /// What everybody else got.
    others: Vec<(String, Reply)>,
}

async fn nothing_gets_out(mode: Mode) -> anyhow::Result<()> {
    let (keys, token) = tokens::of_a_provider()?;
    let house = House::open(mode, &keys, token).await?;
    let mut heard = Heard::default();
    let estate = Estate::make(&house, &mut heard).await?;
    estate.watch(&house, &mut heard).await?;
    let stranger = Stranger::new(&house)?;
    walk::operations(&house, &estate, &stranger, &mut heard).await?;
    walk::bad_tasks(&house, &mut heard).await?;
    walk::bad_lines(&house, &mut heard).await?;
    walk::over_http2(&house, &mut heard).await?;
    services_away(&house, &mut heard).await?;
    places::errors(&house, &heard);
    places::figures(&house).await?;
    places::redis(&house).await?;
    places::database(&house).await?;
    house.close().await
}

impl House {
    async fn open(mode: Mode, keys: &str, token: String) -> anyhow::Result<Self> {
        let folder = tempfile::tempdir()?;
        let jwks = folder.path().join("jwks.json");
        std::fs::write(&jwks, keys)?;
        let figures = free_address()?.to_string();
        let app = App::with(mode).trace().proxied().objects().quick();
        let app = app
            .env("LONGHAUL_LIMITS__IP_FAILED_LOGINS_PER_MINUTE", "none")
            .env("LONGHAUL_LIMITS__PROJECT_REQUESTS_PER_MINUTE", "100000")
            .env("LONGHAUL_LIMITS__PROJECT_TOKENS_PER_MINUTE", "100000000")
            .env("LONGHAUL_JWT__ISSUER", tokens::ISSUER)
            .env("LONGHAUL_JWT__AUDIENCE", tokens::AUDIENCE)
            .env("LONGHAUL_JWT__JWKS", &jwks.display().to_string())
            .env("LONGHAUL_OBJECTS__INLINE_BYTES_MAX", "4KiB")
            .env("LONGHAUL_TASK__BACKOFF_BASE", "20ms")
            .env("LONGHAUL_TASK__BACKOFF_MAX", "50ms")
            .env("LONGHAUL_TASK__MAX_ATTEMPTS", "2")
            .env("LONGHAUL_WORKER__BREAKER_FAILURES", "10000")
            .env("LONGHAUL_WORKER__FIRST_BYTE_TIMEOUT", "500ms")
            .env("LONGHAUL_WORKER__IDLE_TIMEOUT", "500ms");
        let app = if mode == Mode::Embedded { app } else { app.env("LONGHAUL_WORKER__LISTEN", &figures) };
        let app = app.secret("operator's key", "LONGHAUL_API_KEY").start().await?;
        let (mine, other) = (app.tenant("acme", SCOPES).await?, app.tenant("other", SCOPES).await?);
        app.secret("token", &token);
        // Whoever prints a part of it would say the signature.
        app.secret("token", token.rsplit('.').next().unwrap_or_default());
        let words = Words {
            prompt: app.plant("prompt"),
            answer: app.plant("answer"),
            metadata: app.plant("metadata"),
            custom_id: app.plant("custom_id"),
            reason: app.plant("reason"),
            idempotency_key: app.plant("Idempotency-Key"),
            field: app.plant("field"),
            question: app.plant("question"),
        };
        let operator = app.setting("LONGHAUL_API_KEY");
        let figures = match mode {
            Mode::Embedded => app.client().base().to_owned(),
            Mode::Distributed | Mode::Apalis => format!("http://{figures}"),
        };
        Ok(Self { app, mine, other, token, operator, figures, words })
    }

    /// Everybody says goodbye; what they have said is searched when the app is dropped.
    async fn close(mut self) -> anyhow::Result<()> {
        self.app.stop_api(0).await?;
        if self.app.mode != Mode::Embedded {
            self.app.workers[0].signal("TERM")?;
            self.app.workers[0].wait_end(Duration::from_secs(40)).await?;
        }
        Ok(())
    }
}

impl Heard {
    fn own(&mut self, what: impl Into<String>, reply: Reply) {
        self.own.push((what.into(), reply));
    }

    fn other(&mut self, what: impl Into<String>, reply: Reply) {
        self.others.push((what.into(), reply));
    }
}

/// What is away is in errors: with its address, and with what the statement was about.
async fn services_away(house: &House, heard: &mut Heard) -> anyhow::Result<()> {
    let House { app, mine, words, .. } = house;
    app.edges.upstream.set(Fault::Refuse).await?;
    let waiting = mine.client.ask(&words.prompt, json!({"text": words.answer})).await?;
    eventually("the model server was not there", async || {
        let error = &mine.client.task(&waiting).await?["error"];
        Ok((error["code"] == "upstream_unreachable").then_some(()))
    })
    .await?;
    if app.mode != Mode::Embedded {
        for edge in [&app.edges.api_redis, &app.edges.worker_redis] {
            edge.set(Fault::Refuse).await?;
        }
        heard.own("without Redis", mine.client.post("/v1/tasks", &task(words)).await?);
        for edge in [&app.edges.api_database, &app.edges.worker_database] {
            edge.set(Fault::Refuse).await?;
        }
        let reply = mine.client.post("/v1/tasks", &task(words)).await?;
        assert_eq!(reply.status, 503, "the database is away");
        heard.own("without a database", reply);
        heard.own("without a database", mine.client.get(&format!("/v1/tasks/{waiting}")).await?);
    }
    app.edges.set_all(Fault::Pass).await?;
    eventually("all are back", async || {
        Ok((mine.client.post("/v1/tasks", &task(words)).await?.status == 202).then_some(()))
    })
    .await?;
    // A connection that broke unnoticed costs the request that gets it a 503.
    eventually("what waited has ended", async || {
        let reply = mine.client.get(&format!("/v1/tasks/{waiting}")).await?;
        Ok((reply.status == 200 && reply.json()?["status"] == "completed").then_some(()))
    })
    .await
}

/// A good task with every word that a task may have.
fn task(words: &Words) -> serde_json::Value {
    json!({"endpoint": "/v1/chat/completions", "body": chat(&words.prompt, json!({"text": words.answer})),
           "metadata": {"word": words.metadata}})
}
