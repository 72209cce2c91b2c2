//! Which models are served, as the workers noted it: a short memory in front of the database.

use crate::error::ApiError;
use shared::{
    catalog::Refusal,
    config::Config,
    redact::elide,
    store::{Error, Store, UpstreamModels},
};
use std::{
    collections::BTreeMap,
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};
use tokio::{
    sync::Mutex,
    time::{Instant, timeout},
};

/// How long what was read is good for.
const FRESH: Duration = Duration::from_secs(5);
/// The same while no worker has noted a list yet: the first one should be seen soon.
const FRESH_EMPTY: Duration = Duration::from_millis(100);
/// How old a worker's note may be.
const NOTED: Duration = Duration::from_secs(90);
/// Longest time for reading.
const DEADLINE: Duration = Duration::from_secs(2);

type Notes = Arc<[UpstreamModels]>;

/// The notes of all workers.
pub(crate) struct Catalogue {
    store: Arc<dyn Store>,
    known: RwLock<Option<(Instant, Notes)>>,
    reading: Mutex<()>,
}

impl Catalogue {
    /// Reads nothing yet.
    pub(crate) fn new(store: Arc<dyn Store>) -> Self {
        Self { store, known: RwLock::default(), reading: Mutex::default() }
    }

    /// What the workers noted, not older than a few seconds. While the database is away what was known stays known.
    ///
    /// # Errors
    /// The database is away and nothing was read before.
    pub(crate) async fn notes(&self) -> Result<Notes, Error> {
        if let Some(notes) = self.fresh() {
            return Ok(notes);
        }
        // One reader at a time; the others find what it read.
        let _reading = self.reading.lock().await;
        if let Some(notes) = self.fresh() {
            return Ok(notes);
        }
        let notes: Notes = match timeout(DEADLINE, self.store.models(NOTED)).await {
            Ok(Ok(notes)) => notes.into(),
            Ok(Err(error)) => return self.known(Duration::MAX).ok_or(error),
            Err(_) => self.known(Duration::MAX).unwrap_or_default(),
        };
        *self.known.write().unwrap_or_else(PoisonError::into_inner) = Some((Instant::now(), notes.clone()));
        Ok(notes)
    }

    fn fresh(&self) -> Option<Notes> {
        let has_list = |notes: &Notes| notes.iter().any(|note| note.models.is_some());
        self.known(FRESH_EMPTY).or_else(|| self.known(FRESH).filter(has_list))
    }

    fn known(&self, within: Duration) -> Option<Notes> {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        known.as_ref().filter(|(read, _)| read.elapsed() < within).map(|(_, notes)| notes.clone())
    }
}

/// Names that an error lists at most, and bytes of them.
const NAMED_MAX: usize = 8;
const NAMED_BYTES_MAX: usize = 160;
/// Models that are compared with a name that nobody serves: a list has no bound of its own.
const COMPARED_MAX: usize = 500;

/// Every model that is served, with who serves it: the routes and what upstreams without routes list.
pub(crate) fn served(config: &Config, notes: &[UpstreamModels]) -> BTreeMap<String, String> {
    let routed = config
        .routes
        .iter()
        .map(|route| (route.model.clone(), route.upstreams.first().cloned().unwrap_or_default()));
    let free = notes.iter().filter(|note| !config.is_routed(&note.upstream));
    let listed = free
        .flat_map(|note| note.models.iter().flatten().map(|model| (model.clone(), note.upstream.clone())));
    // A route's word goes before an upstream's own list.
    listed.chain(routed).collect()
}

/// Says that nobody serves a model, and what is served instead, the likeliest first.
pub(crate) fn unserved(config: &Config, notes: &[UpstreamModels], model: &str) -> String {
    let served = served(config, notes);
    let mut near: Vec<(usize, &str)> =
        served.keys().take(COMPARED_MAX).map(|name| (distance(model, name), &**name)).collect();
    near.sort_unstable();
    let mut named = Vec::new();
    let mut bytes = 0;
    for (_, name) in near.into_iter().take(NAMED_MAX) {
        bytes += name.len();
        if bytes > NAMED_BYTES_MAX {
            break;
        }
        named.push(name);
    }
    let model = shown(model);
    if named.is_empty() {
        return format!("The model '{model}' is not served here: GET /v1/models lists those that are.");
    }
    let more = match served.len() - named.len() {
        0 => String::new(),
        more => format!(" and {more} more: GET /v1/models lists them"),
    };
    format!("The model '{model}' is not served here. Served are {}{more}.", named.join(", "))
}

/// The catalogue's answer as an API error.
pub(crate) fn refused(config: &Config, notes: &[UpstreamModels], model: &str, refusal: &Refusal) -> ApiError {
    match refusal {
        Refusal::Endpoint(_) => ApiError::invalid("endpoint", refusal.to_string()),
        Refusal::Model => ApiError::NotFound {
            message: unserved(config, notes, model),
            code: "model_not_found",
            param: Some("body.model"),
        },
    }
}

/// How far a name is from another, without regard to case. What this costs grows with the length of both.
fn distance(one: &str, other: &str) -> usize {
    const MOST: usize = 64;
    if one.len().max(other.len()) > MOST {
        return MOST;
    }
    let (one, other) = (one.to_lowercase(), other.to_lowercase());
    // A name without its tag, or without its owner, is meant more often than another name.
    if other.contains(&one) || one.contains(&other) {
        return one.len().abs_diff(other.len()).min(1);
    }
    strsim::damerau_levenshtein(&one, &other)
}

/// A model's name, bounded.
fn shown(model: &str) -> String {
    const MOST: usize = 80;
    match model.char_indices().nth(MOST) {
        Some((end, _)) => format!("{}…", &model[..end]),
        None => elide(model.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use shared::config::Mode;

    fn said(models: &[&str], model: &str) -> String {
        let config = Config::new(Mode::Embedded { data_dir: "unused".into() });
        let models = Some(models.iter().map(|name| (*name).to_owned()).collect());
        unserved(&config, &[UpstreamModels { upstream: "one".into(), models }], model)
    }

    #[test]
    fn a_model_that_is_not_served_is_named_with_those_that_are() {
        assert_eq!(
            said(&["qwen3", "gpt-4o", "llama3.2:latest"], "LLama3.2"),
            "The model 'LLama3.2' is not served here. Served are llama3.2:latest, qwen3, gpt-4o."
        );
        assert!(said(&[], "x").contains("'x'"));
    }

    #[test]
    fn the_list_is_bounded() {
        let many: Vec<String> = (0..2_000).map(|i| format!("some-model-{i:04}")).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        let text = said(&many, "some-model-0007");
        assert!(
            text.contains("Served are some-model-0007, ") && text.contains(" and 1992 more: GET /v1/models"),
            "{text}"
        );
        let long: Vec<String> = (0..9).map(|i| format!("{i}{}", "x".repeat(250))).collect();
        let long: Vec<&str> = long.iter().map(String::as_str).collect();
        assert!(said(&long, &"ü".repeat(256)).len() < 400);
    }
}
