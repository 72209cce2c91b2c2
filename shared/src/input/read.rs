//! One pass over a request body: its members and its texts are shown to a [`Reader`] as they come, borrowed where the parser borrows,
//! and none is kept. What a parser could read in two ways ends the pass: a number out of range, a name that is there twice.

use super::words::{self, Names};
use crate::redact::elide;
use serde::{
    Deserialize,
    de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor},
};
use std::{
    borrow::Cow,
    collections::HashSet,
    fmt,
    hash::{BuildHasher, RandomState},
};

/// Texts of a body at most.
pub(super) const TEXTS_MAX: usize = 100_000;

/// Members of an object at most: all of their names are remembered while it is read.
const NAMES_MAX: usize = 100_000;

/// Names of an object up to which a list of them is faster than a set.
const FEW: usize = 16;

/// A member's value, as far as a rule may look at it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Scalar {
    /// It is null.
    Null,
    /// It is a number.
    Number(f64),
    /// It is something else.
    Other,
}

/// What a reader does not allow.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Fault {
    /// Where.
    pub(super) at: At,
    /// What is wrong with it: behind the name of the field, or of the prompt.
    pub(super) what: String,
}

/// Where something is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum At {
    /// In a member of the body, or the body itself if the name is empty.
    Member(String),
    /// Where the parser stands.
    Here,
    /// In the prompt as a whole.
    Prompt,
}

impl Fault {
    /// Of the value where the parser stands.
    fn here(what: impl Into<String>) -> Self {
        Self { at: At::Here, what: what.into() }
    }
}

/// A text, and where it stands.
#[derive(Debug, Clone, Copy)]
pub(super) struct Text<'t> {
    /// The text, without escapes.
    pub(super) text: &'t str,
    /// A model reads it as one with other spoken ones.
    pub(super) spoken: bool,
}

/// Whoever wants to know what is in a body.
pub(super) trait Reader {
    /// A text that a model may read.
    ///
    /// # Errors
    /// The pass ends.
    fn text(&mut self, text: Text<'_>) -> Result<(), Fault>;

    /// A member of the body itself.
    ///
    /// # Errors
    /// The pass ends.
    fn member(&mut self, name: &str, value: Scalar) -> Result<(), Fault>;

    /// The right spelling of a member of the body that is judged by its name, if this one differs from it in upper and lower case alone.
    fn spelling(&self, name: &str, folded: &str) -> Option<&str>;

    /// Whether a prompt in the form of tokens, which cannot be read, is refused.
    fn needs_text(&self) -> bool;
}

/// Shows a body to a reader.
///
/// # Errors
/// What the reader does not allow, or what is ambiguous; where, as a path; none: in the prompt as a whole.
pub(super) fn read<R: Reader>(body: &[u8], reader: &mut R) -> Result<(), (Option<String>, String)> {
    let mut pass = Pass { reader, fault: None, path: Vec::new(), texts: 0, hasher: RandomState::new() };
    let mut parser = serde_json::Deserializer::from_slice(body);
    let place = Place { name: "", depth: 0, bare: false, names: Names::Wire, unread: false };
    let read = Node { pass: &mut pass, place }.deserialize(&mut parser).and_then(|_| parser.end());
    let Err(error) = read else { return Ok(()) };
    let unreadable = || match error.to_string() {
        text if text.starts_with("number out of range") => Fault::here("is a number out of range"),
        _ => Fault::here("is not well-formed JSON"),
    };
    let Fault { at, what } = pass.fault.take().unwrap_or_else(unreadable);
    let field = match at {
        At::Prompt => None,
        At::Member(name) if name.is_empty() => Some("body".to_owned()),
        At::Member(name) => Some(format!("body{}", step(&name))),
        At::Here => Some(elide(pass.path.iter().rev().fold("body".to_owned(), |path, step| path + step))),
    };
    Err((field, what))
}

struct Pass<'r, R> {
    reader: &'r mut R,
    fault: Option<Fault>,
    /// Where the parser stopped, from the inside to the outside.
    path: Vec<String>,
    texts: usize,
    hasher: RandomState,
}

fn step(name: &str) -> String {
    format!(".{}", elide(name.to_owned()))
}

impl<R: Reader> Pass<'_, R> {
    /// Ends the pass.
    fn stop<E: Error>(&mut self, fault: Fault) -> E {
        self.fault.get_or_insert(fault);
        E::custom("refused")
    }

    fn text(&mut self, text: Text<'_>) -> Result<(), Fault> {
        self.texts += 1;
        if self.texts > TEXTS_MAX {
            let what = format!("has more than {TEXTS_MAX} texts, and an input rule judges each of them");
            return Err(Fault { at: At::Member(String::new()), what });
        }
        self.reader.text(text)
    }

    /// Looks at the name of a member.
    fn name(&mut self, name: &str, seen: &mut Seen, place: Place<'_>) -> Result<(), Fault> {
        let folded = words::fold(name);
        if seen.many.len() >= NAMES_MAX {
            let what = format!(
                "has an object of more than {NAMES_MAX} members, and an input rule judges each of them"
            );
            return Err(Fault { at: At::Member(String::new()), what });
        }
        if !seen.insert(self.hasher.hash_one(&*folded)) {
            return Err(Fault::here(
                "repeats the name of another member; upper and lower case make no difference",
            ));
        }
        if place.depth == 1
            && let Some(right) = self.reader.spelling(name, &folded)
        {
            return Err(Fault::here(format!("must be spelled '{right}'")));
        }
        if self.reader.needs_text() && words::is_opaque(&folded) {
            return Err(Fault::here(TOKENS));
        }
        match !place.unread && place.names.are_read(name) {
            true => self.text(Text { text: name, spoken: false }),
            false => Ok(()),
        }
    }
}

const TOKENS: &str = "must be text: an input rule judges texts, and cannot read tokens";

/// Names of an object, as hashes.
#[derive(Default)]
struct Seen {
    few: Vec<u64>,
    many: HashSet<u64>,
}

impl Seen {
    /// Whether it is new.
    fn insert(&mut self, name: u64) -> bool {
        if self.few.contains(&name) {
            return false;
        }
        if self.few.len() < FEW {
            self.few.push(name);
            return true;
        }
        self.many.insert(name)
    }
}

/// Where a value stands.
#[derive(Clone, Copy)]
struct Place<'n> {
    /// The name of the member that it is, or that the lists around it are.
    name: &'n str,
    /// Objects and lists around it.
    depth: usize,
    /// There are only lists between it and the body's member.
    bare: bool,
    /// Of the object around it.
    names: Names,
    /// No model reads its texts.
    unread: bool,
}

/// A value that is about to be read.
struct Node<'p, 'r, 'n, R> {
    pass: &'p mut Pass<'r, R>,
    place: Place<'n>,
}

impl<'de, R: Reader> DeserializeSeed<'de> for Node<'_, '_, '_, R> {
    type Value = Scalar;

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<Scalar, D::Error> {
        from.deserialize_any(self)
    }
}

#[derive(Deserialize)]
struct Name<'a>(#[serde(borrow)] Cow<'a, str>);

impl<'de, R: Reader> Visitor<'de> for Node<'_, '_, '_, R> {
    type Value = Scalar;

    fn expecting(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        to.write_str("JSON")
    }

    fn visit_unit<E: Error>(self) -> Result<Scalar, E> {
        Ok(Scalar::Null)
    }

    fn visit_bool<E: Error>(self, _: bool) -> Result<Scalar, E> {
        Ok(Scalar::Other)
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<Scalar, E> {
        self.visit_f64(number as f64)
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<Scalar, E> {
        self.visit_f64(number as f64)
    }

    fn visit_f64<E: Error>(self, number: f64) -> Result<Scalar, E> {
        let Self { pass, place } = self;
        if place.bare && pass.reader.needs_text() && !words::may_be_numbers(place.name) {
            let at = At::Member(place.name.to_owned());
            return Err(pass.stop(Fault { at, what: TOKENS.to_owned() }));
        }
        Ok(Scalar::Number(number))
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Scalar, E> {
        let Self { pass, place } = self;
        let is_label = place.names == Names::Wire && words::is_label(place.name, text);
        if !place.unread && !is_label {
            let text = Text { text, spoken: words::is_spoken(place.name) };
            pass.text(text).map_err(|fault| pass.stop(fault))?;
        }
        Ok(Scalar::Other)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Scalar, A::Error> {
        let Self { pass, place } = self;
        let place = Place { bare: place.bare || place.depth == 1, depth: place.depth + 1, ..place };
        let mut index = 0_usize;
        loop {
            match list.next_element_seed(Node { pass: &mut *pass, place }) {
                Ok(Some(_)) => index += 1,
                Ok(None) => return Ok(Scalar::Other),
                Err(error) => {
                    pass.path.push(format!("[{index}]"));
                    return Err(error);
                }
            }
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Scalar, A::Error> {
        let Self { pass, place: around } = self;
        let names = around.names.of(around.name, around.depth == 1 || around.bare);
        let mut seen = Seen::default();
        while let Some(Name(name)) = map.next_key()? {
            let unread = around.unread || (around.depth == 0 && words::is_unread(&name));
            let place = Place { name: &name, depth: around.depth + 1, bare: false, names, unread };
            let looked = pass.name(&name, &mut seen, place).map_err(|fault| pass.stop(fault));
            let value = looked.and_then(|()| map.next_value_seed(Node { pass: &mut *pass, place }));
            let judged = value.and_then(|value| match place.depth {
                1 => pass.reader.member(&name, value).map_err(|fault| pass.stop(fault)),
                _ => Ok(()),
            });
            if judged.is_err() {
                pass.path.push(step(&name));
                judged?;
            }
        }
        Ok(Scalar::Other)
    }
}
