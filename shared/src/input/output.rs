//! The maximum of output tokens that a request sets: each endpoint has its own fields for it. Pure.

use serde::{
    Deserialize, Deserializer,
    de::{MapAccess, Visitor},
};
use serde_json::value::RawValue;
use std::{borrow::Cow, fmt};

/// Fields that set it, and those of other servers that take the place of these where they are there.
pub(super) struct Fields {
    /// One of these must be set.
    pub(super) own: &'static [&'static str],
    /// Whichever of these is set must fit as well.
    pub(super) foreign: &'static [&'static str],
}

const FOREIGN: [&str; 5] =
    ["n_predict", "num_predict", "max_new_tokens", "max_gen_len", "max_tokens_to_sample"];

/// The fields of an endpoint; of one that is not known, any that is.
pub(super) fn fields(endpoint: &str) -> Fields {
    let own: &[&str] = match endpoint {
        path if path.ends_with("/chat/completions") => &["max_tokens", "max_completion_tokens"],
        path if path.ends_with("/completions") || path.ends_with("/messages") => &["max_tokens"],
        path if path.ends_with("/responses") => &["max_output_tokens"],
        _ => &["max_tokens", "max_completion_tokens", "max_output_tokens"],
    };
    Fields { own, foreign: &FOREIGN }
}

impl Fields {
    pub(super) fn hold(&self, name: &str) -> bool {
        self.own.contains(&name) || self.foreign.contains(&name)
    }
}

/// How many tokens a body asks for at most: the largest of its maxima, `otherwise` if it sets none, for each of its answers. A body that
/// is read in two ways asks for the most of them.
#[must_use]
pub fn most(endpoint: &str, body: &RawValue, otherwise: u32) -> u32 {
    let mut parser = serde_json::Deserializer::from_str(body.get());
    let asked = parser.deserialize_map(Look { fields: fields(endpoint) }).unwrap_or_default();
    let tokens = asked.tokens.unwrap_or(otherwise.into());
    u32::try_from(tokens.saturating_mul(asked.answers.max(1))).unwrap_or(u32::MAX)
}

#[derive(Default)]
struct Asked {
    tokens: Option<u64>,
    answers: u64,
}

struct Look {
    fields: Fields,
}

#[derive(Deserialize)]
struct Name<'a>(#[serde(borrow)] Cow<'a, str>);

impl<'de> Visitor<'de> for Look {
    type Value = Asked;

    fn expecting(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        to.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Asked, A::Error> {
        let mut asked = Asked::default();
        while let Some((Name(name), value)) = map.next_entry::<Name<'_>, &RawValue>()? {
            let name = super::words::fold(&name);
            let number = || {
                value.get().parse::<f64>().ok().filter(|number| *number >= 0.0).map(|number| number as u64)
            };
            if self.fields.hold(&name) {
                asked.tokens = asked.tokens.max(number());
            } else if matches!(&*name, "n" | "best_of") {
                asked.answers = asked.answers.max(number().unwrap_or_default());
            }
        }
        Ok(asked)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CHAT: &str = "/v1/chat/completions";

    fn asked(endpoint: &str, body: &str) -> u32 {
        most(endpoint, serde_json::from_str(body).expect("JSON"), 1_000)
    }

    #[test]
    fn the_largest_of_an_endpoints_own_counts() {
        assert_eq!(asked(CHAT, r#"{"max_tokens":50}"#), 50);
        assert_eq!(asked(CHAT, r#"{"max_tokens":50,"max_completion_tokens":10,"n":3}"#), 150);
        assert_eq!(asked(CHAT, r#"{"max_output_tokens":7}"#), 1_000);
        assert_eq!(asked("/v1/responses", r#"{"max_output_tokens":7,"max_tokens":9}"#), 7);
        assert_eq!(asked("/v1/completions", r#"{"max_tokens":7,"best_of":4,"n":2}"#), 28);
        assert_eq!(asked("/v1/messages", r#"{"max_tokens":7,"max_completion_tokens":9}"#), 7);
        assert_eq!(asked(CHAT, r#"{"max_tokens":7,"n_predict":900}"#), 900);
    }

    #[test]
    fn no_spelling_makes_it_less() {
        for body in [
            r#"{"max_tokens":5000,"n":"x"}"#,
            r#"{"max_tokens":5000,"max_tokens":1}"#,
            r#"{"max_tokens":1,"Max_Tokens":5000}"#,
            r#"{"max_\u0074okens":5000}"#,
            r#"{"max_tokens":5e3}"#,
            r#"{"max_tokens":5000.0,"n":0}"#,
            r#"{"max_tokens":5000,"n":-4}"#,
            r#"{"max_tokens":5000,"max_completion_tokens":null}"#,
        ] {
            assert_eq!(asked(CHAT, body), 5_000, "{body}");
        }
        for body in [r#"{"max_tokens":5000000000}"#, r#"{"max_tokens":1e400}"#, r#"{"n":1e30}"#] {
            assert_eq!(asked(CHAT, body), u32::MAX, "{body}");
        }
        assert_eq!(asked(CHAT, r#"{"max_tokens":-1,"messages":"a wrong type"}"#), 1_000);
    }
}
