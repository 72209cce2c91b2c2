//! How a client learns that a task has ended: from Longhaul by WebSocket, from peers straight from their Redis channel, which
//! is the shorter way.

use super::connection::id;
use anyhow::{Context, bail};
use futures_util::StreamExt;
use harness::{Client, Watch};
use serde_json::json;
use std::{net::SocketAddr, time::Duration};

/// Where the news is.
#[derive(Debug, Clone)]
pub(crate) enum Follow {
    /// Longhaul's socket.
    WebSocket(SocketAddr),
    /// The channel `tasks`.
    Redis(String),
}

/// An open subscription to the news of all tasks.
pub(crate) enum News {
    /// A WebSocket, subscribed to the project.
    WebSocket(Box<Watch>),
    /// A Redis subscription.
    Redis(Box<redis::aio::PubSub>),
}

/// Longest silence.
const PATIENCE: Duration = Duration::from_secs(40);

impl Follow {
    /// Subscribes.
    ///
    /// # Errors
    /// The system does not answer.
    pub(crate) async fn open(&self) -> anyhow::Result<News> {
        Ok(match self {
            Self::WebSocket(api) => {
                let mut watch = Client::new(format!("http://{api}"))?.watch().await?;
                let ask = json!({"type": "subscribe", "id": "1", "topics": ["project:me"], "events": ["lifecycle"]});
                let answer = watch.subscribe(&ask).await?;
                anyhow::ensure!(answer["type"] == "ack", "not subscribed: {answer}");
                News::WebSocket(Box::new(watch))
            }
            Self::Redis(url) => {
                let mut channel = redis::Client::open(url.as_str())?.get_async_pubsub().await?;
                channel.subscribe("tasks").await?;
                News::Redis(Box::new(channel))
            }
        })
    }
}

impl News {
    /// The id of the next task that was completed.
    ///
    /// # Errors
    /// Silence, or a task that ended in another way.
    pub(crate) async fn completed(&mut self) -> anyhow::Result<String> {
        match self {
            Self::WebSocket(watch) => loop {
                let frame = watch.next().await?;
                match frame["event"]["type"].as_str() {
                    Some("task.completed") => {
                        let answer = &frame["event"]["data"]["task"]["result"];
                        anyhow::ensure!(!answer.is_null(), "an end without its answer: {frame}");
                        let id = frame["event"]["task_id"].as_str();
                        return Ok(id.with_context(|| format!("no id in {frame}"))?.to_owned());
                    }
                    Some("task.failed") => bail!("a task failed: {frame}"),
                    _ if frame["type"] == "lagged" => bail!("news were missed: {frame}"),
                    _ => {}
                }
            },
            Self::Redis(channel) => {
                let mut stream = channel.on_message();
                let message = tokio::time::timeout(PATIENCE, stream.next()).await.context("silence")?;
                let message = message.context("the channel was closed")?;
                let text = message.get_payload_bytes();
                if !text.windows(9).any(|word| word == b"completed") {
                    bail!("a task failed: {}", String::from_utf8_lossy(text));
                }
                id(text).context("news without an id")
            }
        }
    }
}
