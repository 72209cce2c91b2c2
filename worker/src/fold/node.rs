//! JSON values that grow chunk by chunk. Strings are joined in their escaped form, so that whatever the upstream wrote (`\u0000`,
//! halves of a surrogate pair, numbers of twenty digits) comes out as it went in.
//!
//! What a later chunk says of a member that is there already:
//! - a string of [`PIECES`] is the next piece of the text; one of [`ONCE`] is a repetition; any other one replaces what was there;
//! - objects are merged; `tool_calls` and lists of content parts are merged by the rules of `calls` and `parts`, lists of elements with an
//!   `index` by that; elements of other lists are appended;
//! - any other value replaces what was there;
//! - a blank value (`null`, `""`, `{}`, `[]`) never does.

use super::{Malformed, calls, parts};
use crate::json::{is_object, members};
use serde_json::value::RawValue;

/// Levels that are merged; what lies deeper is replaced as a whole, so that no upstream chooses our stack depth.
const DEPTH_MAX: usize = 8;

/// Members that all dialects stream in pieces.
const PIECES: [&str; 13] = [
    "content",
    "text",
    "arguments",
    "reasoning",
    "reasoning_content",
    "reasoning_text",
    "refusal",
    "thinking",
    "thought",
    "thoughts",
    "transcript",
    "data",
    "summary",
];

/// Strings that are told once and then only repeated, by some servers with other values.
const ONCE: [&str; 4] = ["role", "id", "type", "name"];

/// Members that one answer may be made of. Each takes about a hundred bytes beside its text.
const MEMBERS_MAX: usize = 1 << 18;
/// Members of one object, and elements of one list, that grow: each is looked for among the others.
const OBJECT_MAX: usize = 512;
pub(super) const LIST_MAX: usize = 4_096;

/// A value of the final body.
#[derive(Debug, Clone)]
pub(super) enum Node {
    /// Verbatim.
    Raw(Box<RawValue>),
    /// A string: what stands between its quotes, escaped.
    Text(String),
    /// An object.
    Object(Object),
    /// An array whose elements grow; those that name their `index` by it.
    List(Vec<(Option<u64>, Node)>),
    /// What stands between the brackets of an array whose elements do not grow.
    Items(String),
}

/// An object whose members keep the order in which they were first seen.
#[derive(Debug, Default, Clone)]
pub(super) struct Object(Vec<(String, Node)>);

/// Where a value grows: how deep, and how many members may still be made.
#[derive(Debug)]
pub(super) struct Room {
    depth: usize,
    members: usize,
    changes: u64,
}

impl Default for Room {
    fn default() -> Self {
        Self { depth: 0, members: MEMBERS_MAX, changes: 0 }
    }
}

impl Room {
    /// Counts what chunks have changed: one that only repeats what is known changes nothing.
    pub(super) fn changes(&self) -> u64 {
        self.changes
    }

    /// Takes the place of new members.
    pub(super) fn take(&mut self, members: usize) -> Result<(), Malformed> {
        self.members = self.members.checked_sub(members).ok_or(Malformed::TooManyMembers(MEMBERS_MAX))?;
        self.changes += members as u64;
        Ok(())
    }

    /// Takes the place of one more beside `others`, of which there may be so many.
    pub(super) fn take_beside(&mut self, others: usize, max: usize) -> Result<(), Malformed> {
        if others >= max { Err(Malformed::TooManyMembers(max)) } else { self.take(1) }
    }

    /// Does something one level deeper.
    fn deeper(&mut self, grow: impl FnOnce(&mut Self) -> Result<(), Malformed>) -> Result<(), Malformed> {
        self.depth += 1;
        let grown = grow(self);
        self.depth -= 1;
        grown
    }
}

impl Node {
    /// The value as it stands, ready to grow.
    pub(super) fn leaf(raw: &RawValue) -> Self {
        let text = raw.get().strip_prefix('"').and_then(|rest| rest.strip_suffix('"'));
        text.map_or_else(|| Self::Raw(raw.to_owned()), |text| Self::Text(text.to_owned()))
    }

    /// Adds a later chunk's value of the member `name`.
    pub(super) fn grow(&mut self, name: &str, more: &RawValue, room: &mut Room) -> Result<(), Malformed> {
        if is_blank(more) {
            return Ok(());
        }
        self.open(room)?;
        let kind = more.get().as_bytes().first();
        if room.depth >= DEPTH_MAX && matches!(kind, Some(b'{' | b'[')) {
            self.replace(more, room);
            return Ok(());
        }
        if parts::are(name, self, more) {
            return room.deeper(|room| parts::grow(self, more, room));
        }
        match (&mut *self, kind) {
            (Self::Text(text), Some(b'"')) if PIECES.contains(&name) => {
                text.push_str(&more.get()[1..more.get().len() - 1]);
                room.changes += 1;
            }
            (Self::Text(text), Some(b'"')) if ONCE.contains(&name) && !text.is_empty() => {}
            (Self::Object(object), Some(b'{')) => {
                room.deeper(|room| object.grow_all(more, room))?;
            }
            (Self::List(list), Some(b'[')) => {
                room.deeper(|room| match name {
                    calls::NAME => calls::grow(list, more, room),
                    _ => grow_list(list, more, room),
                })?;
            }
            (Self::Items(items), Some(b'[')) => {
                append(items, more);
                room.changes += 1;
            }
            _ => self.replace(more, room),
        }
        Ok(())
    }

    /// Puts another value in its place.
    fn replace(&mut self, more: &RawValue, room: &mut Room) {
        let is_same = match &*self {
            Self::Raw(known) => known.get() == more.get(),
            Self::Text(known) => {
                more.get().strip_prefix('"').and_then(|rest| rest.strip_suffix('"')) == Some(known)
            }
            _ => false,
        };
        if !is_same {
            *self = Self::leaf(more);
            room.changes += 1;
        }
    }

    /// Takes a verbatim object or array apart, so that it can grow.
    fn open(&mut self, room: &mut Room) -> Result<(), Malformed> {
        let Self::Raw(raw) = &*self else { return Ok(()) };
        match raw.get().as_bytes().first() {
            Some(b'{') => *self = Self::Object(Object::leaves(raw, room)?),
            Some(b'[') => *self = Self::list(raw, room)?,
            _ => {}
        }
        Ok(())
    }

    /// An array: with elements that grow if all of them are objects that say which one they are (`index`) or what they are (`type`).
    fn list(raw: &RawValue, room: &mut Room) -> Result<Self, Malformed> {
        let elements: Vec<&RawValue> = serde_json::from_str(raw.get())?;
        let mut list = Vec::new();
        for element in &elements {
            if !is_object(element) {
                list.clear();
                break;
            }
            let object = Object::leaves(element, room)?;
            if object.index().is_none() && object.get("type").is_none() {
                list.clear();
                break;
            }
            list.push((object.index(), Self::Object(object)));
        }
        if list.is_empty() {
            let mut items = String::new();
            append(&mut items, raw);
            return Ok(Self::Items(items));
        }
        Ok(Self::List(list))
    }

    /// Whether it is a string without a character, or nothing at all.
    pub(super) fn is_blank(&self) -> bool {
        match self {
            Self::Text(text) => text.is_empty(),
            Self::Raw(raw) => is_blank(raw),
            Self::Object(object) => object.0.is_empty(),
            Self::List(list) => list.is_empty(),
            Self::Items(items) => items.is_empty(),
        }
    }

    /// The text of a string; `None` for anything else.
    pub(super) fn text(&self) -> Option<&str> {
        if let Self::Text(text) = self { Some(text) } else { None }
    }

    pub(super) fn write(&self, out: &mut String) {
        match self {
            Self::Raw(raw) => out.push_str(raw.get()),
            Self::Text(text) => out.extend(["\"", text, "\""]),
            Self::Object(object) => object.write(out),
            Self::List(list) => write_list(list.iter().map(|(_, node)| node), out),
            Self::Items(items) => out.extend(["[", items, "]"]),
        }
    }
}

/// Whether the value says nothing.
fn is_blank(raw: &RawValue) -> bool {
    let text = raw.get();
    let inner = |open, close| {
        let inner = text.strip_prefix(open)?.strip_suffix(close)?;
        Some(inner.bytes().all(|byte| byte.is_ascii_whitespace()))
    };
    text == "null" || text == "\"\"" || inner('{', '}').or_else(|| inner('[', ']')).unwrap_or(false)
}

/// Appends the elements of an array as they stand.
fn append(items: &mut String, more: &RawValue) {
    let inner = more.get()[1..more.get().len() - 1].trim();
    if !inner.is_empty() {
        if !items.is_empty() {
            items.push(',');
        }
        items.push_str(inner);
    }
}

fn grow_list(list: &mut Vec<(Option<u64>, Node)>, more: &RawValue, room: &mut Room) -> Result<(), Malformed> {
    for raw in serde_json::from_str::<Vec<&RawValue>>(more.get())? {
        room.take_beside(list.len(), LIST_MAX)?;
        let object = if is_object(raw) { Object::leaves(raw, room)? } else { Object::default() };
        let Some(index) = object.index() else {
            list.push((None, Node::leaf(raw)));
            continue;
        };
        match list.iter().rposition(|(known, _)| *known == Some(index)) {
            Some(at) => match &mut list[at].1 {
                Node::Object(known) => known.grow_all(raw, room)?,
                other => *other = Node::leaf(raw),
            },
            None => {
                let at = list.partition_point(|(known, _)| *known <= Some(index));
                list.insert(at, (Some(index), Node::Object(object)));
            }
        }
    }
    Ok(())
}

/// An array of these values.
pub(super) fn write_list<'a>(nodes: impl Iterator<Item = &'a Node>, out: &mut String) {
    out.push('[');
    for (at, node) in nodes.enumerate() {
        if at > 0 {
            out.push(',');
        }
        node.write(out);
    }
    out.push(']');
}

impl Object {
    /// An object whose members are as they stand.
    pub(super) fn leaves(raw: &RawValue, room: &mut Room) -> Result<Self, Malformed> {
        let members = members(raw.get())?;
        room.take_beside(members.len(), OBJECT_MAX)?;
        room.take(members.len())?;
        Ok(Self(members.into_iter().map(|(name, value)| (name, Node::leaf(value))).collect()))
    }

    pub(super) fn get(&self, name: &str) -> Option<&Node> {
        self.0.iter().find(|(known, _)| known == name).map(|(_, node)| node)
    }

    pub(super) fn get_mut(&mut self, name: &str) -> Option<&mut Node> {
        self.0.iter_mut().find(|(known, _)| known == name).map(|(_, node)| node)
    }

    /// The text of a member that is a string with at least one character.
    pub(super) fn word(&self, name: &str) -> Option<&str> {
        self.get(name).and_then(Node::text).filter(|text| !text.is_empty())
    }

    /// Sets a member; the last value that is not blank stands.
    pub(super) fn set(&mut self, name: &str, raw: &RawValue, room: &mut Room) -> Result<(), Malformed> {
        match self.get_mut(name) {
            Some(_) if is_blank(raw) => {}
            Some(node) => node.replace(raw, room),
            None => {
                room.take_beside(self.0.len(), OBJECT_MAX)?;
                self.0.push((name.to_owned(), Node::leaf(raw)));
            }
        }
        Ok(())
    }

    /// Puts a member at its place, before those that stand there; replaces one of that name where it stands.
    pub(super) fn put(&mut self, at: usize, name: &str, node: Node) {
        match self.get_mut(name) {
            Some(known) => *known = node,
            None => self.0.insert(at.min(self.0.len()), (name.to_owned(), node)),
        }
    }

    /// Grows one member.
    pub(super) fn grow(&mut self, name: &str, more: &RawValue, room: &mut Room) -> Result<(), Malformed> {
        if let Some(node) = self.get_mut(name) {
            return node.grow(name, more, room);
        }
        room.take_beside(self.0.len(), OBJECT_MAX)?;
        let node = match name {
            calls::NAME if more.get().starts_with('[') => {
                let mut list = Vec::new();
                calls::grow(&mut list, more, room)?;
                Node::List(list)
            }
            _ => Node::leaf(more),
        };
        self.0.push((name.to_owned(), node));
        Ok(())
    }

    /// Grows by all members of an object.
    pub(super) fn grow_all(&mut self, more: &RawValue, room: &mut Room) -> Result<(), Malformed> {
        members(more.get())?.into_iter().try_for_each(|(name, value)| self.grow(&name, value, room))
    }

    /// The number that says which element of a list it is.
    pub(super) fn index(&self) -> Option<u64> {
        match self.get("index")? {
            Node::Raw(raw) => raw.get().parse().ok(),
            Node::Text(text) => text.parse().ok(),
            _ => None,
        }
    }

    /// Takes a member away.
    pub(super) fn remove(&mut self, name: &str) {
        self.0.retain(|(known, _)| known != name);
    }

    pub(super) fn write(&self, out: &mut String) {
        out.push('{');
        for (at, (name, node)) in self.0.iter().enumerate() {
            if at > 0 {
                out.push(',');
            }
            write_text(name, out);
            out.push(':');
            node.write(out);
        }
        out.push('}');
    }
}

fn write_text(text: &str, out: &mut String) {
    // A plain name, as nearly all are, is written without the detour.
    if text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_') {
        out.extend(["\"", text, "\""]);
    } else {
        out.push_str(&serde_json::Value::from(text).to_string());
    }
}
