//! Chunks of `/v1/chat/completions` and `/v1/completions`, folded into the body of an unstreamed call.

use super::{
    Malformed, Progress, Unfinished,
    node::{Node, Object, write_list},
};
use crate::{
    json::{is_null, members},
    usage::tokens,
};
use serde_json::value::RawValue;
use shared::task::Usage;

/// What has been seen of the answer.
#[derive(Debug, Clone)]
pub(crate) struct Choices {
    object: &'static str,
    top: Object,
    choices: Vec<(u64, Node)>,
    pub(super) usage: Option<Usage>,
}

impl Choices {
    pub(super) fn chat() -> Self {
        Self::new(r#""chat.completion""#)
    }

    pub(super) fn text() -> Self {
        Self::new(r#""text_completion""#)
    }

    fn new(object: &'static str) -> Self {
        Self { object, top: Object::default(), choices: Vec::new(), usage: None }
    }

    pub(super) fn push(&mut self, chunk: &str) -> Result<Progress, Malformed> {
        for (name, value) in members(chunk)? {
            match name.as_str() {
                "error" if !is_null(value) => return Ok(Progress::Failed(value.get().to_owned())),
                // Padding against traffic analysis: no part of the answer.
                "obfuscation" => {}
                "usage" if is_null(value) => {}
                "usage" => {
                    self.usage = tokens(value.get()).or(self.usage);
                    self.top.set("usage", value);
                }
                "choices" => {
                    // Holds the place: choices are written from their own list.
                    self.top.put(usize::MAX, "choices", Node::List(Vec::new()));
                    for choice in serde_json::from_str::<Vec<&RawValue>>(value.get())? {
                        self.push_choice(choice)?;
                    }
                }
                _ => self.top.set(&name, value),
            }
        }
        Ok(Progress::More)
    }

    fn push_choice(&mut self, chunk: &RawValue) -> Result<(), Malformed> {
        let members = members(chunk.get())?;
        let index = members.iter().find(|(name, _)| name == "index");
        let index = index.map_or(Ok(0), |(_, value)| value.get().parse::<u64>()).map_err(|_| Malformed)?;
        let at = self.choices.binary_search_by_key(&index, |(index, _)| *index).unwrap_or_else(|at| {
            self.choices.insert(at, (index, Node::Object(Object::default())));
            at
        });
        let Node::Object(choice) = &mut self.choices[at].1 else { return Err(Malformed) };
        for (name, value) in members {
            match name.as_str() {
                "delta" => {
                    if choice.get("message").is_none() {
                        choice.put(usize::MAX, "message", Node::Object(Object::default()));
                    }
                    if let Some(Node::Object(message)) = choice.get_mut("message")
                        && !is_null(value)
                    {
                        message.grow_all(value, 1)?;
                    }
                }
                "text" | "logprobs" => choice.grow(&name, value)?,
                _ => choice.set(&name, value),
            }
        }
        Ok(())
    }

    pub(super) fn finish(mut self) -> Result<String, Unfinished> {
        if self.choices.is_empty() {
            return Err(Unfinished::Truncated);
        }
        for (_, choice) in &mut self.choices {
            let Node::Object(choice) = choice else { return Err(Unfinished::Truncated) };
            match choice.get("finish_reason") {
                Some(Node::Text(reason)) if reason == "abort" || reason == "error" => {
                    return Err(Unfinished::Aborted);
                }
                Some(Node::Text(_)) => {}
                _ => return Err(Unfinished::Truncated),
            }
            if let Some(Node::Object(message)) = choice.get_mut("message") {
                complete(message);
            }
        }
        self.write().ok_or(Unfinished::Truncated)
    }

    /// The body as it stands; `None`: nothing of it has come.
    pub(super) fn so_far(&self) -> Option<String> {
        (!self.choices.is_empty()).then(|| self.clone().write()).flatten()
    }

    fn write(mut self) -> Option<String> {
        let object = RawValue::from_string(self.object.to_owned()).ok()?;
        self.top.set("object", &object);
        let (mut choices, mut body) = (String::new(), String::new());
        write_list(self.choices.iter().map(|(_, choice)| choice), &mut choices);
        self.top.put(usize::MAX, "choices", Node::Raw(RawValue::from_string(choices).ok()?));
        self.top.write(&mut body);
        Some(body)
    }
}

/// An unstreamed message always has a role and a content; the content of one that only calls tools is `null`.
fn complete(message: &mut Object) {
    if message.get("role").is_none_or(Node::is_blank) {
        message.put(0, "role", Node::Text("assistant".to_owned()));
    }
    let calls =
        message.get("tool_calls").is_some_and(|calls| matches!(calls, Node::List(list) if !list.is_empty()));
    match message.get("content") {
        Some(content) if !(calls && content.is_blank()) => {}
        _ => message.put(1, "content", Node::Raw(RawValue::NULL.to_owned())),
    }
}
