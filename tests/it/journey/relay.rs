//! What goes out to the model and what comes back: byte for byte, or with exactly the two fields that streaming needs.

use super::both_modes;
use harness::{App, Mode, ScriptedUpstream, chat};
use serde_json::{Value, json};

both_modes!(
    lifecycle_relays_every_byte,
    deltas_change_only_what_streaming_needs,
    an_error_inside_200_is_an_error,
    a_cut_stream_is_not_an_answer,
    only_the_last_attempts_output_counts,
);

/// Fields nobody knows, a number no float holds, U+0000 in the text, odd spacing and order.
const BODY: &str = r#"{ "zeta":1.50, "model":"sim-chat",  "big":12345678901234567890,
  "messages":[{"role":"user","content":"nul:\u0000 \ud83d\ude9b"}], "unknown":{"b":1e400,"a":[ ]} }"#;

const ANSWER: &[u8] =
    br#"{"id":"c-1", "object":"chat.completion","big":98765432109876543210,"extra":{ "x":1.0e40 },
 "choices":[{"index":0,"message":{"role":"assistant","content":"nul:\u0000 done"},"finish_reason":"stop"}],
 "usage":{"prompt_tokens":3,"completion_tokens":2,"total_tokens":5}}"#;

fn task(body: &str, events: &str, attempts: u32) -> String {
    let policy = json!({"events": events, "max_attempts": attempts, "backoff": {"base_ms": 10}});
    format!(r#"{{"endpoint":"/v1/chat/completions","policy":{policy},"body":{body}}}"#)
}

async fn submit(app: &App, task: String) -> anyhow::Result<String> {
    let accepted = app.client().post_bytes("/v1/tasks", task).await?.expect(202)?;
    Ok(accepted["id"].as_str().unwrap_or_default().to_owned())
}

async fn lifecycle_relays_every_byte(mode: Mode) -> anyhow::Result<()> {
    let model = ScriptedUpstream::start([ScriptedUpstream::ok("application/json", ANSWER)]).await?;
    let app = App::with(mode).upstream(&model.url).start().await?;
    let id = submit(&app, task(BODY, "lifecycle", 3)).await?;
    let ended = app.client().ended(&id).await?;
    assert_eq!(ended["status"], "completed", "{ended}");
    assert_eq!(ended["usage"]["output_tokens"], 2);
    assert_eq!(model.requests(), [BODY.as_bytes()], "the body went out as it came");
    let answer = app.client().get(&format!("/v1/tasks/{id}/result")).await?;
    assert_eq!((answer.status, answer.body.as_ref()), (200, ANSWER), "the answer was kept as it came");
    Ok(())
}

async fn deltas_change_only_what_streaming_needs(mode: Mode) -> anyhow::Result<()> {
    let app = App::start(mode).await?;
    let client = app.client();
    // The simulator answers the same prompt with the same words, streamed or not, and hands unknown fields back.
    let body = r#"{"model":"sim-chat","big":12345678901234567890,"messages":[{"role":"user","content":"nul:\u0000"}],
        "sim":{"text":"nul:\u0000 and on","echo_fields":true}}"#;
    let whole = submit(&app, task(body, "lifecycle", 3)).await?;
    let folded = submit(&app, task(body, "deltas", 3)).await?;
    let mut answers = Vec::new();
    for id in [&whole, &folded] {
        assert_eq!(client.ended(id).await?["status"], "completed");
        answers.push(client.get(&format!("/v1/tasks/{id}/result")).await?);
    }
    assert_eq!(answers[0].json()?, answers[1].json()?, "the folded answer is the unstreamed one");
    let folded_text = String::from_utf8(answers[1].body.to_vec())?;
    assert!(folded_text.contains(r#""big":12345678901234567890"#), "{folded_text}");

    assert_eq!(app.sent(&whole, 1).await?, body);
    let sent = String::from_utf8(app.sent(&folded, 1).await?.to_vec())?;
    assert!(sent.contains(r#""big":12345678901234567890"#), "{sent}");
    let (mut sent, wanted): (Value, Value) = (serde_json::from_str(&sent)?, serde_json::from_str(body)?);
    let fields = sent.as_object_mut().into_iter();
    let spliced: Vec<_> =
        fields.flat_map(|fields| [fields.remove("stream"), fields.remove("stream_options")]).collect();
    assert_eq!(spliced, [Some(json!(true)), Some(json!({"include_usage": true}))]);
    assert_eq!(sent, wanted);
    Ok(())
}

async fn an_error_inside_200_is_an_error(mode: Mode) -> anyhow::Result<()> {
    let refusal = br#"{"error":{"message":"the model is on fire","type":"server_error","code":null}}"#;
    let model = ScriptedUpstream::start([ScriptedUpstream::ok("application/json", refusal)]).await?;
    let app = App::with(mode).upstream(&model.url).start().await?;
    for events in ["lifecycle", "deltas"] {
        let id = submit(&app, task(BODY, events, 1)).await?;
        let ended = app.client().ended(&id).await?;
        assert_eq!(ended["status"], "failed", "{events}: {ended}");
        assert_eq!(ended["error"]["code"], "upstream_failed");
    }
    Ok(())
}

async fn a_cut_stream_is_not_an_answer(mode: Mode) -> anyhow::Result<()> {
    let app = App::start(mode).await?;
    let body = chat("cut", json!({"cut_after": 3})).to_string();
    for events in ["lifecycle", "deltas"] {
        let id = submit(&app, task(&body, events, 1)).await?;
        let ended = app.client().ended(&id).await?;
        assert_eq!(ended["status"], "failed", "{events}: {ended}");
        let code = ended["error"]["code"].as_str().unwrap_or_default().to_owned();
        assert!(["upstream_truncated", "upstream_unreachable"].contains(&code.as_str()), "{events}: {code}");
    }
    Ok(())
}

async fn only_the_last_attempts_output_counts(mode: Mode) -> anyhow::Result<()> {
    let start = "data: {\"id\":\"c\",\"object\":\"chat.completion.chunk\",\"choices\":[{\"index\":0,\"delta\":\
                 {\"role\":\"assistant\",\"content\":\"wrong\"},\"finish_reason\":null}]}\n\n";
    let whole = start.replace("wrong", "right").replace("null}]}", "\"stop\"}]}") + "data: [DONE]\n\n";
    let answers = [start, &whole].map(|body| ScriptedUpstream::ok("text/event-stream", body.as_bytes()));
    let model = ScriptedUpstream::start(answers).await?;
    let app = App::with(mode).upstream(&model.url).start().await?;
    let id = submit(&app, task(BODY, "deltas", 3)).await?;
    let ended = app.client().ended(&id).await?;
    assert_eq!((&ended["status"], &ended["attempt"]), (&json!("completed"), &json!(2)), "{ended}");
    assert_eq!(ended["result"]["body"]["choices"][0]["message"]["content"], "right");
    Ok(())
}
