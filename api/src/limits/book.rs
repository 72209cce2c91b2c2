//! Limits that are not those of everybody, as the registry has them: a few seconds old.

use crate::fetch::DEADLINE;
use shared::{
    identity::Quotas,
    store::{Registry, Whose},
    task::{KeyId, ProjectId},
};
use std::{
    collections::HashMap,
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};
use tokio::{
    task::JoinSet,
    time::{MissedTickBehavior, interval, timeout},
};
use tokio_util::sync::CancellationToken;

/// Time between two looks.
const PERIOD: Duration = Duration::from_millis(1_500);

/// Who has which limits. Cheap to clone.
#[derive(Clone, Default)]
pub(super) struct Book(Arc<RwLock<HashMap<Whose, Quotas>>>);

impl Book {
    /// Starts the looks, on `tasks`. While the database is away what was known last holds.
    pub(super) fn start(
        tasks: &mut JoinSet<()>,
        registry: Arc<dyn Registry>,
        stop: CancellationToken,
    ) -> Self {
        let book = Self::default();
        let Self(entries) = book.clone();
        tasks.spawn(async move {
            let mut period = interval(PERIOD);
            period.set_missed_tick_behavior(MissedTickBehavior::Delay);
            while stop.run_until_cancelled(period.tick()).await.is_some() {
                match timeout(DEADLINE, registry.quotas()).await {
                    Ok(Ok(quotas)) => {
                        *entries.write().unwrap_or_else(PoisonError::into_inner) =
                            quotas.into_iter().collect();
                    }
                    failed => {
                        let error = failed.ok().and_then(Result::err);
                        tracing::warn!(?error, "limits could not be looked up");
                    }
                }
            }
        });
        book
    }

    fn of(&self, whose: Whose) -> Quotas {
        self.0.read().unwrap_or_else(PoisonError::into_inner).get(&whose).copied().unwrap_or_default()
    }

    pub(super) fn project(&self, id: ProjectId) -> Quotas {
        self.of(Whose::Project(id))
    }

    pub(super) fn key(&self, id: KeyId) -> Quotas {
        self.of(Whose::Key(id))
    }
}
