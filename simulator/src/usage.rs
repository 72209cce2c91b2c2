//! The token counts of an answer: honest, absent or absurd.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// What an answer says about its tokens.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Figures {
    /// The true counts; nobody has to ask for them.
    #[default]
    #[serde(skip)]
    Honest,
    /// No counts at all.
    Absent,
    /// A negative one, one beyond every integer, and a word.
    Absurd,
}

/// Counts as they are sent.
#[derive(Serialize)]
#[serde(untagged)]
pub(crate) enum Shown<T> {
    Honest(T),
    Absurd(Value),
}

impl Figures {
    /// The counts to send in place of `honest`; `names` are the three of this API that may become absurd.
    pub(crate) fn shown<T>(self, honest: T, names: [&'static str; 3]) -> Option<Shown<T>> {
        let [first, second, third] = names;
        match self {
            Self::Honest => Some(Shown::Honest(honest)),
            Self::Absent => None,
            Self::Absurd => Some(Shown::Absurd(json!({first: -1, second: 1e300, third: "many"}))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_as_asked() {
        let shown = |figures: Figures| json!(figures.shown(7, ["a", "b", "c"]));
        assert_eq!(shown(Figures::Honest), json!(7));
        assert_eq!(shown(Figures::Absent), json!(null));
        assert_eq!(shown(Figures::Absurd), json!({"a": -1, "b": 1e300, "c": "many"}));
    }
}
