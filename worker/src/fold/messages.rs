//! Events of Anthropic's `/v1/messages`, folded into the message of an unstreamed call.

use super::{
    Malformed, Progress, Unfinished,
    node::{Node, Object},
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

#[derive(Debug, Default, Clone)]
struct Block {
    content: Object,
    /// A tool's input arrives as pieces of JSON text inside JSON strings: escaped, joined here.
    input: String,
}

impl Messages {
    pub(super) fn push(&mut self, chunk: &str) -> Result<Progress, Malformed> {
        let members = members(chunk)?;
        let get = |wanted: &str| members.iter().find(|(name, _)| name == wanted).map(|(_, value)| *value);
        match get("type").map_or("", RawValue::get) {
            r#""message_start""# => self.start(get("message").ok_or(Malformed)?)?,
            r#""content_block_start""# => {
                self.block(get("index"))?.content.grow_all(get("content_block").ok_or(Malformed)?, 1)?
            }
            r#""content_block_delta""# => self.block(get("index"))?.grow(get("delta").ok_or(Malformed)?)?,
            r#""message_delta""# => {
                for (name, value) in crate::json::members(get("delta").ok_or(Malformed)?.get())? {
                    self.message.as_mut().ok_or(Malformed)?.set(&name, value);
                }
                if let Some(usage) = get("usage") {
                    self.spend(usage)?;
                }
            }
            r#""message_stop""# => {
                self.ended = true;
                return Ok(Progress::End);
            }
            // A bare envelope without a type is how most servers break off a stream of any kind.
            r#""error""# | "" if get("error").is_some() => {
                return Ok(Progress::Failed(get("error").map_or("{}", RawValue::get).to_owned()));
            }
            // Pings, block stops and kinds that are yet to come carry nothing of the body.
            _ => {}
        }
        Ok(Progress::More)
    }

    fn start(&mut self, message: &RawValue) -> Result<(), Malformed> {
        let mut started = Object::default();
        for (name, value) in members(message.get())? {
            if name == "usage" && !is_null(value) {
                self.spend(value)?;
            }
            started.set(&name, value);
        }
        self.message = Some(started);
        Ok(())
    }

    /// Later figures replace earlier ones, one by one: the last event tells only some of them.
    fn spend(&mut self, usage: &RawValue) -> Result<(), Malformed> {
        for (name, value) in members(usage.get())? {
            self.tokens.set(&name, value);
        }
        let mut text = String::new();
        self.tokens.write(&mut text);
        self.usage = tokens(&text).or(self.usage);
        Ok(())
    }

    fn block(&mut self, index: Option<&RawValue>) -> Result<&mut Block, Malformed> {
        let index: usize = index.and_then(|index| index.get().parse().ok()).ok_or(Malformed)?;
        // Blocks come in order: a gap is no stream of messages, and no reason to make room for it.
        if index > self.blocks.len() {
            return Err(Malformed);
        }
        if index == self.blocks.len() {
            self.blocks.push(Block::default());
        }
        Ok(&mut self.blocks[index])
    }

    pub(super) fn finish(self) -> Result<String, Unfinished> {
        let is_whole = self.ended
            && self.blocks.iter().all(|block| block.input.is_empty() || input(&block.input).is_some());
        if is_whole { self.write().ok_or(Unfinished::Truncated) } else { Err(Unfinished::Truncated) }
    }

    /// The message as it stands; `None`: nothing of it has come. An input of which only the beginning has come is left out.
    pub(super) fn so_far(&self) -> Option<String> {
        self.clone().write()
    }

    fn write(self) -> Option<String> {
        let mut message = self.message?;
        let mut content = Vec::new();
        for mut block in self.blocks {
            if let Some(input) = input(&block.input) {
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
    fn grow(&mut self, delta: &RawValue) -> Result<(), Malformed> {
        for (name, value) in members(delta.get())? {
            match name.as_str() {
                "type" => {}
                "partial_json" => {
                    let text = value
                        .get()
                        .strip_prefix('"')
                        .and_then(|rest| rest.strip_suffix('"'))
                        .ok_or(Malformed)?;
                    self.input.push_str(text);
                }
                "citation" => {
                    let one = RawValue::from_string(format!("[{}]", value.get()))?;
                    self.content.grow("citations", &one)?;
                }
                _ => self.content.grow(&name, value)?,
            }
        }
        Ok(())
    }
}

/// The JSON inside of joined string pieces.
fn input(escaped: &str) -> Option<Box<RawValue>> {
    let text: String = serde_json::from_str(&format!("\"{escaped}\"")).ok()?;
    RawValue::from_string(text).ok()
}
