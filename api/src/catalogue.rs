//! Which models are served, as the workers noted it: a short memory in front of the database.

use shared::store::{Error, Store, UpstreamModels};
use std::{
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
