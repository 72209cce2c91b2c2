//! 429 in every form: nobody calls before the time that was named, no slot is held meanwhile, and no failure is charged.

use super::{history, load, task};
use crate::journey::both_modes;
use harness::{App, Mode, Seen, report};
use serde_json::{Value, json};
use std::{collections::BTreeMap, time::Duration};

both_modes!(the_named_time_is_kept);

/// The forms, and the wait in seconds that each asks for; 0: our own backoff.
fn forms() -> Vec<(&'static str, Value, f64)> {
    let with = |headers: Value| json!({"status": 429, "headers": headers});
    vec![
        ("seconds", with(json!({"retry-after": "1"})), 1.0),
        ("a fraction", with(json!({"retry-after": "0.7"})), 0.7),
        ("milliseconds", with(json!({"retry-after-ms": "600"})), 0.6),
        ("a date", json!({"status": 429, "retry_after_date_s": 2}), 1.0),
        ("OpenAI's reset", with(json!({"x-ratelimit-reset-requests": "800ms"})), 0.8),
        ("nothing", with(json!({})), 0.0),
        ("zero", with(json!({"retry-after": "0"})), 0.0),
        ("a negative number", with(json!({"retry-after": "-1"})), 0.0),
        ("529", json!({"status": 529, "headers": {"retry-after": "1"}}), 1.0),
        ("503 with a time", json!({"status": 503, "headers": {"retry-after": "1"}}), 1.0),
    ]
}

async fn the_named_time_is_kept(mode: Mode) -> anyhow::Result<()> {
    // One slot: who held it while waiting would be seen at once.
    let app = App::with(mode).slots(1).quick().start().await?;
    let history = history(&app).await?;
    let mut figures = serde_json::Map::new();
    for (n, (form, mut sim, asked)) in forms().into_iter().enumerate() {
        sim["fail_first"] = json!(1);
        let id = app.client().submit(&task(n, sim)).await?;
        history.note(&Seen::Accepted { task: id.clone(), key: None });
        let ended = app.client().ended(&id).await?;
        assert_eq!(
            (&ended["status"], &ended["failures"]),
            (&json!("completed"), &json!(0)),
            "{form}: {ended}"
        );
        let calls = app.model.ledger(Some(&id));
        assert_eq!(calls.len(), 2, "{form}");
        let answered = calls[0].ended_at.map_or(0, |at| at.0);
        let waited = (calls[1].started_at.0 - answered) as f64 / 1000.0;
        assert!(waited >= asked - 0.05, "{form}: called {waited} s after an answer that asked for {asked} s");
        figures.insert(form.to_owned(), json!({"asked": asked, "waited": waited}));
    }
    the_model_waits(&app, &history).await?;
    app.judge(&history, Duration::from_secs(60)).await?;
    report(
        "21",
        "429 in every form",
        &json!({"mode": mode.name(), "early calls": 0, "failures charged": 0, "waits, s": figures}),
    )
}

/// Two tasks in a row that are turned away have their model paused for every task, and the wait of a billion seconds is cut.
async fn the_model_waits(app: &App, history: &harness::History) -> anyhow::Result<()> {
    let sim = json!({"status": 429, "fail_first": 1, "headers": {"retry-after": "1"}});
    let mut turned_away = shared::clock::UnixMs::now();
    let mut both = Vec::new();
    for n in 100..102 {
        let id = app.client().submit(&task(n, sim.clone())).await?;
        history.note(&Seen::Accepted { task: id.clone(), key: None });
        turned_away = harness::eventually("it was turned away", async || {
            Ok(app.model.ledger(Some(&id)).first().and_then(|call| call.ended_at))
        })
        .await?;
        both.push(id);
    }
    load(app, history, "others").run(3, |n| task(n, json!({}))).await?;
    let others: BTreeMap<String, String> =
        history.accepted()?.into_iter().filter(|(key, _)| key.starts_with("others")).collect();
    for id in others.values() {
        app.client().ended(id).await?;
    }
    for call in app.model.ledger(None).iter().filter(|call| call.started_at > turned_away) {
        let waited = call.started_at.0 - turned_away.0;
        assert!(waited >= 950, "somebody called {waited} ms after an answer that asked for 1 s");
    }
    for id in &both {
        app.client().ended(id).await?;
    }
    let sim = json!({"status": 429, "headers": {"retry-after": "1000000000"}});
    let patient = app
        .client()
        .submit(&json!({"endpoint": "/v1/chat/completions", "body": harness::chat("late", sim), "policy": {"ttl_s": 2}}))
        .await?;
    history.note(&Seen::Accepted { task: patient.clone(), key: None });
    assert_eq!(app.client().ended(&patient).await?["status"], "expired", "the deadline comes first");
    Ok(())
}
