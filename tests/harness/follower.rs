//! Someone who follows a task over whatever breaks: with each new connection it goes to the next API, from the last seq that it has
//! heard on.

use crate::{
    Client,
    stream::{EventStream, Watch},
};
use anyhow::{Context, bail, ensure};
use serde_json::{Value, json};
use shared::clock::UnixMs;
use std::time::{Duration, Instant};
use tokio::time::sleep;

/// Longest time for a whole story.
const PATIENCE: Duration = Duration::from_secs(180);
/// Pause after a connection that broke, milliseconds: not all of them come back in the same moment.
const PAUSE_MS: std::ops::Range<u64> = 20..200;

/// How it listens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// Server-sent events.
    Stream,
    /// The WebSocket.
    Socket,
}

/// A follower of one task.
#[derive(Debug, Clone)]
pub struct Follower {
    /// Where to: the first one first.
    pub apis: Vec<Client>,
    /// The task.
    pub task: String,
    /// How.
    pub way: Way,
    /// Hangs up of its own accord after about so many events; none: never.
    pub leaves: Option<usize>,
}

/// An event, and when it came.
#[derive(Debug, Clone)]
pub struct Heard {
    /// The event.
    pub event: Value,
    /// Unix seconds.
    pub at: f64,
}

/// What a follower was told.
#[derive(Debug, Default)]
pub struct Story {
    /// Every event, as it came.
    pub heard: Vec<Heard>,
    /// Connections over which something came.
    pub visits: usize,
    /// When each connection stood, Unix seconds.
    pub stood: Vec<f64>,
}

enum Line {
    Stream(EventStream),
    Socket(Box<Watch>, String),
}

impl Follower {
    /// Follows to the end.
    ///
    /// # Errors
    /// The end was not told within three minutes, or a stream ended before it without a word.
    pub async fn follow(self) -> anyhow::Result<Story> {
        self.go_on(Story::default()).await
    }

    /// Follows until it has heard so many events, or the end.
    ///
    /// # Errors
    /// The connection broke.
    pub async fn until(&self, count: usize) -> anyhow::Result<Story> {
        let mut story = Story::default();
        let mut line = self.dial(self.apis.first().context("an API")?, None).await?;
        while story.heard.len() < count
            && let Some(event) = line.next().await?
        {
            story.hear(event);
        }
        Ok(story)
    }

    /// Follows to the end, from the end of `story` on.
    ///
    /// # Errors
    /// As [`Follower::follow`].
    pub async fn go_on(self, mut story: Story) -> anyhow::Result<Story> {
        let (begun, mut last) = (Instant::now(), Ok(()));
        for api in self.apis.iter().cycle() {
            if story.is_over() {
                story.must_be_whole()?;
                story.must_hold_the_answer()?;
                return Ok(story);
            }
            if begun.elapsed() > PATIENCE {
                break;
            }
            let before = story.heard.len();
            last = self.visit(api, &mut story).await;
            story.visits += usize::from(story.heard.len() > before);
            if last.is_err() {
                sleep(Duration::from_millis(fastrand::u64(PAUSE_MS))).await;
            }
        }
        last.with_context(|| format!("a follower of {} never heard its end: {:?}", self.task, story.seqs()))?;
        bail!("a follower of {} was told {} events and no end", self.task, story.heard.len())
    }

    /// One connection, until it breaks, the task ends, or it is time to leave.
    async fn visit(&self, api: &Client, story: &mut Story) -> anyhow::Result<()> {
        let mut line = self.dial(api, story.last()).await?;
        story.stood.push(now());
        let mut stay = self.leaves.map_or(usize::MAX, |about| fastrand::usize(1..2 * about));
        while stay > 0 {
            let Some(event) = line.next().await? else { break };
            story.hear(event);
            stay -= 1;
        }
        Ok(())
    }

    async fn dial(&self, api: &Client, last: Option<i64>) -> anyhow::Result<Line> {
        match self.way {
            Way::Stream => {
                let answer = api.open_events(&self.task, last).await?;
                ensure!(answer.status() == 200, "events of {}: status {}", self.task, answer.status());
                Ok(Line::Stream(EventStream::new(answer)))
            }
            Way::Socket => {
                let (mut watch, topic) = (api.watch().await?, format!("task:{}", self.task));
                let mut wish = json!({"type": "subscribe", "id": "1", "topics": [topic]});
                if let Some(last) = last {
                    wish["after"] = json!({&topic: last});
                }
                let answer = watch.subscribe(&wish).await?;
                ensure!(answer["type"] == "ack", "{answer}");
                Ok(Line::Socket(Box::new(watch), topic))
            }
        }
    }
}

/// Unix seconds.
fn now() -> f64 {
    UnixMs::now().0 as f64 / 1_000.0
}

impl Line {
    /// The next event; `None`: nothing more comes over this connection.
    async fn next(&mut self) -> anyhow::Result<Option<Value>> {
        match self {
            Self::Stream(stream) => {
                let Some(event) = stream.next().await? else { return Ok(None) };
                ensure!(
                    event.data["seq"] == event.id && event.data["type"] == event.name.as_str(),
                    "{event:?}"
                );
                Ok(Some(event.data))
            }
            Self::Socket(watch, topic) => {
                let frame = watch.next().await?;
                match frame["type"].as_str() {
                    Some("event") => {
                        ensure!(
                            frame["topic"] == **topic && frame["seq"] == frame["event"]["seq"],
                            "{frame}"
                        );
                        Ok(Some(frame["event"].clone()))
                    }
                    Some("end" | "draining") => Ok(None),
                    _ => bail!("unexpected frame: {frame}"),
                }
            }
        }
    }
}

impl Story {
    fn hear(&mut self, event: Value) {
        self.heard.push(Heard { event, at: now() });
    }

    /// The seqs, as they came.
    #[must_use]
    pub fn seqs(&self) -> Vec<i64> {
        self.heard.iter().filter_map(|heard| heard.event["seq"].as_i64()).collect()
    }

    /// The seq to go on from.
    #[must_use]
    pub fn last(&self) -> Option<i64> {
        self.heard.last()?.event["seq"].as_i64()
    }

    /// How many events of this type came.
    #[must_use]
    pub fn count(&self, kind: &str) -> usize {
        self.heard.iter().filter(|heard| heard.event["type"] == kind).count()
    }

    /// Whether the last event was a terminal one.
    #[must_use]
    pub fn is_over(&self) -> bool {
        let last = self.heard.last().and_then(|heard| heard.event["type"].as_str());
        matches!(last, Some("task.completed" | "task.failed" | "task.cancelled" | "task.expired"))
    }

    /// The events of this type.
    #[must_use]
    pub fn of(&self, kind: &str) -> Vec<&Value> {
        self.heard.iter().map(|heard| &heard.event).filter(|event| event["type"] == kind).collect()
    }

    /// The text that the deltas make together. A reset takes it back, a snapshot puts another one in its place.
    #[must_use]
    pub fn text(&self) -> String {
        self.folded().0
    }

    /// The text, and whether it is said to be all there is: after a snapshot without output it is not.
    fn folded(&self) -> (String, bool) {
        let (mut text, mut whole) = (String::new(), true);
        let said =
            |choice: &Value, part: &str| choice[part]["content"].as_str().unwrap_or_default().to_owned();
        for Heard { event, .. } in &self.heard {
            match event["type"].as_str() {
                Some("task.output.delta") => text += &said(&event["data"]["chunk"]["choices"][0], "delta"),
                Some("task.output.reset") => (text, whole) = (String::new(), true),
                Some("task.snapshot") => {
                    let output = &event["data"]["output"];
                    (text, whole) = (said(&output["choices"][0], "message"), !output.is_null());
                }
                _ => {}
            }
        }
        (text, whole)
    }

    /// The text is that of the answer, where deltas made it; or it was told that something is missing.
    ///
    /// # Errors
    /// It ends with another text.
    pub fn must_hold_the_answer(&self) -> anyhow::Result<()> {
        let (text, whole) = self.folded();
        let end = self.heard.last().map(|heard| &heard.event["data"]["task"]["result"]["body"]);
        let answer = end.and_then(|body| body["choices"][0]["message"]["content"].as_str());
        if let Some(answer) = answer.filter(|_| whole && !text.is_empty()) {
            ensure!(text == answer, "{text:?} instead of {answer:?}: {:?}", self.seqs());
        }
        Ok(())
    }

    /// Every event once and in order, from the first one on; only a snapshot may stand for others.
    ///
    /// # Errors
    /// What is missing or double.
    pub fn must_be_whole(&self) -> anyhow::Result<()> {
        let mut next = Some(0);
        for Heard { event, .. } in &self.heard {
            let seq = event["seq"].as_i64();
            let stands_for_others = event["type"] == "task.snapshot";
            ensure!(seq == next || stands_for_others, "{seq:?} instead of {next:?}: {:?}", self.seqs());
            next = seq.map(|seq| seq + 1);
        }
        Ok(())
    }

    /// Seconds from an event's own time to its coming, in rising order: of the deltas alone.
    #[must_use]
    pub fn delays(&self) -> Vec<f64> {
        let deltas = self.heard.iter().filter(|heard| heard.event["type"] == "task.output.delta");
        let mut delays: Vec<f64> =
            deltas.filter_map(|heard| Some(heard.at - heard.event["ts"].as_f64()?)).collect();
        delays.sort_by(f64::total_cmp);
        delays
    }
}
