//! How many tasks of each project may run at once, as this process knows it: the registry is read in every round of the sweep, so that a
//! change holds for everyone within one `sweep.period`. Where no project has a cap, which is the rule, nothing here costs more than
//! a look at an empty list.

use crate::store::{Cap, Registry, Result, Whose};
use std::sync::{Arc, PoisonError, RwLock};

/// This process's view of the caps. Cheap to clone.
#[derive(Clone)]
pub struct Caps(Arc<Inner>);

struct Inner {
    registry: Arc<dyn Registry>,
    /// Of projects that have none of their own.
    usual: Option<u32>,
    known: RwLock<Arc<[Cap]>>,
}

impl Caps {
    /// Knows of none yet.
    #[must_use]
    pub fn new(registry: Arc<dyn Registry>, usual: Option<u32>) -> Self {
        Self(Arc::new(Inner { registry, usual, known: RwLock::default() }))
    }

    /// All of them.
    #[must_use]
    pub fn known(&self) -> Arc<[Cap]> {
        self.0.known.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Reads the registry.
    ///
    /// # Errors
    /// The database's: what was known stays known.
    pub async fn refresh(&self) -> Result<()> {
        let Inner { registry, usual, known } = &*self.0;
        let projects: Vec<_> = match usual {
            None => {
                let quotas = registry.quotas().await?.into_iter();
                let of_project = |(whose, quotas)| match whose {
                    Whose::Project(project) => Some((project, quotas)),
                    Whose::Key(_) => None,
                };
                quotas.filter_map(of_project).collect()
            }
            Some(_) => {
                let projects = registry.projects().await?.into_iter();
                projects.map(|project| (project.id, project.quotas)).collect()
            }
        };
        let capped = projects.into_iter().filter_map(|(project, quotas)| {
            Some(Cap { project, tasks: quotas.concurrent_tasks.or(*usual)? })
        });
        *known.write().unwrap_or_else(PoisonError::into_inner) = capped.collect();
        Ok(())
    }
}
