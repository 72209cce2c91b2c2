//! `GET /v1/ws`: many topics over one socket. The words are in [`protocol`].
//!
//! Every topic is followed by a small task of its own that writes into one bounded channel: a slow reader slows its topics
//! down, and memory stays bounded. A task's topic then reads the log again and misses nothing; a topic of many tasks says
//! `lagged`.

mod close;
mod protocol;

use crate::{
    error::ApiError,
    fetch::DEADLINE,
    follow::{Follow, wire},
    parse,
    state::App,
    stream::Open,
    submit::{self, Accepted},
    tasks,
    view::{self, Beside, TaskView},
};
use axum::{
    extract::{
        WebSocketUpgrade,
        ws::{Message, WebSocket},
    },
    response::Response,
};
use bytes::Bytes;
use close::{Closed, WRITE_MAX, blame, farewell, show_out, write};
use futures_util::SinkExt;
use protocol::{Ask, SUBSCRIPTIONS_MAX, Say, Standing, Wish};
use serde_json::value::RawValue;
use shared::{
    events::{Lagged, Subscription},
    identity::Scope,
    task::{RequestId, Topic},
};
use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::Duration,
};
use tokio::{
    sync::{Semaphore, mpsc},
    task::{AbortHandle, JoinSet},
    time::{Instant, interval, sleep, timeout},
};

const MESSAGE_BYTES_MAX: usize = 64 << 10;
const BUFFER_BYTES: usize = 128 << 10;
const BUFFER_BYTES_MAX: usize = 256 << 10;
/// Messages on their way to one socket.
const OUTBOX: usize = 256;
/// Topics of one socket that may read the database at once.
const OPENINGS: usize = 8;
const HEARTBEAT: Duration = Duration::from_secs(20);
/// Pause before a topic that could not be opened is tried again.
const PAUSE: Duration = Duration::from_secs(1);

/// Open a socket.
///
/// Subprotocol `tasks.v1`: JSON text frames. The first one from the server is `ready`.
#[utoipa::path(
    get, path = "/v1/ws", tag = "tasks", operation_id = "open_socket",
    params(
        ("Upgrade" = String, Header, description = "`websocket`."),
        ("Connection" = String, Header, description = "`Upgrade`."),
        ("Sec-WebSocket-Version" = String, Header, description = "`13`."),
        ("Sec-WebSocket-Key" = String, Header, description = "16 random bytes as base64."),
        ("Sec-WebSocket-Protocol" = Option<String>, Header, description = "`tasks.v1`."),
    ),
    responses((status = 101, description = "From here on JSON text frames: subscribe, resume, unsubscribe, task.create, task.cancel, ping."))
)]
pub(crate) async fn open(app: App, upgrade: WebSocketUpgrade) -> Response {
    let token = app.sockets.token();
    upgrade
        .protocols(["tasks.v1"])
        .max_message_size(MESSAGE_BYTES_MAX)
        .max_frame_size(MESSAGE_BYTES_MAX)
        .write_buffer_size(BUFFER_BYTES)
        .max_write_buffer_size(BUFFER_BYTES_MAX)
        .on_upgrade(move |socket| async move {
            let _open = Open::new("ws");
            Connection::new(app).run(socket).await;
            drop(token);
        })
}

struct Connection {
    app: App,
    id: String,
    topics: HashMap<String, AbortHandle>,
    followers: JoinSet<String>,
    outbox: mpsc::Sender<String>,
    inbox: mpsc::Receiver<String>,
    openings: Arc<Semaphore>,
}

impl Connection {
    fn new(app: App) -> Self {
        let (outbox, inbox) = mpsc::channel(OUTBOX);
        Self {
            app,
            id: RequestId::new().to_string(),
            topics: HashMap::new(),
            followers: JoinSet::new(),
            outbox,
            inbox,
            openings: Arc::new(Semaphore::new(OPENINGS)),
        }
    }

    async fn run(mut self, mut socket: WebSocket) {
        let ready = Say::Ready {
            connection_id: &self.id,
            heartbeat_s: HEARTBEAT.as_secs(),
            max_subscriptions: SUBSCRIPTIONS_MAX,
        };
        let mut open = write(&mut socket, Message::text(ready.text())).await.is_ok();
        let mut beat = interval(HEARTBEAT);
        let mut heard = Instant::now();
        while open {
            let step = tokio::select! {
                () = self.app.stop.cancelled() => return farewell(socket).await,
                () = self.app.visitor.leaves() => return show_out(socket).await,
                Some(told) = self.inbox.recv() => write(&mut socket, Message::text(told)).await,
                Some(ended) = self.followers.join_next() => {
                    self.forget(ended.ok());
                    Ok(())
                }
                _ = beat.tick() => match heard.elapsed() < 2 * HEARTBEAT + WRITE_MAX {
                    true => write(&mut socket, Message::Ping(Bytes::new())).await,
                    false => Err(Closed),
                },
                message = socket.recv() => {
                    heard = Instant::now();
                    match message {
                        Some(Ok(message)) => self.hear(message, &mut socket).await,
                        Some(Err(error)) => return blame(socket, error).await,
                        None => Err(Closed),
                    }
                }
            };
            open = step.is_ok();
        }
    }

    /// A topic whose follower has ended by itself may be followed again.
    fn forget(&mut self, name: Option<String>) {
        if let Some(name) = name
            && self.topics.get(&name).is_some_and(AbortHandle::is_finished)
        {
            self.topics.remove(&name);
        }
    }

    async fn hear(&mut self, message: Message, socket: &mut WebSocket) -> Result<(), Closed> {
        let text = match message {
            Message::Text(text) => text,
            Message::Binary(_) => {
                let error = ApiError::invalid("type", "send text frames");
                let said = Say::Error { id: None, error: error.envelope() }.text();
                return write(socket, Message::text(said)).await;
            }
            // The library has an answer ready; whether it is heard changes nothing.
            Message::Close(_) => {
                return timeout(WRITE_MAX, socket.flush()).await.map_or(Err(Closed), |_| Err(Closed));
            }
            Message::Ping(_) | Message::Pong(_) => return Ok(()),
        };
        let (id, asked) = protocol::parse(&text, self.app.project);
        let id = id.as_deref();
        let changes = matches!(asked, Ok(Ask::Create { .. } | Ask::Cancel { .. }));
        let asked = match changes && !self.app.visitor.caller.may(Scope::Submit) {
            true => Err(ApiError::Forbidden(Scope::Submit)),
            false => asked,
        };
        let done = match asked {
            Ok(Ask::Ping) => Ok(Say::Pong { id }.text()),
            Ok(Ask::Subscribe(wishes)) => return self.subscribe(id, wishes, socket).await,
            Ok(Ask::Unsubscribe(names)) => {
                for name in names {
                    if let Some(follower) = self.topics.remove(&name) {
                        follower.abort();
                    }
                }
                Ok(Say::Ack { id, topics: None, task: None }.text())
            }
            Ok(Ask::Create { task, key }) => self.create(id, task, key).await,
            Ok(Ask::Cancel { id: task, reason }) => {
                match tasks::stop(&self.app, task, reason.as_deref()).await {
                    Ok(task) => Ok(ack(id, &view::json(&TaskView::new(&task, &Beside::default())))),
                    Err(error) => Err(error),
                }
            }
            Err(error) => Err(error),
        };
        let said = done.unwrap_or_else(|error| self.refusal(id, &error));
        write(socket, Message::text(said)).await
    }

    /// Listens first, then answers, then tells: what happens after the answer is told, and nothing is told before it.
    async fn subscribe(
        &mut self,
        id: Option<&str>,
        wishes: Vec<Wish>,
        socket: &mut WebSocket,
    ) -> Result<(), Closed> {
        let prepared = async {
            let topics = self.standings(&wishes).await?;
            let mut ears = Vec::with_capacity(wishes.len());
            for wish in &wishes {
                ears.push(self.listen(&wish.topic).await?);
            }
            Ok((Say::Ack { id, topics: Some(topics), task: None }.text(), ears))
        };
        match prepared.await {
            Ok((ack, ears)) => {
                write(socket, Message::text(ack)).await?;
                wishes.into_iter().zip(ears).for_each(|(wish, ear)| self.follow(wish, ear));
                Ok(())
            }
            Err(error) => write(socket, Message::text(self.refusal(id, &error))).await,
        }
    }

    /// Listens to a topic of many tasks; one task is followed by other means.
    async fn listen(&self, topic: &Topic) -> Result<Option<Subscription>, ApiError> {
        if matches!(topic, Topic::Task(_)) {
            return Ok(None);
        }
        let listening = timeout(DEADLINE, self.app.backends.events.subscribe(topic.clone())).await?;
        listening.map(Some).map_err(|error| ApiError::Unavailable(Arc::new(error)))
    }

    async fn create(
        &self,
        id: Option<&str>,
        task: Box<RawValue>,
        key: Option<String>,
    ) -> Result<String, ApiError> {
        if key.as_ref().is_some_and(|key| !(1..=255).contains(&key.len())) {
            return Err(ApiError::invalid(
                "idempotency_key",
                "'idempotency_key' must have 1 to 255 characters.",
            ));
        }
        let body = Bytes::from(String::from(Box::<str>::from(task)));
        self.app.limiter.request(&self.app.visitor, self.app.address).await?;
        let Accepted { task, .. } = submit::accept(&self.app, &body, key.as_deref()).await?;
        Ok(ack(id, &view::json(&TaskView::new(&task, &Beside::default()))))
    }

    fn refusal(&self, id: Option<&str>, error: &ApiError) -> String {
        if let Ok(connection) = self.id.parse() {
            error.log(connection);
        }
        Say::Error { id, error: error.envelope() }.text()
    }

    /// Where the topics stand. All of them must exist, and be the caller's.
    async fn standings<'a>(&self, wishes: &'a [Wish]) -> Result<BTreeMap<&'a str, Standing>, ApiError> {
        let fresh = wishes.iter().filter(|wish| !self.topics.contains_key(&wish.name)).count();
        if self.topics.len() + fresh > SUBSCRIPTIONS_MAX {
            let message = format!("a connection follows at most {SUBSCRIPTIONS_MAX} topics");
            return Err(ApiError::invalid("topics", message));
        }
        let mut standings = BTreeMap::new();
        let ids: Vec<_> = wishes.iter().filter_map(|wish| task_of(&wish.topic)).collect();
        let rows = match ids.is_empty() {
            true => Vec::new(),
            false => timeout(DEADLINE, self.app.backends.store.glance(&ids)).await??,
        };
        let rows: HashMap<_, _> = rows.into_iter().map(|row| (row.task, row)).collect();
        for wish in wishes {
            let standing = match &wish.topic {
                Topic::Task(id) => {
                    let row = rows.get(id).filter(|row| row.project == self.app.project);
                    let row = row.ok_or_else(|| parse::no_task(id))?;
                    Standing { status: Some(row.state.as_str()), last_seq: Some(row.seq) }
                }
                Topic::Batch(id) => {
                    let found =
                        timeout(DEADLINE, self.app.backends.store.batch(self.app.project, *id)).await??;
                    let batch = found.ok_or_else(|| parse::no_batch(id))?;
                    Standing { status: Some(batch.state.as_str()), last_seq: None }
                }
                Topic::Project(_) | Topic::Control => Standing::default(),
            };
            standings.insert(wish.name.as_str(), standing);
        }
        Ok(standings)
    }

    fn follow(&mut self, wish: Wish, ear: Option<Subscription>) {
        let name = wish.name.clone();
        let (app, outbox, openings) = (self.app.clone(), self.outbox.clone(), self.openings.clone());
        let follower = self.followers.spawn(async move {
            let ended = match ear {
                Some(ear) => follow_many(&app, &wish, ear, &outbox).await,
                None => follow_task(&app, &wish, &outbox, &openings).await,
            };
            // An error means that the socket is gone, and with it whoever could be told.
            let _ = ended;
            wish.name
        });
        // Following a topic anew replaces the follower.
        if let Some(former) = self.topics.insert(name, follower) {
            former.abort();
        }
    }
}

fn task_of(topic: &Topic) -> Option<shared::task::TaskId> {
    match topic {
        Topic::Task(id) => Some(*id),
        _ => None,
    }
}

fn ack(id: Option<&str>, task: &[u8]) -> String {
    Say::Ack { id, topics: None, task: view::raw(task) }.text()
}

type Sent = Result<(), mpsc::error::SendError<String>>;

async fn follow_task(app: &App, wish: &Wish, outbox: &mpsc::Sender<String>, openings: &Semaphore) -> Sent {
    let Some(id) = task_of(&wish.topic) else { return Ok(()) };
    let mut last_seq = wish.after.unwrap_or(-1);
    let opened = loop {
        let _turn = openings.acquire().await;
        match Follow::open(app, id, wish.after).await {
            Ok(opened) => break opened,
            Err(_) => sleep(PAUSE).await,
        }
    };
    if let Some(mut follow) = opened {
        while let Some(event) = follow.next().await {
            last_seq = event.seq;
            if !wish.lifecycle || event.kind.is_lifecycle() {
                outbox.send(protocol::event(&wish.name, event.seq, &wire(app, &event).await)).await?;
            }
        }
    }
    outbox.send(Say::End { topic: &wish.name, last_seq }.text()).await
}

async fn follow_many(app: &App, wish: &Wish, mut ear: Subscription, outbox: &mpsc::Sender<String>) -> Sent {
    loop {
        match ear.next().await {
            Ok(event) if event.kind.is_lifecycle() => {
                outbox.send(protocol::event(&wish.name, event.seq, &wire(app, &event).await)).await?;
            }
            Ok(_) => {}
            Err(Lagged) => outbox.send(Say::Lagged { topic: &wish.name }.text()).await?,
        }
    }
}
