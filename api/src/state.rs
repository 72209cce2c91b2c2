//! What all requests share, and what each has of its own: who calls.

use crate::{
    catalogue::Catalogue,
    counters::Counters,
    docs,
    error::ApiError,
    gate::Address,
    health::Looks,
    held::{Each, Room},
    idempotency::Unanswered,
    identity::{Identity, Visitor},
    limits::Limiter,
    list, submit,
    watcher::Watcher,
};
use axum::extract::FromRequestParts;
use bytes::Bytes;
use http::request::Parts;
use shared::{
    backends::Backends,
    batcher::Batcher,
    clock::UnixMs,
    config::Config,
    news::Herald,
    task::{NewTask, ProjectId},
    webhook::{Guard, Sender},
};
use std::{net::IpAddr, ops::Deref, sync::Arc};
use tokio::task::JoinSet;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// What all requests share, as the router holds it.
pub(crate) type Shared = Arc<AppState>;

/// What all requests share.
pub(crate) struct AppState {
    /// Truth, doorbell, shout and large bodies.
    pub(crate) backends: Backends,
    /// The configuration.
    pub(crate) config: Arc<Config>,
    /// Who may call.
    pub(crate) identity: Identity,
    /// What callers may do.
    pub(crate) limiter: Limiter,
    /// Room for long bodies on their way to readers.
    pub(crate) room: Room,
    /// Listings that may read at once.
    pub(crate) lists: Each,
    /// Idempotency keys under way.
    pub(crate) unanswered: Unanswered,
    /// Submits on their way to a common commit.
    pub(crate) submits: Batcher<NewTask, submit::Committed>,
    /// News of commits on their way to queue and watchers.
    pub(crate) herald: Herald,
    /// Who watches which task.
    pub(crate) watcher: Watcher,
    /// How many tasks stand where, for who watches that.
    pub(crate) counters: Counters,
    /// Whether the database can be read and written.
    pub(crate) looks: Looks,
    /// Which models are served.
    pub(crate) catalogue: Catalogue,
    /// Tries webhook endpoints, and judges their URLs.
    pub(crate) webhooks: Sender,
    /// Set when this process is asked to end: streams say so and close.
    pub(crate) stop: CancellationToken,
    /// Sockets that have left HTTP behind, so that the end can wait for them.
    pub(crate) sockets: TaskTracker,
    /// The API's description.
    pub(crate) description: Bytes,
    /// When this process started.
    pub(crate) started_at: UnixMs,
}

impl AppState {
    /// Starts what runs beside the requests, on `tasks`.
    ///
    /// # Errors
    /// No HTTP client for the identity provider or for webhooks can be made.
    pub(crate) fn start(
        tasks: &mut JoinSet<()>,
        backends: Backends,
        config: Arc<Config>,
        listen: IpAddr,
        stop: CancellationToken,
    ) -> anyhow::Result<Shared> {
        let herald = Herald::start(tasks, &backends);
        let watcher = Watcher::start(tasks, backends.store.clone(), stop.clone());
        let counters = Counters::start(tasks, backends.clone(), stop.clone());
        let submits = submit::batcher(tasks, backends.store.clone(), herald.clone());
        let identity = Identity::start(tasks, backends.registry.clone(), &config, listen, stop.clone())?;
        let limiter = Limiter::start(tasks, &backends, &config, stop.clone());
        Ok(Arc::new(Self {
            identity,
            limiter,
            room: Room::new(config.api.read_bytes_max, config.api.project_read_bytes_max),
            lists: Each::new(list::AT_ONCE),
            unanswered: Unanswered::default(),
            submits,
            herald,
            watcher,
            counters,
            looks: Looks::default(),
            catalogue: Catalogue::new(backends.store.clone()),
            webhooks: Sender::new(Guard::new(config.webhooks.private_networks.clone()))?,
            stop,
            sockets: TaskTracker::new(),
            description: docs::served(&config),
            started_at: UnixMs::now(),
            backends,
            config,
        }))
    }
}

/// One request's view of it all: what it may see and make is its caller's. Cheap to clone.
#[derive(Clone)]
pub(crate) struct App {
    shared: Shared,
    /// Who calls.
    pub(crate) visitor: Arc<Visitor>,
    /// The caller's tenant.
    pub(crate) project: ProjectId,
    /// Where the caller is.
    pub(crate) address: Option<IpAddr>,
}

impl App {
    /// The caller, as the audit log names it.
    pub(crate) fn actor(&self) -> String {
        self.visitor.caller.credential.to_string()
    }
}

impl Deref for App {
    type Target = AppState;

    fn deref(&self) -> &AppState {
        &self.shared
    }
}

impl FromRequestParts<Shared> for App {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, shared: &Shared) -> Result<Self, ApiError> {
        // The gate lets nobody through to a handler of this kind without one.
        let visitor = parts.extensions.get::<Arc<Visitor>>().cloned().ok_or(ApiError::Unauthorized)?;
        let address = parts.extensions.get::<Address>().map(|address| address.0);
        Ok(Self { shared: shared.clone(), project: visitor.caller.project, address, visitor })
    }
}
