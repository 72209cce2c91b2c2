//! Events of Anthropic's `/v1/messages`, folded into the message of an unstreamed call.

use super::{
    Malformed, Progress, Unfinished, cut,
    node::{Node, Object, Room},
};
use crate::{
    json::{is_null, members},
    usage::tokens,
};
use serde_json::value::RawValue;
use shared::task::Usage;

/// What has been seen of the message.
#[derive(Debug, Default, Clone)]
pub(crate) struct Messages {
    message: Option<Object>,
    blocks: Vec<Block>,
    tokens: Object,
    ended: bool,
    pub(super) usage: Option<Usage>,
}

/// Reasons to stop that may cut off what is being written: half of a tool's input is what an unstreamed call would have returned, too.
const CUTS: [&str; 4] = ["max_tokens", "model_context_window_exceeded", "refusal", "pause_turn"];

/// Longest escape of one character: a surrogate pair.
const ESCAPE_MAX: usize = 12;

#[derive(Debug, Default, Clone)]
struct Block {
    content: Object,
    /// A tool's input arrives as pieces of JSON text inside JSON strings: escaped, joined here.
    input: String,
}

impl Messages {
    pub(super) fn push(&mut self, chunk: &str, room: &mut Room) -> Result<Progress, Malformed> {
        let members = members(chunk)?;
        let unreadable = Malformed::Unreadable;
        let get = |wanted: &str| members.iter().find(|(name, _)| name == wanted).map(|(_, value)| *value);
        match get("type").map_or("", RawValue::get) {
            r#""message_start""# => self.start(get("message").ok_or(unreadable)?, room)?,
            r#""content_block_start""# => {
                let block = get("content_block").ok_or(unreadable)?;
                self.block(get("index"), room)?.content.grow_all(block, room)?;
            }
            r#""content_block_delta""# => {
                let delta = get("delta").ok_or(unreadable)?;
                self.block(get("index"), room)?.grow(delta, room)?;
            }
            r#""message_delta""# => {
                for (name, value) in crate::json::members(get("delta").ok_or(unreadable)?.get())? {
                    self.message.as_mut().ok_or(unreadable)?.set(&name, value, room)?;
                }
                if let Some(usage) = get("usage").filter(|usage| !is_null(usage)) {
                    self.spend(usage, room)?;
                }
            }
            r#""message_stop""# => {
                self.ended = true;
                return Ok(Progress::End);
            }
            // A bare envelope without a type is how most servers break off a stream of any kind.
            r#""error""# | "" if get("error").is_some() => return Ok(Progress::Failed(chunk.to_owned())),
            // Pings, block stops and kinds that are yet to come carry nothing of the body.
            _ => return Ok(Progress::Idle),
        }
        Ok(Progress::More)
    }

    fn start(&mut self, message: &RawValue, room: &mut Room) -> Result<(), Malformed> {
        let mut started = Object::default();
        for (name, value) in members(message.get())? {
            if name == "usage" && !is_null(value) {
                self.spend(value, room)?;
            }
            started.set(&name, value, room)?;
        }
        self.message = Some(started);
        Ok(())
    }

    /// Later figures replace earlier ones, one by one: the last event tells only some of them.
    fn spend(&mut self, usage: &RawValue, room: &mut Room) -> Result<(), Malformed> {
        for (name, value) in members(usage.get())? {
            self.tokens.set(&name, value, room)?;
        }
        let mut text = String::new();
        self.tokens.write(&mut text);
        self.usage = tokens(&text).or(self.usage);
        Ok(())
    }

    fn block(&mut self, index: Option<&RawValue>, room: &mut Room) -> Result<&mut Block, Malformed> {
        let index: usize = index.and_then(|index| index.get().parse().ok()).ok_or(Malformed::Unreadable)?;
        // Blocks come in order: a gap is no stream of messages, and no reason to make room for it.
        if index > self.blocks.len() {
            return Err(Malformed::Unreadable);
        }
        if index == self.blocks.len() {
            room.take(1)?;
            self.blocks.push(Block::default());
        }
        Ok(&mut self.blocks[index])
    }

    fn stop_reason(&self) -> Option<&str> {
        self.message.as_ref().and_then(|message| message.word("stop_reason"))
    }

    /// Whether the message has the reason of its end.
    pub(super) fn is_finished(&self) -> bool {
        self.ended || self.stop_reason().is_some()
    }

    pub(super) fn finish(self) -> Result<String, Unfinished> {
        let is_cut = self.stop_reason().is_some_and(|reason| CUTS.contains(&reason));
        let is_whole = |block: &Block| block.input.is_empty() || input(&block.input).is_some();
        if !self.is_finished() || !(is_cut || self.blocks.iter().all(is_whole)) {
            return Err(Unfinished::Truncated);
        }
        self.write(is_cut).ok_or(Unfinished::Truncated)
    }

    /// The message as it stands; `None`: nothing of it has come. An input of which only the beginning has come is left out.
    pub(super) fn so_far(&self) -> Option<String> {
        self.clone().write(false)
    }

    /// The body; with `cut`, what is whole of an input that was cut off is part of it.
    fn write(self, cut: bool) -> Option<String> {
        let mut message = self.message?;
        let mut content = Vec::new();
        for mut block in self.blocks {
            let closed = || if cut { cut::close(&text(&block.input)?) } else { None };
            if let Some(input) = input(&block.input).or_else(closed) {
                block.content.put(usize::MAX, "input", Node::Raw(input));
            }
            content.push((None, Node::Object(block.content)));
        }
        message.put(usize::MAX, "content", Node::List(content));
        message.put(usize::MAX, "usage", Node::Object(self.tokens));
        let mut body = String::new();
        message.write(&mut body);
        Some(body)
    }
}

impl Block {
    fn grow(&mut self, delta: &RawValue, room: &mut Room) -> Result<(), Malformed> {
        for (name, value) in members(delta.get())? {
            match name.as_str() {
                "type" => {}
                "partial_json" => {
                    let text = value
                        .get()
                        .strip_prefix('"')
                        .and_then(|rest| rest.strip_suffix('"'))
                        .ok_or(Malformed::Unreadable)?;
                    self.input.push_str(text);
                }
                "citation" => {
                    let one = RawValue::from_string(format!("[{}]", value.get()))?;
                    self.content.grow("citations", &one, room)?;
                }
                _ => self.content.grow(&name, value, room)?,
            }
        }
        Ok(())
    }
}

/// The JSON inside of joined string pieces.
fn input(escaped: &str) -> Option<Box<RawValue>> {
    RawValue::from_string(text(escaped)?).ok()
}

/// The text of joined string pieces; one whose last character is cut off ends before it.
fn text(escaped: &str) -> Option<String> {
    let whole = |end: usize| serde_json::from_str(&format!("\"{}\"", escaped.get(..end)?)).ok();
    (0..=escaped.len().min(ESCAPE_MAX)).find_map(|less| whole(escaped.len() - less))
}
