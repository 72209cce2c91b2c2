//! How much callers may do: each request is charged to the caller's key or user, its project and its address; each task's tokens to the
//! first two. What is not limited is not charged, and costs nothing.
//!
//! Where the buckets ([`shared::limits`]) cannot say at once, the charges of all requests that are under way go there in common. Tokens
//! are reserved when a task is accepted; the worker settles with what was really used.

mod address;
mod allowance;
mod book;
mod buckets;
mod room;
mod tokens;

pub(crate) use address::{bucket, caller};
pub(crate) use allowance::{Allowance, headers};
pub(crate) use buckets::Buckets;

use crate::{error::ApiError, identity::Visitor};
use book::Book;
use room::Rooms;
use serde_json::value::RawValue;
use shared::{
    backends::Backends,
    batcher::{Batcher, Gather},
    clock::UnixMs,
    config::{self, Config},
    identity::Credential,
    limits::{Ask, Charge, Limits, Reservation, Verdict},
    task::ProjectId,
};
use std::{net::IpAddr, sync::Arc};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// Knows what each caller may do, and what is left of it.
pub(crate) struct Limiter {
    rules: config::Limits,
    book: Book,
    rooms: Rooms,
    limits: Arc<dyn Limits>,
    asks: Batcher<Ask, Option<Verdict>>,
}

/// What is counted. Tables by unit have two entries, in this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unit {
    Requests,
    Tokens,
}

impl Unit {
    fn name(self) -> &'static str {
        match self {
            Self::Requests => "requests",
            Self::Tokens => "tokens",
        }
    }
}

/// What was taken for tasks that are about to be made.
pub(crate) struct Admitted {
    project: ProjectId,
    tasks: u32,
    tokens: Option<Tokens>,
}

/// Tokens that are reserved for tasks.
struct Tokens {
    allowance: Allowance,
    each: Vec<u32>,
    at: UnixMs,
    buckets: Vec<(Arc<str>, u32)>,
}

impl Tokens {
    fn reservation(&self, tokens: u32) -> Reservation {
        Reservation { tokens, at: self.at.0, buckets: self.buckets.clone() }
    }
}

impl Admitted {
    /// What is left of the caller's tokens, if they are counted.
    pub(crate) fn allowance(&self) -> Option<Allowance> {
        self.tokens.as_ref().map(|tokens| tokens.allowance)
    }

    /// What is reserved for one of the tasks, as it is kept beside it.
    pub(crate) fn reserved(&self, task: usize) -> Option<Arc<str>> {
        let tokens = self.tokens.as_ref()?;
        Some(tokens.reservation(*tokens.each.get(task)?).to_json())
    }
}

/// A limit and whose it is.
struct Rule {
    whose: &'static str,
    charge: Charge,
}

impl Limiter {
    /// Starts what it needs beside the requests, on `tasks`.
    pub(crate) fn start(
        tasks: &mut JoinSet<()>,
        backends: &Backends,
        config: &Config,
        stop: CancellationToken,
    ) -> Self {
        let limits = backends.limits.clone();
        let asks =
            Batcher::start(tasks, Gather { heirless: false, ..Gather::default() }, move |asks: Vec<Ask>| {
                let limits = limits.clone();
                async move {
                    match limits.take(&asks).await {
                        Ok(verdicts) => verdicts.into_iter().map(Some).collect(),
                        Err(error) => {
                            tracing::warn!(error = &error as &dyn std::error::Error, "nobody is limited");
                            vec![None; asks.len()]
                        }
                    }
                }
            });
        let limits = backends.limits.clone();
        let keeping = stop.clone();
        tasks.spawn(async move {
            keeping.run_until_cancelled(limits.keep()).await;
        });
        let book = Book::start(tasks, backends.registry.clone(), stop);
        let lanes = config.lanes.iter().map(|lane| lane.name.clone()).collect();
        let rooms = Rooms::new(backends.store.clone(), lanes);
        Self { rules: config.limits.clone(), book, rooms, limits: backends.limits.clone(), asks }
    }

    /// Charges one request.
    ///
    /// # Errors
    /// 429.
    pub(crate) async fn request(
        &self,
        visitor: &Visitor,
        address: Option<IpAddr>,
    ) -> Result<Option<Allowance>, ApiError> {
        let mut rules = self.rules(visitor, Unit::Requests, 1);
        if let (Some(quota), Some(address)) = (self.rules.ip_requests_per_minute, address) {
            let bucket = format!("requests:ip:{}", address::bucket(address)).into();
            rules.push(Rule { whose: "this address", charge: Charge { bucket, quota, cost: 1 } });
        }
        self.charge(Unit::Requests, rules).await
    }

    /// Takes room for tasks with these bodies, and reserves their tokens if the caller's are counted: all of it or nothing.
    ///
    /// # Errors
    /// 429; or the database is away.
    pub(crate) async fn admit(
        &self,
        visitor: &Visitor,
        endpoint: &str,
        bodies: &[&RawValue],
    ) -> Result<Admitted, ApiError> {
        let (project, tasks) = (visitor.caller.project, u32::try_from(bodies.len()).unwrap_or(u32::MAX));
        self.room(project, tasks).await?;
        let reserved = self.reserve(visitor, endpoint, bodies).await;
        match reserved {
            Ok(tokens) => Ok(Admitted { project, tasks, tokens }),
            Err(refusal) => {
                self.rooms.leave(project, tasks).await;
                Err(refusal)
            }
        }
    }

    async fn reserve(
        &self,
        visitor: &Visitor,
        endpoint: &str,
        bodies: &[&RawValue],
    ) -> Result<Option<Tokens>, ApiError> {
        let mut rules = self.rules(visitor, Unit::Tokens, 0);
        if rules.is_empty() {
            return Ok(None);
        }
        let estimate = |body: &&RawValue| tokens::estimate(endpoint, body, self.rules.output_tokens);
        let each: Vec<u32> = bodies.iter().map(estimate).collect();
        let all = each.iter().map(|tokens| i64::from(*tokens)).sum();
        rules.iter_mut().for_each(|rule| rule.charge.cost = all);
        let buckets = rules.iter().map(|rule| (rule.charge.bucket.clone(), rule.charge.quota)).collect();
        let allowance = self.charge(Unit::Tokens, rules).await?;
        Ok(allowance.map(|allowance| Tokens { allowance, each, at: UnixMs::now(), buckets }))
    }

    /// Gives back what was taken: there are no tasks.
    pub(crate) async fn give_back(&self, admitted: &Admitted) {
        self.rooms.leave(admitted.project, admitted.tasks).await;
        if let Some(tokens) = &admitted.tokens {
            let all = tokens.each.iter().fold(0_u32, |all, tokens| all.saturating_add(*tokens));
            let _ = self.asks.call(tokens.reservation(all).settled(0, UnixMs::now())).await;
        }
    }

    /// Whether so many more tasks of the project may wait.
    ///
    /// # Errors
    /// 429; or the database is away.
    async fn room(&self, project: ProjectId, more: u32) -> Result<(), ApiError> {
        match self.book.project(project).or(self.rules.project).queued_tasks {
            Some(quota) => self.rooms.take(project, quota, more).await,
            None => Ok(()),
        }
    }

    /// What limits this caller.
    fn rules(&self, visitor: &Visitor, unit: Unit, cost: i64) -> Vec<Rule> {
        let (caller, buckets) = (&visitor.caller, &visitor.buckets);
        let own = match &caller.credential {
            Credential::Key(id) => Some(("this key", self.book.key(*id).or(self.rules.key))),
            Credential::Token(_) => Some(("this user", self.rules.user)),
            Credential::Nothing | Credential::Operator => None,
        };
        let own = own.map(|(whose, quotas)| (whose, quotas, &buckets.own));
        let project = self.book.project(caller.project).or(self.rules.project);
        let all = own.into_iter().chain([("this project", project, &buckets.project)]);
        let limited = all.filter_map(|(whose, quotas, buckets)| {
            let quota = match unit {
                Unit::Requests => quotas.requests_per_minute,
                Unit::Tokens => quotas.tokens_per_minute,
            }?;
            let bucket = buckets[unit as usize].clone();
            Some(Rule { whose, charge: Charge { bucket, quota, cost } })
        });
        limited.collect()
    }

    async fn charge(&self, unit: Unit, rules: Vec<Rule>) -> Result<Option<Allowance>, ApiError> {
        if rules.is_empty() {
            return Ok(None);
        }
        if let Some(rule) = rules.iter().find(|rule| rule.charge.cost > i64::from(rule.charge.quota)) {
            let Rule { whose, charge } = rule;
            return Err(ApiError::NeverFits {
                whose,
                unit: unit.name(),
                quota: charge.quota,
                cost: charge.cost,
            });
        }
        let charges = rules.iter().map(|rule| rule.charge.clone()).collect();
        let ask = Ask { charges, forced: false };
        let verdict = match self.limits.at_once(&ask) {
            Some(verdict) => verdict,
            None => match self.asks.call(ask).await? {
                Some(verdict) => verdict,
                None => return Ok(None),
            },
        };
        let allowances = rules
            .iter()
            .zip(&verdict.left)
            .map(|(rule, left)| (rule.whose, Allowance { unit, quota: rule.charge.quota, left: *left }));
        if verdict.charged {
            return Ok(allowances
                .map(|(_, allowance)| allowance)
                .min_by_key(|allowance| allowance.left.remaining));
        }
        let (whose, allowance) =
            allowances.max_by_key(|(_, allowance)| allowance.left.wait).expect("there is a rule");
        Err(ApiError::Limited { whose, allowance })
    }
}
