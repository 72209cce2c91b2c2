//! An upstream that answers what a test dictates, byte for byte, and keeps what it was sent.
//!
//! One request per connection: the request's head and `content-length` bytes are read, the next scripted answer (or the one chosen by the
//! request) is written as it stands, and the connection is closed. `GET` (the list of models) is answered with 404 and not kept.

use anyhow::Context;
use shared::clock::UnixMs;
use std::{
    collections::VecDeque,
    net::{IpAddr, Ipv4Addr},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinSet,
};

/// What is written, and what becomes of the connection then.
#[derive(Debug, Clone)]
pub struct Scripted {
    /// Head and body.
    pub bytes: Vec<u8>,
    /// What follows.
    pub then: Then,
}

/// What follows an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Then {
    /// The connection is closed.
    Close,
    /// Nothing, until the client hangs up.
    Silence,
    /// These bytes every 100 ms, until the client hangs up.
    Beat(&'static [u8]),
}

type Choose = Box<dyn FnMut(&[u8]) -> Option<Scripted> + Send>;

struct Script {
    choose: Choose,
    requests: Vec<(String, Vec<u8>, UnixMs)>,
}

impl std::fmt::Debug for Script {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Script").field("requests", &self.requests.len()).finish_non_exhaustive()
    }
}

/// A scripted upstream. Dropping it closes it.
#[derive(Debug)]
pub struct ScriptedUpstream {
    /// Its base URL.
    pub url: String,
    script: Arc<Mutex<Script>>,
    _serving: JoinSet<()>,
}

impl ScriptedUpstream {
    /// Listens, with these answers to come; the last one is repeated for ever.
    ///
    /// # Errors
    /// No port is free.
    pub async fn start(answers: impl IntoIterator<Item = Vec<u8>>) -> anyhow::Result<Self> {
        Self::at(Ipv4Addr::LOCALHOST.into(), answers).await
    }

    /// The same at another of this machine's addresses.
    ///
    /// # Errors
    /// No port is free.
    pub async fn at(address: IpAddr, answers: impl IntoIterator<Item = Vec<u8>>) -> anyhow::Result<Self> {
        let mut answers: VecDeque<Vec<u8>> = answers.into_iter().collect();
        let next = move |_: &[u8]| {
            let bytes = answers.pop_front()?;
            if answers.is_empty() {
                answers.push_back(bytes.clone());
            }
            Some(Scripted { bytes, then: Then::Close })
        };
        Self::choosing_at(address, Box::new(next)).await
    }

    /// Listens; each answer is chosen by the body of its request. `None` breaks the connection.
    ///
    /// # Errors
    /// No port is free.
    pub async fn choosing(
        choose: impl FnMut(&[u8]) -> Option<Scripted> + Send + 'static,
    ) -> anyhow::Result<Self> {
        Self::choosing_at(Ipv4Addr::LOCALHOST.into(), Box::new(choose)).await
    }

    async fn choosing_at(address: IpAddr, choose: Choose) -> anyhow::Result<Self> {
        let listener = TcpListener::bind((address, 0)).await?;
        let url = format!("http://{}", listener.local_addr()?);
        let script = Arc::new(Mutex::new(Script { choose, requests: Vec::new() }));
        let mut serving = JoinSet::new();
        serving.spawn(serve(listener, script.clone()));
        Ok(Self { url, script, _serving: serving })
    }

    /// An answer with status 200, this content type and body.
    #[must_use]
    pub fn ok(content_type: &str, body: &[u8]) -> Vec<u8> {
        let length = body.len();
        let head = format!(
            "HTTP/1.1 200 OK\r\ncontent-type: {content_type}\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n"
        );
        [head.as_bytes(), body].concat()
    }

    /// The bodies of the requests so far.
    #[must_use]
    pub fn requests(&self) -> Vec<Vec<u8>> {
        self.heard().into_iter().map(|(_, body)| body).collect()
    }

    /// Heads and bodies of the requests so far.
    #[must_use]
    pub fn heard(&self) -> Vec<(String, Vec<u8>)> {
        self.heard_at().into_iter().map(|(head, body, _)| (head, body)).collect()
    }

    /// The same, with the moment when each had come.
    #[must_use]
    pub fn heard_at(&self) -> Vec<(String, Vec<u8>, UnixMs)> {
        self.script.lock().unwrap_or_else(PoisonError::into_inner).requests.clone()
    }
}

async fn serve(listener: TcpListener, script: Arc<Mutex<Script>>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            Ok((connection, _)) = listener.accept() => {
                let script = script.clone();
                // A client that hangs up early is the test's business, not an error here.
                connections.spawn(async move { answer(connection, &script).await.ok() });
            }
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn answer(mut connection: TcpStream, script: &Mutex<Script>) -> anyhow::Result<()> {
    let (head, mut body) = read_head(&mut connection).await?;
    if head.starts_with("GET ") {
        connection
            .write_all(b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
            .await?;
        return Ok(());
    }
    let length = content_length(&head)?;
    while body.len() < length {
        anyhow::ensure!(connection.read_buf(&mut body).await? > 0, "the request ended early");
    }
    let answer = {
        let mut script = script.lock().unwrap_or_else(PoisonError::into_inner);
        let answer = (script.choose)(&body).context("no answer is scripted")?;
        script.requests.push((head, body, UnixMs::now()));
        answer
    };
    connection.write_all(&answer.bytes).await?;
    let mut gone = [0];
    match answer.then {
        Then::Close => connection.shutdown().await?,
        Then::Silence => drop(connection.read(&mut gone).await?),
        Then::Beat(beat) => loop {
            tokio::select! {
                _ = connection.read(&mut gone) => break,
                () = tokio::time::sleep(Duration::from_millis(100)) => connection.write_all(beat).await?,
            }
        },
    }
    Ok(())
}

/// The request's head, and what came of its body with it.
async fn read_head(connection: &mut TcpStream) -> anyhow::Result<(String, Vec<u8>)> {
    let mut bytes = Vec::new();
    loop {
        if let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
            let body = bytes.split_off(end + 4);
            return Ok((String::from_utf8(bytes)?, body));
        }
        anyhow::ensure!(connection.read_buf(&mut bytes).await? > 0, "the request ended early");
    }
}

fn content_length(head: &str) -> anyhow::Result<usize> {
    let mut lines = head.lines().filter_map(|line| line.split_once(':'));
    let length = lines.find(|(name, _)| name.eq_ignore_ascii_case("content-length"));
    Ok(length.context("a request without content-length")?.1.trim().parse()?)
}
