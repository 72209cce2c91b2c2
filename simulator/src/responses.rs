//! `POST /v1/responses`, answered in the foreground whatever `background` says.
//!
//! Streamed, numbered from 0: `created`, `queued`, `in_progress`; for a message `output_item.added`,
//! `content_part.added`, a delta per token, `output_text.done`, `content_part.done`, `output_item.done`; for a call
//! `output_item.added`, deltas of its arguments, their `done`, `output_item.done`; and last `completed` or
//! `incomplete` with the response as it is unstreamed.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};

use crate::behaviour::Behaviour;
use crate::error::Failure;
use crate::reply::{Answer, Choice, Content, Frame, Reply, Step, aside, event, required};
use crate::request::{Ask, Extra};
use crate::text::{CREATED, Seed};
use crate::usage::{Figures, Shown};

/// Request fields a response repeats, and what it says when the request did not.
const REPEATED: [(&str, &str); 20] = [
    ("background", "false"),
    ("instructions", "null"),
    ("max_output_tokens", "null"),
    ("max_tool_calls", "null"),
    ("metadata", "{}"),
    ("parallel_tool_calls", "true"),
    ("previous_response_id", "null"),
    ("prompt_cache_key", "null"),
    ("reasoning", r#"{"effort":null,"summary":null}"#),
    ("safety_identifier", "null"),
    ("service_tier", r#""default""#),
    ("store", "true"),
    ("temperature", "1.0"),
    ("text", r#"{"format":{"type":"text"}}"#),
    ("tool_choice", r#""auto""#),
    ("tools", "[]"),
    ("top_logprobs", "0"),
    ("top_p", "1.0"),
    ("truncation", r#""disabled""#),
    ("user", "null"),
];

#[derive(Serialize)]
struct Response<'a> {
    id: &'a str,
    object: &'static str,
    created_at: u64,
    status: &'static str,
    completed_at: Option<u64>,
    error: (),
    incomplete_details: Option<Value>,
    model: &'a str,
    output: Vec<Value>,
    /// Null until the end; absent if the request asked for that.
    #[serde(skip_serializing_if = "Option::is_none")]
    usage: Option<Option<Shown<Value>>>,
    #[serde(flatten)]
    repeated: &'a Extra,
    #[serde(flatten)]
    extra: &'a Extra,
}

#[derive(Serialize)]
struct Lifecycle<'a> {
    #[serde(rename = "type")]
    kind: &'a str,
    sequence_number: usize,
    response: Response<'a>,
}

/// One event of the stream, before it is numbered and drawn.
#[derive(Clone, Copy)]
enum Moment {
    /// The response as a whole, on its way: the event's name and the status.
    Early(&'static str, &'static str),
    /// Something about the output item of this index.
    Item(usize, Part),
    /// The response as a whole, ended.
    Last,
}

#[derive(Clone, Copy)]
enum Part {
    Added,
    ContentAdded,
    /// The position of the choice whose piece is new.
    Delta(usize),
    TextDone,
    ContentDone,
    ArgumentsDone,
    Done,
}

struct Exchange {
    id: String,
    reply: Reply,
    repeated: Extra,
}

/// Answers a response.
pub(crate) fn answer(ask: &Ask<'_>, behaviour: &Behaviour, body: &[u8]) -> Result<Answer, Failure> {
    let prompt = required(ask.input, "input")?;
    let seed = Seed::of(&[b"response", ask.model.as_bytes(), prompt.as_bytes()]);
    let reply = Reply::compose(ask, behaviour, body, seed, &[prompt], 1)?;
    let exchange = Exchange { id: reply.seed.id("resp_"), repeated: repeated(body)?, reply };
    if !ask.streamed() {
        return Ok(exchange.reply.whole(&exchange.last()));
    }
    let moments = exchange.moments().into_iter().enumerate();
    let shell = exchange.reply.framed(Box::new(std::iter::empty()));
    let frames = moments.map(move |(number, moment)| exchange.draw(number, moment));
    Ok(Answer { content: Content::Frames(Box::new(frames)), ..shell })
}

fn repeated(body: &[u8]) -> Result<Extra, Failure> {
    let mut asked: BTreeMap<String, Box<RawValue>> = serde_json::from_slice(body)
        .map_err(|error| Failure::invalid(None, format!("We could not read the JSON body: {error}.")))?;
    let value = |(name, default): (&str, &str)| {
        let given = asked.remove(name).filter(|value| value.get() != "null");
        let default = || RawValue::from_string(default.into()).expect("the table holds JSON");
        (name.to_owned(), given.unwrap_or_else(default))
    };
    Ok(REPEATED.into_iter().map(value).collect())
}

impl Exchange {
    fn choice(&self) -> &Choice {
        &self.reply.choices[0]
    }

    fn moments(&self) -> Vec<Moment> {
        let choice = self.choice();
        let mut moments = vec![
            Moment::Early("response.created", "queued"),
            Moment::Early("response.queued", "queued"),
            Moment::Early("response.in_progress", "in_progress"),
        ];
        if choice.calls.is_empty() {
            let deltas = (0..choice.steps()).map(Part::Delta);
            let parts = [Part::Added, Part::ContentAdded].into_iter().chain(deltas);
            let parts = parts.chain([Part::TextDone, Part::ContentDone, Part::Done]);
            moments.extend(parts.map(|part| Moment::Item(0, part)));
        }
        let mut at = 0;
        for (index, call) in choice.calls.iter().enumerate() {
            let pieces = call.arguments.tokens();
            let deltas = (at + 1..=at + pieces).map(Part::Delta);
            let parts = std::iter::once(Part::Added).chain(deltas).chain([Part::ArgumentsDone, Part::Done]);
            moments.extend(parts.map(|part| Moment::Item(index, part)));
            at += 1 + pieces;
        }
        moments.push(Moment::Last);
        moments
    }

    fn draw(&self, number: usize, moment: Moment) -> Frame {
        match moment {
            Moment::Early(kind, status) => {
                aside(lifecycle(kind, number, self.response(status, Vec::new(), None)))
            }
            Moment::Last => {
                let last = self.last();
                aside(lifecycle(&format!("response.{}", last.status), number, last))
            }
            Moment::Item(index, part) => {
                let opens_call = matches!(part, Part::Added) && !self.choice().calls.is_empty();
                let tokens = u64::from(opens_call || matches!(part, Part::Delta(_)));
                Frame { bytes: self.draw_part(number, index, part), tokens }
            }
        }
    }

    fn draw_part(&self, number: usize, index: usize, part: Part) -> Vec<u8> {
        let text = self.choice().script.text();
        let id = self.item_id(index);
        let (kind, mut body) = match part {
            Part::Added => ("output_item.added", json!({"item": self.item(index, false)})),
            Part::Done => ("output_item.done", json!({"item": self.item(index, true)})),
            Part::ContentAdded => {
                ("content_part.added", json!({"item_id": id, "content_index": 0, "part": content("")}))
            }
            Part::ContentDone => {
                ("content_part.done", json!({"item_id": id, "content_index": 0, "part": content(text)}))
            }
            Part::TextDone => {
                let body = json!({"item_id": id, "content_index": 0, "text": text, "logprobs": []});
                ("output_text.done", body)
            }
            Part::ArgumentsDone => {
                let call = self.choice().calls.get(index);
                let (name, arguments) = call.map_or(("", ""), |call| (&call.name, call.arguments.text()));
                let body = json!({"item_id": id, "name": name, "arguments": arguments});
                ("function_call_arguments.done", body)
            }
            Part::Delta(at) => match self.choice().step(at) {
                Some(Step::Arguments(_, piece)) => {
                    ("function_call_arguments.delta", json!({"item_id": id, "delta": piece}))
                }
                Some(Step::Text(piece)) => {
                    let body = json!({"item_id": id, "content_index": 0, "delta": piece, "logprobs": []});
                    ("output_text.delta", body)
                }
                Some(Step::Open(..)) | None => return Vec::new(),
            },
        };
        let kind = format!("response.{kind}");
        body["type"] = kind.as_str().into();
        body["sequence_number"] = number.into();
        body["output_index"] = index.into();
        event(&kind, &body)
    }

    fn item_id(&self, index: usize) -> String {
        match self.choice().calls.get(index) {
            Some(call) => format!("fc_{}", call.id),
            None => self.reply.seed.id("msg_"),
        }
    }

    fn item(&self, index: usize, done: bool) -> Value {
        let status = if done { self.outcome().0 } else { "in_progress" };
        let id = self.item_id(index);
        if let Some(call) = self.choice().calls.get(index) {
            let arguments = if done { call.arguments.text() } else { "" };
            let call_id = format!("call_{}", call.id);
            return json!({"id": id, "type": "function_call", "call_id": call_id, "name": call.name,
                          "arguments": arguments, "status": status});
        }
        let content = if done { json!([content(self.choice().script.text())]) } else { json!([]) };
        json!({"id": id, "type": "message", "status": status, "role": "assistant", "content": content})
    }

    /// The status the response ends in, and what is incomplete about it.
    fn outcome(&self) -> (&'static str, Option<&'static str>) {
        match self.choice().finish_reason.as_str() {
            "length" => ("incomplete", Some("max_output_tokens")),
            "content_filter" => ("incomplete", Some("content_filter")),
            _ => ("completed", None),
        }
    }

    fn last(&self) -> Response<'_> {
        let (input, output) = (self.reply.prompt_tokens, self.reply.tokens());
        let usage = json!({"input_tokens": input, "output_tokens": output, "total_tokens": input + output,
                           "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
                           "output_tokens_details": {"reasoning_tokens": 0}});
        let items = (0..self.choice().calls.len().max(1)).map(|index| self.item(index, true)).collect();
        let (status, reason) = self.outcome();
        let incomplete_details = reason.map(|reason| json!({"reason": reason}));
        let completed_at = (status == "completed").then_some(CREATED);
        Response { completed_at, incomplete_details, ..self.response(status, items, Some(usage)) }
    }

    fn response(&self, status: &'static str, output: Vec<Value>, usage: Option<Value>) -> Response<'_> {
        let figures = self.reply.figures;
        Response {
            id: &self.id,
            object: "response",
            created_at: CREATED,
            status,
            completed_at: None,
            error: (),
            incomplete_details: None,
            model: &self.reply.model,
            output,
            usage: (figures != Figures::Absent).then(|| {
                usage
                    .and_then(|usage| figures.shown(usage, ["input_tokens", "output_tokens", "total_tokens"]))
            }),
            repeated: &self.repeated,
            extra: &self.reply.extra,
        }
    }
}

fn content(text: &str) -> Value {
    json!({"type": "output_text", "text": text, "annotations": [], "logprobs": []})
}

fn lifecycle(kind: &str, sequence_number: usize, response: Response<'_>) -> Vec<u8> {
    event(kind, &Lifecycle { kind, sequence_number, response })
}
