//! What all requests share.

use crate::{catalogue::Catalogue, gate::Rule, keys::Keys, submit, watcher::Watcher};
use shared::{
    backends::Backends,
    batcher::Batcher,
    clock::UnixMs,
    config::Config,
    news::Herald,
    task::{NewTask, ProjectId},
};
use std::{net::IpAddr, sync::Arc};
use tokio::task::JoinSet;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// The shared state, as handlers get it.
pub(crate) type App = Arc<AppState>;

/// What all requests share.
pub(crate) struct AppState {
    /// Truth, doorbell, shout and large bodies.
    pub(crate) backends: Backends,
    /// The configuration.
    pub(crate) config: Arc<Config>,
    /// Who may call.
    pub(crate) rule: Rule,
    /// The tenant of every caller: there is one key, so there is one.
    pub(crate) project: ProjectId,
    /// Idempotency keys under way.
    pub(crate) keys: Keys,
    /// Submits on their way to a common commit.
    pub(crate) submits: Batcher<NewTask, submit::Committed>,
    /// News of commits on their way to queue and watchers.
    pub(crate) herald: Herald,
    /// Who watches which task.
    pub(crate) watcher: Watcher,
    /// Which models are served.
    pub(crate) catalogue: Catalogue,
    /// Set when this process is asked to end: streams say so and close.
    pub(crate) stop: CancellationToken,
    /// Sockets that have left HTTP behind, so that the end can wait for them.
    pub(crate) sockets: TaskTracker,
    /// When this process started.
    pub(crate) started_at: UnixMs,
}

impl AppState {
    /// Starts what runs beside the requests, on `tasks`.
    pub(crate) fn start(
        tasks: &mut JoinSet<()>,
        backends: Backends,
        config: Arc<Config>,
        listen: IpAddr,
        stop: CancellationToken,
    ) -> App {
        let herald = Herald::start(tasks, &backends);
        let watcher = Watcher::start(tasks, backends.store.clone(), stop.clone());
        let submits = submit::batcher(tasks, backends.store.clone(), herald.clone());
        Arc::new(Self {
            rule: Rule::new(config.api.key.as_ref().map(shared::config::Secret::expose), listen),
            project: ProjectId::DEFAULT,
            keys: Keys::default(),
            submits,
            herald,
            watcher,
            catalogue: Catalogue::new(backends.store.clone()),
            stop,
            sockets: TaskTracker::new(),
            started_at: UnixMs::now(),
            backends,
            config,
        })
    }
}
