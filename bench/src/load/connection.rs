//! A keep-alive HTTP/1.1 connection that does no more than it must, so that the box belongs to the systems under test.

use anyhow::{Context, bail, ensure};
use std::net::SocketAddr;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::Instant,
};

/// One connection, one request at a time.
pub(crate) struct Connection {
    socket: TcpStream,
    buffer: Vec<u8>,
}

/// An answer in the connection's buffer.
pub(crate) struct Answer<'a> {
    pub(crate) status: u16,
    pub(crate) body: &'a [u8],
}

impl Connection {
    pub(crate) async fn open(address: SocketAddr) -> anyhow::Result<Self> {
        let socket = TcpStream::connect(address).await?;
        socket.set_nodelay(true)?;
        Ok(Self { socket, buffer: Vec::with_capacity(16 << 10) })
    }

    /// Sends a request, whole as it is, and reads its answer.
    ///
    /// # Errors
    /// The connection broke, or the answer does not give its length.
    pub(crate) async fn call(&mut self, request: &[u8]) -> anyhow::Result<Answer<'_>> {
        self.socket.write_all(request).await?;
        self.buffer.clear();
        let head = loop {
            self.more().await?;
            if let Some(at) = self.buffer.windows(4).position(|four| four == b"\r\n\r\n") {
                break at + 4;
            }
        };
        let text = std::str::from_utf8(&self.buffer[..head])?;
        let status = text.get(9..12).context("no status")?.parse()?;
        let length = text.lines().find_map(|line| {
            let (name, value) = line.split_once(':')?;
            name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse::<usize>().ok())?
        });
        let end = head + length.context("an answer without its length")?;
        while self.buffer.len() < end {
            self.more().await?;
        }
        Ok(Answer { status, body: &self.buffer[head..end] })
    }

    /// Sends a request and reads its answer, which is streamed, to the end; gives the moment when `wanted` was there.
    ///
    /// # Errors
    /// The connection broke, the status is not 200, or nothing of the kind came.
    pub(crate) async fn first(&mut self, request: &[u8], wanted: &str) -> anyhow::Result<Instant> {
        self.socket.write_all(request).await?;
        self.buffer.clear();
        let mut first = None;
        // The last chunk is an empty one.
        while !self.buffer.ends_with(b"\r\n0\r\n\r\n") {
            let searched = self.buffer.len().saturating_sub(wanted.len());
            self.more().await?;
            if first.is_none() {
                let now = Instant::now();
                let mut places = self.buffer[searched..].windows(wanted.len());
                first = places.any(|place| place == wanted.as_bytes()).then_some(now);
                ensure!(self.buffer.starts_with(b"HTTP/1.1 200"), "{}", self.buffer.escape_ascii());
            }
        }
        first.with_context(|| format!("no {wanted} in {}", self.buffer.escape_ascii()))
    }

    async fn more(&mut self) -> anyhow::Result<()> {
        if self.socket.read_buf(&mut self.buffer).await? == 0 {
            bail!("the connection was closed");
        }
        Ok(())
    }
}

/// The value of the first `"id"` in a JSON text.
pub(crate) fn id(json: &[u8]) -> Option<String> {
    let after = json.windows(4).position(|four| four == b"\"id\"")? + 4;
    let mut quoted = json.get(after..)?.split(|byte| *byte == b'"').skip(1);
    String::from_utf8(quoted.next()?.to_vec()).ok()
}

#[cfg(test)]
mod tests {
    use super::id;

    #[test]
    fn an_id_is_found_with_and_without_spaces() {
        assert_eq!(id(br#"{"id": "task_1","x":2}"#).as_deref(), Some("task_1"));
        assert_eq!(id(br#"{"x":2,"id":"b"}"#).as_deref(), Some("b"));
        assert_eq!(id(b"{}"), None);
    }
}
