//! A WebSocket that does no more than it must: frames are cut out and searched, never parsed, so that a thousand of them leave the box to
//! the system under test.
//!
//! It relies on how Longhaul writes: text frames in one piece, members in their order.

use super::connection::id;
use anyhow::{Context, bail, ensure};
use std::{net::SocketAddr, ops::Range};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

/// What only a chunk with text has: the first one names the role, the last one has nothing.
pub(crate) const TOKEN: &str = r#""delta":{"content":""#;

const TEXT: u8 = 1;
const CLOSE: u8 = 8;
const PING: u8 = 9;
const PONG: u8 = 10;

/// An open socket.
pub(crate) struct Socket {
    stream: TcpStream,
    buffer: Vec<u8>,
    /// Where the unread part of the buffer begins.
    at: usize,
}

/// What came of following a task to its end.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Followed {
    /// Events told.
    pub(crate) events: usize,
    /// Those with text.
    pub(crate) tokens: usize,
}

impl Socket {
    /// Connects and reads the greeting.
    ///
    /// # Errors
    /// It was refused.
    pub(crate) async fn open(api: SocketAddr) -> anyhow::Result<Self> {
        let mut stream = TcpStream::connect(api).await?;
        stream.set_nodelay(true)?;
        let upgrade = format!(
            "GET /v1/ws HTTP/1.1\r\nhost: {api}\r\nupgrade: websocket\r\nconnection: upgrade\r\n\
             sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
             sec-websocket-protocol: tasks.v1\r\n\r\n"
        );
        stream.write_all(upgrade.as_bytes()).await?;
        let mut socket = Self { stream, buffer: Vec::with_capacity(16 << 10), at: 0 };
        socket.at = loop {
            socket.more().await?;
            if let Some(end) = socket.buffer.windows(4).position(|four| four == b"\r\n\r\n") {
                break end + 4;
            }
        };
        ensure!(socket.buffer.starts_with(b"HTTP/1.1 101"), "no socket: {}", socket.buffer.escape_ascii());
        let greeting = socket.next().await?;
        ensure!(greeting.starts_with(r#"{"type":"ready""#), "the greeting is {greeting}");
        Ok(socket)
    }

    /// Submits a task; gives its id.
    ///
    /// # Errors
    /// It was not accepted.
    pub(crate) async fn create(&mut self, task: &str) -> anyhow::Result<String> {
        let ack = self.ask(&format!(r#"{{"type":"task.create","id":"1","task":{task}}}"#)).await?;
        let task = after(ack, r#""task":"#).context("an ack without its task")?;
        id(task.as_bytes()).context("a task without an id")
    }

    /// Subscribes to a task.
    ///
    /// # Errors
    /// It was refused.
    pub(crate) async fn subscribe(&mut self, task: &str) -> anyhow::Result<()> {
        let ask = format!(r#"{{"type":"subscribe","id":"1","topics":["task:{task}"]}}"#);
        self.ask(&ask).await.map(drop)
    }

    /// Ends such a subscription.
    ///
    /// # Errors
    /// It was refused.
    pub(crate) async fn unsubscribe(&mut self, task: &str) -> anyhow::Result<()> {
        let ask = format!(r#"{{"type":"unsubscribe","id":"1","topics":["task:{task}"]}}"#);
        self.ask(&ask).await.map(drop)
    }

    /// Reads the only topic, from its beginning to its end; `token` sees every frame with text as it comes.
    ///
    /// # Errors
    /// An event is missing, comes twice, or the task was not completed.
    pub(crate) async fn follow(&mut self, mut token: impl FnMut(&str)) -> anyhow::Result<Followed> {
        let (mut followed, mut completed) = (Followed::default(), false);
        loop {
            let frame = self.next().await?;
            if frame.starts_with(r#"{"type":"end""#) {
                ensure!(completed, "the topic ended before its task");
                return Ok(followed);
            }
            let seq = number(frame, r#""seq":"#).with_context(|| format!("not an event: {frame}"))?;
            ensure!(seq == followed.events as f64, "event {} is missing before {frame}", followed.events);
            followed.events += 1;
            if frame.contains(TOKEN) {
                followed.tokens += 1;
                token(frame);
            } else if let Some(kind) = after(frame, r#""event":{"type":"task."#) {
                ensure!(!kind.starts_with("failed"), "the task failed: {frame}");
                completed |= kind.starts_with("completed");
            }
        }
    }

    /// Only keeps the connection alive.
    ///
    /// # Errors
    /// It broke.
    pub(crate) async fn rest(&mut self) -> anyhow::Result<()> {
        loop {
            self.next().await?;
        }
    }

    /// Asks for something and reads on until the answer.
    async fn ask(&mut self, text: &str) -> anyhow::Result<&str> {
        self.write(TEXT, text.as_bytes()).await?;
        loop {
            let payload = self.frame().await?;
            let text = std::str::from_utf8(&self.buffer[payload.clone()])?;
            ensure!(!text.starts_with(r#"{"type":"error""#), "refused: {text}");
            if text.starts_with(r#"{"type":"ack""#) {
                // Once more, because a borrow in a loop lasts for all of its turns.
                return Ok(std::str::from_utf8(&self.buffer[payload])?);
            }
        }
    }

    /// The next text.
    async fn next(&mut self) -> anyhow::Result<&str> {
        let payload = self.frame().await?;
        Ok(std::str::from_utf8(&self.buffer[payload])?)
    }

    /// Where in the buffer the next text is.
    async fn frame(&mut self) -> anyhow::Result<Range<usize>> {
        loop {
            let Some((kind, payload)) = cut(&self.buffer[self.at..]) else {
                self.more().await?;
                continue;
            };
            let payload = self.at + payload.start..self.at + payload.end;
            self.at = payload.end;
            match kind {
                TEXT => return Ok(payload),
                // A ping of Longhaul's carries nothing.
                PING => self.write(PONG, b"").await?,
                CLOSE => bail!("the socket was closed: {}", self.buffer[payload].escape_ascii()),
                kind => bail!("a frame of kind {kind}"),
            }
        }
    }

    /// Writes a frame. Its mask is zero, which leaves the payload as it is.
    async fn write(&mut self, kind: u8, payload: &[u8]) -> anyhow::Result<()> {
        let mut frame = vec![0x80 | kind];
        match u8::try_from(payload.len()) {
            Ok(length @ ..126) => frame.push(0x80 | length),
            _ => {
                frame.push(0x80 | 126);
                frame.extend(u16::try_from(payload.len())?.to_be_bytes());
            }
        }
        frame.extend([0; 4]);
        frame.extend(payload);
        Ok(self.stream.write_all(&frame).await?)
    }

    async fn more(&mut self) -> anyhow::Result<()> {
        self.buffer.drain(..self.at);
        self.at = 0;
        ensure!(self.stream.read_buf(&mut self.buffer).await? > 0, "the connection was closed");
        Ok(())
    }
}

/// The first frame of these bytes: its kind, and where its payload is. `None`: there is more to come.
fn cut(bytes: &[u8]) -> Option<(u8, Range<usize>)> {
    let (head, length) = match bytes.get(1)? & 0x7f {
        126 => (4, usize::from(u16::from_be_bytes(bytes.get(2..4)?.try_into().ok()?))),
        127 => (10, usize::try_from(u64::from_be_bytes(bytes.get(2..10)?.try_into().ok()?)).ok()?),
        short => (2, usize::from(short)),
    };
    (bytes.len() >= head + length).then(|| (bytes[0] & 0x0f, head..head + length))
}

/// What follows the first `name`.
fn after<'a>(json: &'a str, name: &str) -> Option<&'a str> {
    json.find(name).map(|at| &json[at + name.len()..])
}

/// The number after the first `name`.
pub(crate) fn number(json: &str, name: &str) -> Option<f64> {
    let text = after(json, name)?;
    text[..text.find([',', '}'])?].parse().ok()
}

#[cfg(test)]
mod tests {
    use super::{cut, number};

    #[test]
    fn frames_are_cut_where_they_end() {
        assert_eq!(cut(b""), None);
        assert_eq!(cut(&[0x81, 3, b'a', b'b']), None);
        assert_eq!(cut(&[0x81, 2, b'a', b'b', 0x89]), Some((1, 2..4)));
        assert_eq!(cut(&[0x89, 0]), Some((9, 2..2)));
        let long = [&[0x81, 126, 1, 0][..], &[b'x'; 256]].concat();
        assert_eq!((cut(&long[..200]), cut(&long)), (None, Some((1, 4..260))));
        let longer = [&[0x81, 127, 0, 0, 0, 0, 0, 1, 0, 0][..], &[b'x'; 65_536]].concat();
        assert_eq!((cut(&longer[..5]), cut(&longer)), (None, Some((1, 10..65_546))));
    }

    #[test]
    fn numbers_are_found_by_name() {
        let json = r#"{"seq":12,"event":{"seq":7,"ts":1795280294.538}}"#;
        assert_eq!(
            (number(json, r#""seq":"#), number(json, r#""ts":"#)),
            (Some(12.0), Some(1_795_280_294.538))
        );
        assert_eq!(number(json, r#""at":"#), None);
    }
}
