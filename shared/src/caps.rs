//! How many tasks of each project may run at once, as this process knows it: the registry is read in every round of the sweep, so that a
//! change holds for everyone within one `sweep.period`. Where no project has a cap, which is the rule, nothing here costs more than
//! a look at an empty list; and a cap of more than all workers could run is none, until there are more workers.

use crate::{
    identity::Quotas,
    store::{Cap, Capped, Registry, Result, Store, Whose},
};
use std::sync::{Arc, PoisonError, RwLock};

/// This process's view of the caps. Cheap to clone.
#[derive(Clone)]
pub struct Caps(Arc<Inner>);

struct Inner {
    store: Arc<dyn Store>,
    registry: Arc<dyn Registry>,
    usual: Option<u32>,
    known: RwLock<Capped>,
}

impl Caps {
    /// Knows of the usual cap alone.
    #[must_use]
    pub fn new(store: Arc<dyn Store>, registry: Arc<dyn Registry>, usual: Option<u32>) -> Self {
        let known = RwLock::new(Capped { usual, ..Capped::default() });
        Self(Arc::new(Inner { store, registry, usual, known }))
    }

    /// All that can be reached.
    #[must_use]
    pub fn known(&self) -> Capped {
        self.0.known.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Reads the registry.
    ///
    /// # Errors
    /// The database's: what was known stays known.
    pub async fn refresh(&self) -> Result<()> {
        let quotas = self.0.registry.quotas().await?;
        let cap = |(whose, quotas)| match (whose, quotas) {
            (Whose::Project(project), Quotas { concurrent_tasks: Some(tasks), .. }) => {
                Some(Cap { project, tasks })
            }
            _ => None,
        };
        let own = quotas.into_iter().filter_map(cap);
        let mut known = Capped { own: own.collect(), usual: self.0.usual };
        if !known.is_nobody() {
            let slots = self.0.store.workers().await?.iter().map(|worker| worker.slots).sum();
            known = known.below(slots);
        }
        *self.0.known.write().unwrap_or_else(PoisonError::into_inner) = known;
        Ok(())
    }
}
