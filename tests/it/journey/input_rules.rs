//! Rules for what tasks may ask of models: a refusal names the rule, says nothing of the prompt, and nothing is sent.

use super::both_modes;
use harness::{App, Mode, chat};
use serde_json::{Value, json};
use simulator::Outage;

both_modes!(a_refusal_names_the_rule, a_moderation_model_comes_first);

const RULES: &str = r#"
[[input_rules]]
name = "house"
allow_models = ["sim-*"]
prompt_chars_max = 40
deny_patterns = ['(?i)hemlock']

[[input_rules]]
name = "guests"
projects = ["guests"]
output_tokens_max = 50
parameters = { temperature = { max = 1.0 }, logprobs = { forbidden = true } }
"#;

fn body(prompt: &str, more: Value) -> Value {
    let mut body = chat(prompt, json!({}));
    if let (Some(body), Some(more)) = (body.as_object_mut(), more.as_object()) {
        body.extend(more.clone());
    }
    body
}

fn task(prompt: &str, more: Value) -> Value {
    json!({"endpoint": "/v1/chat/completions", "body": body(prompt, more)})
}

async fn a_refusal_names_the_rule(mode: Mode) -> anyhow::Result<()> {
    let app = App::with(mode).file(RULES).start().await?;
    let acme = app.tenant("acme", "submit,read,batch").await?.client;
    let guest = app.tenant("guests", "submit,read").await?.client;
    let refused = async |client: &harness::Client, task: Value| -> anyhow::Result<(String, String)> {
        let error = client.post("/v1/tasks", &task).await?.expect(400)?["error"].clone();
        assert_eq!(error["code"], "input_refused", "{error}");
        let text = |name: &str| error[name].as_str().unwrap_or_default().to_owned();
        Ok((text("message"), text("param")))
    };
    let (message, param) = refused(&acme, task("a cup of Hemlock", json!({}))).await?;
    assert!(message.starts_with("Rule 'house': ") && !message.contains("emlock"), "{message}");
    assert_eq!(param, "");
    assert!(refused(&acme, task(&"long ".repeat(9), json!({}))).await?.0.contains("at most 40"));
    let (message, param) = refused(&guest, task("hello", json!({}))).await?;
    assert_eq!((message.contains("'guests'"), &*param), (true, "body.max_tokens"), "{message}");
    let hot = json!({"max_tokens": 50, "temperature": 1.5});
    assert_eq!(refused(&guest, task("hello", hot)).await?.1, "body.temperature");
    let logged = json!({"max_tokens": 50, "logprobs": true});
    assert_eq!(refused(&guest, task("hello", logged)).await?.1, "body.logprobs");
    let line = |n: u32, prompt: &str| {
        json!({"custom_id": format!("{n}"), "method": "POST", "url": "/v1/chat/completions",
               "body": body(prompt, json!({}))})
    };
    let batch = json!({"endpoint": "/v1/chat/completions", "completion_window": "24h",
                       "requests": [line(0, "fine"), line(1, "hemlock")]});
    let batch = acme.post("/v1/batches", &batch).await?.json()?;
    let fault = &batch["errors"]["data"][0];
    assert_eq!((&fault["code"], &fault["line"]), (&json!("input_refused"), &json!(2)), "{batch}");
    assert_eq!(app.model.calls(), 0, "nothing was sent");
    let fine = task("hello", json!({"max_tokens": 50, "temperature": 1.0}));
    let id = guest.submit(&fine).await?;
    assert_eq!(guest.ended(&id).await?["status"], "completed");
    let sent: Value = serde_json::from_slice(&app.sent(&id, 1).await?)?;
    assert_eq!(sent["messages"], fine["body"]["messages"], "as it came");
    Ok(())
}

const MODERATION: &str = r#"
[[input_rules]]
name = "house"
moderation = { upstream = "default", model = "sim-guard" }
"#;

async fn a_moderation_model_comes_first(mode: Mode) -> anyhow::Result<()> {
    let app = App::with(mode).file(MODERATION).start().await?;
    let client = app.client();
    let fine = client.ask("a kind word", json!({})).await?;
    assert_eq!(client.ended(&fine).await?["status"], "completed");
    assert_eq!(app.model.calls(), 2, "the moderation model, and then its own");
    let bad = client.ask("[flagged] an unkind one", json!({})).await?;
    let ended = client.ended(&bad).await?;
    assert_eq!(
        (&ended["status"], &ended["error"]["code"]),
        (&json!("failed"), &json!("input_refused")),
        "{ended}"
    );
    let message = ended["error"]["message"].as_str().unwrap_or_default();
    assert!(message.starts_with("Rule 'house': ") && !message.contains("unkind"), "{message}");
    assert_eq!((app.executions(&bad).len(), app.model.calls()), (0, 3), "its own was not called");
    let line = |n: u32, prompt: &str| {
        json!({"custom_id": format!("{n}"), "method": "POST", "url": "/v1/chat/completions",
               "body": chat(prompt, json!({}))})
    };
    let batch = json!({"endpoint": "/v1/chat/completions", "completion_window": "24h",
                       "requests": [line(0, "kind"), line(1, "[flagged]")]});
    let batch = client.post("/v1/batches", &batch).await?.expect(200)?;
    let path = format!("/v1/batches/{}", batch["id"].as_str().unwrap_or_default());
    let counts = harness::eventually("the batch has ended", async || {
        let batch = client.get(&path).await?.expect(200)?;
        Ok((batch["status"] == "completed").then(|| batch["request_counts"].clone()))
    });
    assert_eq!(counts.await?, json!({"total": 2, "completed": 1, "failed": 1}));
    // Nobody to ask: nothing passes.
    let outage = json!({"model": "sim-guard", "fault": {"status": 500}});
    app.model.outage(Some(Outage::parse(&outage).map_err(anyhow::Error::msg)?)).await;
    let held = client.ask("another kind word", json!({})).await?;
    let waits = async || Ok((client.task(&held).await?["attempt"].as_u64() > Some(0)).then_some(()));
    harness::eventually("it was tried", waits).await?;
    assert_eq!(app.executions(&held).len(), 0);
    app.model.outage(None).await;
    assert_eq!(client.ended(&held).await?["status"], "completed");
    Ok(())
}
