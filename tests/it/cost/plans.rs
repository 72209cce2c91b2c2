//! The plans of the statements of a task's way, as Postgres ran them: explained by the server, read from its log.
//!
//! A plan is made once per connection, perhaps while all tables were empty. It must be the right one all the same when they are
//! full.

use super::{database, work_off};
use anyhow::Context;
use harness::{App, Builder, Mode, eventually};
use serde_json::Value;
use sqlx::{Executor, PgConnection};
use std::{collections::BTreeSet, path::PathBuf};

/// 150,000 tasks that have ended, and 50,000 that wait in a queue that nobody serves.
const FULL: &str = "
  insert into tasks (id, project, created_at, ready_at, wake_at, started_at, finished_at, expires_at, result_expires_at,
    last_seq, attempt, max_attempts, priority, state, queue, relay, endpoint, model)
  select gen_random_uuid(), '00000000-0000-0000-0000-000000000000', now_ms(), now_ms(),
    case when n > 150000 then now_ms() + 86400000 end, now_ms(), now_ms(), now_ms() + 86400000,
    case when n <= 150000 then now_ms() + 86400000 end, 2, 1, 3, 0,
    case when n > 150000 then 'queued' else 'completed' end, 'elsewhere', 'lifecycle', '/v1/chat/completions', 'sim-chat'
  from generate_series(1, 200000) n;
  insert into payloads (task, body, execution_timeout_ms, ttl_ms, backoff_base_ms, backoff_max_ms, result_ttl_ms)
  select id, '{}', 1000, 1000, 1, 1, 1000 from tasks on conflict do nothing;
  insert into results (task, attempt, status, body) select id, 1, 200, '{}' from tasks on conflict do nothing";

/// A statement by what only it says.
type Verb = (&'static str, &'static str);

/// The statements of a task's way.
const WAY: [Verb; 3] = [
    ("submit", "insert into payloads"),
    ("claim", "set state = 'in_progress'"),
    ("finish", "set state = i.state"),
];
const WHAT_MAY_RUN: Verb = ("what may run now", "capped as materialized");
/// The same where only so many tasks may run at once.
const CAPPED: [Verb; 5] = [
    WAY[0],
    WAY[2],
    ("claim of a capped project", "with wanted as materialized"),
    ("count of running tasks", "select count(*) from tasks where started_by"),
    WHAT_MAY_RUN,
];

#[expect(clippy::disallowed_methods, reason = "the test is told of the server's log by scripts/services")]
fn log() -> anyhow::Result<PathBuf> {
    std::env::var("LONGHAUL_TEST_POSTGRES_LOG")
        .map(PathBuf::from)
        .context("no log of Postgres: use scripts/test")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_are_looked_up_by_key_in_an_empty_database_and_in_a_full_one() -> anyhow::Result<()> {
    harness::journey(Mode::Distributed, async |mode| {
        looked_up_by_key(&WAY, App::with(mode)).await?;
        looked_up_by_key(&CAPPED, App::with(mode).env("LONGHAUL_LIMITS__PROJECT_CONCURRENT_TASKS", "48"))
            .await
    })
    .await
}

/// 500 endpoints of 10 projects, 100,000 deliveries that are over, and two of each endpoint that are due: nobody admits such a URL.
const OUTBOX: &str = "
  insert into projects select gen_random_uuid(), 'project ' || n, now_ms() from generate_series(1, 10) n;
  insert into webhook_endpoints (id, project, name, url, event_types, secret, created_at, updated_at)
  select gen_random_uuid(), p.id, '', 'https://127.0.0.1/', ' task.completed ', 'whsec_', now_ms(), now_ms()
  from projects p, generate_series(1, 50) where p.name like 'project %';
  insert into webhook_deliveries (id, project, endpoint, target, event_type, subject, state, created_at, due_at, ended_at)
  select gen_random_uuid(), e.project, e.id, e.id, 'task.completed', gen_random_uuid(),
    case when n > 2 then 'delivered' else 'pending' end, now_ms(), case when n <= 2 then now_ms() end, case when n > 2 then now_ms() end
  from webhook_endpoints e, generate_series(1, 202) n where e.url is not null";

/// Rows that a claim of webhooks may read: of each of 500 receivers its deliveries, and for each of them its endpoint, now and then twice.
const CLAIM_ROWS_MAX: f64 = 20_000.0;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_claim_of_webhooks_reads_what_is_due() -> anyhow::Result<()> {
    harness::journey(Mode::Distributed, async |mode| {
        let app = App::with(mode).start().await?;
        let mut db = database(&app).await?;
        explain_from_now_on(&mut db).await?;
        let mut from = std::fs::read(log()?)?.len();
        reconnect(&mut db).await?;
        sqlx::raw_sql(OUTBOX).execute(&mut db).await?;
        for when in ["without statistics", "with statistics"] {
            eventually("all were tried", async || {
                let waits =
                    app.numbers("select count(*) from webhook_deliveries where due_at <= now_ms()").await?;
                Ok((waits == [[0]]).then_some(()))
            })
            .await?;
            let most = most_read("recursive targets", from)?.context("none was explained")?;
            anyhow::ensure!(most <= CLAIM_ROWS_MAX, "{when} one of them read {most} rows");
            sqlx::raw_sql("analyze").execute(&mut db).await?;
            from = std::fs::read(log()?)?.len();
            app.change("update webhook_deliveries set due_at = 1 where due_at is not null").await?;
        }
        Ok(())
    })
    .await
}

/// 20,000 tasks of one project that wait for a worker.
const BACKLOG: &str = "
  insert into tasks (id, project, created_at, ready_at, wake_at, expires_at, last_seq, max_attempts, priority, state, queue, relay,
    endpoint, model)
  select gen_random_uuid(), '00000000-0000-0000-0000-000000000000', now_ms(), now_ms(), now_ms() + 86400000, now_ms() + 86400000, 0, 3, 0,
    'queued', 'default', 'lifecycle', '/v1/chat/completions', 'sim-chat'
  from generate_series(1, 20000)";

/// Rows that may be read to find 48 that may run.
const CAPPED_ROWS_MAX: f64 = 500.0;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_what_waits_no_more_is_read_than_may_run() -> anyhow::Result<()> {
    harness::journey(Mode::Distributed, async |mode| {
        let app = App::with(mode).workers(0).env("LONGHAUL_LIMITS__PROJECT_CONCURRENT_TASKS", "48");
        let app = app.start().await?;
        let mut db = database(&app).await?;
        explain_from_now_on(&mut db).await?;
        sqlx::raw_sql(BACKLOG).execute(&mut db).await?;
        for when in ["without statistics", "with statistics"] {
            let from = std::fs::read(log()?)?.len();
            reconnect(&mut db).await?;
            let mut most = 0.0;
            eventually("the sweep has looked", async || {
                most = most_read(WHAT_MAY_RUN.1, from)?.unwrap_or_default();
                Ok((most > 0.0).then_some(()))
            })
            .await?;
            anyhow::ensure!(most <= CAPPED_ROWS_MAX, "{when} one look read {most} rows");
            sqlx::raw_sql("analyze").execute(&mut db).await?;
        }
        Ok(())
    })
    .await
}

/// Rows that the hungriest of the statements with these words has read, by the log from here on.
fn most_read(words: &str, from: usize) -> anyhow::Result<Option<f64>> {
    let text = String::from_utf8_lossy(&std::fs::read(log()?)?).into_owned();
    let explained = plans(text.get(from..).unwrap_or_default());
    let those = explained.filter(|plan| plan["Query Text"].as_str().is_some_and(|it| it.contains(words)));
    Ok(those.map(|plan| rows(&plan["Plan"])).reduce(f64::max))
}

/// Rows that the scans of a plan have read.
fn rows(node: &Value) -> f64 {
    let number = |name: &str| node[name].as_f64().unwrap_or_default();
    let own = match node["Relation Name"].is_string() && node["Node Type"] != "ModifyTable" {
        true => (number("Actual Rows") + number("Rows Removed by Filter")) * number("Actual Loops"),
        false => 0.0,
    };
    own + node["Plans"].as_array().into_iter().flatten().map(rows).sum::<f64>()
}

async fn looked_up_by_key(verbs: &[Verb], app: Builder) -> anyhow::Result<()> {
    let app = app.slots(64).start().await?;
    let mut db = database(&app).await?;
    explain_from_now_on(&mut db).await?;

    let before = std::fs::read(log()?)?.len();
    reconnect(&mut db).await?;
    work_off(&app, 200).await?;
    let read = judge(verbs, "in an empty database", before)?;

    sqlx::raw_sql(FULL).execute(&mut db).await?;
    work_off(&app, 200).await?;
    let read = judge(verbs, "in a full database, planned when it was empty", read)?;

    reconnect(&mut db).await?;
    work_off(&app, 200).await?;
    judge(verbs, "in a full database", read)?;
    Ok(())
}

/// Every connection that is opened from now on has its statements explained in the server's log.
async fn explain_from_now_on(db: &mut PgConnection) -> anyhow::Result<()> {
    let settings = "do $$ begin
      execute format('alter database %I set session_preload_libraries = ''auto_explain''', current_database());
      execute format('alter database %I set auto_explain.log_min_duration = 0', current_database());
      execute format('alter database %I set auto_explain.log_analyze = on', current_database());
      execute format('alter database %I set auto_explain.log_timing = off', current_database());
      execute format('alter database %I set auto_explain.log_nested_statements = on', current_database());
      execute format('alter database %I set auto_explain.log_format = ''json''', current_database());
    end $$";
    db.execute(settings).await?;
    Ok(())
}

/// Ends the app's connections, and with them the plans that they have made.
async fn reconnect(db: &mut PgConnection) -> anyhow::Result<()> {
    let sql = "select pg_terminate_backend(pid) from pg_stat_activity
      where datname = current_database() and application_name = 'longhaul'";
    db.execute(sql).await?;
    Ok(())
}

/// Fails if a row of a large table was found in another way than by a key in an index; gives how far the log has been read.
fn judge(verbs: &[Verb], when: &str, from: usize) -> anyhow::Result<usize> {
    let text = String::from_utf8_lossy(&std::fs::read(log()?)?).into_owned();
    let mut seen = BTreeSet::new();
    for plan in plans(text.get(from..).unwrap_or_default()) {
        let query = plan["Query Text"].as_str().unwrap_or_default();
        let Some((verb, _)) = verbs.iter().find(|(_, only)| query.contains(only)) else { continue };
        seen.insert(*verb);
        let mut scans = Vec::new();
        unkeyed(&plan["Plan"], &mut scans);
        anyhow::ensure!(scans.is_empty(), "{verb} {when} reads whole tables or indexes: {scans:#?}");
    }
    anyhow::ensure!(seen.len() == verbs.len(), "{when} only {seen:?} were explained");
    Ok(text.len())
}

/// The plans in a log: a line that ends with `plan:`, then lines with a tab in front. Other tests' databases have none.
fn plans(log: &str) -> impl Iterator<Item = Value> {
    log.split("  plan:\n").skip(1).filter_map(|rest| {
        let json: String = rest.lines().map_while(|line| line.strip_prefix('\t')).collect();
        serde_json::from_str(&json).ok()
    })
}

/// Rows that a node may read in vain. A key that many rows have is none.
const IN_VAIN_MAX: f64 = 2_000.0;

/// The nodes of a plan that read a large table without a key, or with one that many rows have.
fn unkeyed(node: &Value, found: &mut Vec<String>) {
    let (kind, table) = (node["Node Type"].as_str().unwrap_or_default(), node["Relation Name"].as_str());
    let large = table.is_some_and(|table| ["tasks", "payloads", "results", "attempts"].contains(&table));
    let in_vain = node["Rows Removed by Filter"].as_f64().unwrap_or_default();
    if large && kind != "ModifyTable" && (node["Index Cond"].is_null() || in_vain > IN_VAIN_MAX) {
        found.push(node.to_string());
    }
    for child in node["Plans"].as_array().into_iter().flatten() {
        unkeyed(child, found);
    }
}
