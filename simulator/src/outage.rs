//! Outages: a time in which every matching request suffers a fault, or in which nobody listens at all.
//!
//! There is one outage at most. Whoever begins or ends one waits until every accept loop has followed, so that what
//! comes afterwards meets the new state.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::sim::Sim;
use crate::text::Seed;

/// How long the accept loops may take to follow.
const SETTLE: Duration = Duration::from_secs(3);

/// A fault that many requests suffer, and for how long. The README has its fields.
#[derive(Debug, Clone)]
pub struct Outage {
    given: Value,
    fault: Option<Sim>,
    lasts: Option<Duration>,
    model: Option<String>,
    share: f64,
    refuse: bool,
    models: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Given {
    fault: Option<Sim>,
    for_ms: Option<u64>,
    model: Option<String>,
    share: Option<f64>,
    #[serde(default)]
    refuse: bool,
    models: Option<bool>,
}

impl Outage {
    /// Reads an outage as `POST /_sim/config` does.
    ///
    /// # Errors
    /// What is wrong with it, in a sentence.
    pub fn parse(given: &Value) -> Result<Self, String> {
        let read =
            Given::deserialize(given).map_err(|error| format!("We could not read the outage: {error}."))?;
        if let Some(Err(message)) = read.fault.as_ref().map(Sim::check) {
            return Err(message.replace("'sim.", "'fault."));
        }
        if read.share.is_some_and(|share| !(0.0..=1.0).contains(&share)) {
            return Err("Invalid 'share': expected a number between 0 and 1.".into());
        }
        if read.model.as_ref().is_some_and(|model| !model.starts_with("sim-")) {
            return Err("Invalid 'model': only names that start with 'sim-' exist.".into());
        }
        // An object without fields is no fault: so reads a question to end the outage.
        let empty = given["fault"].as_object().is_none_or(serde_json::Map::is_empty);
        let fault = read.fault.filter(|_| !empty);
        if read.refuse && (fault.is_some() || read.model.is_some() || read.share.is_some()) {
            return Err("Invalid 'refuse': it concerns everybody and goes with 'for_ms' only.".into());
        }
        Ok(Self {
            given: given.clone(),
            fault,
            lasts: read.for_ms.map(Duration::from_millis),
            model: read.model,
            share: read.share.unwrap_or(1.0),
            refuse: read.refuse,
            models: read.models.unwrap_or(true),
        })
    }

    /// Whether nothing would fail.
    pub(crate) fn is_empty(&self) -> bool {
        self.fault.is_none() && !self.refuse && self.models
    }

    /// Whether nobody would listen.
    pub(crate) fn refuses(&self) -> bool {
        self.refuse
    }

    /// Whether it has no time of its own.
    pub(crate) fn is_endless(&self) -> bool {
        self.lasts.is_none()
    }
}

/// An outage that has begun, or the time without one.
#[derive(Debug, Default)]
pub(crate) struct Window {
    /// Windows are numbered; only the newest counts.
    pub(crate) number: u64,
    outage: Option<Outage>,
    until: Option<Instant>,
    drawn: AtomicU64,
}

impl Window {
    /// The outage, while it lasts.
    fn outage(&self) -> Option<&Outage> {
        let over = self.until.is_some_and(|until| until <= Instant::now());
        self.outage.as_ref().filter(|_| !over)
    }

    /// The fault one more request for this model suffers. Which ones do is drawn, but the same ones every time.
    pub(crate) fn fault(&self, model: &str) -> Option<&Sim> {
        let outage = self.outage()?;
        let fault = outage.fault.as_ref()?;
        if outage.model.as_ref().is_some_and(|only| only != model) {
            return None;
        }
        let number = self.drawn.fetch_add(1, Ordering::Relaxed);
        let draw = Seed::of(&[b"share", &number.to_le_bytes()]).rng(0).f64();
        (draw < outage.share).then_some(fault)
    }

    /// Whether nobody listens.
    pub(crate) fn refuses(&self) -> bool {
        self.outage().is_some_and(|outage| outage.refuse)
    }

    /// Whether the list of models is out as well.
    pub(crate) fn hides_models(&self) -> bool {
        self.outage().is_some_and(|outage| !outage.models)
    }

    /// What was asked for, and how much of it is left; null without an outage.
    pub(crate) fn shown(&self) -> Value {
        let Some(outage) = self.outage() else { return Value::Null };
        let mut shown = outage.given.clone();
        let left = self.until.map(|until| until.saturating_duration_since(Instant::now()).as_millis());
        shown["ends_in_ms"] = json!(left.and_then(|left| u64::try_from(left).ok()));
        shown
    }

    /// Waits until the window's own time is over, at once if it is; for ever if it has none.
    pub(crate) async fn over(&self) {
        match self.until {
            Some(until) => tokio::time::sleep_until(until).await,
            None => std::future::pending().await,
        }
    }
}

/// The current window, and the accept loops that follow it.
#[derive(Debug, Default)]
pub(crate) struct Outages {
    window: watch::Sender<Arc<Window>>,
    /// Each accept loop's number, and the window it has followed.
    followers: watch::Sender<BTreeMap<u64, u64>>,
}

impl Outages {
    /// The current window.
    pub(crate) fn window(&self) -> Arc<Window> {
        self.window.borrow().clone()
    }

    /// Replaces the current outage, or ends it, and waits until every accept loop has followed.
    ///
    /// # Cancel safety
    /// The outage is replaced before the first await.
    pub(crate) async fn begin(&self, outage: Option<Outage>) {
        let outage = outage.filter(|outage| !outage.is_empty());
        // A time beyond the clock's reach is no limit.
        let until = outage
            .as_ref()
            .and_then(|outage| outage.lasts)
            .and_then(|lasts| Instant::now().checked_add(lasts));
        let mut number = 0;
        self.window.send_modify(|window| {
            number = window.number + 1;
            *window = Arc::new(Window { number, outage, until, drawn: AtomicU64::new(0) });
        });
        let mut followers = self.followers.subscribe();
        let settled = followers.wait_for(|followers| followers.values().all(|followed| *followed >= number));
        if tokio::time::timeout(SETTLE, settled).await.is_err() {
            tracing::warn!("the listening socket is late to follow the outage");
        }
    }

    /// One more accept loop.
    pub(crate) fn follow(&self) -> Follower {
        let mut id = 0;
        self.followers.send_modify(|followers| {
            id = followers.last_key_value().map_or(0, |(last, _)| last + 1);
            followers.insert(id, 0);
        });
        Follower { id, windows: self.window.subscribe(), followers: self.followers.clone() }
    }
}

/// An accept loop's view of the outages. Dropping it ends the following.
pub(crate) struct Follower {
    id: u64,
    windows: watch::Receiver<Arc<Window>>,
    followers: watch::Sender<BTreeMap<u64, u64>>,
}

impl Follower {
    /// The current window, which counts as seen.
    pub(crate) fn window(&mut self) -> Arc<Window> {
        self.windows.borrow_and_update().clone()
    }

    /// Waits for a window that was not seen yet.
    ///
    /// # Cancel safety
    /// No change is missed.
    pub(crate) async fn changed(&mut self) {
        if self.windows.changed().await.is_err() {
            std::future::pending().await
        }
    }

    /// Tells that the socket is as the window of this number wants it.
    pub(crate) fn followed(&self, number: u64) {
        self.followers.send_if_modified(|followers| followers.insert(self.id, number) != Some(number));
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        self.followers.send_if_modified(|followers| followers.remove(&self.id).is_some());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn window(outage: Value) -> Window {
        Window { outage: Some(Outage::parse(&outage).unwrap()), ..Window::default() }
    }

    #[test]
    fn a_share_of_the_requests_for_a_model_is_hit() {
        let all = window(json!({"fault": {"status": 503}, "model": "sim-a"}));
        assert!(all.fault("sim-a").is_some() && all.fault("sim-b").is_none());
        let some = window(json!({"fault": {"status": 503}, "share": 0.25}));
        let hits = (0..1000).filter(|_| some.fault("sim-a").is_some()).count();
        assert!((200..300).contains(&hits), "{hits}");
        let none = window(json!({"fault": {"status": 503}, "share": 0}));
        assert!((0..100).all(|_| none.fault("sim-a").is_none()));
    }

    #[test]
    fn an_outage_that_makes_no_sense_is_refused() {
        for outage in [
            json!({"fualt": {}}),
            json!({"fault": {"statsu": 500}}),
            json!({"fault": {"status": 5000}}),
            json!({"fault": {"status": 500}, "share": 1.5}),
            json!({"fault": {"status": 500}, "model": "gpt"}),
            json!({"fault": {"status": 500}, "refuse": true}),
            json!([]),
        ] {
            assert!(Outage::parse(&outage).is_err(), "{outage}");
        }
        assert!(Outage::parse(&json!({"fault": {"status": 5000}})).unwrap_err().contains("'fault.status'"));
        for empty in [json!({}), json!({"fault": null}), json!({"fault": {}, "for_ms": 10})] {
            assert!(Outage::parse(&empty).unwrap().is_empty(), "{empty}");
        }
        assert!(!Outage::parse(&json!({"models": false})).unwrap().is_empty());
    }

    #[tokio::test]
    async fn a_window_ends_by_itself() {
        let outages = Outages::default();
        let outage = Outage::parse(&json!({"fault": {"status": 503}, "for_ms": 50})).unwrap();
        outages.begin(Some(outage)).await;
        let window = outages.window();
        assert!(window.fault("sim-a").is_some());
        assert!(window.shown()["ends_in_ms"].as_u64().unwrap() <= 50);
        window.over().await;
        assert!(window.fault("sim-a").is_none());
        assert_eq!(window.shown(), Value::Null);
    }
}
