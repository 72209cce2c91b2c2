//! A simulator of a test's own, and how to talk to it.

use std::time::Duration;

use serde_json::{Value, json};
use simulator::{Behaviour, Entry, Simulator};
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

pub(crate) const CHAT: &str = "/v1/chat/completions";

/// A simulator of a test's own; it dies with the test.
pub(crate) struct Server {
    pub(crate) simulator: Simulator,
    pub(crate) address: String,
    pub(crate) client: reqwest::Client,
    _serving: JoinSet<anyhow::Result<()>>,
}

impl Server {
    pub(crate) async fn start(behaviour: Behaviour) -> Self {
        Self::of(Simulator::new(behaviour)).await
    }

    /// A server of this simulator.
    pub(crate) async fn of(simulator: Simulator) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let mut serving = JoinSet::new();
        let served = simulator.clone();
        serving.spawn(async move { served.serve(listener, CancellationToken::new()).await });
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        Self { simulator, address, client, _serving: serving }
    }

    pub(crate) async fn post(&self, path: &str, body: &Value, task: &str) -> reqwest::Response {
        let url = format!("http://{}{path}", self.address);
        let request = self.client.post(url).body(body.to_string());
        let request = request.header("Longhaul-Task-Id", task).header("Longhaul-Attempt", "1");
        request.send().await.unwrap()
    }

    pub(crate) async fn whole(&self, path: &str, body: &Value) -> Value {
        let text = self.post(path, body, "whole").await.text().await.unwrap();
        serde_json::from_str(&text).unwrap()
    }

    /// The data of a stream's events, without `[DONE]`.
    pub(crate) async fn events(&self, path: &str, body: &Value) -> Vec<Value> {
        let mut body = body.clone();
        body["stream"] = true.into();
        let text = self.post(path, &body, "stream").await.text().await.unwrap();
        let data =
            text.lines().filter_map(|line| line.strip_prefix("data: ")).filter(|data| *data != "[DONE]");
        data.map(|data| serde_json::from_str(data).unwrap()).collect()
    }

    pub(crate) async fn ended(&self, task: &str) -> Entry {
        for _ in 0..200 {
            if let Some(entry) =
                self.simulator.ledger(Some(task)).pop().filter(|entry| entry.ended_at.is_some())
            {
                return entry;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("no execution of {task} ended: {:?}", self.simulator.ledger(None));
    }

    /// Sends a request on a connection of its own and leaves the answer to the caller.
    pub(crate) async fn call(&self, path: &str, body: &Value, task: &str) -> TcpStream {
        let body = body.to_string();
        let head = format!(
            "POST {path} HTTP/1.1\r\nhost: sim\r\nlonghaul-task-id: {task}\r\ncontent-length: {}\r\n\r\n",
            body.len()
        );
        let mut socket = TcpStream::connect(&self.address).await.unwrap();
        socket.write_all(head.as_bytes()).await.unwrap();
        socket.write_all(body.as_bytes()).await.unwrap();
        socket
    }

    /// How the newest execution of `task` ended.
    pub(crate) async fn how(&self, task: &str) -> &'static str {
        self.ended(task).await.how
    }
}

/// A chat with this `sim` object.
pub(crate) fn chat(sim: Value) -> Value {
    let messages = json!([{"role": "user", "content": "Where does the road go?"}]);
    json!({"model": "sim-chat", "messages": messages, "stream_options": {"include_usage": true}, "sim": sim})
}

/// The same, streamed.
pub(crate) fn streamed(sim: Value) -> Value {
    let mut body = chat(sim);
    body["stream"] = true.into();
    body
}

/// A chat for any text endpoint.
pub(crate) fn anywhere(sim: Value, stream: bool) -> Value {
    let mut body = chat(sim);
    (body["prompt"], body["input"], body["stream"]) = ("x".into(), "x".into(), stream.into());
    body
}
