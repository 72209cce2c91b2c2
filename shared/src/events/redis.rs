//! The shout in Redis: a stream per task as its log, and a channel per topic.
//!
//! - Key `lh:events:log:<task id>`, a stream. Entry id: `<seq>-1`. Fields: `a`, the attempt that spoke; `s`, the seq of the
//!   terminal event that sealed this attempt, or −1; `e`, the event as JSON, without its opening brace and its `seq`. The newest
//!   entry is all that the fence needs to know.
//! - Channel `lh:events:<topic>`: the event as JSON.
//!
//! `append.lua` judges, numbers, keeps and publishes one [`Append`]; a slice of them is one pipeline.

use super::{
    Append, Appended, EVENTS_MAX, Error, Events, KEEP_FINISHED, KEEP_RUNNING, Log, Result, Subscription,
    feed::{Feed, channel},
};
use crate::{
    clock::UnixMs,
    link::Link,
    task::{Event, EventKind, TaskId, Topic},
};
use async_trait::async_trait;
use redis::{Cmd, ErrorKind, Pipeline, RedisError, RedisResult, Script, ServerErrorKind};
use serde::Serialize;
use serde_json::value::RawValue;

/// Appends per pipeline.
const APPENDS_MAX: usize = 256;

/// The shout in Redis.
pub struct RedisEvents {
    link: Link,
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
    /// Connects, within 5 s.
    ///
    /// # Errors
    /// Redis cannot be reached or is too old.
    pub async fn open(url: &str) -> Result<Self> {
        let link = Link::open(url).await?;
        let append = Script::new(include_str!("append.lua"));
        Ok(Self { feed: Feed::start(link.clone()), link, append })
    }

    fn command(&self, append: &Append) -> Result<Cmd> {
        let mut command = redis::cmd("EVALSHA");
        command.arg(self.append.get_hash()).arg(1).arg(log_key(append.task));
        command.arg(append.attempt).arg(append.floor).arg(u8::from(append.start));
        command.arg(EVENTS_MAX).arg(KEEP_RUNNING.as_secs()).arg(KEEP_FINISHED.as_secs());
        command.arg(channel(&Topic::Task(append.task))).arg(append.topics.len());
        for topic in &append.topics {
            command.arg(channel(topic));
        }
        for (kind, ts, data) in &append.events {
            let flag = match kind {
                kind if kind.is_terminal() => "t",
                kind if kind.is_lifecycle() => "l",
                _ => "o",
            };
            let body = Body { kind: *kind, task_id: append.task, attempt: append.attempt, ts: *ts, data };
            command.arg(flag).arg(&serde_json::to_string(&body)?[1..]);
        }
        Ok(command)
    }

    /// Runs the commands in order. Those that found the script missing, as after a restart of Redis, run again behind its text.
    async fn run(&self, commands: &[Cmd]) -> Result<Vec<Appended>> {
        let link = &mut self.link.clone();
        let mut answers: Vec<RedisResult<Option<i64>>> = pipeline(commands).query_async(link).await?;
        let missing = |answer: &RedisResult<_>| {
            let kind = answer.as_ref().err().map(RedisError::kind);
            kind == Some(ErrorKind::Server(ServerErrorKind::NoScript))
        };
        if answers.iter().any(missing) {
            self.append.load_async(link).await?;
            let again = commands.iter().zip(&answers).filter(|(_, answer)| missing(answer));
            let again: Vec<Cmd> = again.map(|(command, _)| command.clone()).collect();
            let late: Vec<RedisResult<Option<i64>>> = pipeline(&again).query_async(link).await?;
            answers
                .iter_mut()
                .filter(|answer| missing(answer))
                .zip(late)
                .for_each(|(answer, late)| *answer = late);
        }
        let judge = |answer: Option<i64>| answer.map_or(Appended::Stale, Appended::Last);
        answers.into_iter().map(|answer| Ok(answer.map(judge)?)).collect()
    }
}

fn log_key(task: TaskId) -> String {
    format!("lh:events:log:{task}")
}

fn pipeline(commands: &[Cmd]) -> Pipeline {
    let mut pipeline = Pipeline::with_capacity(commands.len());
    pipeline.ignore_errors();
    for command in commands {
        pipeline.add_command(command.clone());
    }
    pipeline
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
        for part in appends.chunks(APPENDS_MAX) {
            let commands = part.iter().map(|append| self.command(append)).collect::<Result<Vec<_>>>()?;
            answers.extend(self.run(&commands).await?);
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
        let first = oldest.first().map(|(id, _)| seq(id)).transpose()?;
        let event = |(id, [_, _, (_, body)]): &(String, [(String, String); 3])| -> Result<Event> {
            Ok(serde_json::from_str(&format!(r#"{{"seq":{},{body}"#, seq(id)?))?)
        };
        Ok(Log { first, events: entries.iter().map(event).collect::<Result<_>>()? })
    }

    async fn subscribe(&self, topic: Topic) -> Result<Subscription> {
        Ok(self.feed.subscribe(topic).await?)
    }
}
