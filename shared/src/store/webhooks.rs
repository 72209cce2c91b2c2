//! Endpoints of projects, and the deliveries that the store writes for them where tasks and batches end.

use super::{Page, Result};
use crate::{
    task::{DeliveryId, EndpointId, ProjectId},
    webhook::{Attempt, Delivery, DeliveryState, Due, Endpoint, EventType, SigningSecret},
};
use async_trait::async_trait;
use std::time::Duration;
use uuid::Uuid;

/// Most endpoints of a project: each end of a task is written down for each of them.
pub const ENDPOINTS_MAX: u32 = 50;
/// An endpoint that has failed for so long is told of nothing more.
pub const FAILING_MAX: Duration = Duration::from_secs(5 * 86_400);

/// An endpoint that is wanted.
#[derive(Debug, Clone)]
pub struct NewEndpoint {
    /// What people call it.
    pub name: String,
    /// Where to.
    pub url: String,
    /// Of what.
    pub event_types: Vec<EventType>,
    /// What its requests are signed with.
    pub secret: SigningSecret,
}

/// What is to be changed of an endpoint.
#[derive(Debug, Clone, Default)]
pub struct EndpointChange {
    /// What people call it.
    pub name: Option<String>,
    /// Where to.
    pub url: Option<String>,
    /// Of what.
    pub event_types: Option<Vec<EventType>>,
    /// Whether it is told of anything.
    pub enabled: Option<bool>,
}

/// Which deliveries to list: newest first.
#[derive(Debug, Clone, Default)]
pub struct DeliveryQuery {
    /// Only those to this endpoint.
    pub endpoint: Option<EndpointId>,
    /// Only those that stand so.
    pub state: Option<DeliveryState>,
    /// Only those below this id.
    pub after: Option<DeliveryId>,
    /// At most so many.
    pub limit: u32,
}

/// Receivers by their `target`.
#[derive(Debug, Clone)]
pub enum Receivers {
    /// All but these.
    AllBut(Vec<Uuid>),
    /// These.
    Only(Vec<Uuid>),
}

impl Receivers {
    /// Those that are named, and whether they are meant.
    pub(super) fn named(&self) -> (&[Uuid], bool) {
        match self {
            Self::AllBut(named) => (named, false),
            Self::Only(named) => (named, true),
        }
    }
}

/// What a claim of deliveries must heed.
#[derive(Debug, Clone)]
pub struct DeliveryClaim {
    /// Deliveries in all.
    pub limit: u32,
    /// Deliveries of one receiver.
    pub per_target: u32,
    /// Of which receivers.
    pub receivers: Receivers,
    /// Time after which a delivery that was not settled is due again.
    pub lease: Duration,
}

/// What became of an attempt, and what follows.
#[derive(Debug, Clone)]
pub struct Settle {
    /// The delivery.
    pub id: DeliveryId,
    /// Its attempt: one that is not the newest changes nothing.
    pub attempt: u32,
    /// What became of it.
    pub outcome: Attempt,
    /// When to try again; `None`: it is over.
    pub again: Option<Duration>,
}

/// The outbox, and who is behind it. Changes of endpoints are written together with their [`super::Act`], in the name of `actor`.
#[async_trait]
pub trait Webhooks: Send + Sync {
    /// Makes an endpoint. `None`: the project has [`ENDPOINTS_MAX`] of them.
    async fn create_endpoint(
        &self,
        actor: &str,
        project: ProjectId,
        new: &NewEndpoint,
    ) -> Result<Option<Endpoint>>;

    /// One endpoint, if the project has it.
    async fn endpoint(&self, project: ProjectId, id: EndpointId) -> Result<Option<Endpoint>>;

    /// Newest first, ids below `after`, at most `limit`.
    async fn endpoints(
        &self,
        project: ProjectId,
        after: Option<EndpointId>,
        limit: u32,
    ) -> Result<Page<Endpoint>>;

    /// Changes an endpoint; one that is enabled again counts as well from now on.
    async fn update_endpoint(
        &self,
        actor: &str,
        project: ProjectId,
        id: EndpointId,
        change: &EndpointChange,
    ) -> Result<Option<Endpoint>>;

    /// Removes an endpoint with its deliveries. `false`: the project has none of that id.
    async fn delete_endpoint(&self, actor: &str, project: ProjectId, id: EndpointId) -> Result<bool>;

    /// Gives an endpoint a new secret; the old one signs as well for `overlap`. The project's own id stands for what its tasks' own
    /// webhooks are signed with: it is made where it is missing.
    async fn rotate_secret(
        &self,
        actor: &str,
        project: ProjectId,
        id: EndpointId,
        secret: &SigningSecret,
        overlap: Duration,
    ) -> Result<Option<Endpoint>>;

    /// Whether anybody has an endpoint.
    async fn has_endpoints(&self) -> Result<bool>;

    /// Claims deliveries that are due, of each receiver the oldest: `attempts + 1`, and due again when the lease is over.
    async fn claim_deliveries(&self, claim: &DeliveryClaim) -> Result<Vec<Due>>;

    /// Writes what became of attempts. A delivery is over when it was taken, refused for good, or not to be tried again. An endpoint that
    /// answered 410, or has failed for [`FAILING_MAX`], is disabled. Repeating it changes nothing.
    async fn settle_deliveries(&self, settled: &[Settle]) -> Result<()>;

    /// A page of the project's deliveries.
    async fn deliveries(&self, project: ProjectId, query: &DeliveryQuery) -> Result<Page<Delivery>>;

    /// Makes a delivery due now, with the same id, whatever became of it.
    async fn redeliver(&self, project: ProjectId, id: DeliveryId) -> Result<Option<Delivery>>;

    /// Removes up to `limit` deliveries that ended `keep` ago, and fails those whose endpoint was disabled as long ago or is
    /// no more. How many went.
    async fn forget_deliveries(&self, limit: u32, keep: Duration) -> Result<u64>;
}
