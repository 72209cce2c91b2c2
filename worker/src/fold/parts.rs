//! Content as a list of parts, in chunks: parts of text and thinking grow, others stand as they are. A server may begin with parts and go on
//! with plain strings, or the other way around.

use super::{
    Malformed,
    node::{Node, Object, Room},
};
use crate::json::is_object;
use serde_json::value::RawValue;

/// Kinds of parts that come in pieces.
const GROWING: [&str; 4] = ["text", "thinking", "output_text", "reasoning"];

/// Whether `more` adds to a list of parts: the member holds content, and one of the two is a list.
pub(super) fn are(name: &str, known: &Node, more: &RawValue) -> bool {
    let is_list = more.get().starts_with('[');
    let grows = match known {
        Node::List(_) => is_list || more.get().starts_with('"'),
        Node::Text(_) => is_list,
        _ => false,
    };
    grows && matches!(name, "content" | "thinking" | "reasoning")
}

/// Adds a list of parts, or a string, to what is known.
pub(super) fn grow(known: &mut Node, more: &RawValue, room: &mut Room) -> Result<(), Malformed> {
    let mut list = match std::mem::replace(known, Node::List(Vec::new())) {
        Node::List(list) => list,
        text if text.is_blank() => Vec::new(),
        text => vec![(None, Node::Object(part(text)))],
    };
    if more.get().starts_with('"') {
        room.take(2)?;
        add(&mut list, &format!(r#"{{"type":"text","text":{}}}"#, more.get()), room)?;
    } else {
        for raw in serde_json::from_str::<Vec<&RawValue>>(more.get())? {
            room.take(1)?;
            match is_object(raw) {
                true => add(&mut list, raw.get(), room)?,
                false => list.push((None, Node::leaf(raw))),
            }
        }
    }
    *known = Node::List(list);
    Ok(())
}

fn add(list: &mut Vec<(Option<u64>, Node)>, piece: &str, room: &mut Room) -> Result<(), Malformed> {
    let piece: &RawValue = serde_json::from_str(piece)?;
    let object = Object::leaves(piece, room)?;
    let kind = object.word("type");
    if let (Some(kind), Some((_, Node::Object(last)))) = (kind, list.last_mut())
        && GROWING.contains(&kind)
        && last.word("type") == Some(kind)
        && last.index() == object.index()
    {
        return last.grow_all(piece, room);
    }
    list.push((object.index(), Node::Object(object)));
    Ok(())
}

fn part(text: Node) -> Object {
    let mut part = Object::default();
    part.put(0, "type", Node::Text("text".to_owned()));
    part.put(1, "text", text);
    part
}
