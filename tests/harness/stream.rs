//! The two ways to watch: server-sent events and the WebSocket.

use anyhow::{Context, bail, ensure};
use bytes::Bytes;
use futures_util::{SinkExt, StreamExt, stream::BoxStream};
use serde_json::Value;
use socket2::SockRef;
use tokio::net::{TcpSocket, TcpStream};
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

/// An open event stream.
pub(crate) struct EventStream {
    bytes: BoxStream<'static, reqwest::Result<Bytes>>,
    buffer: Vec<u8>,
}

impl EventStream {
    pub(crate) fn new(answer: reqwest::Response) -> Self {
        Self { bytes: answer.bytes_stream().boxed(), buffer: Vec::new() }
    }

    /// The next event; `None` at the stream's end.
    ///
    /// # Errors
    /// The stream broke, or nothing came within the usual patience.
    pub(crate) async fn next(&mut self) -> anyhow::Result<Option<SseEvent>> {
        loop {
            while let Some(end) = self.buffer.windows(2).position(|pair| pair == b"\n\n") {
                let block: Vec<u8> = self.buffer.drain(..end + 2).collect();
                if let Some(event) = SseEvent::parse(std::str::from_utf8(&block)?)? {
                    return Ok(Some(event));
                }
            }
            let next = tokio::time::timeout(crate::PATIENCE, self.bytes.next()).await;
            let Some(chunk) = next.context("the event stream has fallen silent")? else { return Ok(None) };
            self.buffer.extend_from_slice(&chunk?);
        }
    }
}

/// Reads events until the stream ends or `enough` of them have come.
pub(crate) async fn read_events(answer: reqwest::Response, enough: usize) -> anyhow::Result<Vec<SseEvent>> {
    let (mut stream, mut events) = (EventStream::new(answer), Vec::new());
    while events.len() < enough {
        let Some(event) = stream.next().await? else { break };
        events.push(event);
    }
    Ok(events)
}

/// A connection over which little is on its way at a time: small segments keep what the kernel holds for it small.
async fn narrow(base: &str, room: u32) -> anyhow::Result<TcpStream> {
    let address = base.split_once("://").context("a URL without a scheme")?.1.parse()?;
    let socket = TcpSocket::new_v4()?;
    SockRef::from(&socket).set_tcp_mss(1_400)?;
    socket.set_recv_buffer_size(room)?;
    Ok(socket.connect(address).await?)
}

/// An open WebSocket.
#[derive(Debug)]
pub struct Watch {
    socket: WebSocketStream<MaybeTlsStream<TcpStream>>,
}

impl Watch {
    /// Connects and reads the greeting. With `room` the kernel keeps no more than so many bytes or so for a client that does not
    /// read.
    pub(crate) async fn open(
        base: &str,
        query: &str,
        headers: &[(&str, &str)],
        room: Option<u32>,
    ) -> anyhow::Result<Self> {
        let url = format!("{}/v1/ws{query}", base.replacen("http", "ws", 1)).parse()?;
        let request = ClientRequestBuilder::new(url).with_sub_protocol("tasks.v1");
        let request =
            headers.iter().fold(request, |request, (name, value)| request.with_header(*name, *value));
        let (socket, _) = match room {
            None => tokio_tungstenite::connect_async(request).await?,
            Some(room) => {
                let stream = MaybeTlsStream::Plain(narrow(base, room).await?);
                tokio_tungstenite::client_async(request, stream).await?
            }
        };
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

    /// Sends a frame of bytes, which is no text.
    ///
    /// # Errors
    /// The connection is gone.
    pub async fn send_bytes(&mut self, bytes: Bytes) -> anyhow::Result<()> {
        Ok(self.socket.send(Message::Binary(bytes)).await?)
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
