//! Lists and pairs from clients that have a most: parsing stops there, so that nobody makes us keep a million of what may be a thousand.

use serde::{
    Deserialize, Deserializer, Serialize,
    de::{Error, MapAccess, SeqAccess, Visitor},
};
use std::{collections::BTreeMap, fmt, marker::PhantomData};

/// A list of at most `MOST` entries.
#[derive(Debug, Serialize)]
pub(crate) struct Few<T, const MOST: usize>(pub(crate) Vec<T>);

/// At most `MOST` pairs, each key once.
#[derive(Debug, Serialize)]
pub(crate) struct Pairs<const MOST: usize>(pub(crate) BTreeMap<String, String>);

impl<'de, T: Deserialize<'de>, const MOST: usize> Deserialize<'de> for Few<T, MOST> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_seq(TakeList::<T, MOST>(PhantomData)).map(Self)
    }
}

impl<'de, const MOST: usize> Deserialize<'de> for Pairs<MOST> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_map(TakePairs::<MOST>).map(Self)
    }
}

struct TakeList<T, const MOST: usize>(PhantomData<T>);

impl<'de, T: Deserialize<'de>, const MOST: usize> Visitor<'de> for TakeList<T, MOST> {
    type Value = Vec<T>;

    fn expecting(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(to, "a list of at most {MOST} entries")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut from: A) -> Result<Vec<T>, A::Error> {
        let mut taken = Vec::new();
        while let Some(next) = from.next_element()? {
            if taken.len() == MOST {
                return Err(A::Error::custom(format_args!("at most {MOST} entries are allowed")));
            }
            taken.push(next);
        }
        Ok(taken)
    }
}

struct TakePairs<const MOST: usize>;

impl<'de, const MOST: usize> Visitor<'de> for TakePairs<MOST> {
    type Value = BTreeMap<String, String>;

    fn expecting(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(to, "an object of at most {MOST} pairs")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut from: A) -> Result<Self::Value, A::Error> {
        let mut taken = BTreeMap::new();
        while let Some((key, value)) = from.next_entry()? {
            if taken.len() == MOST {
                return Err(A::Error::custom(format_args!("at most {MOST} pairs are allowed")));
            }
            if taken.insert(key, value).is_some() {
                return Err(A::Error::custom("a key occurs twice"));
            }
        }
        Ok(taken)
    }
}
