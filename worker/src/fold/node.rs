//! JSON values that grow chunk by chunk. Strings are joined in their escaped form, so that whatever the upstream wrote (`\u0000`,
//! halves of a surrogate pair, numbers of twenty digits) comes out as it went in.

use crate::json::{is_null, is_object, members};
use serde_json::value::RawValue;

/// Levels that are merged; what lies deeper is replaced as a whole, so that no upstream chooses our stack depth.
const DEPTH_MAX: usize = 8;

/// Strings that are told once and then only repeated.
const ONCE: [&str; 4] = ["role", "id", "type", "name"];

/// A value of the final body.
#[derive(Debug, Clone)]
pub(super) enum Node {
    /// Verbatim.
    Raw(Box<RawValue>),
    /// A string: what stands between its quotes, escaped.
    Text(String),
    /// An object.
    Object(Object),
    /// An array; elements that name their `index` grow by it.
    List(Vec<(Option<u64>, Node)>),
}

/// An object whose members keep the order in which they were first seen.
#[derive(Debug, Default, Clone)]
pub(super) struct Object(Vec<(String, Node)>);

impl Node {
    /// The value as it stands, ready to grow.
    pub(super) fn of(raw: &RawValue) -> serde_json::Result<Self> {
        if raw.get().starts_with('[') {
            let mut list = Self::List(Vec::new());
            list.grow(raw, 0)?;
            return Ok(list);
        }
        Ok(Self::leaf(raw))
    }

    fn leaf(raw: &RawValue) -> Self {
        let text = raw.get().strip_prefix('"').and_then(|rest| rest.strip_suffix('"'));
        text.map_or_else(|| Self::Raw(raw.to_owned()), |text| Self::Text(text.to_owned()))
    }

    /// Adds a later chunk's value: strings are joined, objects merged, arrays extended or merged by `index`; other values
    /// replace what was there, and `null` adds nothing.
    fn grow(&mut self, more: &RawValue, depth: usize) -> serde_json::Result<()> {
        if is_null(more) {
            return Ok(());
        }
        let kind = more.get().as_bytes().first();
        if let (Self::Raw(raw), Some(b'{')) = (&*self, kind)
            && is_object(raw)
        {
            *self = Self::Object(Object::leaves(raw)?);
        } else if let (Self::Raw(raw), Some(b'[')) = (&*self, kind)
            && raw.get().starts_with('[')
        {
            *self = Self::of(raw)?;
        }
        match (&mut *self, kind) {
            (Self::Text(text), Some(b'"')) => text.push_str(&more.get()[1..more.get().len() - 1]),
            (Self::Object(object), Some(b'{')) if depth < DEPTH_MAX => object.grow_all(more, depth + 1)?,
            (Self::List(list), Some(b'[')) if depth < DEPTH_MAX => grow_list(list, more, depth + 1)?,
            _ => *self = Self::of(more)?,
        }
        Ok(())
    }

    /// Whether it is a string without a character, or nothing at all.
    pub(super) fn is_blank(&self) -> bool {
        match self {
            Self::Text(text) => text.is_empty(),
            Self::Raw(raw) => is_null(raw),
            Self::Object(_) | Self::List(_) => false,
        }
    }

    pub(super) fn write(&self, out: &mut String) {
        match self {
            Self::Raw(raw) => out.push_str(raw.get()),
            Self::Text(text) => out.extend(["\"", text, "\""]),
            Self::Object(object) => object.write(out),
            Self::List(list) => write_list(list.iter().map(|(_, node)| node), out),
        }
    }
}

fn grow_list(list: &mut Vec<(Option<u64>, Node)>, more: &RawValue, depth: usize) -> serde_json::Result<()> {
    for raw in serde_json::from_str::<Vec<&RawValue>>(more.get())? {
        let mut object = if is_object(raw) { Object::leaves(raw)? } else { Object::default() };
        let Some(index) = object.take_index() else {
            list.push((None, Node::leaf(raw)));
            continue;
        };
        match list.binary_search_by_key(&Some(index), |(index, _)| *index) {
            Ok(at) => {
                if let Node::Object(known) = &mut list[at].1 {
                    known.grow_all(raw, depth)?;
                    // The position in the array says it.
                    known.take_index();
                }
            }
            Err(at) => list.insert(at, (Some(index), Node::Object(object))),
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
    fn leaves(raw: &RawValue) -> serde_json::Result<Self> {
        let members = members(raw.get())?;
        Ok(Self(members.into_iter().map(|(name, value)| (name, Node::leaf(value))).collect()))
    }

    pub(super) fn get(&self, name: &str) -> Option<&Node> {
        self.0.iter().find(|(known, _)| known == name).map(|(_, node)| node)
    }

    pub(super) fn get_mut(&mut self, name: &str) -> Option<&mut Node> {
        self.0.iter_mut().find(|(known, _)| known == name).map(|(_, node)| node)
    }

    /// Sets a member; the last value that is not `null` stands.
    pub(super) fn set(&mut self, name: &str, raw: &RawValue) {
        match self.get_mut(name) {
            Some(_) if is_null(raw) => {}
            Some(node) => *node = Node::leaf(raw),
            None => self.0.push((name.to_owned(), Node::leaf(raw))),
        }
    }

    /// Puts a member at its place, before those that stand there; replaces one of that name where it stands.
    pub(super) fn put(&mut self, at: usize, name: &str, node: Node) {
        match self.get_mut(name) {
            Some(known) => *known = node,
            None => self.0.insert(at.min(self.0.len()), (name.to_owned(), node)),
        }
    }

    /// Grows one member.
    pub(super) fn grow(&mut self, name: &str, more: &RawValue) -> serde_json::Result<()> {
        self.grow_at(name, more, 0)
    }

    fn grow_at(&mut self, name: &str, more: &RawValue, depth: usize) -> serde_json::Result<()> {
        match self.get_mut(name) {
            Some(node) if ONCE.contains(&name) && !node.is_blank() => Ok(()),
            Some(node) => node.grow(more, depth),
            None => {
                self.0.push((name.to_owned(), Node::of(more)?));
                Ok(())
            }
        }
    }

    /// Grows by all members of an object.
    pub(super) fn grow_all(&mut self, more: &RawValue, depth: usize) -> serde_json::Result<()> {
        members(more.get())?.into_iter().try_for_each(|(name, value)| self.grow_at(&name, value, depth))
    }

    fn take_index(&mut self) -> Option<u64> {
        let at = self.0.iter().position(|(name, _)| name == "index")?;
        let Node::Raw(raw) = &self.0[at].1 else { return None };
        let index = raw.get().parse().ok()?;
        self.0.remove(at);
        Some(index)
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
