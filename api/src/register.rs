//! Who watches what in this process: one newest value per watched key, shared by all that watch it.

use std::{
    collections::HashMap,
    hash::Hash,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};
use tokio::sync::{Notify, watch};

type Watched<K, V> = Arc<Mutex<HashMap<K, watch::Sender<Option<V>>>>>;

/// The register. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Register<K, V> {
    // std's mutex: held for a map look-up only, never across an await.
    watched: Watched<K, V>,
    wanted: Arc<Notify>,
}

/// One watch on one key: dropping it ends it.
pub(crate) struct Watch<K: Eq + Hash, V> {
    key: K,
    seen: Option<watch::Receiver<Option<V>>>,
    watched: Watched<K, V>,
}

impl<K, V> Default for Register<K, V> {
    fn default() -> Self {
        Self { watched: Arc::default(), wanted: Arc::default() }
    }
}

fn lock<K, V>(watched: &Watched<K, V>) -> MutexGuard<'_, HashMap<K, watch::Sender<Option<V>>>> {
    watched.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<K: Copy + Eq + Hash, V: PartialEq> Register<K, V> {
    /// Watches a key.
    pub(crate) fn watch(&self, key: K) -> Watch<K, V> {
        let mut watched = lock(&self.watched);
        let sender = watched.entry(key).or_insert_with(|| watch::Sender::new(None));
        let mut seen = sender.subscribe();
        // What an earlier watcher was told may be new to this one.
        seen.mark_changed();
        self.wanted.notify_one();
        Watch { key, seen: Some(seen), watched: self.watched.clone() }
    }

    /// What is watched now.
    pub(crate) fn keys(&self) -> Vec<K> {
        lock(&self.watched).keys().copied().collect()
    }

    /// Waits until something is watched.
    ///
    /// # Cancel safety
    /// Dropping the future loses nothing.
    pub(crate) async fn wanted(&self) {
        while lock(&self.watched).is_empty() {
            self.wanted.notified().await;
        }
    }

    /// Tells the watchers of these keys what differs from the last time.
    pub(crate) fn note(&self, seen: impl IntoIterator<Item = (K, V)>) {
        let watched = lock(&self.watched);
        for (key, value) in seen {
            if let Some(sender) = watched.get(&key) {
                sender.send_if_modified(|last| {
                    let new = last.as_ref() != Some(&value);
                    *last = Some(value);
                    new
                });
            }
        }
    }
}

impl<K: Eq + Hash, V: Clone> Watch<K, V> {
    /// What is seen next that differs from the last time.
    ///
    /// # Cancel safety
    /// Dropping the future loses nothing.
    pub(crate) async fn changed(&mut self) -> V {
        let Some(seen) = self.seen.as_mut() else { return std::future::pending().await };
        loop {
            if seen.changed().await.is_err() {
                // The register keeps the sender for as long as there is a receiver.
                return std::future::pending().await;
            }
            if let Some(value) = seen.borrow_and_update().clone() {
                return value;
            }
        }
    }
}

impl<K: Eq + Hash, V> Drop for Watch<K, V> {
    fn drop(&mut self) {
        self.seen = None;
        let mut watched = lock(&self.watched);
        if watched.get(&self.key).is_some_and(|sender| sender.receiver_count() == 0) {
            watched.remove(&self.key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn watchers_share_what_is_seen_and_leave_nothing_behind() {
        let register = Register::<u8, &str>::default();
        let mut first = register.watch(1);
        register.note([(1, "a"), (2, "b")]);
        assert_eq!(first.changed().await, "a");
        let mut second = register.watch(1);
        assert_eq!(second.changed().await, "a", "what was seen before is news to the second");
        register.note([(1, "a")]);
        register.note([(1, "c")]);
        assert_eq!((first.changed().await, second.changed().await), ("c", "c"));
        assert_eq!(register.keys(), [1]);
        drop((first, second));
        assert!(register.keys().is_empty());
    }
}
