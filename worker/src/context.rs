//! What every part of the worker works with, and the register of attempts that it holds.

use crate::{
    finish::Ends,
    upstream::client::{self, Server},
};
use shared::{
    backends::Backends,
    batcher::{Batcher, Gather},
    config::Config,
    events::{Append, Appended, Events},
    news::Herald,
    outage::{Outage, Over},
    store::UpstreamModels,
    task::{TaskId, WorkerId},
};
use std::{
    collections::HashMap,
    sync::{
        self, Arc, MutexGuard, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};
use tokio::{
    sync::{Mutex, Notify, Semaphore, watch},
    task::JoinSet,
    time::{Instant, timeout},
};
use tokio_util::sync::{CancellationToken, DropGuard};

/// Longest wait for one call of the database.
pub(crate) const STORE_PATIENCE: Duration = Duration::from_secs(10);
/// Longest wait for one call of the event log.
const SHOUT_PATIENCE: Duration = Duration::from_secs(2);

/// What the parts share.
pub(crate) struct Context {
    pub(crate) backends: Backends,
    pub(crate) config: Arc<Config>,
    /// Claim no more: asked from outside, or because a part of the worker is lost.
    pub(crate) drain: CancellationToken,
    /// Upstreams by name.
    pub(crate) servers: HashMap<String, Server>,
    /// Free slots.
    pub(crate) slots: Arc<Semaphore>,
    /// Slots that the pump holds for what it is about to claim: free as well.
    pub(crate) reserved: AtomicUsize,
    /// Attempts whose call is over and whose end is being written, at most as many as there are slots.
    pub(crate) endings: Semaphore,
    /// Ids were rung for and not claimed: such tasks may be among them.
    pub(crate) suspicion: Notify,
    /// Held by the one claim that is under way, with the end of the one before: what the heartbeat makes of `claims` rests on
    /// there being no other.
    pub(crate) claim_turn: Mutex<Instant>,
    pub(crate) held: Held,
    /// The incarnation that may claim; `None` while there is none, or its lease is in doubt.
    pub(crate) worker: watch::Sender<Option<WorkerId>>,
    /// Odd while a claim is under way.
    pub(crate) claims: AtomicU64,
    /// Models of the upstreams, as noted last.
    pub(crate) noted: watch::Sender<Arc<[UpstreamModels]>>,
    pub(crate) shout: Shout,
    pub(crate) herald: Herald,
    pub(crate) ends: Ends,
}

impl Context {
    /// Opens what only the worker needs. Its group commits run on `commits`: they end once the context is gone.
    pub(crate) fn open(
        backends: Backends,
        config: Arc<Config>,
        drain: CancellationToken,
        commits: &mut JoinSet<()>,
    ) -> anyhow::Result<Arc<Self>> {
        let herald = Herald::start(commits, &backends);
        Ok(Arc::new(Self {
            drain,
            servers: client::open(&config)?,
            slots: Arc::new(Semaphore::new(slots(&config))),
            reserved: AtomicUsize::new(0),
            endings: Semaphore::new(slots(&config)),
            suspicion: Notify::new(),
            claim_turn: Mutex::new(Instant::now()),
            held: Held::default(),
            worker: watch::Sender::new(None),
            claims: AtomicU64::new(0),
            noted: watch::Sender::new(Arc::new([])),
            shout: Shout::start(commits, backends.events.clone()),
            ends: Ends::start(commits, &backends, &herald),
            herald,
            backends,
            config,
        }))
    }

    /// Marks a claim as under way until the guard is dropped.
    pub(crate) fn claiming(&self) -> impl Drop {
        struct Claiming<'a>(&'a AtomicU64);

        impl Drop for Claiming<'_> {
            fn drop(&mut self) {
                self.0.fetch_add(1, Ordering::AcqRel);
            }
        }

        self.claims.fetch_add(1, Ordering::AcqRel);
        Claiming(&self.claims)
    }

    /// Counts slots as reserved until the guard is dropped.
    pub(crate) fn reserve(&self, slots: usize) -> impl Drop {
        struct Reserved<'a>(&'a AtomicUsize);

        impl Drop for Reserved<'_> {
            fn drop(&mut self) {
                self.0.store(0, Ordering::Release);
            }
        }

        self.reserved.store(slots, Ordering::Release);
        Reserved(&self.reserved)
    }
}

/// Calls at once, at least one.
pub(crate) fn slots(config: &Config) -> usize {
    (config.worker.slots as usize).clamp(1, Semaphore::MAX_PERMITS)
}

/// The event logs. Appends of several attempts at the same time are gathered; one that comes alone goes its way at once.
#[derive(Clone)]
pub(crate) struct Shout {
    pub(crate) events: Arc<dyn Events>,
    gathered: Batcher<Append, Option<Appended>>,
    under_way: Arc<AtomicUsize>,
}

impl Shout {
    pub(crate) fn start(tasks: &mut JoinSet<()>, events: Arc<dyn Events>) -> Self {
        let to = events.clone();
        let gathered = Batcher::start(tasks, Gather::default(), move |appends: Vec<Append>| {
            let to = to.clone();
            async move { append(&*to, &appends).await }
        });
        Self { events, gathered, under_way: Arc::default() }
    }

    /// Appends; `None` if it is not known to have been told.
    ///
    /// # Cancel safety
    /// After dropping the future nobody knows whether it was told.
    pub(crate) async fn append(&self, one: Append) -> Option<Appended> {
        let (others, _under_way) = count(&self.under_way);
        match others {
            0 => append(&*self.events, &[one]).await.pop().flatten(),
            _ => self.gathered.call(one).await.ok().flatten(),
        }
    }
}

/// Counts one more until the guard is dropped; how many there were before.
fn count(under_way: &AtomicUsize) -> (usize, impl Drop) {
    struct Counted<'a>(&'a AtomicUsize);

    impl Drop for Counted<'_> {
        fn drop(&mut self) {
            self.0.fetch_sub(1, Ordering::Relaxed);
        }
    }

    (under_way.fetch_add(1, Ordering::Relaxed), Counted(under_way))
}

async fn append(events: &dyn Events, appends: &[Append]) -> Vec<Option<Appended>> {
    /// Of the whole process.
    static UNTOLD: Outage = Outage::new();
    match timeout(SHOUT_PATIENCE, events.append(appends)).await {
        Ok(Ok(told)) => {
            if let Some(Over { times, lasted }) = UNTOLD.fine() {
                tracing::info!(
                    times,
                    seconds = lasted.as_secs_f64(),
                    "watchers of running tasks are told at once again"
                );
            }
            told.into_iter().map(Some).collect()
        }
        failed => {
            let error = failed.ok().and_then(Result::err);
            if UNTOLD.met() {
                tracing::warn!(?error, attempts = appends.len(), "watchers of running tasks are told later");
            }
            vec![None; appends.len()]
        }
    }
}

/// Attempts that this process holds, from the claim to the end of the finish. Cheap to clone.
#[derive(Clone, Default)]
pub(crate) struct Held(Arc<sync::Mutex<HashMap<(TaskId, u32), Entry>>>);

struct Entry {
    since: Instant,
    stop: CancellationToken,
    over: CancellationToken,
}

/// Keeps an attempt in the register.
pub(crate) struct Hold {
    held: Held,
    attempt: (TaskId, u32),
    _over: DropGuard,
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.held.lock().remove(&self.attempt);
    }
}

impl Held {
    fn lock(&self) -> MutexGuard<'_, HashMap<(TaskId, u32), Entry>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Enters an attempt; the token stops it.
    pub(crate) fn enter(&self, task: TaskId, attempt: u32) -> (Hold, CancellationToken) {
        let (stop, over) = (CancellationToken::new(), CancellationToken::new());
        let entry = Entry { since: Instant::now(), stop: stop.clone(), over: over.clone() };
        self.lock().insert((task, attempt), entry);
        (Hold { held: self.clone(), attempt: (task, attempt), _over: over.drop_guard() }, stop)
    }

    /// Waits until an attempt is held no more.
    ///
    /// # Cancel safety
    /// Dropping the future loses nothing.
    pub(crate) async fn over(&self, task: TaskId, attempt: u32) {
        let over = self.lock().get(&(task, attempt)).map(|entry| entry.over.clone());
        if let Some(over) = over {
            over.cancelled().await;
        }
    }

    /// Number of attempts.
    #[cfg(test)]
    fn len(&self) -> usize {
        self.lock().len()
    }

    /// Stops one attempt, if it is held.
    pub(crate) fn stop(&self, task: TaskId, attempt: u32) {
        if let Some(entry) = self.lock().get(&(task, attempt)) {
            entry.stop.cancel();
        }
    }

    /// Stops attempts entered before `since` that are not in `listed`. Returns how many.
    pub(crate) fn stop_unlisted(&self, listed: &[(TaskId, u32)], since: Instant) -> usize {
        let listed: std::collections::HashSet<_> = listed.iter().collect();
        let held = self.lock();
        let unlisted =
            held.iter().filter(|(attempt, entry)| entry.since < since && !listed.contains(attempt));
        unlisted.filter(|(_, entry)| !entry.stop.is_cancelled()).map(|(_, entry)| entry.stop.cancel()).count()
    }

    /// Those of `listed` that are not held.
    pub(crate) fn unknown(&self, listed: &[(TaskId, u32)]) -> Vec<(TaskId, u32)> {
        let held = self.lock();
        listed.iter().filter(|attempt| !held.contains_key(attempt)).copied().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use shared::config::Mode;

    #[tokio::test]
    async fn the_register_and_the_database_are_compared() {
        let held = Held::default();
        let (kept, lost, lost_reply) = (TaskId::new(), TaskId::new(), TaskId::new());
        let (_kept, kept_stop) = held.enter(kept, 1);
        let (lost_hold, lost_stop) = held.enter(lost, 2);
        tokio::time::sleep(Duration::from_millis(1)).await;
        let since = Instant::now();
        let (_late, late_stop) = held.enter(TaskId::new(), 1);
        let listed = [(kept, 1), (lost_reply, 1), (lost, 1)];
        assert_eq!(held.unknown(&listed), [(lost_reply, 1), (lost, 1)]);
        assert_eq!(held.stop_unlisted(&listed, since), 1);
        assert!(lost_stop.is_cancelled() && !kept_stop.is_cancelled() && !late_stop.is_cancelled());
        drop(lost_hold);
        assert_eq!(held.len(), 2);
    }

    #[tokio::test]
    async fn what_is_stopped_stops_alone_and_once() {
        let held = Held::default();
        let (one, other) = (TaskId::new(), TaskId::new());
        let (_one, one_stop) = held.enter(one, 1);
        let (_other, other_stop) = held.enter(other, 1);
        held.stop(one, 2);
        assert!(!one_stop.is_cancelled(), "another attempt");
        held.stop(one, 1);
        assert!(one_stop.is_cancelled() && !other_stop.is_cancelled());
        let since = held.lock()[&(other, 1)].since;
        assert_eq!(held.stop_unlisted(&[], since), 0, "entered at the very moment");
        assert_eq!(
            held.stop_unlisted(&[], since + Duration::from_nanos(1)),
            1,
            "the other is stopped already"
        );
        assert!(other_stop.is_cancelled());
    }

    #[tokio::test]
    async fn guards_give_back_what_they_stand_for() {
        let folder = tempfile::tempdir().unwrap();
        let mut config = Config::new(Mode::Embedded { data_dir: folder.path().into() });
        let mut room = |slots_asked| {
            config.worker.slots = slots_asked;
            slots(&config)
        };
        assert_eq!([room(0), room(7)], [1, 7]);
        let (config, mut commits) = (Arc::new(config), JoinSet::new());
        let backends = Backends::open(&config).await.unwrap();
        let context = Context::open(backends, config, CancellationToken::new(), &mut commits).unwrap();
        assert_eq!((context.slots.available_permits(), context.endings.available_permits()), (7, 7));
        let claim = context.claiming();
        assert_eq!(context.claims.load(Ordering::Acquire), 1);
        drop(claim);
        assert_eq!(context.claims.load(Ordering::Acquire), 2);
        let reserved = context.reserve(3);
        assert_eq!(context.reserved.load(Ordering::Acquire), 3);
        drop(reserved);
        assert_eq!(context.reserved.load(Ordering::Acquire), 0);
        let append =
            Append { task: TaskId::new(), attempt: 1, floor: 4, start: true, events: vec![], topics: vec![] };
        let told = context.shout.events.append(std::slice::from_ref(&append)).await.unwrap();
        assert_eq!(context.shout.append(append).await, told.first().copied());
    }
}
