//! A client of the API with the few verbs that tests speak.

use crate::stream::{SseEvent, Watch, read_events};
use anyhow::Context;
use bytes::Bytes;
use reqwest::{Method, header::HeaderMap};
use serde_json::{Value, json};
use std::time::Duration;

/// A client of one API process.
#[derive(Debug, Clone)]
pub struct Client {
    http: reqwest::Client,
    base: String,
    key: Option<String>,
}

/// An HTTP answer, read to its end.
#[derive(Debug, Clone)]
pub struct Reply {
    /// The status.
    pub status: u16,
    /// The headers.
    pub headers: HeaderMap,
    /// The body.
    pub body: Bytes,
}

impl Reply {
    /// The body as JSON.
    ///
    /// # Errors
    /// It is none.
    pub fn json(&self) -> anyhow::Result<Value> {
        serde_json::from_slice(&self.body).with_context(|| format!("no JSON: {self:?}"))
    }

    /// A header as text, empty if it is missing.
    #[must_use]
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }

    /// The body as JSON, if the status is this one.
    ///
    /// # Errors
    /// Another status, or no JSON.
    pub fn expect(&self, status: u16) -> anyhow::Result<Value> {
        anyhow::ensure!(
            self.status == status,
            "status {} instead of {status}: {}",
            self.status,
            String::from_utf8_lossy(&self.body)
        );
        self.json()
    }
}

/// A chat request for the simulated model, with what it is asked to do in `sim`.
#[must_use]
pub fn chat(prompt: &str, sim: Value) -> Value {
    json!({"model": "sim-chat", "messages": [{"role": "user", "content": prompt}], "sim": sim})
}

impl Client {
    /// A client of the API at `base`.
    ///
    /// # Errors
    /// The TLS library is broken.
    pub fn new(base: impl Into<String>) -> anyhow::Result<Self> {
        Ok(Self { http: http(usize::MAX)?, base: base.into(), key: None })
    }

    /// The same client with a connection of its own for every request: what it says of the API is about the API alone.
    ///
    /// # Errors
    /// As [`Client::new`].
    pub fn without_pool(&self) -> anyhow::Result<Self> {
        Ok(Self { http: http(0)?, ..self.clone() })
    }

    /// Where the API is.
    #[must_use]
    pub fn base(&self) -> &str {
        &self.base
    }

    /// The same client with a key or token to show.
    #[must_use]
    pub fn with_key(&self, key: impl Into<String>) -> Self {
        Self { key: Some(key.into()), ..self.clone() }
    }

    /// A request yet to be sent.
    pub fn request(&self, method: Method, path: &str) -> reqwest::RequestBuilder {
        let request = self.http.request(method, format!("{}{path}", self.base));
        match &self.key {
            Some(key) => request.bearer_auth(key),
            None => request,
        }
    }

    /// Sends a request and reads the answer to its end.
    ///
    /// # Errors
    /// There was no complete answer.
    pub async fn send(request: reqwest::RequestBuilder) -> anyhow::Result<Reply> {
        let answer = request.send().await?;
        let (status, headers) = (answer.status().as_u16(), answer.headers().clone());
        Ok(Reply { status, headers, body: answer.bytes().await? })
    }

    /// `GET`.
    ///
    /// # Errors
    /// No answer.
    pub async fn get(&self, path: &str) -> anyhow::Result<Reply> {
        Self::send(self.request(Method::GET, path)).await
    }

    /// `POST` with a JSON body.
    ///
    /// # Errors
    /// No answer.
    pub async fn post(&self, path: &str, body: &Value) -> anyhow::Result<Reply> {
        Self::send(self.request(Method::POST, path).json(body)).await
    }

    /// `POST` with these bytes as JSON.
    ///
    /// # Errors
    /// No answer.
    pub async fn post_bytes(&self, path: &str, body: impl Into<Bytes>) -> anyhow::Result<Reply> {
        let request = self.request(Method::POST, path).header("content-type", "application/json");
        Self::send(request.body(body.into())).await
    }

    /// `DELETE`.
    ///
    /// # Errors
    /// No answer.
    pub async fn delete(&self, path: &str) -> anyhow::Result<Reply> {
        Self::send(self.request(Method::DELETE, path)).await
    }

    /// Submits a task; gives its id.
    ///
    /// # Errors
    /// It was not accepted.
    pub async fn submit(&self, task: &Value) -> anyhow::Result<String> {
        let accepted = self.post("/v1/tasks", task).await?.expect(202)?;
        Ok(accepted["id"].as_str().context("a task without an id")?.to_owned())
    }

    /// Submits a chat request to the simulated model; gives the task's id.
    ///
    /// # Errors
    /// It was not accepted.
    pub async fn ask(&self, prompt: &str, sim: Value) -> anyhow::Result<String> {
        self.submit(&json!({"endpoint": "/v1/chat/completions", "body": chat(prompt, sim)})).await
    }

    /// The task as it stands.
    ///
    /// # Errors
    /// There is none.
    pub async fn task(&self, id: &str) -> anyhow::Result<Value> {
        self.get(&format!("/v1/tasks/{id}")).await?.expect(200)
    }

    /// The task once it has ended.
    ///
    /// # Errors
    /// It did not end within a minute.
    pub async fn ended(&self, id: &str) -> anyhow::Result<Value> {
        for _ in 0..2 {
            let task = self.get(&format!("/v1/tasks/{id}?wait=30")).await?.expect(200)?;
            if !matches!(task["status"].as_str(), Some("scheduled" | "queued" | "in_progress")) {
                return Ok(task);
            }
        }
        anyhow::bail!("{id} has not ended: {}", self.task(id).await?)
    }

    /// The task once it has this status, within the usual patience.
    ///
    /// # Errors
    /// It never had.
    pub async fn reaches(&self, id: &str, status: &str) -> anyhow::Result<Value> {
        crate::eventually(&format!("{id} is {status}"), async || {
            let task = self.task(id).await?;
            Ok((task["status"] == status).then_some(task))
        })
        .await
    }

    /// Opens the task's event stream after a cursor, as an `EventSource` would.
    ///
    /// # Errors
    /// No answer.
    pub async fn open_events(&self, id: &str, after: Option<i64>) -> anyhow::Result<reqwest::Response> {
        let mut request = self.request(Method::GET, &format!("/v1/tasks/{id}/events"));
        request = request.header("accept", "text/event-stream");
        if let Some(after) = after {
            request = request.header("last-event-id", after.to_string());
        }
        Ok(request.send().await?)
    }

    /// The task's events after a cursor, until the stream ends or `enough` of them have come.
    ///
    /// # Errors
    /// The stream broke, or stays open without a word.
    pub async fn events(&self, id: &str, after: Option<i64>, enough: usize) -> anyhow::Result<Vec<SseEvent>> {
        let answer = self.open_events(id, after).await?;
        anyhow::ensure!(answer.status() == 200, "events of {id}: status {}", answer.status());
        read_events(answer, enough).await
    }

    /// A WebSocket to this API.
    ///
    /// # Errors
    /// It was refused.
    pub async fn watch(&self) -> anyhow::Result<Watch> {
        let key = self.bearer();
        Watch::open(&self.base, "", &headers(key.as_ref()), None).await
    }

    /// A WebSocket for which the kernel keeps no more than so many bytes or so while nobody reads.
    ///
    /// # Errors
    /// It was refused.
    pub async fn watch_through(&self, room: u32) -> anyhow::Result<Watch> {
        let key = self.bearer();
        Watch::open(&self.base, "", &headers(key.as_ref()), Some(room)).await
    }

    /// A WebSocket to this API as a page of `origin` opens one: no header is its own, but it may have a ticket.
    ///
    /// # Errors
    /// It was refused.
    pub async fn watch_from(&self, origin: &str, ticket: Option<&str>) -> anyhow::Result<Watch> {
        let query = ticket.map_or_else(String::new, |ticket| format!("?ticket={ticket}"));
        Watch::open(&self.base, &query, &[("Origin", origin)], None).await
    }

    fn bearer(&self) -> Option<String> {
        self.key.as_ref().map(|key| format!("Bearer {key}"))
    }
}

fn headers(key: Option<&String>) -> Vec<(&str, &str)> {
    key.iter().map(|key| ("Authorization", key.as_str())).collect()
}

fn http(idle: usize) -> reqwest::Result<reqwest::Client> {
    let builder = reqwest::Client::builder().no_proxy().redirect(reqwest::redirect::Policy::none());
    builder.timeout(Duration::from_secs(90)).pool_max_idle_per_host(idle).build()
}
