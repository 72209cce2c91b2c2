//! The two ways to watch: server-sent events and the WebSocket.

use anyhow::{Context, bail, ensure};
use futures_util::{SinkExt, StreamExt};
use serde_json::Value;
use tokio::net::TcpStream;
use tokio_tungstenite::{
    MaybeTlsStream, WebSocketStream,
    tungstenite::{ClientRequestBuilder, Message},
};

/// One server-sent event of a task.
#[derive(Debug, Clone, PartialEq)]
pub struct SseEvent {
    /// `id:`
    pub id: i64,
    /// `event:`
    pub name: String,
    /// `data:`, which is JSON.
    pub data: Value,
}

impl SseEvent {
    /// One block between empty lines; `None` for a comment, and for the goodbye of a process that ends: it is no event of the task.
    fn parse(block: &str) -> anyhow::Result<Option<Self>> {
        let field = |name: &str| {
            let mut lines = block.lines().filter_map(|line| line.split_once(": "));
            lines.find(|(key, _)| *key == name).map(|(_, value)| value)
        };
        let Some(data) = field("data") else { return Ok(None) };
        if field("event") == Some("draining") {
            return Ok(None);
        }
        let id = field("id").context("an event without an id")?.parse()?;
        let name = field("event").context("an event without a name")?.to_owned();
        Ok(Some(Self { id, name, data: serde_json::from_str(data)? }))
    }
}

/// Reads events until the stream ends or `enough` of them have come.
pub(crate) async fn read_events(answer: reqwest::Response, enough: usize) -> anyhow::Result<Vec<SseEvent>> {
    let mut bytes = answer.bytes_stream();
    let (mut events, mut buffer) = (Vec::new(), Vec::new());
    while events.len() < enough {
        let next = tokio::time::timeout(crate::PATIENCE, bytes.next()).await;
        let Some(chunk) = next.context("the event stream has fallen silent")? else { break };
        buffer.extend_from_slice(&chunk?);
        while let Some(end) = buffer.windows(2).position(|pair| pair == b"\n\n") {
            let block: Vec<u8> = buffer.drain(..end + 2).collect();
            events.extend(SseEvent::parse(std::str::from_utf8(&block)?)?);
        }
    }
    events.truncate(enough);
    Ok(events)
}

/// An open WebSocket.
#[derive(Debug)]
pub struct Watch {
    socket: WebSocketStream<MaybeTlsStream<TcpStream>>,
}

impl Watch {
    /// Connects and reads the greeting.
    pub(crate) async fn open(base: &str, query: &str, headers: &[(&str, &str)]) -> anyhow::Result<Self> {
        let url = format!("{}/v1/ws{query}", base.replacen("http", "ws", 1)).parse()?;
        let request = ClientRequestBuilder::new(url).with_sub_protocol("tasks.v1");
        let request =
            headers.iter().fold(request, |request, (name, value)| request.with_header(*name, *value));
        let (socket, _) = tokio_tungstenite::connect_async(request).await?;
        let mut watch = Self { socket };
        let greeting = watch.next().await?;
        ensure!(greeting["type"] == "ready", "the greeting is {greeting}");
        Ok(watch)
    }

    /// Sends a frame.
    ///
    /// # Errors
    /// The connection is gone.
    pub async fn send(&mut self, frame: &Value) -> anyhow::Result<()> {
        Ok(self.socket.send(Message::text(frame.to_string())).await?)
    }

    /// The next frame.
    ///
    /// # Errors
    /// The connection was closed, or nothing came within the usual patience.
    pub async fn next(&mut self) -> anyhow::Result<Value> {
        loop {
            let next = tokio::time::timeout(crate::PATIENCE, self.socket.next()).await;
            match next.context("the WebSocket has fallen silent")?.context("the WebSocket has ended")?? {
                Message::Text(text) => return Ok(serde_json::from_str(text.as_str())?),
                Message::Close(frame) => bail!("the WebSocket was closed: {frame:?}"),
                _ => {}
            }
        }
    }

    /// Subscribes to topics and gives the answer, `ack` or `error`.
    ///
    /// # Errors
    /// As [`Watch::next`].
    pub async fn subscribe(&mut self, frame: &Value) -> anyhow::Result<Value> {
        self.send(frame).await?;
        self.next().await
    }

    /// Events of one topic until it ends; frames of other topics are refused.
    ///
    /// # Errors
    /// As [`Watch::next`], or an unexpected frame.
    pub async fn until_end(&mut self, topic: &str) -> anyhow::Result<Vec<Value>> {
        let mut events = Vec::new();
        loop {
            let frame = self.next().await?;
            ensure!(frame["topic"] == topic, "unexpected frame: {frame}");
            match frame["type"].as_str() {
                Some("event") => events.push(frame["event"].clone()),
                Some("end") => return Ok(events),
                _ => bail!("unexpected frame: {frame}"),
            }
        }
    }
}
