//! Tool calls in chunks: which call a piece belongs to. Servers disagree about what names a call: an `index`, an `id` (told once, or
//! anew with every piece), both, or neither.

use super::{
    Malformed,
    node::{LIST_MAX, Node, Object, Room},
};
use crate::json::is_object;
use serde_json::value::RawValue;
use std::borrow::Cow;

/// The member that has them.
pub(super) const NAME: &str = "tool_calls";

type Calls = Vec<(Option<u64>, Node)>;

/// Adds the pieces of one chunk.
pub(super) fn grow(calls: &mut Calls, more: &RawValue, room: &mut Room) -> Result<(), Malformed> {
    for raw in serde_json::from_str::<Vec<&RawValue>>(more.get())? {
        room.take_beside(calls.len(), LIST_MAX)?;
        if !is_object(raw) {
            calls.push((None, Node::leaf(raw)));
            continue;
        }
        let piece = Piece::read(raw, room)?;
        let at = piece.continues(calls, room)?.unwrap_or_else(|| {
            // Calls stand by their index, and among those of the same one as they came.
            let index = piece.index.or_else(|| calls.last().and_then(|(index, _)| *index));
            let at = calls.partition_point(|(known, _)| *known <= index);
            calls.insert(at, (index, Node::Object(Object::default())));
            at
        });
        if let Node::Object(call) = &mut calls[at].1 {
            call.grow_all(raw, room)?;
            // The position in the array says it.
            call.remove("index");
        }
    }
    Ok(())
}

/// What a piece says of the call it belongs to; blank words are `None`.
struct Piece {
    index: Option<u64>,
    id: Option<String>,
    name: Option<String>,
    has_arguments: bool,
}

impl Piece {
    fn read(raw: &RawValue, room: &mut Room) -> Result<Self, Malformed> {
        let object = Object::leaves(raw, room)?;
        let function = function(&object, room)?;
        let owned = |word: Option<&str>| word.map(str::to_owned);
        Ok(Self {
            index: object.index(),
            id: owned(object.word("id")),
            name: owned(function.word("name")),
            has_arguments: function.get("arguments").is_some_and(|arguments| !arguments.is_blank()),
        })
    }

    /// Where the call is that this piece continues; `None`: it begins a new one.
    fn continues(&self, calls: &Calls, room: &mut Room) -> Result<Option<usize>, Malformed> {
        let call = |at: usize| if let Node::Object(call) = &calls[at].1 { Some(call) } else { None };
        let is_at = |at: usize| self.index.is_none() || calls[at].0.is_none() || calls[at].0 == self.index;
        if let Some(id) = &self.id
            && let Some(at) = (0..calls.len())
                .rev()
                .find(|&at| is_at(at) && call(at).and_then(|call| call.word("id")) == Some(id))
        {
            return Ok(Some(at));
        }
        let at = match self.index {
            Some(index) => calls.iter().rposition(|(known, _)| *known == Some(index)),
            None => calls.len().checked_sub(1),
        };
        let Some((at, known)) = at.and_then(|at| Some((at, call(at)?))) else { return Ok(None) };
        Ok((!self.begins_after(known, room)?).then_some(at))
    }

    /// Whether this piece cannot belong to the call that came before it in the same place.
    fn begins_after(&self, known: &Object, room: &mut Room) -> Result<bool, Malformed> {
        let function = function(known, room)?;
        // A piece without a name can only continue.
        let (Some(name), Some(known_name)) = (self.name.as_deref(), function.word("name")) else {
            return Ok(self.index.is_none() && self.id.is_some() && known.word("id").is_some());
        };
        let is_whole = function.get("arguments").is_some_and(is_whole);
        Ok(match (&self.id, known.word("id")) {
            (Some(_), Some(_)) => name != known_name || is_whole,
            _ if self.index.is_none() => name != known_name || is_whole,
            _ => is_whole && self.has_arguments,
        })
    }
}

/// The function of a call, or of a piece of one.
fn function<'a>(call: &'a Object, room: &mut Room) -> Result<Cow<'a, Object>, Malformed> {
    match call.get("function") {
        Some(Node::Object(function)) => Ok(Cow::Borrowed(function)),
        Some(Node::Raw(raw)) if is_object(raw) => Object::leaves(raw, room).map(Cow::Owned),
        _ => Ok(Cow::Owned(Object::default())),
    }
}

/// Whether arguments are a whole JSON object.
fn is_whole(arguments: &Node) -> bool {
    let Some(escaped) = arguments.text() else { return !arguments.is_blank() };
    if !escaped.ends_with('}') {
        return false;
    }
    let text = serde_json::from_str::<String>(&format!("\"{escaped}\""));
    text.is_ok_and(|text| serde_json::from_str::<&RawValue>(&text).is_ok())
}
