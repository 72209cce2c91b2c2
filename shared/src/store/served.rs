//! What the store knows of upstreams: their models, their pauses, and which tasks may be claimed meanwhile.

use std::time::Duration;

/// Which models an upstream lists.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UpstreamModels {
    /// The upstream's configured name.
    pub upstream: String,
    /// Its models; `None`: the list is unavailable.
    pub models: Option<Vec<String>>,
}

/// An upstream that is left alone for a while.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pause {
    /// The upstream's configured name.
    pub upstream: String,
    /// Until it may be called, zero once that moment has passed.
    pub left: Duration,
    /// It failed again and again: after the pause one caller at a time tries it, until one succeeds. Otherwise it asked for
    /// the pause, and everybody may call afterwards.
    pub failing: bool,
}

/// Which tasks have an upstream that may be called, by endpoint and model. Only those are claimed and rung for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Served {
    /// All of them: no upstream is paused.
    #[default]
    All,
    /// Those at `endpoints`; for the models in `except` (each `endpoint model`) it is the other way round.
    Only {
        /// Endpoints at which a model that nobody lists is served.
        endpoints: Vec<String>,
        /// What differs from that.
        except: Vec<String>,
    },
}

impl Served {
    /// Whether no task at all is served.
    #[must_use]
    pub fn is_nothing(&self) -> bool {
        matches!(self, Self::Only { endpoints, except } if endpoints.is_empty() && except.is_empty())
    }

    /// The two lists as columns of a statement; `None` for [`Served::All`].
    pub(super) fn lists(&self) -> (Option<&[String]>, Option<&[String]>) {
        match self {
            Self::All => (None, None),
            Self::Only { endpoints, except } => (Some(endpoints), Some(except)),
        }
    }
}
