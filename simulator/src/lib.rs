//! A model server without a model: OpenAI's and Anthropic's shapes, made-up words, honest timing, faults on request,
//! and a ledger of what was really executed. The README has the `sim` object and the ledger.
//!
//! An answer is drawn from the prompt alone, so that a request repeats: streamed or not, now or tomorrow.

mod behaviour;
mod chat;
mod completions;
mod config;
mod deliver;
mod door;
mod embeddings;
mod error;
mod execute;
mod headers;
mod inspect;
mod ledger;
mod line;
mod listen;
mod messages;
mod models;
mod moderations;
mod outage;
mod pace;
mod reply;
mod request;
mod responses;
mod sending;
mod sim;
mod spoil;
mod text;
mod usage;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::http::{HeaderName, HeaderValue};
use axum::response::Response;
use axum::routing::{get, post};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

pub use crate::behaviour::Behaviour;
use crate::execute::{Endpoint, execute};
pub use crate::ledger::Entry;
use crate::ledger::Ledger;
pub use crate::outage::Outage;
use crate::outage::Outages;

/// The largest request body read.
const MAX_REQUEST: usize = 256 << 20;

/// Serves the simulated model until `stop`.
///
/// # Errors
/// What made it end without being asked to.
pub async fn serve(
    listener: TcpListener,
    behaviour: Behaviour,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    Simulator::new(behaviour).serve(listener, stop).await
}

/// The simulated model and its memory; clones share both.
#[derive(Debug, Clone)]
pub struct Simulator(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    behaviour: Behaviour,
    running: AtomicUsize,
    memory: Mutex<Ledger>,
    outages: Outages,
}

impl Simulator {
    /// A model that nobody has called yet.
    #[must_use]
    pub fn new(behaviour: Behaviour) -> Self {
        let (running, memory, outages) = (AtomicUsize::new(0), Mutex::default(), Outages::default());
        Self(Arc::new(Inner { behaviour, running, memory, outages }))
    }

    /// Serves until `stop`; answers under way then have three seconds to end.
    ///
    /// # Errors
    /// What made it end without being asked to.
    ///
    /// # Cancel safety
    /// Dropping the future cuts every connection, as a killed server would.
    pub async fn serve(&self, listener: TcpListener, stop: CancellationToken) -> anyhow::Result<()> {
        listen::serve(listener, self.router(), self.outages().follow(), stop).await
    }

    /// The ledger, oldest entry first: of one task, or all of it.
    #[must_use]
    pub fn ledger(&self, task: Option<&str>) -> Vec<Entry> {
        self.memory().entries(task, usize::MAX).0
    }

    /// How many executions the ledger knows, without a copy of them.
    #[must_use]
    pub fn calls(&self) -> usize {
        self.memory().len()
    }

    /// How many executions run at this moment.
    #[must_use]
    pub fn running(&self) -> usize {
        self.load().load(Ordering::Relaxed)
    }

    /// Begins an outage in place of the current one, or ends it. Returns once the listening sockets have followed:
    /// after the beginning of a `refuse`, connects are refused; after its end, they are accepted. A `serve` that has not
    /// been polled yet follows as soon as it is.
    ///
    /// # Cancel safety
    /// The outage has changed even if nobody waits for the sockets.
    pub async fn outage(&self, outage: Option<Outage>) {
        self.outages().begin(outage).await;
    }

    /// Forgets the ledger, the bodies and the counted failures.
    pub fn clear(&self) {
        self.memory().clear();
    }

    pub(crate) fn behaviour(&self) -> &Behaviour {
        &self.0.behaviour
    }

    pub(crate) fn load(&self) -> &AtomicUsize {
        &self.0.running
    }

    pub(crate) fn outages(&self) -> &Outages {
        &self.0.outages
    }

    pub(crate) fn memory(&self) -> MutexGuard<'_, Ledger> {
        // Every change of the ledger is a single step, so a panic elsewhere leaves it whole.
        self.0.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn router(&self) -> Router {
        let mut router = Router::new()
            .route("/v1/models", get(models::list))
            .route("/v1/models/{*id}", get(models::retrieve))
            .route("/_sim/config", get(config::show).post(config::set))
            .route("/_sim/ledger", get(inspect::ledger).delete(inspect::clear))
            .route("/_sim/requests", get(inspect::requests))
            .route("/_sim/requests/{task}/{attempt}", get(inspect::request))
            .route("/livez", get(async || "ok"));
        for endpoint in Endpoint::ALL {
            let handler = move |state, line, headers, body| execute(endpoint, state, line, headers, body);
            router = router.route(endpoint.path(), post(handler));
        }
        router
            .layer(DefaultBodyLimit::max(MAX_REQUEST))
            .layer(axum::middleware::map_response(mark))
            .with_state(self.clone())
    }
}

/// Marks a response, so that no program mistakes it for a model's.
async fn mark(mut response: Response) -> Response {
    const MARK: HeaderName = HeaderName::from_static("longhaul-simulated");
    response.headers_mut().insert(MARK, HeaderValue::from_static("true"));
    response
}
