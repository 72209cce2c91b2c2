//! One listening connection per process: channels of Redis to the [`Hub`]'s topics.
//!
//! A channel is subscribed to while its topic has a listener here. The rule is a level, not an edge: whenever a topic may have
//! gained its first listener or lost its last, it is noted as unsettled, and the keeper looks at what is true now. A new
//! connection makes every topic with listeners unsettled. What is said while no connection stands is missed: watchers look at
//! the row every second.

use super::{Hub, Subscription};
use crate::{
    link::{ANSWER, Link, within},
    task::{Event, Topic},
};
use futures_util::StreamExt;
use redis::{Msg, RedisError, RedisResult, Value, aio::PubSubSink};
use std::{
    collections::HashMap,
    convert::Infallible,
    io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::{
    sync::{Notify, oneshot},
    task::JoinSet,
    time::{MissedTickBehavior, interval, sleep},
};

/// Longest wait for the confirmation of a subscription.
const CONFIRM: Duration = Duration::from_secs(3);

/// Time between pings: a dead route is noticed in [`PULSE`] + [`ANSWER`].
const PULSE: Duration = Duration::from_secs(2);

/// Wait between attempts to connect.
const AGAIN: Duration = Duration::from_millis(250);

/// Channels per command.
const CHANNELS_MAX: usize = 1000;

/// The listening side of a process.
pub(super) struct Feed {
    hub: Hub,
    desk: Arc<Desk>,
    // Ends the keeper when the feed is dropped.
    _keeper: JoinSet<()>,
}

/// Where listeners and the keeper meet.
#[derive(Default)]
struct Desk {
    // std's mutex: never held across an await. The hub's own may be taken inside it, never the other way round.
    state: Mutex<State>,
    unsettled: Notify,
}

#[derive(Default)]
struct State {
    /// Channels that Redis confirmed on the present connection.
    live: HashMap<String, Topic>,
    /// Topics to look at, with those who wait for the confirmation.
    unsettled: HashMap<Topic, Vec<oneshot::Sender<()>>>,
}

/// What has to be said to Redis to settle everything.
#[derive(Default)]
struct Plan {
    join: Vec<(String, Topic)>,
    leave: Vec<String>,
    waiting: Vec<oneshot::Sender<()>>,
}

/// The channel of a topic.
pub(super) fn channel(topic: &Topic) -> String {
    format!("lh:events:{topic}")
}

fn failed(kind: io::ErrorKind, why: &'static str) -> RedisError {
    io::Error::new(kind, why).into()
}

impl Feed {
    pub(super) fn start(link: Link) -> Self {
        let desk = Arc::<Desk>::default();
        let told = desk.clone();
        let hub = Hub::new(move |topic| told.unsettle([(topic.clone(), None)]));
        let mut keeper = JoinSet::new();
        keeper.spawn(keep(link, hub.clone(), desk.clone()));
        Self { hub, desk, _keeper: keeper }
    }

    /// Listens; returns once Redis has confirmed, so nothing said afterwards is missed.
    pub(super) async fn subscribe(&self, topic: Topic) -> RedisResult<Subscription> {
        // The hub first: the keeper, looking at any later moment, finds the topic listened to.
        let (subscription, _) = self.hub.subscribe(topic.clone());
        if self.desk.lock().live.contains_key(&channel(&topic)) {
            return Ok(subscription);
        }
        let (confirm, confirmed) = oneshot::channel();
        self.desk.unsettle([(topic, Some(confirm))]);
        match tokio::time::timeout(CONFIRM, confirmed).await {
            Ok(Ok(())) => Ok(subscription),
            Ok(Err(_)) => {
                Err(failed(io::ErrorKind::ConnectionReset, "Redis did not confirm the subscription"))
            }
            Err(_) => Err(failed(io::ErrorKind::TimedOut, "no connection to Redis for subscriptions")),
        }
    }
}

impl Desk {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn unsettle(&self, topics: impl IntoIterator<Item = (Topic, Option<oneshot::Sender<()>>)>) {
        let mut state = self.lock();
        for (topic, waiting) in topics {
            state.unsettled.entry(topic).or_default().extend(waiting);
        }
        drop(state);
        self.unsettled.notify_one();
    }

    fn plan(&self, hub: &Hub) -> Plan {
        let mut state = self.lock();
        let mut plan = Plan::default();
        for (topic, waiting) in std::mem::take(&mut state.unsettled) {
            let channel = channel(&topic);
            match (hub.has(&topic), state.live.contains_key(&channel)) {
                (true, live) => {
                    plan.waiting.extend(waiting);
                    plan.join.extend((!live).then_some((channel, topic)));
                }
                (false, true) => {
                    plan.leave.extend(state.live.remove_entry(&channel).map(|(channel, _)| channel))
                }
                (false, false) => {}
            }
        }
        plan
    }

    async fn settle(&self, hub: &Hub, sink: &mut PubSubSink) -> RedisResult<()> {
        let plan = self.plan(hub);
        for part in plan.leave.chunks(CHANNELS_MAX) {
            within(ANSWER, sink.unsubscribe(part)).await?;
        }
        for part in plan.join.chunks(CHANNELS_MAX) {
            let channels: Vec<&str> = part.iter().map(|(channel, _)| channel.as_str()).collect();
            within(ANSWER, sink.subscribe(channels)).await?;
        }
        self.lock().live.extend(plan.join);
        for waiting in plan.waiting {
            // An error means that the caller has stopped waiting.
            let _ = waiting.send(());
        }
        Ok(())
    }

    fn hand_on(&self, hub: &Hub, message: &Msg) {
        let Some(topic) = self.lock().live.get(message.get_channel_name()).cloned() else { return };
        match serde_json::from_slice::<Event>(message.get_payload_bytes()) {
            Ok(event) => hub.publish(&topic, &Arc::new(event)),
            Err(error) => tracing::debug!(%topic, %error, "passed over a message that is no event"),
        }
    }
}

/// Keeps a connection for as long as the feed lives.
async fn keep(link: Link, hub: Hub, desk: Arc<Desk>) {
    loop {
        let Err(error) = listen(&link, &hub, &desk).await;
        let lost = std::mem::take(&mut desk.lock().live);
        if !lost.is_empty() {
            let error = &error as &dyn std::error::Error;
            tracing::warn!(error, topics = lost.len(), "the connection for events was lost");
        }
        sleep(AGAIN).await;
    }
}

/// One connection, until it breaks.
async fn listen(link: &Link, hub: &Hub, desk: &Desk) -> RedisResult<Infallible> {
    let (mut sink, mut messages) = link.listener().await?.split();
    desk.unsettle(hub.topics().into_iter().map(|topic| (topic, None)));
    let mut pulse = interval(PULSE);
    pulse.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            message = messages.next() => match message {
                Some(message) => desk.hand_on(hub, &message),
                None => return Err(failed(io::ErrorKind::ConnectionReset, "Redis closed the connection")),
            },
            () = desk.unsettled.notified() => desk.settle(hub, &mut sink).await?,
            _ = pulse.tick() => {
                within(ANSWER, sink.ping::<Value>()).await?;
            }
        }
    }
}
