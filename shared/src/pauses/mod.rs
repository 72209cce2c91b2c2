//! Upstreams, and models of them, that are left alone for a while: because they asked for it, or because they fail again and again.
//!
//! The rows are the truth; what one process learns it uses at once and writes down, and the sweep of every process reads the
//! rows anew in each round, so that a pause holds for everyone within one `sweep.period`. While no upstream is paused, which is
//! the rule, nothing here costs more than a look at an empty map.

mod open;

use crate::{
    catalog::canonical,
    config::Config,
    failpoint::{self, Point},
    store::{Cause, Open, Pause, Result, Scope, Store, UpstreamModels},
};
use open::open_but;
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::time::{Instant, timeout};

/// How old a note of an upstream's models may be.
const NOTED: Duration = Duration::from_secs(90);
/// Longest wait for a row to be written.
const PATIENCE: Duration = Duration::from_secs(2);

/// This process's view of the pauses. Cheap to clone.
#[derive(Clone)]
pub struct Pauses(Arc<Inner>);

struct Inner {
    store: Arc<dyn Store>,
    config: Arc<Config>,
    known: Mutex<Known>,
}

#[derive(Default)]
struct Known {
    paused: HashMap<Scope, Paused>,
    /// When this process had deleted a pause's row, or [`PATIENCE`] from now while it does: a row that was read before is out of date.
    resumed: HashMap<Scope, Instant>,
    notes: Arc<[UpstreamModels]>,
    /// What is open while these are paused, as worked out last.
    open: Option<(Vec<Scope>, Arc<Open>)>,
}

impl Known {
    /// The pauses that keep a model of an upstream from being called: its own, and the upstream's.
    fn of(&self, upstream: &str, model: &str) -> impl Iterator<Item = (Scope, Paused)> {
        // While nothing is paused, nothing is made to be looked up.
        let scopes = (!self.paused.is_empty()).then(|| {
            let both = [Scope::upstream(upstream), scope(upstream, model)];
            if both[0] == both[1] { both[..1].to_vec() } else { both.to_vec() }
        });
        let found = |scope| self.paused.get(&scope).map(|paused| (scope, *paused));
        scopes.unwrap_or_default().into_iter().filter_map(found)
    }

    fn is_open(&self, upstream: &str, model: &str, now: Instant) -> bool {
        !self.of(upstream, model).any(|(_, paused)| paused.holds(now))
    }

    /// Models that have a pause of their own.
    fn apart(&self) -> Vec<String> {
        self.paused.keys().filter_map(|scope| scope.model.clone()).collect()
    }
}

/// One pause.
#[derive(Debug, Clone, Copy)]
struct Paused {
    until: Instant,
    cause: Cause,
    /// When this process had written it, or [`PATIENCE`] from now while it does: rows that were read before may not have it.
    since: Instant,
}

impl Paused {
    fn holds(&self, now: Instant) -> bool {
        self.cause.is_failing() || self.until > now
    }
}

/// A model of an upstream, by one name for all its spellings.
#[must_use]
pub fn scope(upstream: &str, model: &str) -> Scope {
    Scope::model(upstream, canonical(model))
}

impl Pauses {
    /// Knows of no pause yet.
    #[must_use]
    pub fn new(store: Arc<dyn Store>, config: Arc<Config>) -> Self {
        Self(Arc::new(Inner { store, config, known: Mutex::default() }))
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.0.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether anybody may call the upstream for this model now.
    #[must_use]
    pub fn may_call(&self, upstream: &str, model: &str) -> bool {
        self.known().is_open(upstream, model, Instant::now())
    }

    /// What is failing of the upstream for this model: the upstream, or the model of it.
    #[must_use]
    pub fn failing(&self, upstream: &str, model: &str) -> Vec<(Scope, Cause)> {
        let known = self.known();
        let causes = known.of(upstream, model).map(|(scope, paused)| (scope, paused.cause));
        causes.filter(|(_, cause)| cause.is_failing()).collect()
    }

    /// How many models of the upstream have a pause of their own.
    #[must_use]
    pub fn models(&self, upstream: &str) -> usize {
        let known = self.known();
        known.paused.keys().filter(|scope| scope.upstream == upstream && scope.model.is_some()).count()
    }

    /// Until the first of these upstreams may be called for the model again, or tried; zero if one may be now.
    #[must_use]
    pub fn left<'a>(&self, upstreams: impl Iterator<Item = &'a str>, model: &str) -> Duration {
        let (known, now) = (self.known(), Instant::now());
        let left = |name| known.of(name, model).map(|(_, paused)| paused.until - now).max();
        upstreams.map(|name| left(name).unwrap_or_default()).min().unwrap_or_default()
    }

    /// What is failing and whose pause is over: somebody should try it. A model of a failing upstream has its turn after that.
    #[must_use]
    pub fn to_try(&self) -> Vec<Scope> {
        let (known, now) = (self.known(), Instant::now());
        let over = known.paused.iter().filter(|(scope, paused)| {
            let first = scope.model.is_none() || known.is_open(&scope.upstream, "", now);
            first && paused.cause.is_failing() && paused.until <= now
        });
        over.map(|(scope, _)| scope.clone()).collect()
    }

    /// Which tasks have an upstream that may be called now.
    #[must_use]
    pub fn open(&self) -> Arc<Open> {
        let (mut known, now) = (self.known(), Instant::now());
        let holding = known.paused.iter().filter(|(_, paused)| paused.holds(now));
        let mut closed: Vec<Scope> = holding.map(|(scope, _)| scope.clone()).collect();
        closed.sort_unstable();
        if let Some((paused, open)) = &known.open
            && *paused == closed
        {
            return open.clone();
        }
        let open = Arc::new(match closed.is_empty() {
            true => Open::All,
            false => open_but(&self.0.config, &known.notes, &known.apart(), |upstreams, model| {
                upstreams.iter().any(|name| known.is_open(name, model, now))
            }),
        });
        known.open = Some((closed, open.clone()));
        open
    }

    /// Tasks that could run if this were tried, and by nothing else that may be called now.
    #[must_use]
    pub fn waiting_for(&self, tried: &Scope) -> Open {
        let (known, now) = (self.known(), Instant::now());
        open_but(&self.0.config, &known.notes, &known.apart(), |upstreams, model| {
            let own = scope(&tried.upstream, model);
            let fits = match &tried.model {
                Some(_) => own == *tried,
                // What has a pause of its own proves nothing of the others.
                None => own.model.is_none() || known.paused.get(&own).is_none_or(|paused| !paused.holds(now)),
            };
            fits && upstreams.contains(&tried.upstream.as_str())
                && !upstreams.iter().any(|name| known.is_open(name, model, now))
        })
    }

    /// Pauses an upstream or a model of it, here at once and for everyone with the row. Returns whether this process did not know of
    /// the cause before: of several calls at the same time, one is told so.
    pub async fn pause(&self, scope: &Scope, wait: Duration, cause: Cause) -> bool {
        let now = Instant::now();
        let first = {
            let mut known = self.known();
            let old = known.paused.get(scope).copied();
            let until = old.map_or(now + wait, |old| old.until.max(now + wait));
            let kept = old.filter(|old| old.cause.is_failing() && !cause.is_failing());
            let cause = kept.map_or(cause, |old| old.cause);
            // Rows that are read while it is being written may not have it either.
            known.paused.insert(scope.clone(), Paused { until, cause, since: now + PATIENCE });
            old.is_none_or(|old| old.cause != cause)
        };
        tell(scope, timeout(PATIENCE, self.0.store.pause(scope, wait, cause)).await);
        if let Some(paused) = self.known().paused.get_mut(scope) {
            paused.since = Instant::now();
        }
        failpoint::pass(Point::PauseWritten);
        first
    }

    /// Ends a pause, here at once and for everyone.
    pub async fn resume(&self, scope: &Scope) {
        {
            let mut known = self.known();
            known.paused.remove(scope);
            known.resumed.insert(scope.clone(), Instant::now() + PATIENCE);
        }
        tell(scope, timeout(PATIENCE, self.0.store.resume(scope)).await);
        if let Some(resumed) = self.known().resumed.get_mut(scope) {
            *resumed = Instant::now();
        }
    }

    /// Asks to be the one who tries what is failing now.
    pub async fn probe(&self, scope: &Scope, wait: Duration) -> bool {
        let asked = timeout(PATIENCE, self.0.store.probe(scope, wait)).await;
        let granted = matches!(asked, Ok(Ok(true)));
        tell(scope, asked.map(|asked| asked.map(drop)));
        // Refused or not: for this long nobody else may.
        if let Some(paused) = self.known().paused.get_mut(scope) {
            paused.until = Instant::now() + wait;
        }
        granted
    }

    /// Notes what this process knows of the upstreams' models.
    pub fn note(&self, notes: Arc<[UpstreamModels]>) {
        let mut known = self.known();
        if known.notes != notes {
            (known.notes, known.open) = (notes, None);
        }
    }

    /// Reads the rows.
    ///
    /// # Errors
    /// The database's: what was known stays known.
    pub async fn refresh(&self) -> Result<()> {
        let asked = Instant::now();
        let rows = self.0.store.pauses().await?;
        if !rows.is_empty() {
            let notes = self.0.store.models(NOTED).await?;
            self.note(notes.into());
        }
        let now = Instant::now();
        let mut known = self.known();
        // What this process has just learnt may not be in the rows yet.
        known.paused.retain(|_, paused| paused.since >= asked);
        known.resumed.retain(|_, resumed| *resumed >= asked);
        // Nobody tries an upstream that is no longer configured.
        let config = &self.0.config;
        let ours = |name: &str| config.upstreams.is_empty() || config.upstream(name).is_some();
        for Pause { scope, left, cause } in rows {
            if !ours(&scope.upstream) || known.resumed.contains_key(&scope) {
                continue;
            }
            let read = Paused { until: now + left, cause, since: asked };
            known.paused.entry(scope).or_insert(read);
        }
        for upstream in &self.0.config.upstreams {
            figures(&known, &upstream.name, now);
        }
        Ok(())
    }
}

fn figures(known: &Known, upstream: &str, now: Instant) {
    let held = known.paused.iter().filter(|(scope, paused)| scope.upstream == upstream && paused.holds(now));
    let (whole, models): (Vec<_>, Vec<_>) = held.partition(|(scope, _)| scope.model.is_none());
    let count = |list: &[_]| f64::from(u32::try_from(list.len()).unwrap_or(u32::MAX));
    metrics::gauge!("longhaul_upstream_paused", "upstream" => upstream.to_owned()).set(count(&whole));
    metrics::gauge!("longhaul_upstream_models_paused", "upstream" => upstream.to_owned()).set(count(&models));
}

fn tell(scope: &Scope, written: std::result::Result<Result<()>, tokio::time::error::Elapsed>) {
    if !matches!(written, Ok(Ok(()))) {
        let error = written.ok().and_then(Result::err);
        let (upstream, model) = (&scope.upstream, scope.model.as_deref());
        tracing::warn!(?error, upstream, model, "other processes do not know yet how the upstream stands");
    }
}
