//! `POST /v1/messages` in Anthropic's shape.
//!
//! Streamed: `message_start`, then for each block `content_block_start`, deltas, `content_block_stop`, and last
//! `message_delta` with the stop reason and the usage, and `message_stop`.

use serde::Serialize;
use serde_json::{Value, json};

use crate::behaviour::Behaviour;
use crate::error::Failure;
use crate::reply::{Answer, Choice, Content, Frame, Reply, Step, aside, event, required};
use crate::request::{Ask, Extra};
use crate::text::Seed;

#[derive(Serialize)]
struct Message<'a> {
    #[serde(flatten)]
    fields: Value,
    #[serde(flatten)]
    extra: &'a Extra,
}

#[derive(Serialize)]
struct Start<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    message: Message<'a>,
}

/// Answers a message.
pub(crate) fn answer(ask: &Ask<'_>, behaviour: &Behaviour, body: &[u8]) -> Result<Answer, Failure> {
    let prompt = required(ask.messages, "messages")?;
    let seed = Seed::of(&[b"message", ask.model.as_bytes(), prompt.as_bytes()]);
    let reply = Reply::compose(ask, behaviour, body, seed, &[prompt], 1)?;
    if !ask.streamed() {
        return Ok(reply.whole(&whole(&reply)));
    }
    let shell = reply.framed(Box::new(std::iter::empty()));
    Ok(Answer { content: Content::Frames(Box::new(frames(reply))), ..shell })
}

fn message<'a>(
    reply: &'a Reply,
    content: Value,
    stop_reason: Option<&str>,
    output_tokens: u64,
) -> Message<'a> {
    let usage = json!({"input_tokens": reply.prompt_tokens, "cache_creation_input_tokens": 0,
                       "cache_read_input_tokens": 0, "output_tokens": output_tokens});
    let fields = json!({
        "id": reply.seed.id("msg_"), "type": "message", "role": "assistant", "model": reply.model,
        "content": content, "stop_reason": stop_reason, "stop_sequence": null,
    });
    Message { fields: with_usage(fields, reply, usage), extra: &reply.extra }
}

/// Adds the token counts, if any are to be sent.
fn with_usage(mut fields: Value, reply: &Reply, usage: Value) -> Value {
    let names = ["input_tokens", "output_tokens", "cache_read_input_tokens"];
    if let Some(shown) = reply.figures.shown(usage, names) {
        fields["usage"] = json!(shown);
    }
    fields
}

fn whole(reply: &Reply) -> Message<'_> {
    let choice = &reply.choices[0];
    let blocks = (0..blocks(choice)).map(|index| block(choice, index, true)).collect();
    message(reply, Value::Array(blocks), Some(stop_reason(choice)), reply.tokens())
}

/// How many content blocks an answer has: one text, or the calls.
fn blocks(choice: &Choice) -> usize {
    choice.calls.len().max(1)
}

fn block(choice: &Choice, index: usize, done: bool) -> Value {
    match choice.calls.get(index) {
        Some(call) => {
            // Arguments that are no JSON cannot be put into this API's shape; they stay visible as a string.
            let parse = || {
                serde_json::from_str(call.arguments.text()).unwrap_or_else(|_| call.arguments.text().into())
            };
            let input: Value = if done { parse() } else { json!({}) };
            json!({"type": "tool_use", "id": format!("toolu_{}", call.id), "name": call.name, "input": input})
        }
        None => json!({"type": "text", "text": if done { choice.script.text() } else { "" }}),
    }
}

fn stop_reason(choice: &Choice) -> &str {
    match choice.finish_reason.as_str() {
        "stop" => "end_turn",
        "length" => "max_tokens",
        "tool_calls" => "tool_use",
        "content_filter" => "refusal",
        other => other,
    }
}

fn frames(reply: Reply) -> impl Iterator<Item = Frame> + Send {
    const START: &str = "message_start";
    let start = event(START, &Start { kind: START, message: message(&reply, json!([]), None, 0) });
    let usage = json!({"output_tokens": reply.tokens()});
    let stop = json!({"stop_reason": stop_reason(&reply.choices[0]), "stop_sequence": null});
    let end = [
        json_event("message_delta", &with_usage(json!({"delta": stop}), &reply, usage)),
        json_event("message_stop", &json!({})),
    ];
    let positions = reply.positions();
    let last_block = blocks(&reply.choices[0]) - 1;
    let text = reply.choices[0].calls.is_empty();
    let text_opening = text.then(|| [opening(&reply.choices[0], 0), json_event("ping", &json!({}))]);
    let tokens = (0..positions).map(move |at| Frame { bytes: draw(&reply.choices[0], at), tokens: 1 });
    std::iter::once(start)
        .chain(text_opening.into_iter().flatten())
        .map(aside)
        .chain(tokens)
        .chain(std::iter::once(closing(last_block)).chain(end).map(aside))
}

fn draw(choice: &Choice, at: usize) -> Vec<u8> {
    match choice.step(at) {
        Some(Step::Text(text)) => delta(0, &json!({"type": "text_delta", "text": text})),
        Some(Step::Arguments(index, json)) => {
            delta(index, &json!({"type": "input_json_delta", "partial_json": json}))
        }
        Some(Step::Open(0, _)) => opening(choice, 0),
        Some(Step::Open(index, _)) => [closing(index - 1), opening(choice, index)].concat(),
        None => Vec::new(),
    }
}

fn opening(choice: &Choice, index: usize) -> Vec<u8> {
    json_event("content_block_start", &json!({"index": index, "content_block": block(choice, index, false)}))
}

fn delta(index: usize, delta: &Value) -> Vec<u8> {
    json_event("content_block_delta", &json!({"index": index, "delta": delta}))
}

fn closing(index: usize) -> Vec<u8> {
    json_event("content_block_stop", &json!({"index": index}))
}

/// A named event whose data repeats the name as its type.
fn json_event(name: &str, fields: &Value) -> Vec<u8> {
    let mut data = fields.clone();
    data["type"] = name.into();
    event(name, &data)
}
