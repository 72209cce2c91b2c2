//! The topics of one socket. Each is followed by a small task of its own that writes into the outbox.

use super::{
    outbox::{Gone, Outbox, Voice},
    protocol::{self, Counted, SUBSCRIPTIONS_MAX, Say, Standing, Wish},
};
use crate::{
    error::ApiError,
    fetch::DEADLINE,
    follow::Follow,
    parse,
    queues::Figures,
    register::Watch,
    state::App,
    wire::{Bodies, wire},
};
use shared::{
    events::{Lagged, Subscription},
    task::{Event, EventKind, ProjectId, TaskId, Topic},
};
use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::Duration,
};
use tokio::{
    sync::Semaphore,
    task::{AbortHandle, JoinSet},
    time::{sleep, timeout},
};

/// Topics of one socket that may read the database at once, and whole answers that are held for it.
const TURNS: usize = 8;
/// Pause before a topic that could not be opened is tried again.
const PAUSE: Duration = Duration::from_secs(1);

/// What a socket follows.
pub(super) struct Topics {
    app: App,
    followed: HashMap<String, Follower>,
    followers: JoinSet<String>,
    outbox: Outbox,
    turns: Arc<Semaphore>,
}

struct Follower {
    task: AbortHandle,
    voice: Voice,
}

/// A topic that is listened to already, and not told of yet.
pub(super) struct Prepared {
    wish: Wish,
    ear: Option<Subscription>,
    counters: Option<Watch<ProjectId, Arc<Figures>>>,
}

impl Topics {
    pub(super) fn new(app: App, outbox: Outbox) -> Self {
        Self {
            app,
            followed: HashMap::new(),
            followers: JoinSet::new(),
            outbox,
            turns: Arc::new(Semaphore::new(TURNS)),
        }
    }

    /// Listens to topics, and says where they stand: what happens from here on will be told by [`Topics::follow`].
    ///
    /// # Errors
    /// One of them is not there or not the caller's, they are too many, or the database or the event log is away.
    pub(super) async fn prepare(
        &self,
        id: Option<&str>,
        wishes: Vec<Wish>,
    ) -> Result<(String, Vec<Prepared>), ApiError> {
        let ack = Say::Ack { id, topics: Some(self.standings(&wishes).await?), task: None }.text();
        let mut prepared = Vec::with_capacity(wishes.len());
        for wish in wishes {
            let ear = match &wish.topic {
                // One task is followed by other means.
                None | Some(Topic::Task(_)) => None,
                Some(topic) => Some(self.listen(topic).await?),
            };
            let counters = wish.counted.is_some().then(|| self.app.counters.watch(self.app.project));
            prepared.push(Prepared { wish, ear, counters });
        }
        Ok((ack, prepared))
    }

    async fn listen(&self, topic: &Topic) -> Result<Subscription, ApiError> {
        let listening = timeout(DEADLINE, self.app.backends.events.subscribe(topic.clone())).await?;
        listening.map_err(|error| ApiError::Unavailable(Arc::new(error)))
    }

    /// Where the topics stand. All of them must exist, and be the caller's.
    async fn standings<'a>(&self, wishes: &'a [Wish]) -> Result<BTreeMap<&'a str, Standing>, ApiError> {
        let fresh = wishes.iter().filter(|wish| !self.followed.contains_key(&wish.name)).count();
        if self.followed.len() + fresh > SUBSCRIPTIONS_MAX {
            let message = format!("a connection follows at most {SUBSCRIPTIONS_MAX} topics");
            return Err(ApiError::invalid("topics", message));
        }
        let mut standings = BTreeMap::new();
        let ids: Vec<_> = wishes.iter().filter_map(task_of).collect();
        let rows = match ids.is_empty() {
            true => Vec::new(),
            false => timeout(DEADLINE, self.app.backends.store.glance(&ids)).await??,
        };
        let rows: HashMap<_, _> = rows.into_iter().map(|row| (row.task, row)).collect();
        for wish in wishes {
            let standing = match (&wish.topic, &wish.counted) {
                (Some(Topic::Task(id)), _) => {
                    let row = rows.get(id).filter(|row| row.project == self.app.project);
                    let row = row.ok_or_else(|| parse::no_task(id))?;
                    Standing { status: Some(row.state.as_str()), last_seq: Some(row.seq) }
                }
                (Some(Topic::Batch(id)), _) => {
                    let found =
                        timeout(DEADLINE, self.app.backends.store.batch(self.app.project, *id)).await??;
                    let batch = found.ok_or_else(|| parse::no_batch(id))?;
                    Standing { status: Some(batch.state.as_str()), last_seq: None }
                }
                (_, Some(Counted::Queue(name))) if !self.app.backends.lanes.contains(name) => {
                    let lanes: Vec<&str> = self.app.backends.lanes.iter().map(|lane| lane.as_str()).collect();
                    let message = format!("{name} is no queue, the queues are {}", lanes.join(", "));
                    return Err(ApiError::invalid("topics", message));
                }
                _ => Standing::default(),
            };
            standings.insert(wish.name.as_str(), standing);
        }
        Ok(standings)
    }

    /// Tells of a topic from now on. Following it anew replaces the follower.
    pub(super) fn follow(&mut self, topic: Prepared) {
        let name = topic.wish.name.clone();
        let (app, turns, voice) = (self.app.clone(), self.turns.clone(), self.outbox.voice());
        let own = voice.clone();
        let task = self.followers.spawn(async move {
            let Prepared { wish, ear, counters } = topic;
            let events = async {
                match (task_of(&wish), ear) {
                    (Some(id), _) => follow_task(&app, id, &wish, &own, &turns).await,
                    (None, Some(ear)) => follow_many(&app, &wish, ear, &own, &turns).await,
                    (None, None) => Ok(()),
                }
            };
            let ended = tokio::try_join!(events, follow_counters(&wish, counters, &own));
            // An error means that the socket is gone, and with it whoever could be told.
            let _: Result<_, Gone> = ended;
            wish.name
        });
        self.leave(&name);
        self.followed.insert(name, Follower { task, voice });
    }

    /// Tells no more of a topic.
    pub(super) fn leave(&mut self, name: &str) {
        if let Some(follower) = self.followed.remove(name) {
            follower.voice.hush();
            follower.task.abort();
        }
    }

    /// Waits for a follower that ends; `false` at once if there is none. A topic whose follower has ended by itself may be followed again.
    ///
    /// # Cancel safety
    /// Dropping the future loses nothing.
    pub(super) async fn settle(&mut self) -> bool {
        let Some(ended) = self.followers.join_next().await else { return false };
        if let Ok(name) = ended
            && self.followed.get(&name).is_some_and(|follower| follower.task.is_finished())
        {
            self.followed.remove(&name);
        }
        true
    }
}

fn task_of(wish: &Wish) -> Option<TaskId> {
    match wish.topic {
        Some(Topic::Task(id)) => Some(id),
        _ => None,
    }
}

/// Tells one event. Of those that carry a whole task only a few are held in memory for a socket that is slow.
async fn tell(
    app: &App,
    wish: &Wish,
    event: &Event,
    bodies: Bodies,
    (voice, turns): (&Voice, &Semaphore),
) -> Result<(), Gone> {
    let is_whole = event.kind.is_terminal() || event.kind == EventKind::Snapshot;
    let _turn = match is_whole {
        true => Some(turns.acquire().await.map_err(|_| Gone)?),
        false => None,
    };
    let text = wire(app, event, bodies).await;
    voice.send(protocol::event(&wish.name, event.seq, &text)).await
}

async fn follow_task(
    app: &App,
    id: TaskId,
    wish: &Wish,
    voice: &Voice,
    turns: &Semaphore,
) -> Result<(), Gone> {
    let mut last_seq = wish.after.unwrap_or(-1);
    let bodies = if wish.lifecycle { Bodies::None } else { Bodies::Short };
    let opened = loop {
        let turn = turns.acquire().await;
        match Follow::open(app, id, wish.after).await {
            Ok(opened) => break opened,
            Err(_) => {
                drop(turn);
                sleep(PAUSE).await;
            }
        }
    };
    if let Some(mut follow) = opened {
        while let Some(event) = follow.next().await {
            last_seq = event.seq;
            if !wish.lifecycle || event.kind.is_lifecycle() {
                tell(app, wish, &event, bodies, (voice, turns)).await?;
            }
        }
    }
    voice.send(Say::End { topic: &wish.name, last_seq }.text()).await
}

async fn follow_many(
    app: &App,
    wish: &Wish,
    mut ear: Subscription,
    voice: &Voice,
    turns: &Semaphore,
) -> Result<(), Gone> {
    loop {
        match ear.next().await {
            Ok(event) if event.kind.is_lifecycle() => {
                tell(app, wish, &event, Bodies::None, (voice, turns)).await?
            }
            Ok(_) => {}
            Err(Lagged) => voice.send(Say::Lagged { topic: &wish.name }.text()).await?,
        }
    }
}

/// Tells the newest counters whenever they look different. What changes while the reader is slow is told as one.
async fn follow_counters(
    wish: &Wish,
    watch: Option<Watch<ProjectId, Arc<Figures>>>,
    voice: &Voice,
) -> Result<(), Gone> {
    let (Some(mut watch), Some(counted)) = (watch, &wish.counted) else { return Ok(()) };
    let mut told = None;
    loop {
        let figures = watch.changed().await;
        let counters = match counted {
            Counted::Project => Some(&figures.all),
            Counted::Queue(name) => {
                figures.lanes.iter().find(|(lane, _)| lane == name).map(|(_, counters)| counters)
            }
        };
        let Some(counters) = counters else { continue };
        if told.as_ref().is_none_or(|told| !counters.looks_like(told)) {
            voice.send(Say::Counters { topic: &wish.name, counters }.text()).await?;
            told = Some(counters.clone());
        }
    }
}
