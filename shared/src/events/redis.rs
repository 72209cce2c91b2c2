//! The shout in Redis: a stream per task as its log, and a channel per topic.
//!
//! - Key `lh:events:log:<task id>`, a stream. Entry id: `<seq>-1`. Fields: `a`, the attempt that spoke; `s`, the seq of the
//!   terminal event that sealed this attempt, or −1; `e`, the event as JSON, without its opening brace and its `seq`. The newest
//!   entry is all that the fence needs to know. A removed log is one entry without an event, of an attempt that is newer than any.
//! - Channel `lh:events:<topic>`: the event as JSON.
//!
//! `append.lua` judges, numbers, keeps and publishes a group of [`Append`]s.

use super::{
    Append, Appended, EVENTS_MAX, Error, Events, KEEP_REMOVED, KEEP_RUNNING, LOOKED_AT, Log, Result,
    Subscription, bounded,
    feed::{Feed, channel},
};
use crate::{
    clock::UnixMs,
    link::Link,
    task::{Event, EventKind, TaskId, Topic},
};
use async_trait::async_trait;
use redis::{Pipeline, RedisError, Script, ScriptInvocation};
use serde::Serialize;
use serde_json::value::RawValue;
use std::time::Duration;

/// Appends per script call, and bytes of events after which no other is added: keeps each call around a millisecond of Redis' one
/// thread.
const APPENDS_MAX: usize = 128;
const BYTES_MAX: usize = 32 << 10;

/// What all keys of logs begin with.
const LOGS: &str = "lh:events:log:";

/// The shout in Redis.
pub struct RedisEvents {
    link: Link,
    /// Time a log is kept after a terminal event.
    keep: Duration,
    append: Script,
    feed: Feed,
}

/// An event as the script takes it: the script puts the seq in front.
#[derive(Serialize)]
struct Body<'a> {
    #[serde(rename = "type")]
    kind: EventKind,
    task_id: TaskId,
    attempt: u32,
    ts: UnixMs,
    data: &'a RawValue,
}

impl From<RedisError> for Error {
    fn from(error: RedisError) -> Self {
        Self(Box::new(error))
    }
}

impl From<serde_json::Error> for Error {
    fn from(error: serde_json::Error) -> Self {
        Self(Box::new(error))
    }
}

impl RedisEvents {
    /// Connects, within 5 s. `keep`: the time a log is kept after a terminal event.
    ///
    /// # Errors
    /// Redis cannot be reached or is too old.
    pub async fn open(url: &str, keep: Duration) -> Result<Self> {
        let link = Link::open(url).await?;
        let append = Script::new(include_str!("append.lua"));
        Ok(Self { feed: Feed::start(link.clone()), link, keep, append })
    }

    /// Runs the script on a group.
    async fn run(&self, call: &ScriptInvocation<'_>) -> Result<Vec<Appended>> {
        let told: Vec<Option<(i64, bool)>> = call.invoke_async(&mut self.link.clone()).await?;
        let appended = |told| match told {
            Some((seq, true)) => Appended::Last(seq),
            Some((seq, false)) => Appended::Unkept(seq),
            None => Appended::Stale,
        };
        Ok(told.into_iter().map(appended).collect())
    }
}

/// Adds an append to a call of the script; gives the bytes of its events.
fn add(call: &mut ScriptInvocation<'_>, append: &Append) -> Result<usize> {
    call.key(log_key(append.task));
    call.arg(append.attempt).arg(append.floor).arg(u8::from(append.start));
    call.arg(channel(&Topic::Task(append.task))).arg(append.topics.len());
    for topic in &append.topics {
        call.arg(channel(topic));
    }
    call.arg(append.events.len());
    let mut bytes = 0;
    for (kind, ts, data) in &append.events {
        let flag = match kind {
            kind if kind.is_terminal() => "t",
            EventKind::Started => "s",
            kind if kind.is_lifecycle() => "l",
            _ => "o",
        };
        let data = bounded(data.clone());
        let body = Body { kind: *kind, task_id: append.task, attempt: append.attempt, ts: *ts, data: &data };
        let body = serde_json::to_string(&body)?;
        bytes += body.len();
        call.arg(flag).arg(&body[1..]);
    }
    Ok(bytes)
}

fn log_key(task: TaskId) -> String {
    format!("{LOGS}{task}")
}

/// The seq in an entry's id.
fn seq(id: &str) -> Result<i64> {
    let digits = id.split_once('-').map_or(id, |(seq, _)| seq);
    digits.parse().map_err(|error| Error(Box::new(error)))
}

#[async_trait]
impl Events for RedisEvents {
    async fn append(&self, appends: &[Append]) -> Result<Vec<Appended>> {
        let mut answers = Vec::with_capacity(appends.len());
        let mut rest = appends.iter().peekable();
        while rest.peek().is_some() {
            let mut call = self.append.prepare_invoke();
            call.arg(EVENTS_MAX).arg(KEEP_RUNNING.as_millis() as u64).arg(self.keep.as_millis() as u64);
            let mut bytes = 0;
            for append in rest.by_ref().take(APPENDS_MAX) {
                bytes += add(&mut call, append)?;
                if bytes > BYTES_MAX {
                    break;
                }
            }
            answers.extend(self.run(&call).await?);
        }
        Ok(answers)
    }

    async fn read(&self, task: TaskId, after: Option<i64>) -> Result<Log> {
        type Entries = Vec<(String, [(String, String); 3])>;
        let key = log_key(task);
        let next = after.map_or(0, |after| after.saturating_add(1).max(0));
        let mut both = Pipeline::new();
        both.atomic().cmd("XRANGE").arg(&key).arg("-").arg("+").arg("COUNT").arg(1);
        both.cmd("XRANGE").arg(&key).arg(format!("{next}-0")).arg("+");
        let (oldest, entries): (Entries, Entries) = both.query_async(&mut self.link.clone()).await?;
        // A removed log has one entry, and no event.
        if oldest.iter().any(|(_, [_, _, (_, body)])| body.is_empty()) {
            return Ok(Log::default());
        }
        let first = oldest.first().map(|(id, _)| seq(id)).transpose()?;
        let event = |(id, [_, _, (_, body)]): &(String, [(String, String); 3])| -> Result<Event> {
            Ok(serde_json::from_str(&format!(r#"{{"seq":{},{body}"#, seq(id)?))?)
        };
        Ok(Log { first, events: entries.iter().map(event).collect::<Result<_>>()? })
    }

    async fn remove(&self, task: TaskId) -> Result<()> {
        let key = log_key(task);
        let mut all = Pipeline::new();
        all.atomic().del(&key).ignore();
        all.cmd("XADD").arg(&key).arg("1-1").arg(&[
            ("a", u32::MAX.to_string().as_str()),
            ("s", "-1"),
            ("e", ""),
        ]);
        all.ignore().pexpire(&key, KEEP_REMOVED.as_millis() as i64).ignore();
        Ok(all.exec_async(&mut self.link.clone()).await?)
    }

    async fn unfinished(&self, cursor: u64) -> Result<(u64, Vec<TaskId>)> {
        let mut scan = redis::cmd("SCAN");
        scan.arg(cursor).arg("MATCH").arg(format!("{LOGS}*")).arg("COUNT").arg(LOOKED_AT);
        let (next, keys): (u64, Vec<String>) = scan.query_async(&mut self.link.clone()).await?;
        if keys.is_empty() {
            return Ok((next, Vec::new()));
        }
        let mut left = Pipeline::new();
        for key in &keys {
            left.pttl(key);
        }
        let left: Vec<i64> = left.query_async(&mut self.link.clone()).await?;
        let longer = (self.keep.max(KEEP_REMOVED)).as_millis() as i64;
        let long = keys.iter().zip(left).filter(|(_, left)| *left > longer);
        Ok((next, long.filter_map(|(key, _)| key.strip_prefix(LOGS)?.parse().ok()).collect()))
    }

    async fn finish(&self, tasks: &[TaskId]) -> Result<()> {
        let mut all = Pipeline::new();
        for task in tasks {
            all.pexpire(log_key(*task), self.keep.as_millis() as i64).ignore();
        }
        match tasks.is_empty() {
            true => Ok(()),
            false => Ok(all.exec_async(&mut self.link.clone()).await?),
        }
    }

    async fn subscribe(&self, topic: Topic) -> Result<Subscription> {
        Ok(self.feed.subscribe(topic).await?)
    }
}
