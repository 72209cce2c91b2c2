//! `POST /v1/completions`: the older shape, one choice for each prompt and answer.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::behaviour::Behaviour;
use crate::chat::{Envelope, Usage, each_choice, ending};
use crate::error::Failure;
use crate::reply::{Answer, Reply, Step, data, positions, required};
use crate::request::Ask;
use crate::text::Seed;

const OBJECT: &str = "text_completion";

#[derive(Serialize)]
struct TextChoice<'a> {
    text: &'a str,
    index: usize,
    logprobs: (),
    finish_reason: Option<&'a str>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Prompts {
    Many(Vec<String>),
    /// One text, or one list of token numbers.
    One(serde::de::IgnoredAny),
}

/// Answers a completion.
pub(crate) fn answer(ask: &Ask<'_>, behaviour: &Behaviour, body: &[u8]) -> Result<Answer, Failure> {
    let prompt = required(ask.prompt, "prompt")?;
    let many = match serde_json::from_str(prompt) {
        Ok(Prompts::Many(many)) if !many.is_empty() => many,
        _ => vec![prompt.to_owned()],
    };
    let prompts: Vec<&str> = many.iter().map(String::as_str).collect();
    let seed = Seed::of(&[b"completion", ask.model.as_bytes(), prompt.as_bytes()]);
    let reply = Reply::compose(ask, behaviour, body, seed, &prompts, ask.answers()?)?;
    let id = reply.seed.id("cmpl-");
    if ask.streamed() {
        return Ok(frames(id, Arc::new(reply), ask.include_usage()));
    }
    let choices: Vec<_> = reply
        .choices
        .iter()
        .enumerate()
        .map(|(index, choice)| {
            let (text, finish_reason) = (choice.script.text(), Some(choice.finish_reason.as_str()));
            TextChoice { text, index, logprobs: (), finish_reason }
        })
        .collect();
    let usage = Usage::of(&reply).map(Some);
    Ok(reply.whole(&Envelope::new(&id, OBJECT, &reply, choices, usage)))
}

fn frames(id: String, reply: Arc<Reply>, include_usage: bool) -> Answer {
    let end = ending(&id, OBJECT, &reply, include_usage);
    let id: Arc<str> = id.into();
    let chunk = move |reply: &Reply, index, text: &str, finish_reason: Option<&str>| {
        let choice = TextChoice { text, index, logprobs: (), finish_reason };
        data(&Envelope::new(&id, OBJECT, reply, [choice], include_usage.then_some(None)))
    };
    let tokens = positions(reply.clone(), {
        let chunk = chunk.clone();
        move |reply, index, step| match step {
            Step::Text(text) => chunk(reply, index, text, None),
            // This API knows no tools.
            Step::Open(..) | Step::Arguments(..) => Vec::new(),
        }
    });
    let closing = each_choice(reply.clone(), move |reply, index, choice| {
        chunk(reply, index, "", Some(&choice.finish_reason))
    });
    reply.framed(Box::new(tokens.chain(closing).chain(end)))
}
