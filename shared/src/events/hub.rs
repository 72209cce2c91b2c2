//! Fan-out inside one process: topics to subscribers, with bounded buffers.

use crate::task::{Event, Topic};
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};
use tokio::sync::broadcast;

/// Events a slow subscriber may fall behind before it is told that it lagged: of a topic of many tasks, and of one task, of which there
/// are many more, and whose log can be read again.
const BUFFER: usize = 1024;
const BUFFER_OF_TASK: usize = 512;

type Topics = HashMap<Topic, broadcast::Sender<Arc<Event>>>;
type OnIdle = Box<dyn Fn(&Topic) + Send + Sync>;

/// Who listens to what. Cheap to clone.
#[derive(Clone)]
pub struct Hub {
    // std's mutex: held for a map look-up only, never across an await.
    topics: Arc<Mutex<Topics>>,
    on_idle: Arc<OnIdle>,
}

/// One listener of one topic.
pub struct Subscription {
    receiver: Option<broadcast::Receiver<Arc<Event>>>,
    topic: Topic,
    hub: Hub,
}

/// The subscriber fell behind and missed events: read the log, or the row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lagged;

impl Hub {
    /// `on_idle` runs when a topic has lost its last listener.
    pub fn new(on_idle: impl Fn(&Topic) + Send + Sync + 'static) -> Self {
        Self { topics: Arc::default(), on_idle: Arc::new(Box::new(on_idle)) }
    }

    /// Adds a listener; `true` if it is the topic's first.
    #[must_use]
    pub fn subscribe(&self, topic: Topic) -> (Subscription, bool) {
        let mut topics = self.topics.lock().unwrap_or_else(PoisonError::into_inner);
        let mut first = false;
        let sender = topics.entry(topic.clone()).or_insert_with(|| {
            first = true;
            let buffer = if matches!(topic, Topic::Task(_)) { BUFFER_OF_TASK } else { BUFFER };
            broadcast::channel(buffer).0
        });
        let receiver = Some(sender.subscribe());
        (Subscription { receiver, topic, hub: self.clone() }, first)
    }

    /// Hands an event to the topic's listeners, if it has any.
    pub fn publish(&self, topic: &Topic, event: &Arc<Event>) {
        let topics = self.topics.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(sender) = topics.get(topic) {
            // An error means that the last listener is just leaving.
            let _ = sender.send(event.clone());
        }
    }

    /// Whether anybody listens to the topic.
    #[must_use]
    pub fn has(&self, topic: &Topic) -> bool {
        self.topics.lock().unwrap_or_else(PoisonError::into_inner).contains_key(topic)
    }

    /// Topics that have listeners.
    #[must_use]
    pub fn topics(&self) -> Vec<Topic> {
        self.topics.lock().unwrap_or_else(PoisonError::into_inner).keys().cloned().collect()
    }
}

impl Subscription {
    /// The next event.
    ///
    /// # Errors
    /// [`Lagged`] if events were missed; the next call goes on with the oldest one still buffered.
    ///
    /// # Cancel safety
    /// Dropping the future loses nothing.
    pub async fn next(&mut self) -> Result<Arc<Event>, Lagged> {
        let Some(receiver) = self.receiver.as_mut() else { return std::future::pending().await };
        match receiver.recv().await {
            Ok(event) => Ok(event),
            Err(broadcast::error::RecvError::Lagged(_)) => Err(Lagged),
            // The hub owns the sender for as long as this subscription lives.
            Err(broadcast::error::RecvError::Closed) => std::future::pending().await,
        }
    }

    /// What it listens to.
    #[must_use]
    pub fn topic(&self) -> &Topic {
        &self.topic
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        self.receiver = None;
        let mut topics = self.hub.topics.lock().unwrap_or_else(PoisonError::into_inner);
        if topics.get(&self.topic).is_some_and(|sender| sender.receiver_count() == 0) {
            topics.remove(&self.topic);
            drop(topics);
            (self.hub.on_idle)(&self.topic);
        }
    }
}
