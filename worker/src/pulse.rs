//! Whose trouble is it: a task's, a model's or the upstream's? Judged by what the calls of this worker came to. Pure.
//!
//! What an upstream says of itself (throttled, unavailable, refused) may concern one request, and must not be felt by others then. So the
//! first of a row is that task's own matter; only a second task in the same trouble, with no good answer to a call that began in between,
//! speaks for the model, and only several such models within a short time speak for the upstream. The other way round a task's
//! trouble is shown to be its own by good answers of the same model: to calls that began after it was in trouble before, and many more than
//! there are others in trouble.

use shared::task::TaskId;
use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::time::Instant;

/// So many models in trouble within so much time speak for their upstream.
const MODELS: usize = 3;
const WITHIN: Duration = Duration::from_secs(10);
/// Failed connections in a row that say that there is none to be had.
const AWAY: u32 = 2;
/// Most models, and tasks in trouble of each, that are remembered.
const MODELS_MAX: usize = 256;
const TASKS_MAX: usize = 4_096;

/// What went wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Trouble {
    /// Asked for fewer requests.
    Throttled,
    /// The same, and said that this request alone is beyond the limit.
    TooLarge,
    /// Refused whoever asks.
    Refused,
    /// Does not serve at the moment.
    Unavailable,
    /// No connection.
    Away,
    /// The call failed.
    Failed,
}

/// What is in trouble.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Width {
    Model,
    Upstream,
}

/// What a trouble says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Verdict {
    /// More than the task is in trouble.
    pub(crate) width: Option<Width>,
    /// How often in a row the task was in trouble while others of the same model were answered well.
    pub(crate) own: u32,
    /// How often in a row it was in trouble and nobody else.
    pub(crate) alone: u32,
}

/// What this worker remembers of an upstream.
#[derive(Debug, Default)]
pub(crate) struct Pulse(Mutex<Memory>);

#[derive(Debug, Default)]
struct Memory {
    models: HashMap<String, Model>,
    /// Connections that failed since the last answer.
    away: u32,
    /// Failed calls since the last answer, and whether they were of several models.
    failures: u32,
    last_failed: Option<String>,
    several: bool,
    /// Models in trouble, and since when.
    ill: Vec<(String, Instant)>,
}

#[derive(Debug, Default)]
struct Model {
    /// Failed calls since the last answer.
    failures: u32,
    /// Pauses for throttles since the last good answer.
    throttles: u32,
    /// The latest beginning of a call that had a good answer.
    well_since: Option<Instant>,
    /// The first task of a row of troubles.
    first: Option<(TaskId, Instant)>,
    /// Good answers and troubles so far.
    good: u64,
    bad: u64,
    tasks: HashMap<TaskId, Seen>,
}

/// A task when it was in trouble last.
#[derive(Debug, Clone, Copy)]
struct Seen {
    at: Instant,
    good: u64,
    bad: u64,
    own: u32,
    alone: u32,
}

impl Model {
    fn was_well_after(&self, moment: Instant) -> bool {
        self.well_since.is_some_and(|begun| begun > moment)
    }

    /// Whether the task's trouble is its own; `ratio` good answers are wanted for each other trouble since its last one.
    fn is_own(&self, seen: &Seen, ratio: u64) -> bool {
        let (good, bad) = (self.good - seen.good, self.bad - seen.bad);
        self.was_well_after(seen.at) && good >= (ratio * bad).max(1)
    }
}

impl Pulse {
    fn memory(&self) -> MutexGuard<'_, Memory> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next failure pauses it: the upstream lists its models, which is no proof that it generates.
    pub(crate) fn doubt(&self, model: Option<&str>, limit: u32) {
        let mut memory = self.memory();
        if let Some(model) = model {
            memory.model(model).failures = limit.saturating_sub(1);
            return;
        }
        memory.failures = limit.saturating_sub(1);
        memory.several = true;
        memory.away = AWAY - 1;
    }

    /// A good answer to a call of this task that began then.
    pub(crate) fn well(&self, model: &str, task: TaskId, begun: Instant) {
        let mut memory = self.memory();
        memory.answered();
        memory.ill.retain(|(_, since)| *since >= begun);
        let model = memory.model(model);
        (model.failures, model.throttles) = (0, 0);
        model.well_since = model.well_since.max(Some(begun));
        model.good += 1;
        model.tasks.remove(&task);
    }

    /// An answer to this task that is not to be repeated: it says nothing about others, but somebody gave it.
    pub(crate) fn refused(&self, model: &str, task: TaskId) {
        let mut memory = self.memory();
        memory.answered();
        let model = memory.model(model);
        model.failures = 0;
        model.tasks.remove(&task);
    }

    /// A throttle that pauses the model: how many there were in a row.
    pub(crate) fn throttle(&self, model: &str) -> u32 {
        let mut memory = self.memory();
        let model = memory.model(model);
        model.throttles = model.throttles.saturating_add(1);
        model.throttles
    }

    /// A trouble of this task; `limit` failures in a row are too many, and `failing` says that it is known already.
    pub(crate) fn trouble(
        &self,
        model: &str,
        task: TaskId,
        trouble: Trouble,
        (limit, failing): (u32, bool),
        now: Instant,
    ) -> Verdict {
        let mut memory = self.memory();
        let none = Verdict { width: None, own: 0, alone: 0 };
        match trouble {
            Trouble::Away => {
                memory.away = memory.away.saturating_add(1);
                let width = (memory.away >= AWAY.min(limit)).then_some(Width::Upstream);
                Verdict { width, ..none }
            }
            Trouble::Failed => {
                memory.away = 0;
                let width = memory.failed(model, now, (limit, failing));
                Verdict { width, ..none }
            }
            _ => {
                memory.answered();
                memory.said(model, task, trouble, now)
            }
        }
    }
}

impl Memory {
    fn model(&mut self, name: &str) -> &mut Model {
        if self.models.len() >= MODELS_MAX && !self.models.contains_key(name) {
            self.models.clear();
        }
        self.models.entry(name.to_owned()).or_default()
    }

    /// It is there, and its calls do not all fail.
    fn answered(&mut self) {
        (self.away, self.failures, self.several, self.last_failed) = (0, 0, false, None);
    }

    fn failed(&mut self, name: &str, now: Instant, (limit, failing): (u32, bool)) -> Option<Width> {
        self.failures = self.failures.saturating_add(1);
        self.several |= self.last_failed.as_deref().is_some_and(|last| last != name);
        self.last_failed = Some(name.to_owned());
        let model = self.model(name);
        model.failures = model.failures.saturating_add(1);
        if model.failures > limit && !failing {
            // Another worker has found it well since: the count begins anew.
            model.failures = 1;
        }
        let of_model = model.failures >= limit;
        match () {
            () if self.several && self.failures >= limit => Some(Width::Upstream),
            () if of_model => Some(self.widen(name, now)),
            () => None,
        }
    }

    /// What the upstream says of itself.
    fn said(&mut self, name: &str, task: TaskId, trouble: Trouble, now: Instant) -> Verdict {
        let model = self.model(name);
        let ratio = if trouble == Trouble::Throttled { 8 } else { 1 };
        let before = model.tasks.get(&task).copied();
        let is_own = trouble == Trouble::TooLarge || before.is_some_and(|seen| model.is_own(&seen, ratio));
        let row = model.first.filter(|(_, at)| !model.was_well_after(*at));
        let in_row = match row {
            // A request that is too large is turned away again and again by a server that is well.
            Some((first, _)) => first != task || !matches!(trouble, Trouble::Throttled),
            None => false,
        };
        if trouble != Trouble::TooLarge {
            model.bad += 1;
            if row.is_none() {
                model.first = Some((task, now));
            }
        }
        let is_wide = in_row && !is_own;
        let (own, alone) = before.map_or((0, 0), |seen| (seen.own, seen.alone));
        let own = if is_own { own.saturating_add(1) } else { 0 };
        let alone = if is_wide { 0 } else { alone.saturating_add(1) };
        if model.tasks.len() >= TASKS_MAX {
            model.tasks.clear();
        }
        model.tasks.insert(task, Seen { at: now, good: model.good, bad: model.bad, own, alone });
        Verdict { width: is_wide.then(|| self.widen(name, now)), own, alone }
    }

    /// How much is in trouble if this model is.
    fn widen(&mut self, name: &str, now: Instant) -> Width {
        self.ill.retain(|(model, since)| model != name && now - *since < WITHIN);
        self.ill.push((name.to_owned(), now));
        if self.ill.len() >= MODELS { Width::Upstream } else { Width::Model }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Trouble::{Away, Failed, Refused, Throttled, TooLarge, Unavailable};

    /// What happens one after the other, a millisecond apart.
    struct Story(Pulse, std::cell::Cell<Instant>);

    impl Story {
        fn now(&self) -> Instant {
            self.1.set(self.1.get() + Duration::from_millis(1));
            self.1.get()
        }

        fn trouble(&self, model: &str, task: TaskId, trouble: Trouble) -> Verdict {
            self.0.trouble(model, task, trouble, (5, false), self.now())
        }

        fn width(&self, model: &str, task: TaskId, trouble: Trouble) -> Option<Width> {
            self.trouble(model, task, trouble).width
        }

        /// So many calls that begin now are answered well.
        fn well(&self, model: &str, times: usize) {
            (0..times).for_each(|_| self.0.well(model, TaskId::new(), self.now()));
        }
    }

    fn story() -> (Story, TaskId, TaskId) {
        (Story(Pulse::default(), std::cell::Cell::new(Instant::now())), TaskId::new(), TaskId::new())
    }

    #[test]
    fn one_task_in_trouble_is_no_models_trouble() {
        let (it, one, other) = story();
        for n in 1..=20 {
            let verdict = it.trouble("m", one, Throttled);
            assert_eq!(verdict, Verdict { width: None, own: 0, alone: n }, "{n}");
        }
        assert_eq!(it.width("m", other, Throttled), Some(Width::Model), "two tasks in a row");
        assert_eq!(it.width("n", other, Throttled), None, "another model");
    }

    #[test]
    fn good_answers_show_whose_trouble_it_is() {
        let (it, one, other) = story();
        for n in 0..4 {
            assert_eq!(it.trouble("m", one, Throttled), Verdict { width: None, own: n, alone: n + 1 });
            it.well("m", 8);
        }
        assert_eq!([1, 2].map(|_| it.width("m", other, Throttled)), [None; 2], "others were answered before");
        let verdict = it.trouble("m", one, Throttled);
        assert_eq!((verdict.width, verdict.own), (Some(Width::Model), 0), "and too few for two of them");
    }

    #[test]
    fn a_limit_that_many_run_into_is_nobodys_own() {
        let (it, one, _) = story();
        for round in 0..20 {
            let verdict = it.trouble("m", one, Throttled);
            assert_eq!(verdict.own, 0, "round {round}");
            for _ in 0..4 {
                it.trouble("m", TaskId::new(), Throttled);
            }
            it.well("m", 10);
        }
    }

    #[test]
    fn calls_that_were_under_way_prove_nothing() {
        let (it, one, other) = story();
        let begun = it.now();
        assert_eq!(it.width("m", one, Throttled), None);
        it.0.well("m", TaskId::new(), begun);
        assert_eq!(it.width("m", other, Throttled), Some(Width::Model));
        assert_eq!(it.trouble("m", one, Throttled).own, 0);
    }

    #[test]
    fn what_says_that_it_is_too_large_is_its_own() {
        let (it, one, other) = story();
        for n in 1..9_u32 {
            let verdict = it.trouble("m", if n % 2 == 0 { one } else { other }, TooLarge);
            assert_eq!((verdict.width, verdict.own), (None, n.div_ceil(2)));
        }
    }

    #[test]
    fn a_refused_key_is_seen_by_one_task_alone() {
        for trouble in [Refused, Unavailable] {
            let (it, one, _) = story();
            assert_eq!(it.width("m", one, trouble), None, "may be its own");
            assert_eq!(it.width("m", one, trouble), Some(Width::Model));
            it.well("m", 2);
            let verdict = it.trouble("m", one, trouble);
            assert_eq!((verdict.width, verdict.own), (None, 1), "is its own");
        }
    }

    #[test]
    fn several_models_speak_for_their_upstream() {
        let (it, one, other) = story();
        let widths = ["a", "b", "c", "d"].map(|model| {
            it.width(model, one, Throttled);
            it.width(model, other, Throttled)
        });
        let (model, upstream) = (Some(Width::Model), Some(Width::Upstream));
        assert_eq!(widths, [model, model, upstream, upstream]);
        it.well("e", 1);
        assert_eq!(it.width("a", other, Throttled), model, "another one is well");
    }

    #[test]
    fn failures_speak_for_a_model_or_if_they_are_of_several_for_all() {
        let (it, one, _) = story();
        let fail = |model| it.width(model, one, Failed);
        assert_eq!([1, 2, 3, 4].map(|_| fail("m")), [None; 4]);
        it.well("n", 1);
        assert_eq!(fail("m"), Some(Width::Model), "although another model is well");
        it.well("m", 1);
        assert_eq!(["m", "n", "m", "n"].map(fail), [None; 4]);
        assert_eq!(fail("m"), Some(Width::Upstream));
        it.0.refused("m", one);
        assert_eq!(fail("m"), None, "it answered");
    }

    #[test]
    fn a_connection_is_all_models_matter() {
        let (it, one, _) = story();
        assert_eq!(it.width("m", one, Away), None, "one may be lost");
        assert_eq!(it.width("n", one, Away), Some(Width::Upstream));
        it.width("m", one, Throttled);
        assert_eq!(it.width("m", one, Away), None, "it was there in between");
        it.0.doubt(None, 5);
        assert_eq!(it.width("m", one, Failed), Some(Width::Upstream));
        it.0.refused("m", one);
        it.0.doubt(Some("m"), 5);
        assert_eq!(["n", "m"].map(|model| it.width(model, one, Failed)), [None, Some(Width::Model)]);
    }
}
