//! `GET /v1/ws`: many topics over one socket. The words are in [`protocol`].
//!
//! Every topic is followed by a small task of its own that writes into one bounded [`outbox`]: a slow reader slows its topics
//! down, and memory stays bounded. A task's topic then reads the log again and misses nothing; a topic of many tasks says
//! `lagged`. Who takes nothing for [`WRITE_MAX`] is cut off, and can go on from the last seq that it has.

mod close;
mod outbox;
mod protocol;
pub(crate) mod ticket;
mod topics;

use crate::{
    browser,
    error::ApiError,
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
use close::{Closed, WRITE_MAX, blame, cut_off, farewell, show_out, write, write_all};
use futures_util::SinkExt;
use http::HeaderMap;
use outbox::{Letter, MESSAGES_MAX, Outbox};
use protocol::{Ask, SUBSCRIPTIONS_MAX, Say, Wish};
use serde_json::value::RawValue;
use shared::{identity::Scope, task::RequestId};
use std::time::Duration;
use tokio::{
    sync::mpsc,
    time::{Instant, interval, timeout},
};
use topics::Topics;

const MESSAGE_BYTES_MAX: usize = 64 << 10;
/// Most sockets say little: what one reads at once is small.
const READ_BUFFER_BYTES: usize = 4 << 10;
/// What is gathered for one write. No more than this and one message are held, because nothing is added before it is written.
const WRITE_BUFFER_BYTES: usize = 32 << 10;
const HEARTBEAT: Duration = Duration::from_secs(20);

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
        ("ticket" = Option<String>, Query, description = "Instead of a key, for browsers: `POST /v1/ws_tickets` makes one."),
    ),
    responses((status = 101, description = "From here on JSON text frames: subscribe, resume, unsubscribe, task.create, task.cancel, ping."))
)]
pub(crate) async fn open(
    app: App,
    headers: HeaderMap,
    upgrade: WebSocketUpgrade,
) -> Result<Response, ApiError> {
    // A browser lets every page open sockets to everywhere: only the server can say whose pages may.
    if !browser::may_open(&app.config.api, &headers) {
        return Err(ApiError::Origin);
    }
    let token = app.sockets.token();
    let response = upgrade
        .protocols(["tasks.v1"])
        .max_message_size(MESSAGE_BYTES_MAX)
        .max_frame_size(MESSAGE_BYTES_MAX)
        .read_buffer_size(READ_BUFFER_BYTES)
        .write_buffer_size(WRITE_BUFFER_BYTES)
        .on_upgrade(move |socket| async move {
            let _open = Open::new("ws");
            Connection::new(app).run(socket).await;
            drop(token);
        });
    Ok(response)
}

struct Connection {
    app: App,
    id: String,
    topics: Topics,
    inbox: mpsc::Receiver<Letter>,
}

impl Connection {
    fn new(app: App) -> Self {
        let (outbox, inbox) = Outbox::new();
        Self { topics: Topics::new(app.clone(), outbox), app, id: RequestId::new().to_string(), inbox }
    }

    async fn run(mut self, mut socket: WebSocket) {
        let ready = Say::Ready {
            connection_id: &self.id,
            heartbeat_s: HEARTBEAT.as_secs(),
            max_subscriptions: SUBSCRIPTIONS_MAX,
        };
        let mut step = write(&mut socket, Message::text(ready.text())).await;
        let mut beat = interval(HEARTBEAT);
        let mut heard = Instant::now();
        let mut letters = Vec::new();
        while step.is_ok() {
            step = tokio::select! {
                () = self.app.stop.cancelled() => return farewell(socket).await,
                () = self.app.visitor.leaves() => return show_out(socket).await,
                _ = self.inbox.recv_many(&mut letters, MESSAGES_MAX) => write_all(&mut socket, letters.drain(..)).await,
                true = self.topics.settle() => Ok(()),
                _ = beat.tick() => match heard.elapsed() < 2 * HEARTBEAT + WRITE_MAX {
                    true => write(&mut socket, Message::Ping(Bytes::new())).await,
                    false => Err(Closed::Gone),
                },
                message = socket.recv() => {
                    heard = Instant::now();
                    match message {
                        Some(Ok(message)) => self.hear(message, &mut socket).await,
                        Some(Err(error)) => return blame(socket, error).await,
                        None => Err(Closed::Gone),
                    }
                }
            };
        }
        if let Err(Closed::Slow) = step {
            cut_off(socket).await;
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
                return timeout(WRITE_MAX, socket.flush())
                    .await
                    .map_or(Err(Closed::Gone), |_| Err(Closed::Gone));
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
        // What asks something of the database is a request like any other.
        let free = matches!(asked, Ok(Ask::Ping | Ask::Unsubscribe(_)) | Err(_));
        let asked = match free {
            true => asked,
            false => self.app.limiter.request(&self.app.visitor, self.app.address).await.and(asked),
        };
        let done = match asked {
            Ok(Ask::Ping) => Ok(Say::Pong { id }.text()),
            Ok(Ask::Subscribe(wishes)) => return self.subscribe(id, wishes, socket).await,
            Ok(Ask::Unsubscribe(names)) => {
                names.iter().for_each(|name| self.topics.leave(name));
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
        match self.topics.prepare(id, wishes).await {
            Ok((ack, prepared)) => {
                write(socket, Message::text(ack)).await?;
                prepared.into_iter().for_each(|topic| self.topics.follow(topic));
                Ok(())
            }
            Err(error) => write(socket, Message::text(self.refusal(id, &error))).await,
        }
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
        let Accepted { task, .. } = submit::accept(&self.app, &body, key.as_deref()).await?;
        Ok(ack(id, &view::json(&TaskView::new(&task, &Beside::default()))))
    }

    fn refusal(&self, id: Option<&str>, error: &ApiError) -> String {
        if let Ok(connection) = self.id.parse() {
            error.log(connection, &self.app.looks);
        }
        Say::Error { id, error: error.envelope() }.text()
    }
}

fn ack(id: Option<&str>, task: &[u8]) -> String {
    Say::Ack { id, topics: None, task: view::raw(task) }.text()
}
