//! Chunks of `/v1/chat/completions` and `/v1/completions`, folded into the body of an unstreamed call.

use super::{
    Malformed, Progress, Unfinished,
    node::{Node, Object, Room, write_list},
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
    choices: Vec<(u64, Object)>,
    /// How many the request asks for.
    wanted: usize,
    pub(super) usage: Option<Usage>,
}

impl Choices {
    /// Of `/v1/chat/completions`.
    pub(super) fn chat(wanted: usize) -> Self {
        Self::new(r#""chat.completion""#, wanted)
    }

    /// Of `/v1/completions`.
    pub(super) fn text(wanted: usize) -> Self {
        Self::new(r#""text_completion""#, wanted)
    }

    fn new(object: &'static str, wanted: usize) -> Self {
        Self { object, top: Object::default(), choices: Vec::new(), wanted, usage: None }
    }

    pub(super) fn push(&mut self, chunk: &str, room: &mut Room) -> Result<Progress, Malformed> {
        let mut is_news = false;
        for (name, value) in members(chunk)? {
            match name.as_str() {
                // The whole chunk: not every server puts all that it says inside of `error`.
                "error" if !is_null(value) => return Ok(Progress::Failed(chunk.to_owned())),
                // Padding against traffic analysis: no part of the answer.
                "obfuscation" => {}
                "usage" | "choices" if is_null(value) => {}
                "usage" => {
                    let told = tokens(value.get());
                    // Some servers end with figures of nothing.
                    if self.usage.is_none() || told.is_some_and(|told| told != Usage::default()) {
                        is_news |= told.is_some() && told != self.usage;
                        self.usage = told.or(self.usage);
                        self.top.set("usage", value, room)?;
                    }
                }
                "choices" => {
                    // Holds the place: choices are written from their own list.
                    self.top.put(usize::MAX, "choices", Node::List(Vec::new()));
                    let before = room.changes();
                    for choice in serde_json::from_str::<Vec<&RawValue>>(value.get())? {
                        if let Some(failed) = self.push_choice(choice, room)? {
                            return Ok(failed);
                        }
                    }
                    is_news |= room.changes() != before;
                }
                _ => self.top.set(&name, value, room)?,
            }
        }
        Ok(if is_news { Progress::More } else { Progress::Idle })
    }

    fn push_choice(&mut self, chunk: &RawValue, room: &mut Room) -> Result<Option<Progress>, Malformed> {
        let members = members(chunk.get())?;
        let find = |wanted: &str| {
            members.iter().rfind(|(name, value)| name == wanted && !is_null(value)).map(|(_, value)| *value)
        };
        if find("error").is_some() {
            return Ok(Some(Progress::Failed(chunk.get().to_owned())));
        }
        let index = find("index").map_or(Ok(0), |index| index.get().trim_matches('"').parse());
        let index: u64 = index.map_err(|_| Malformed::Unreadable)?;
        let at = match self.choices.binary_search_by_key(&index, |(index, _)| *index) {
            Ok(at) => at,
            Err(at) => {
                room.take(1)?;
                self.choices.insert(at, (index, Object::default()));
                at
            }
        };
        let choice = &mut self.choices[at].1;
        for (name, value) in &members {
            match name.as_str() {
                "delta" => {
                    if choice.get("message").is_none() {
                        choice.put(usize::MAX, "message", Node::Object(Object::default()));
                    }
                    if !is_null(value) {
                        choice.grow("message", value, room)?;
                    }
                }
                // Some servers repeat all that there is beside each delta.
                "message" if find("delta").is_some() => {}
                "text" | "logprobs" | "token_ids" => choice.grow(name, value, room)?,
                _ => choice.set(name, value, room)?,
            }
        }
        Ok(None)
    }

    /// Whether all choices have come, each with the reason of its end.
    pub(super) fn is_finished(&self) -> bool {
        let is_finished = |(_, choice): &(u64, Object)| choice.word("finish_reason").is_some();
        self.choices.len() >= self.wanted.max(1) && self.choices.iter().all(is_finished)
    }

    pub(super) fn finish(mut self) -> Result<String, Unfinished> {
        for (_, choice) in &mut self.choices {
            match choice.word("finish_reason") {
                Some("abort" | "error") => return Err(Unfinished::Aborted),
                Some(_) => {}
                None => return Err(Unfinished::Truncated),
            }
            if let Some(Node::Object(message)) = choice.get_mut("message") {
                complete(message);
            }
        }
        if self.choices.is_empty() {
            return Err(Unfinished::Truncated);
        }
        self.write().ok_or(Unfinished::Truncated)
    }

    /// The body as it stands; `None`: nothing of it has come.
    pub(super) fn so_far(&self) -> Option<String> {
        (!self.choices.is_empty()).then(|| self.clone().write()).flatten()
    }

    fn write(mut self) -> Option<String> {
        let object = RawValue::from_string(self.object.to_owned()).ok()?;
        self.top.put(usize::MAX, "object", Node::Raw(object));
        let (mut choices, mut body) = (String::new(), String::new());
        let nodes: Vec<Node> = self.choices.into_iter().map(|(_, choice)| Node::Object(choice)).collect();
        write_list(nodes.iter(), &mut choices);
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
