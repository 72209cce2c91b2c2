//! `POST /v1/chat/completions`, and the envelope it shares with `/v1/completions`.
//!
//! Streamed: a role chunk per choice, a chunk per token, a finish chunk per choice, the usage if asked for, `[DONE]`.
//! Folded (deltas joined, calls by index), the chunks are the unstreamed body field by field.

use std::sync::Arc;

use serde::Serialize;

use crate::behaviour::Behaviour;
use crate::error::Failure;
use crate::reply::{Answer, Call, Choice, Frame, Reply, Step, aside, data, positions, required};
use crate::request::{Ask, Extra};
use crate::text::{CREATED, Seed};
use crate::usage::Shown;

/// The end of an OpenAI stream.
pub(crate) const DONE: &[u8] = b"data: [DONE]\n\n";

/// The fields around the choices of a completion or one of its chunks.
#[derive(Serialize)]
pub(crate) struct Envelope<'a, C> {
    id: &'a str,
    object: &'static str,
    created: u64,
    model: &'a str,
    choices: C,
    /// Absent unless asked for; null in every chunk but the last.
    #[serde(skip_serializing_if = "Option::is_none")]
    usage: Option<Option<Shown<Usage>>>,
    service_tier: &'static str,
    system_fingerprint: &'static str,
    #[serde(flatten)]
    extra: &'a Extra,
}

impl<'a, C> Envelope<'a, C> {
    pub(crate) fn new(
        id: &'a str,
        object: &'static str,
        reply: &'a Reply,
        choices: C,
        usage: Option<Option<Shown<Usage>>>,
    ) -> Self {
        let (model, extra) = (reply.model.as_str(), &reply.extra);
        let (service_tier, system_fingerprint) = ("default", "simulated");
        Self { id, object, created: CREATED, model, choices, usage, service_tier, system_fingerprint, extra }
    }
}

/// Token counts of a completion.
#[derive(Serialize)]
pub(crate) struct Usage {
    prompt_tokens: u64,
    completion_tokens: u64,
    total_tokens: u64,
    prompt_tokens_details: PromptDetails,
    completion_tokens_details: CompletionDetails,
}

#[derive(Default, Serialize)]
struct PromptDetails {
    cached_tokens: u64,
    audio_tokens: u64,
}

#[derive(Default, Serialize)]
struct CompletionDetails {
    reasoning_tokens: u64,
    audio_tokens: u64,
    accepted_prediction_tokens: u64,
    rejected_prediction_tokens: u64,
}

impl Usage {
    /// The counts to send, if any are to be sent.
    pub(crate) fn of(reply: &Reply) -> Option<Shown<Self>> {
        let (prompt, completion) = (reply.prompt_tokens, reply.tokens());
        let honest = Self {
            prompt_tokens: prompt,
            completion_tokens: completion,
            total_tokens: prompt + completion,
            prompt_tokens_details: PromptDetails::default(),
            completion_tokens_details: CompletionDetails::default(),
        };
        reply.figures.shown(honest, ["prompt_tokens", "completion_tokens", "total_tokens"])
    }
}

#[derive(Serialize)]
struct Full<'a> {
    index: usize,
    message: Message<'a>,
    logprobs: Option<Logprobs<'a>>,
    finish_reason: &'a str,
}

#[derive(Serialize)]
struct Message<'a> {
    role: &'static str,
    content: Option<&'a str>,
    refusal: (),
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tool_calls: Vec<ToolCall<'a>>,
}

#[derive(Serialize)]
struct ChunkChoice<'a> {
    index: usize,
    delta: Delta<'a>,
    logprobs: Option<Logprobs<'a>>,
    finish_reason: Option<&'a str>,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Delta<'a> {
    Role { role: &'static str, content: Option<&'a str>, refusal: () },
    Content { content: &'a str },
    Call { tool_calls: [ToolCall<'a>; 1] },
    End {},
}

/// A call of a tool, or a fragment of one: only fragments carry an index, only the first the name.
#[derive(Default, Serialize)]
struct ToolCall<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    index: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<String>,
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    kind: Option<&'static str>,
    function: Function<'a>,
}

#[derive(Default, Serialize)]
struct Function<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<&'a str>,
    arguments: &'a str,
}

#[derive(Serialize)]
struct Logprobs<'a> {
    content: Vec<Logprob<'a>>,
    refusal: (),
}

#[derive(Serialize)]
struct Logprob<'a> {
    token: &'a str,
    logprob: f64,
    bytes: &'a [u8],
    top_logprobs: [(); 0],
}

impl<'a> Logprobs<'a> {
    fn of(pieces: impl Iterator<Item = &'a str>) -> Self {
        // Any made-up value does that survives a round trip through JSON.
        let entry = |token: &'a str| Logprob {
            token,
            logprob: -0.125 * (token.len() % 8) as f64,
            bytes: token.as_bytes(),
            top_logprobs: [],
        };
        Self { content: pieces.map(entry).collect(), refusal: () }
    }
}

impl<'a> ToolCall<'a> {
    fn named(index: Option<usize>, call: &'a Call, arguments: &'a str) -> Self {
        let id = Some(format!("call_{}", call.id));
        Self { index, id, kind: Some("function"), function: Function { name: Some(&call.name), arguments } }
    }
}

/// Answers a chat completion.
pub(crate) fn answer(ask: &Ask<'_>, behaviour: &Behaviour, body: &[u8]) -> Result<Answer, Failure> {
    let prompt = required(ask.messages, "messages")?;
    let seed = Seed::of(&[b"chat", ask.model.as_bytes(), prompt.as_bytes()]);
    let reply = Reply::compose(ask, behaviour, body, seed, &[prompt], ask.answers()?)?;
    let id = reply.seed.id("chatcmpl-");
    let logprobs = ask.sim.logprobs;
    if ask.streamed() {
        return Ok(frames(id, Arc::new(reply), logprobs, ask.include_usage()));
    }
    let choices: Vec<_> =
        reply.choices.iter().enumerate().map(|(index, choice)| full(index, choice, logprobs)).collect();
    let usage = Usage::of(&reply).map(Some);
    Ok(reply.whole(&Envelope::new(&id, "chat.completion", &reply, choices, usage)))
}

fn full(index: usize, choice: &Choice, logprobs: bool) -> Full<'_> {
    let pieces = (0..choice.script.tokens()).filter_map(|at| choice.script.piece(at));
    let calls = choice.calls.iter().map(|call| ToolCall::named(None, call, call.arguments.text()));
    Full {
        index,
        message: Message {
            role: "assistant",
            content: choice.calls.is_empty().then(|| choice.script.text()),
            refusal: (),
            tool_calls: calls.collect(),
        },
        logprobs: (logprobs && choice.script.tokens() > 0).then(|| Logprobs::of(pieces)),
        finish_reason: &choice.finish_reason,
    }
}

fn frames(id: String, reply: Arc<Reply>, logprobs: bool, include_usage: bool) -> Answer {
    let id: Arc<str> = id.into();
    let chunk = move |reply: &Reply, choice: ChunkChoice<'_>| {
        let usage = include_usage.then_some(None);
        data(&Envelope::new(&id, "chat.completion.chunk", reply, [choice], usage))
    };
    let opening = each_choice(reply.clone(), {
        let chunk = chunk.clone();
        move |reply, index, choice| {
            let content = choice.calls.is_empty().then_some("");
            let delta = Delta::Role { role: "assistant", content, refusal: () };
            chunk(reply, ChunkChoice { index, delta, logprobs: None, finish_reason: None })
        }
    });
    let tokens = positions(reply.clone(), {
        let chunk = chunk.clone();
        move |reply, index, step| chunk(reply, delta(index, step, logprobs))
    });
    let usage_id = reply.seed.id("chatcmpl-");
    let closing = each_choice(reply.clone(), move |reply, index, choice| {
        let finish_reason = Some(choice.finish_reason.as_str());
        chunk(reply, ChunkChoice { index, delta: Delta::End {}, logprobs: None, finish_reason })
    });
    let end = ending(&usage_id, "chat.completion.chunk", &reply, include_usage);
    reply.framed(Box::new(opening.chain(tokens).chain(closing).chain(end)))
}

fn delta(index: usize, step: Step<'_>, logprobs: bool) -> ChunkChoice<'_> {
    let (delta, piece) = match step {
        Step::Text(content) => (Delta::Content { content }, Some(content)),
        Step::Open(at, call) => (Delta::Call { tool_calls: [ToolCall::named(Some(at), call, "")] }, None),
        Step::Arguments(at, arguments) => {
            let function = Function { name: None, arguments };
            (
                Delta::Call { tool_calls: [ToolCall { index: Some(at), function, ..ToolCall::default() }] },
                None,
            )
        }
    };
    let logprobs = piece.filter(|_| logprobs).map(|piece| Logprobs::of(std::iter::once(piece)));
    ChunkChoice { index, delta, logprobs, finish_reason: None }
}

/// One frame for each choice that carries no token.
pub(crate) fn each_choice<D>(reply: Arc<Reply>, draw: D) -> impl Iterator<Item = Frame> + Send
where
    D: Fn(&Reply, usize, &Choice) -> Vec<u8> + Send,
{
    (0..reply.choices.len()).map(move |index| aside(draw(&reply, index, &reply.choices[index])))
}

/// The last frames of an OpenAI stream: usage if asked for, and `[DONE]`.
pub(crate) fn ending(
    id: &str,
    object: &'static str,
    reply: &Reply,
    include_usage: bool,
) -> impl Iterator<Item = Frame> + Send + use<> {
    let no_choices: [(); 0] = [];
    let last = || data(&Envelope::new(id, object, reply, no_choices, Some(Usage::of(reply))));
    include_usage.then(last).into_iter().chain([DONE.to_vec()]).map(aside)
}
