//! What every text endpoint answers, before its own shape is put around it.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::behaviour::Behaviour;
use crate::error::Failure;
use crate::request::{Ask, Extra, unknown_fields};
use crate::sim::{Sim, ToolCalls};
use crate::text::{Script, Seed, prompt_tokens, spread};
use crate::usage::Figures;

/// One server-sent event (or the events of all choices at one token), and how many tokens it carries.
/// The stream waits one inter-token time before a frame that carries tokens.
pub(crate) struct Frame {
    pub(crate) bytes: Vec<u8>,
    pub(crate) tokens: u64,
}

/// The frames of a streamed answer, made while they are sent.
pub(crate) type Frames = Box<dyn Iterator<Item = Frame> + Send>;

/// A complete answer, not yet paced.
pub(crate) struct Answer {
    /// Tokens of all choices together.
    pub(crate) tokens: u64,
    /// Tokens of the longest choice: choices are generated side by side.
    pub(crate) positions: u32,
    pub(crate) content: Content,
}

impl Answer {
    /// These bytes, which are no tokens.
    pub(crate) fn whole(bytes: Vec<u8>) -> Self {
        Self { tokens: 0, positions: 0, content: Content::Whole(bytes) }
    }
}

/// An answer's bytes.
pub(crate) enum Content {
    Whole(Vec<u8>),
    Frames(Frames),
}

/// The answers to one request.
#[derive(Debug, Clone)]
pub(crate) struct Reply {
    pub(crate) seed: Seed,
    pub(crate) model: String,
    pub(crate) choices: Vec<Choice>,
    pub(crate) prompt_tokens: u64,
    pub(crate) figures: Figures,
    pub(crate) extra: Extra,
}

/// One answer: a text, or calls of tools.
#[derive(Debug, Clone)]
pub(crate) struct Choice {
    pub(crate) script: Script,
    pub(crate) calls: Vec<Call>,
    /// In the words of chat completions: `stop`, `length`, `tool_calls`, ….
    pub(crate) finish_reason: String,
}

/// One call of a tool.
#[derive(Debug, Clone)]
pub(crate) struct Call {
    /// 24 hex digits; each API puts its own prefix before them.
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) arguments: Script,
}

/// What is new at one position of a choice.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Step<'a> {
    /// The next piece of the text.
    Text(&'a str),
    /// A call begins: its index and itself.
    Open(usize, &'a Call),
    /// The next piece of a call's arguments.
    Arguments(usize, &'a str),
}

impl Reply {
    /// Composes `count` answers to each of `prompts`.
    pub(crate) fn compose(
        ask: &Ask<'_>,
        behaviour: &Behaviour,
        body: &[u8],
        seed: Seed,
        prompts: &[&str],
        count: u32,
    ) -> Result<Self, Failure> {
        let extra = if ask.sim.echo_fields { unknown_fields(body)? } else { Extra::new() };
        let wanted = u64::from(count) * prompts.len() as u64;
        if wanted > 128 {
            return Err(Failure::invalid(Some("n"), "At most 128 answers fit into one response."));
        }
        let choices = (0..wanted).map(|index| Choice::compose(ask, behaviour, body, &seed, index)).collect();
        let prompt_tokens = prompts.iter().map(|prompt| prompt_tokens(prompt)).sum();
        let figures = ask.sim.usage.unwrap_or_default();
        Ok(Self { seed, model: ask.model.clone(), choices, prompt_tokens, figures, extra })
    }

    /// Tokens of all choices together.
    pub(crate) fn tokens(&self) -> u64 {
        self.choices.iter().map(|choice| choice.steps() as u64).sum()
    }

    /// Tokens of the longest choice.
    pub(crate) fn positions(&self) -> usize {
        self.choices.iter().map(Choice::steps).max().unwrap_or(0)
    }

    /// The whole answer around an unstreamed body.
    pub(crate) fn whole(&self, body: &impl Serialize) -> Answer {
        Answer { content: Content::Whole(json(body)), ..self.framed(Box::new(std::iter::empty())) }
    }

    /// The whole answer around a stream's frames.
    pub(crate) fn framed(&self, frames: Frames) -> Answer {
        let positions = u32::try_from(self.positions()).unwrap_or(u32::MAX);
        Answer { tokens: self.tokens(), positions, content: Content::Frames(frames) }
    }
}

/// One frame for each position, in which `draw` renders what each choice has there.
pub(crate) fn positions<D>(reply: Arc<Reply>, draw: D) -> impl Iterator<Item = Frame> + Send
where
    D: Fn(&Reply, usize, Step<'_>) -> Vec<u8> + Send,
{
    (0..reply.positions()).map(move |at| {
        let mut frame = Frame { bytes: Vec::new(), tokens: 0 };
        for (index, choice) in reply.choices.iter().enumerate() {
            if let Some(step) = choice.step(at) {
                frame.bytes.extend(draw(&reply, index, step));
                frame.tokens += 1;
            }
        }
        frame
    })
}

impl Choice {
    fn compose(ask: &Ask<'_>, behaviour: &Behaviour, body: &[u8], seed: &Seed, index: u64) -> Self {
        let sim = &ask.sim;
        let mut rng = seed.rng(index);
        let mut calls = calls(ask, seed, index);
        let (mut script, natural) = if !calls.is_empty() {
            (Script::default(), "tool_calls")
        } else if sim.echo {
            (Script::exactly(String::from_utf8_lossy(body).into_owned()), "stop")
        } else if let Some(text) = &sim.text {
            (Script::exactly(text.clone()), "stop")
        } else {
            let (tokens, natural) = length(ask, behaviour, &mut rng);
            (Script::words(tokens, &mut rng), natural)
        };
        if sim.lone_surrogate {
            calls.last_mut().map_or(&mut script, |call| &mut call.arguments).mark();
        }
        let finish_reason = sim.finish_reason.clone().unwrap_or_else(|| natural.into());
        Self { script, calls, finish_reason }
    }

    /// How many positions the choice has.
    pub(crate) fn steps(&self) -> usize {
        self.script.tokens() + self.calls.iter().map(|call| 1 + call.arguments.tokens()).sum::<usize>()
    }

    /// What is new at position `at`.
    pub(crate) fn step(&self, mut at: usize) -> Option<Step<'_>> {
        if let Some(piece) = self.script.piece(at) {
            return Some(Step::Text(piece));
        }
        at -= self.script.tokens();
        for (index, call) in self.calls.iter().enumerate() {
            if at == 0 {
                return Some(Step::Open(index, call));
            }
            if let Some(piece) = call.arguments.piece(at - 1) {
                return Some(Step::Arguments(index, piece));
            }
            at -= 1 + call.arguments.tokens();
        }
        None
    }
}

/// How many tokens to generate, and why generation ends there. `sim.tokens` is exact and beats the client's own limit.
fn length(ask: &Ask<'_>, behaviour: &Behaviour, rng: &mut fastrand::Rng) -> (u32, &'static str) {
    if let Some(exact) = ask.sim.tokens {
        return (exact, "stop");
    }
    let jitter = ask.sim.jitter.unwrap_or(behaviour.jitter);
    let natural = spread(f64::from(behaviour.tokens), jitter, rng).round() as u32;
    match ask.limit() {
        Some(limit) if limit < natural => (limit, "length"),
        _ => (natural, "stop"),
    }
}

/// The calls of tools the request asked for.
fn calls(ask: &Ask<'_>, seed: &Seed, choice: u64) -> Vec<Call> {
    let call = |index: usize, name: String, arguments: String| Call {
        id: Seed::of(&[seed.id("").as_bytes(), &choice.to_le_bytes(), &index.to_le_bytes()]).id(""),
        name,
        arguments: Script::exactly(arguments),
    };
    match &ask.sim.tool_calls {
        None | Some(ToolCalls::Plain(false)) => Vec::new(),
        Some(ToolCalls::Plain(true)) => vec![call(0, first_tool(ask.tools), "{}".into())],
        Some(ToolCalls::Named(named)) => named
            .iter()
            .enumerate()
            .map(|(index, named)| call(index, named.name.clone(), named.arguments.clone()))
            .collect(),
    }
}

/// The first tool's name in any of the three APIs' shapes.
fn first_tool(tools: Option<&RawValue>) -> String {
    #[derive(Deserialize)]
    struct Tool {
        name: Option<String>,
        function: Option<Box<Tool>>,
    }
    let tools: Vec<Tool> = tools.and_then(|tools| serde_json::from_str(tools.get()).ok()).unwrap_or_default();
    let first =
        tools.into_iter().next().and_then(|tool| tool.name.or(tool.function.and_then(|inner| inner.name)));
    first.unwrap_or_else(|| "simulated_tool".into())
}

/// A value as JSON.
pub(crate) fn json(value: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(value).expect("the simulator's own shapes have string keys only")
}

/// A server-sent event without a name.
pub(crate) fn data(value: &impl Serialize) -> Vec<u8> {
    let mut event = b"data: ".to_vec();
    serde_json::to_writer(&mut event, value).expect("the simulator's own shapes have string keys only");
    event.extend_from_slice(b"\n\n");
    event
}

/// A server-sent event with a name.
pub(crate) fn event(name: &str, value: &impl Serialize) -> Vec<u8> {
    let mut event = format!("event: {name}\n").into_bytes();
    event.extend(data(value));
    event
}

/// A frame that carries no token.
pub(crate) fn aside(bytes: Vec<u8>) -> Frame {
    Frame { bytes, tokens: 0 }
}

/// A request's field, refused when it is missing.
pub(crate) fn required<'a>(field: Option<&'a RawValue>, name: &'static str) -> Result<&'a str, Failure> {
    let missing = || Failure::invalid(Some(name), format!("Missing required parameter: '{name}'."));
    field.map(RawValue::get).ok_or_else(missing)
}

/// The times a request runs at: the simulator's own, overridden by the request.
pub(crate) fn times(sim: &Sim, behaviour: &Behaviour) -> Behaviour {
    Behaviour {
        ttft_ms: sim.ttft_ms.unwrap_or(behaviour.ttft_ms),
        itl_ms: sim.itl_ms.unwrap_or(behaviour.itl_ms),
        jitter: sim.jitter.unwrap_or(behaviour.jitter),
        ..behaviour.clone()
    }
}
