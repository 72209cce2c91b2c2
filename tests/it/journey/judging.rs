//! Attacks on the input rules: bodies that two parsers read differently, texts in places where nobody looks, tasks that get past by
//! another way, and bodies that cost much to judge.

use super::both_modes;
use anyhow::Context;
use harness::{App, Client, Mode, chat};
use serde_json::{Value, json};
use std::{fmt::Write, time::Instant};

both_modes!(
    what_cannot_be_judged_is_refused,
    another_run_is_judged_and_charged,
    lines_and_messages_are_charged,
    parts_are_moderated_together,
    judging_costs_little_memory,
);

const RULES: &str = r#"
[[input_rules]]
name = "house"
allow_models = ["sim-*"]
output_tokens_max = 50
parameters = { temperature = { max = 1.0 } }
deny_patterns = ['(?i)hemlock']
"#;

async fn refusal(client: &Client, body: &str) -> anyhow::Result<Value> {
    let task = format!(r#"{{"endpoint":"/v1/chat/completions","body":{body}}}"#);
    let error = client.post_bytes("/v1/tasks", task).await?.expect(400).with_context(|| body.to_owned())?;
    Ok(error["error"].clone())
}

async fn what_cannot_be_judged_is_refused(mode: Mode) -> anyhow::Result<()> {
    let app = App::with(mode).file(RULES).start().await?;
    let client = app.client();
    for (more, param) in [
        (r#""x":1e400"#, "body.x"),
        (r#""seed":-1E+999"#, "body.seed"),
        (r#""Model":"gpt-4""#, "body.Model"),
        (r#""\u004dodel":"gpt-4""#, "body.Model"),
        (r#""messages":[{"role":"user","content":"b"}]"#, "body.messages"),
        (r#""Messages":[{"role":"user","content":"b"}]"#, "body.Messages"),
        (r#""x":[{"a":{"b":1,"B":2}}]"#, "body.x[0].a.B"),
        (r#""Temperature":2"#, "body.Temperature"),
        (r#""max_completion_tokens":51"#, "body.max_completion_tokens"),
        (r#""n_predict":51"#, "body.n_predict"),
        (r#""prompt_token_ids":[1,2]"#, "body.prompt_token_ids"),
        (r#""prompt":[1,2]"#, "body.prompt"),
    ] {
        let body = format!(r#"{{"model":"sim-chat","max_tokens":9,"messages":[],{more}}}"#);
        let error = refusal(client, &body).await?;
        assert_eq!((&error["code"], &error["param"]), (&json!("input_refused"), &json!(param)), "{error}");
    }
    for more in [
        r#""suffix":"hemlock""#,
        r#""tools":[{"type":"function","function":{"name":"f","description":"hemlock"}}]"#,
        r#""response_format":{"type":"json_schema","json_schema":{"name":"a","description":"hemlock"}}"#,
        r#""chat_template_kwargs":{"hemlock":1}"#,
        r#""messages":[{"role":"user","content":[{"type":"text","text":"Hem"},{"type":"text","text":"lock"}]}]"#,
    ] {
        let error = refusal(client, &format!(r#"{{"model":"sim-chat","max_tokens":9,{more}}}"#)).await?;
        assert!(error["message"].as_str().is_some_and(|text| text.contains("pattern 1")), "{error}");
    }
    let elsewhere = r#"{"model":"sim-chat","messages":[],"max_output_tokens":9}"#;
    assert_eq!(refusal(client, elsewhere).await?["param"], "body.max_tokens");
    let line = r#"{"custom_id":"1","method":"POST","url":"/v1/chat/completions","body":{"model":"sim-chat","max_tokens":9,"x":1e400}}"#;
    let batch =
        format!(r#"{{"endpoint":"/v1/chat/completions","completion_window":"24h","requests":[{line}]}}"#);
    let batch = client.post_bytes("/v1/batches", batch).await?.expect(200)?;
    assert_eq!(batch["errors"]["data"][0]["param"], "body.x", "{batch}");
    assert_eq!(app.model.calls(), 0, "nothing was sent");
    Ok(())
}

fn wanted(tokens: u32) -> Value {
    let mut body = chat("hemlock", json!({"ttft_ms": 60_000}));
    body["max_tokens"] = json!(tokens);
    json!({"endpoint": "/v1/chat/completions", "body": body})
}

async fn another_run_is_judged_and_charged(mode: Mode) -> anyhow::Result<()> {
    let mut app = App::with(mode).env("LONGHAUL_LIMITS__PROJECT_TOKENS_PER_MINUTE", "1000").start().await?;
    let id = app.client().submit(&wanted(800)).await?;
    app.client().post(&format!("/v1/tasks/{id}/cancel"), &json!({})).await?.expect(200)?;
    let again = format!("/v1/tasks/{id}/retry");
    for _ in 0..3 {
        let reply = app.client().post(&again, &json!({})).await?;
        assert_eq!(reply.expect(429)?["error"]["code"], "rate_limit_exceeded");
    }
    assert_eq!(app.client().task(&id).await?["status"], "cancelled");
    // Rules and limits are others now.
    let rules = app.folder().join("rules.toml");
    let with = |text: &str| std::fs::write(&rules, text);
    let none = ("LONGHAUL_LIMITS__PROJECT_TOKENS_PER_MINUTE", "none");
    let file = rules.display().to_string();
    let settings = [none, ("LONGHAUL_CONFIG", file.as_str())];
    with("[[input_rules]]\nname = 'new'\ndeny_patterns = ['hemlock']\n")?;
    app.restart_api(0, &settings).await?;
    let refused = app.client().post(&again, &json!({})).await?.expect(400)?;
    assert_eq!(refused["error"]["code"], "input_refused", "{refused}");
    with("")?;
    app.restart_api(0, &settings).await?;
    assert_eq!(app.client().post(&again, &json!({})).await?.status, 202);
    Ok(())
}

async fn lines_and_messages_are_charged(mode: Mode) -> anyhow::Result<()> {
    let app = App::with(mode)
        .env("LONGHAUL_LIMITS__PROJECT_TOKENS_PER_MINUTE", "1000")
        .env("LONGHAUL_LIMITS__KEY_REQUESTS_PER_MINUTE", "20")
        .start()
        .await?;
    let client = app.tenant("acme", "submit,read,batch").await?.client;
    let batch = |lines: u32, tokens: u32| {
        let line = |n| json!({"custom_id": format!("{n}"), "method": "POST", "url": "/v1/chat/completions", "body": wanted(tokens)["body"]});
        let lines: Vec<Value> = (0..lines).map(line).collect();
        json!({"endpoint": "/v1/chat/completions", "completion_window": "24h", "requests": lines})
    };
    let never = client.post("/v1/batches", &batch(4, 300)).await?;
    assert_eq!((never.status, never.header("x-should-retry")), (429, "false"), "{never:?}");
    client.post("/v1/batches", &batch(3, 250)).await?.expect(200)?;
    assert_eq!(client.post("/v1/tasks", &wanted(800)).await?.status, 429, "the lines were charged");
    let mut watch = client.watch().await?;
    let mut refused = 0;
    for _ in 0..25 {
        let cancel = json!({"type": "task.cancel", "task_id": "task_01jd0000000000000000000000"});
        let said = watch.subscribe(&cancel).await?;
        refused += u32::from(said["error"]["code"] == "rate_limit_exceeded");
    }
    assert!((5..=12).contains(&refused), "{refused}");
    Ok(())
}

async fn parts_are_moderated_together(mode: Mode) -> anyhow::Result<()> {
    let rules = "[[input_rules]]\nname = 'house'\nmoderation = { upstream = 'default', model = 'sim-guard' }";
    let app = App::with(mode).file(rules).start().await?;
    for body in [
        json!({"messages": [{"role": "user", "content": [{"type": "text", "text": "[flag"}, {"type": "text", "text": "ged]"}]}]}),
        json!({"messages": [{"role": "user", "content": "hi"}], "tools": [{"type": "function", "function": {"name": "f", "description": "[flagged]"}}]}),
    ] {
        let mut body = body;
        body["model"] = json!("sim-chat");
        let id = app.client().submit(&json!({"endpoint": "/v1/chat/completions", "body": body})).await?;
        let ended = app.client().ended(&id).await?;
        assert_eq!(ended["error"]["code"], "input_refused", "{ended}");
        assert_eq!(app.executions(&id).len(), 0);
    }
    Ok(())
}

const SIZE: usize = 15 << 20;
/// What is in a body again and again, and what it ends with.
const SHAPES: [(&str, &str); 5] = [
    (r#"{"a":1,"b":[]}"#, r#"{"a":"hemlock"}"#),
    (r#"{"a":{"b":{"c":{}}}}"#, r#""hemlock""#),
    ("[[]]", r#""hemlock""#),
    (
        r#"{"text":"0123456789012345678901234567890123456789012345678901234567890123456789012345678901234567890123456789012345678901234567890123456789012345678901234567890123456789012345678901234567890123456789"}"#,
        r#""hemlock""#,
    ),
    (r#""""#, r#""hemlock""#),
];

async fn judging_costs_little_memory(mode: Mode) -> anyhow::Result<()> {
    let mut app = App::with(mode).file(RULES).start().await?;
    let (client, pid) = (app.client().clone(), app.api_process(0).pid());
    let short = r#"{"model":"sim-chat","max_tokens":9,"messages":["hemlock"]}"#;
    refusal(&client, short).await?;
    let before = super::hostile::memory(pid, "VmRSS")?;
    let begun = Instant::now();
    for (piece, last) in SHAPES {
        let list = vec![piece; SIZE / (piece.len() + 1)].join(",");
        let error =
            refusal(&client, &format!(r#"{{"model":"sim-chat","max_tokens":9,"x":[{list},{last}]}}"#))
                .await?;
        assert_eq!(error["code"], "input_refused", "{error}");
    }
    // Two million names, all of them new.
    let mut members = String::with_capacity(SIZE);
    for n in 0_u32.. {
        write!(members, r#""{n:x}":1,"#)?;
        if members.len() >= SIZE {
            break;
        }
    }
    let error =
        refusal(&client, &format!(r#"{{"model":"sim-chat","max_tokens":9,{members}"x":"hemlock"}}"#)).await?;
    assert_eq!(error["code"], "input_refused", "{error}");
    let growth = super::hostile::memory(pid, "VmHWM")?.saturating_sub(before);
    println!("six bodies of 15 MiB: {} MiB more at most, {:?}", growth >> 10, begun.elapsed());
    assert!(growth <= 4 * (SIZE >> 10) as u64, "{growth} kB more at most");
    Ok(())
}
