//! Counters for dashboards: how many tasks of a project stand where.
//!
//! The rows are counted, not the events: a look costs the same however many tasks come and go, and nothing can drift. One look
//! serves all who watch a project in this process; it comes at most four times a second, and less often where it takes long, so
//! that counting never takes more than [`SHARE`] of one connection.

use crate::{
    queues::{Figures, figures},
    register::{Register, Watch},
};
use shared::{backends::Backends, task::ProjectId};
use std::{sync::Arc, time::Duration};
use tokio::{
    task::JoinSet,
    time::{Instant, sleep, timeout},
};
use tokio_util::sync::CancellationToken;

/// Shortest time between two looks.
const PERIOD: Duration = Duration::from_millis(250);
/// A look is followed by a pause so many times as long.
const SHARE: u32 = 9;
/// Longest time for one look.
const DEADLINE: Duration = Duration::from_secs(10);

/// The watched projects.
pub(crate) struct Counters {
    register: Register<ProjectId, Arc<Figures>>,
}

impl Counters {
    /// Starts the looking on `tasks`, until `stop`.
    pub(crate) fn start(tasks: &mut JoinSet<()>, backends: Backends, stop: CancellationToken) -> Self {
        let register = Register::default();
        let looks = look_on(backends, register.clone());
        tasks.spawn(async move {
            // Ends between two looks or inside one: a look only reads.
            stop.run_until_cancelled_owned(looks).await;
        });
        Self { register }
    }

    /// Watches a project.
    pub(crate) fn watch(&self, project: ProjectId) -> Watch<ProjectId, Arc<Figures>> {
        self.register.watch(project)
    }
}

async fn look_on(backends: Backends, register: Register<ProjectId, Arc<Figures>>) {
    loop {
        register.wanted().await;
        let began = Instant::now();
        for project in register.keys() {
            match timeout(DEADLINE, figures(&backends, project)).await {
                Ok(Ok(figures)) => register.note([(project, Arc::new(figures))]),
                Ok(Err(error)) => {
                    tracing::debug!(error = &error as &dyn std::error::Error, "tasks are counted later");
                }
                Err(_) => tracing::debug!("tasks are counted later: the database is slow"),
            }
        }
        sleep(PERIOD.max(began.elapsed() * SHARE)).await;
    }
}
