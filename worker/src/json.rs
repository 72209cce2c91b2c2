//! JSON objects as lists of verbatim members: order, spelling of numbers and repeated names survive.

use serde::{
    Deserialize, Deserializer,
    de::{MapAccess, Visitor},
};
use serde_json::value::RawValue;
use std::{borrow::Cow, fmt};

/// The members of one object, in order; values are slices of the text they were read from.
pub(crate) struct Members<'a>(pub(crate) Vec<(String, &'a RawValue)>);

impl<'de> Deserialize<'de> for Members<'de> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Object;

        impl<'de> Visitor<'de> for Object {
            type Value = Members<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(Members(members))
            }
        }

        from.deserialize_map(Object)
    }
}

/// The members of an object that have one of a few names, in order: the others cost no memory.
pub(crate) struct Picked<'a> {
    /// Those members.
    pub(crate) members: Vec<(Cow<'a, str>, &'a RawValue)>,
    /// The object has no members at all.
    pub(crate) is_empty: bool,
}

/// Picks members of the object that `json` is.
pub(crate) fn pick<'a>(json: &'a [u8], names: &[&str]) -> serde_json::Result<Picked<'a>> {
    struct Object<'n>(&'n [&'n str]);

    #[derive(Deserialize)]
    struct Name<'a>(#[serde(borrow)] Cow<'a, str>);

    impl<'de> Visitor<'de> for Object<'_> {
        type Value = Picked<'de>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an object")
        }

        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
            let mut picked = Picked { members: Vec::new(), is_empty: true };
            while let Some((Name(name), value)) = map.next_entry::<Name<'de>, &'de RawValue>()? {
                picked.is_empty = false;
                if self.0.contains(&&*name) {
                    picked.members.push((name, value));
                }
            }
            Ok(picked)
        }
    }

    let mut parser = serde_json::Deserializer::from_slice(json);
    let picked = parser.deserialize_map(Object(names))?;
    parser.end().map(|()| picked)
}

/// The members of the object that `text` is.
pub(crate) fn members(text: &str) -> serde_json::Result<Vec<(String, &RawValue)>> {
    serde_json::from_str::<Members<'_>>(text).map(|members| members.0)
}

/// The last value of one member that is not `null`, of the object that `text` is.
pub(crate) fn member<'a>(text: &'a str, name: &str) -> serde_json::Result<Option<&'a RawValue>> {
    let members = members(text)?;
    Ok(members.into_iter().rfind(|(known, value)| known == name && !is_null(value)).map(|(_, value)| value))
}

/// Whether the value is `null`.
pub(crate) fn is_null(value: &RawValue) -> bool {
    value.get() == "null"
}

/// Whether the value is an object.
pub(crate) fn is_object(value: &RawValue) -> bool {
    value.get().starts_with('{')
}
