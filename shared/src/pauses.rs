//! Upstreams that are left alone for a while: because they asked for it, or because they fail again and again.
//!
//! The rows are the truth; what one process learns it uses at once and writes down, and the sweep of every process reads the
//! rows anew in each round, so that a pause holds for everyone within one `sweep.period`. While no upstream is paused, which is
//! the rule, nothing here costs more than a look at an empty map.

use crate::{
    catalog::route,
    config::Config,
    failpoint::{self, Point},
    store::{Open, Pause, Result, Store, UpstreamModels},
};
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
/// No model has this name: it stands for all those that nobody lists.
const UNLISTED: &str = "\0";

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
    paused: HashMap<String, Paused>,
    /// When this process ended a pause: a row that was read before is out of date.
    resumed: HashMap<String, Instant>,
    notes: Arc<[UpstreamModels]>,
    /// What is open while these upstreams are paused, as worked out last.
    open: Option<(Vec<String>, Arc<Open>)>,
}

/// One upstream's pause.
#[derive(Debug, Clone, Copy)]
struct Paused {
    until: Instant,
    failing: bool,
    /// When this process learnt of it.
    since: Instant,
}

impl Paused {
    fn holds(&self, now: Instant) -> bool {
        self.failing || self.until > now
    }
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

    /// Whether anybody may call the upstream now.
    #[must_use]
    pub fn may_call(&self, upstream: &str) -> bool {
        self.known().paused.get(upstream).is_none_or(|paused| !paused.holds(Instant::now()))
    }

    /// Whether the upstream fails again and again, so that its failures say nothing about a task.
    #[must_use]
    pub fn is_failing(&self, upstream: &str) -> bool {
        self.known().paused.get(upstream).is_some_and(|paused| paused.failing)
    }

    /// Until the first of these upstreams may be called again, or tried; zero if one may be now.
    #[must_use]
    pub fn left<'a>(&self, upstreams: impl Iterator<Item = &'a str>) -> Duration {
        let (known, now) = (self.known(), Instant::now());
        let left = |name: &str| known.paused.get(name).map_or(Duration::ZERO, |paused| paused.until - now);
        upstreams.map(left).min().unwrap_or_default()
    }

    /// Failing upstreams whose pause is over: somebody should try them.
    #[must_use]
    pub fn to_try(&self) -> Vec<String> {
        let (known, now) = (self.known(), Instant::now());
        let over = known.paused.iter().filter(|(_, paused)| paused.failing && paused.until <= now);
        over.map(|(name, _)| name.clone()).collect()
    }

    /// Which tasks have an upstream that may be called now.
    #[must_use]
    pub fn open(&self) -> Arc<Open> {
        let (mut known, now) = (self.known(), Instant::now());
        let holding = known.paused.iter().filter(|(_, paused)| paused.holds(now));
        let mut closed: Vec<String> = holding.map(|(name, _)| name.clone()).collect();
        closed.sort_unstable();
        if let Some((paused, open)) = &known.open
            && *paused == closed
        {
            return open.clone();
        }
        let open = Arc::new(match closed.is_empty() {
            true => Open::All,
            false => open_but(&self.0.config, &known.notes, |upstreams| {
                upstreams.iter().any(|name| !closed.iter().any(|closed| closed == name))
            }),
        });
        known.open = Some((closed, open.clone()));
        open
    }

    /// Tasks that only this upstream, of all that may be called now, could run if it were tried.
    #[must_use]
    pub fn waiting_for(&self, upstream: &str) -> Open {
        let (known, now) = (self.known(), Instant::now());
        let open = |name: &str| known.paused.get(name).is_none_or(|paused| !paused.holds(now));
        open_but(&self.0.config, &known.notes, |upstreams| {
            upstreams.contains(&upstream) && !upstreams.iter().any(|name| open(name))
        })
    }

    /// Pauses an upstream, here at once and for everyone with the row.
    pub async fn pause(&self, upstream: &str, wait: Duration, failing: bool) {
        let now = Instant::now();
        {
            let mut known = self.known();
            let old = known.paused.get(upstream).copied();
            let until = old.map_or(now + wait, |old| old.until.max(now + wait));
            let failing = failing || old.is_some_and(|old| old.failing);
            known.paused.insert(upstream.to_owned(), Paused { until, failing, since: now });
        }
        tell(upstream, timeout(PATIENCE, self.0.store.pause(upstream, wait, failing)).await);
        failpoint::pass(Point::PauseWritten);
    }

    /// Ends an upstream's pause, here at once and for everyone.
    pub async fn resume(&self, upstream: &str) {
        {
            let mut known = self.known();
            known.paused.remove(upstream);
            known.resumed.insert(upstream.to_owned(), Instant::now());
        }
        tell(upstream, timeout(PATIENCE, self.0.store.resume(upstream)).await);
    }

    /// Asks to be the one who tries a failing upstream now.
    pub async fn probe(&self, upstream: &str, wait: Duration) -> bool {
        let asked = timeout(PATIENCE, self.0.store.probe(upstream, wait)).await;
        let granted = matches!(asked, Ok(Ok(true)));
        tell(upstream, asked.map(|asked| asked.map(drop)));
        // Refused or not: for this long nobody else may.
        if let Some(paused) = self.known().paused.get_mut(upstream) {
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
        for Pause { upstream, left, failing } in rows {
            if !ours(&upstream) || known.resumed.contains_key(&upstream) {
                continue;
            }
            let read = Paused { until: now + left, failing, since: asked };
            known.paused.entry(upstream).or_insert(read);
        }
        for upstream in &self.0.config.upstreams {
            let paused = known.paused.get(&upstream.name).is_some_and(|paused| paused.holds(now));
            metrics::gauge!("longhaul_upstream_paused", "upstream" => upstream.name.clone())
                .set(f64::from(u8::from(paused)));
        }
        Ok(())
    }
}

fn tell(upstream: &str, written: std::result::Result<Result<()>, tokio::time::error::Elapsed>) {
    if !matches!(written, Ok(Ok(()))) {
        let error = written.ok().and_then(Result::err);
        tracing::warn!(?error, upstream, "other processes do not know yet how the upstream stands");
    }
}

/// The tasks whose upstreams (by name) `pass`, as lists for a statement.
fn open_but(config: &Config, notes: &[UpstreamModels], pass: impl Fn(&[&str]) -> bool) -> Open {
    let passes = |endpoint: &str, model: &str| {
        let upstreams = route(config, notes, endpoint, model);
        pass(&upstreams.iter().map(|upstream| upstream.name.as_str()).collect::<Vec<_>>())
    };
    let listed = notes.iter().filter_map(|note| note.models.as_ref()).flatten();
    let mut models: Vec<&str> =
        listed.map(String::as_str).chain(config.routes.iter().map(|route| route.model.as_str())).collect();
    models.sort_unstable();
    models.dedup();
    let (mut endpoints, mut except) = (Vec::new(), Vec::new());
    for endpoint in config.endpoints() {
        let rest = passes(&endpoint, UNLISTED);
        let differ = models.iter().filter(|model| passes(&endpoint, model) != rest);
        except.extend(differ.map(|model| format!("{endpoint} {model}")));
        if rest {
            endpoints.push(endpoint);
        }
    }
    Open::Only { endpoints, except }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Mode, Route, Upstream};

    fn config(routes: &[(&str, &[&str])]) -> Config {
        let mut config = Config::new(Mode::Embedded { data_dir: "unused".into() });
        config.upstreams = ["a", "b"]
            .map(|name| Upstream {
                name: name.into(),
                url: "http://h:1".into(),
                key: None,
                endpoints: vec!["/e".into()],
                any_model: false,
            })
            .into();
        let route = |(model, upstreams): &(&str, &[&str])| Route {
            model: (*model).into(),
            upstreams: upstreams.iter().map(|name| (*name).into()).collect(),
        };
        config.routes = routes.iter().map(route).collect();
        config
    }

    fn note(upstream: &str, models: Option<&[&str]>) -> UpstreamModels {
        let models = models.map(|models| models.iter().map(|model| (*model).into()).collect());
        UpstreamModels { upstream: upstream.into(), models }
    }

    fn without(config: &Config, notes: &[UpstreamModels], paused: &[&str]) -> (Vec<String>, Vec<String>) {
        match open_but(config, notes, |upstreams| upstreams.iter().any(|name| !paused.contains(name))) {
            Open::Only { endpoints, except } => (endpoints, except),
            Open::All => panic!("never from here"),
        }
    }

    #[test]
    fn the_only_upstream_takes_everything_with_it() {
        let mut config = config(&[]);
        config.upstreams.truncate(1);
        for notes in [vec![], vec![note("a", None)], vec![note("a", Some(&["m"]))]] {
            assert_eq!(without(&config, &notes, &["a"]), (vec![], vec![]), "{notes:?}");
        }
    }

    #[test]
    fn what_another_upstream_lists_goes_on() {
        let (config, notes) = (config(&[]), [note("a", None), note("b", Some(&["m", "n"]))]);
        assert_eq!(without(&config, &notes, &["a"]), (vec![], vec!["/e m".to_owned(), "/e n".to_owned()]));
        // The one without a list may serve anything.
        assert_eq!(without(&config, &notes, &["b"]), (vec!["/e".to_owned()], vec![]));
    }

    #[test]
    fn routes_decide_for_their_models() {
        let config = config(&[("m", &["a"]), ("n", &["a", "b"])]);
        assert_eq!(without(&config, &[], &["a"]), (vec![], vec!["/e n".to_owned()]));
    }
}
