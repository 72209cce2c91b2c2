//! Keys that were shown lately, so that not every request asks the database.
//!
//! What is known of a key is at most [`FRESH`] old: all known keys are asked for in one statement every [`PERIOD`], and one that
//! is no longer among the live is forgotten at once, with all its streams. A key with open streams stays known.

use super::Visitor;
use crate::{error::ApiError, fetch::DEADLINE};
use shared::{
    identity::{Caller, Credential, Digest},
    store::{self, KnownKey, Registry},
    task::KeyId,
};
use std::{
    collections::HashMap,
    sync::{
        Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};
use tokio::{
    sync::Semaphore,
    task::JoinSet,
    time::{Instant, MissedTickBehavior, interval, timeout},
};
use tokio_util::sync::CancellationToken;

/// Oldest knowledge of a key that it is let in by: the promise is that a revoked key is refused within 5 s.
const FRESH: Duration = Duration::from_millis(4_500);
/// Time between two looks at all known keys.
const PERIOD: Duration = Duration::from_millis(1_500);
/// Oldest knowledge of a key whose streams go on, while the database is away.
const UNSURE: Duration = Duration::from_secs(50);
/// Unknown keys that are asked for at once.
const ASKING_MAX: usize = 4;
/// A key that nobody shows is forgotten after this time.
const UNUSED: Duration = Duration::from_secs(60);

/// The keys that were shown lately. Cheap to clone.
#[derive(Clone)]
pub(super) struct Keys(Arc<Inner>);

struct Inner {
    registry: Arc<dyn Registry>,
    known: RwLock<HashMap<Digest, Known>>,
    /// A key was made at some time: from then on everybody needs one.
    any: AtomicBool,
    /// When the registry last said that none ever was.
    none: RwLock<Option<Instant>>,
    /// Set with `any`: who came without a key has to go.
    door: CancellationToken,
    /// Bounds what unknown keys ask of the database at once.
    asking: Semaphore,
}

struct Known {
    visitor: Arc<Visitor>,
    id: KeyId,
    /// When the registry was asked.
    asked: Instant,
    /// Shown since the last look.
    shown: AtomicBool,
    /// The last look before which it was shown.
    last: Instant,
    /// When its use was last noted in the registry.
    noted: Option<Instant>,
}

impl Keys {
    /// Starts the looks, on `tasks`. The first key cancels `door`.
    pub(super) fn start(
        tasks: &mut JoinSet<()>,
        registry: Arc<dyn Registry>,
        door: CancellationToken,
        stop: CancellationToken,
    ) -> Self {
        let keys = Self(Arc::new(Inner {
            registry,
            known: RwLock::default(),
            any: AtomicBool::new(false),
            none: RwLock::default(),
            door,
            asking: Semaphore::new(ASKING_MAX),
        }));
        let looking = keys.clone();
        tasks.spawn(async move {
            let mut period = interval(PERIOD);
            period.set_missed_tick_behavior(MissedTickBehavior::Delay);
            while stop.run_until_cancelled(period.tick()).await.is_some() {
                let error = match timeout(DEADLINE, looking.look()).await {
                    Ok(Ok(())) => continue,
                    Ok(Err(error)) => Some(error),
                    Err(_) => None,
                };
                tracing::warn!(?error, "API keys could not be looked up");
                looking.end_unsure();
            }
        });
        keys
    }

    fn entries(&self) -> RwLockReadGuard<'_, HashMap<Digest, Known>> {
        self.0.known.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self) -> RwLockWriteGuard<'_, HashMap<Digest, Known>> {
        self.0.known.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whose key this is, if the registry was asked a moment ago.
    pub(super) fn known(&self, digest: &Digest) -> Option<Arc<Visitor>> {
        let entries = self.entries();
        let known = entries.get(digest).filter(|known| known.asked.elapsed() < FRESH)?;
        known.shown.store(true, Relaxed);
        Some(known.visitor.clone())
    }

    /// Whose key this is, if it is a live one.
    ///
    /// # Errors
    /// The database is away.
    pub(super) async fn find(&self, digest: Digest) -> Result<Option<Arc<Visitor>>, ApiError> {
        let look = async {
            let _turn = self.0.asking.acquire().await;
            let asked = Instant::now();
            let found = self.0.registry.know(&[digest]).await?;
            Ok::<_, store::Error>(self.learn(&[digest], found, asked).pop())
        };
        Ok(timeout(DEADLINE, look).await??)
    }

    /// Whether no key was ever made.
    ///
    /// # Errors
    /// The database is away.
    pub(super) async fn is_empty(&self) -> Result<bool, ApiError> {
        if self.0.any.load(Relaxed) {
            return Ok(false);
        }
        let none = *self.0.none.read().unwrap_or_else(PoisonError::into_inner);
        match none.is_some_and(|at| at.elapsed() < FRESH) {
            true => Ok(true),
            false => Ok(timeout(DEADLINE, self.look_for_any()).await??),
        }
    }

    async fn look_for_any(&self) -> store::Result<bool> {
        let asked = Instant::now();
        let any = self.0.registry.has_keys().await?;
        if any {
            self.close_the_door();
        } else {
            *self.0.none.write().unwrap_or_else(PoisonError::into_inner) = Some(asked);
        }
        Ok(!self.0.any.load(Relaxed))
    }

    fn close_the_door(&self) {
        self.0.any.store(true, Relaxed);
        self.0.door.cancel();
    }

    /// Ends the streams of keys of which nothing was heard for long: they may have been revoked.
    fn end_unsure(&self) {
        self.change().retain(|_, known| {
            let sure = known.asked.elapsed() < UNSURE;
            if !sure {
                known.visitor.revoked.cancel();
            }
            sure
        });
    }

    /// Takes over what the registry says of these keys: those that are not `found` are no longer good.
    fn learn(&self, digests: &[Digest], found: Vec<KnownKey>, asked: Instant) -> Vec<Arc<Visitor>> {
        let mut known = self.change();
        if !found.is_empty() {
            self.close_the_door();
        }
        let found: HashMap<Digest, KnownKey> = found.into_iter().map(|key| (key.digest, key)).collect();
        for digest in digests.iter().filter(|digest| !found.contains_key(*digest)) {
            if let Some(gone) = known.remove(digest) {
                gone.visitor.revoked.cancel();
            }
        }
        let taken = found.into_values().map(|key| {
            let until = key.left.map(|left| asked + left);
            let entry = known.entry(key.digest).or_insert_with(|| Known::new(&key, until, asked));
            entry.asked = entry.asked.max(asked);
            entry.visitor.clone()
        });
        taken.collect()
    }

    /// Asks for all known keys anew, and notes the use of those that were shown.
    async fn look(&self) -> store::Result<()> {
        if !self.0.any.load(Relaxed) && self.look_for_any().await? {
            return Ok(());
        }
        let asked = Instant::now();
        let (digests, used) = self.still_used(asked);
        if digests.is_empty() {
            return Ok(());
        }
        let found = self.0.registry.know(&digests).await?;
        self.learn(&digests, found, asked);
        if !used.is_empty() {
            self.0.registry.used(&used).await?;
        }
        Ok(())
    }

    /// The keys worth asking for; and those whose use is to be noted. Forgets the others.
    fn still_used(&self, now: Instant) -> (Vec<Digest>, Vec<KeyId>) {
        let (mut digests, mut used) = (Vec::new(), Vec::new());
        self.change().retain(|digest, known| {
            let shown = known.shown.swap(false, Relaxed);
            if shown {
                known.last = now;
            }
            if shown && known.noted.is_none_or(|noted| now - noted > UNUSED) {
                known.noted = Some(now);
                used.push(known.id);
            }
            let keep = now - known.last < UNUSED || Arc::strong_count(&known.visitor) > 1;
            if keep {
                digests.push(*digest);
            }
            keep
        });
        (digests, used)
    }
}

impl Known {
    fn new(key: &KnownKey, until: Option<Instant>, asked: Instant) -> Self {
        let caller = Caller {
            project: key.project,
            project_name: key.project_name.clone(),
            credential: Credential::Key(key.id),
            scopes: key.scopes,
        };
        Self {
            visitor: Arc::new(Visitor::new(caller, until)),
            id: key.id,
            asked,
            shown: AtomicBool::new(true),
            last: asked,
            noted: None,
        }
    }
}
