//! The words of the socket: `GET /v1/ws`, subprotocol `tasks.v1`, one JSON object per text frame.
//!
//! ```text
//! client → server                                              answered by
//! {"type":"subscribe","id":"1","topics":[…],"after":{…},"events":[…]}              ack | error
//! {"type":"resume","id":"2","cursors":{"task:task_x":41}}                       ack | error
//! {"type":"unsubscribe","id":"3","topics":[…]}                                  ack | error
//! {"type":"task.create","id":"4","idempotency_key":"k","task":{…}}               ack | error
//! {"type":"task.cancel","id":"5","task_id":"task_x","reason":"…"}                ack | error
//! {"type":"ping","id":"6"}                                                     pong
//!
//! server → client, unasked
//! {"type":"ready","connection_id":"…","heartbeat_s":20,"max_subscriptions":1000}
//! {"type":"event","topic":"task:task_x","seq":42,"event":{…}}
//! {"type":"end","topic":"task:task_x","last_seq":60}        the run is over, the topic with it
//! {"type":"counters","topic":"queue:default","counters":{…}}  how many tasks stand where, at most four times a second
//! {"type":"lagged","topic":"batch:batch_y"}                  events were missed: read the state with GET
//! {"type":"draining","reconnect_after_ms":500}               the process ends: come back, to another one
//! ```
//! Topics: `task:<id>` has everything of a task, from `after` (a seq) or from its beginning, without gap or repeat;
//! `batch:<id>` and `project:me` have the lifecycle events of many tasks from now on; `project:me` and `queue:<name>` have counters,
//! which cost the same however many tasks come and go. `events` says which of all that is wanted: `lifecycle` (no output),
//! `counters`, or both; without it, everything that the topic has.

use crate::{
    error::{ApiError, Envelope},
    parse::{nearest, read},
    queues::Counters,
};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use shared::task::{BatchId, ProjectId, QueueName, TaskId, Topic};
use std::collections::BTreeMap;

/// Topics of one connection at most.
pub(super) const SUBSCRIPTIONS_MAX: usize = 1_000;

const TYPES: [&str; 6] = ["subscribe", "resume", "unsubscribe", "task.create", "task.cancel", "ping"];

/// Everything that a client may write.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    r#type: String,
    #[serde(default)]
    id: Option<String>,
    #[serde(default)]
    topics: Option<Vec<String>>,
    #[serde(default)]
    after: BTreeMap<String, i64>,
    #[serde(default)]
    cursors: BTreeMap<String, i64>,
    #[serde(default)]
    events: Option<Vec<String>>,
    #[serde(default)]
    task_id: Option<String>,
    #[serde(default)]
    reason: Option<String>,
    #[serde(default)]
    idempotency_key: Option<String>,
    #[serde(default)]
    task: Option<Box<RawValue>>,
}

/// What a client asks for.
#[derive(Debug)]
pub(super) enum Ask {
    /// Follow these topics.
    Subscribe(Vec<Wish>),
    /// Stop following these.
    Unsubscribe(Vec<String>),
    /// Submit a task.
    Create {
        /// As the body of `POST /v1/tasks`.
        task: Box<RawValue>,
        /// As the header of the same name.
        key: Option<String>,
    },
    /// Cancel a task.
    Cancel {
        /// Which.
        id: TaskId,
        /// Why.
        reason: Option<String>,
    },
    /// Say that you are there.
    Ping,
}

/// One topic to follow.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Wish {
    /// The topic as the client wrote it: so it is named in everything we say of it.
    pub(super) name: String,
    /// Whose events.
    pub(super) topic: Option<Topic>,
    /// Only events after this one.
    pub(super) after: Option<i64>,
    /// Lifecycle events only.
    pub(super) lifecycle: bool,
    /// Whose counters.
    pub(super) counted: Option<Counted>,
}

/// What is counted: tasks of the project.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Counted {
    /// All of them.
    Project,
    /// Those of one lane.
    Queue(QueueName),
}

/// Which of a topic's messages are wanted.
#[derive(Clone, Copy)]
struct Filter {
    output: bool,
    lifecycle: bool,
    counters: bool,
}

/// Reads one message: the client's id for it, and what it asks for.
pub(super) fn parse(text: &str, me: ProjectId) -> (Option<String>, Result<Ask, ApiError>) {
    match read::<Written>(text.as_bytes()) {
        Err(error) => (None, Err(error)),
        Ok(mut written) => (written.id.take(), ask(written, me)),
    }
}

fn ask(written: Written, me: ProjectId) -> Result<Ask, ApiError> {
    match written.r#type.as_str() {
        "subscribe" => {
            let filter = filter(written.events.as_deref())?;
            let names = needed(written.topics, "topics")?;
            let wishes = names.into_iter().map(|name| {
                let after = written.after.get(&name).copied();
                wish(name, after, filter, me)
            });
            wishes.collect::<Result<_, _>>().map(Ask::Subscribe)
        }
        "resume" => {
            let filter = filter(written.events.as_deref())?;
            let wishes = written.cursors.into_iter().map(|(name, after)| wish(name, Some(after), filter, me));
            wishes.collect::<Result<_, _>>().map(Ask::Subscribe)
        }
        "unsubscribe" => needed(written.topics, "topics").map(Ask::Unsubscribe),
        "task.create" => {
            Ok(Ask::Create { task: needed(written.task, "task")?, key: written.idempotency_key })
        }
        "task.cancel" => {
            let id = needed(written.task_id, "task_id")?;
            Ok(Ask::Cancel { id: crate::parse::task_id(&id)?, reason: written.reason })
        }
        "ping" => Ok(Ask::Ping),
        other => {
            let hint =
                nearest(other, &TYPES).map_or_else(String::new, |near| format!(" Did you mean '{near}'?"));
            Err(ApiError::invalid("type", format!("Unknown type: use one of {}.{hint}", TYPES.join(", "))))
        }
    }
}

fn needed<T>(value: Option<T>, param: &str) -> Result<T, ApiError> {
    value.ok_or_else(|| ApiError::Invalid {
        message: format!("Missing required parameter: '{param}'."),
        code: "missing_required_parameter",
        param: Some(param.to_owned()),
    })
}

fn filter(events: Option<&[String]>) -> Result<Filter, ApiError> {
    let Some(words) = events else { return Ok(Filter { output: true, lifecycle: true, counters: true }) };
    let mut filter = Filter { output: false, lifecycle: false, counters: false };
    for word in words {
        match word.as_str() {
            "lifecycle" => filter.lifecycle = true,
            "counters" => filter.counters = true,
            _ => return Err(ApiError::invalid("events", "'events' may hold lifecycle and counters.")),
        }
    }
    match filter.lifecycle || filter.counters {
        true => Ok(filter),
        false => Err(ApiError::invalid("events", "'events' must name something, or be left out.")),
    }
}

fn wish(name: String, after: Option<i64>, filter: Filter, me: ProjectId) -> Result<Wish, ApiError> {
    let (topic, counted) = match name.split_once(':') {
        Some(("task", id)) => (Some(Topic::Task(crate::parse::task_id(id)?)), None),
        Some(("batch", id)) => {
            (Some(Topic::Batch(id.parse::<BatchId>().map_err(|_| crate::parse::no_batch(id))?)), None)
        }
        Some(("project" | "owner", "me")) => (Some(Topic::Project(me)), Some(Counted::Project)),
        Some(("queue", lane)) => (None, QueueName::new(lane).map(Counted::Queue)),
        _ => (None, None),
    };
    if topic.is_none() && counted.is_none() {
        let message = format!(
            "Unknown topic '{}': use task:<id>, batch:<id>, queue:<name> or project:me.",
            short(&name)
        );
        return Err(ApiError::invalid("topics", message));
    }
    if after.is_some_and(|after| !(-1..i64::MAX).contains(&after)) {
        return Err(ApiError::invalid("after", "a cursor must be the seq of an event."));
    }
    let topic = topic.filter(|_| filter.lifecycle);
    let counted = counted.filter(|_| filter.counters);
    if topic.is_none() && counted.is_none() {
        let message = format!("'{}' has nothing of what 'events' names.", short(&name));
        return Err(ApiError::invalid("events", message));
    }
    Ok(Wish { name, topic, after, lifecycle: !filter.output, counted })
}

fn short(name: &str) -> String {
    name.chars().take(64).collect()
}

/// Everything that the server says, but events, which are spliced in verbatim.
#[derive(Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(super) enum Say<'a> {
    /// The first word.
    Ready {
        /// For the logs of both sides.
        connection_id: &'a str,
        /// Period of pings.
        heartbeat_s: u64,
        /// Topics at most.
        max_subscriptions: usize,
    },
    /// It is done.
    Ack {
        /// The client's id for what it asked.
        id: Option<&'a str>,
        /// Where the topics stand.
        #[serde(skip_serializing_if = "Option::is_none")]
        topics: Option<BTreeMap<&'a str, Standing>>,
        /// The task that was created or cancelled.
        #[serde(skip_serializing_if = "Option::is_none")]
        task: Option<&'a RawValue>,
    },
    /// It is not done.
    Error {
        /// The client's id for what it asked.
        id: Option<&'a str>,
        /// Why.
        error: Envelope<'a>,
    },
    /// The answer to a ping.
    Pong {
        /// The client's id for it.
        id: Option<&'a str>,
    },
    /// A run is over.
    End {
        /// The topic.
        topic: &'a str,
        /// Seq of the last event told.
        last_seq: i64,
    },
    /// How many tasks stand where.
    Counters {
        /// The topic.
        topic: &'a str,
        /// The figures.
        counters: &'a Counters,
    },
    /// Events were missed.
    Lagged {
        /// The topic.
        topic: &'a str,
    },
    /// The process ends.
    Draining {
        /// Wait this long.
        reconnect_after_ms: u64,
    },
}

/// Where a topic stands.
#[derive(Serialize, Default)]
pub(super) struct Standing {
    /// The task's state.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) status: Option<&'static str>,
    /// The row's newest seq.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) last_seq: Option<i64>,
}

impl Say<'_> {
    /// The text of the frame.
    pub(super) fn text(&self) -> String {
        serde_json::to_string(self).expect("a message has string keys only")
    }
}

/// The text of an event's frame. `event` is JSON already.
pub(super) fn event(topic: &str, seq: i64, event: &str) -> String {
    let topic = serde_json::to_string(topic).expect("a string is JSON");
    format!(r#"{{"type":"event","topic":{topic},"seq":{seq},"event":{event}}}"#)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Result<Ask, ApiError> {
        parse(text, ProjectId::DEFAULT).1
    }

    #[test]
    fn topics_carry_their_cursors() {
        let id = TaskId::new();
        let text = format!(
            r#"{{"type":"subscribe","id":"1","topics":["task:{id}","owner:me"],"after":{{"task:{id}":4}}}}"#
        );
        let Ok(Ask::Subscribe(wishes)) = parsed(&text) else { panic!("no subscription") };
        assert_eq!((&wishes[0].topic, wishes[0].after), (&Some(Topic::Task(id)), Some(4)));
        assert_eq!((&wishes[1].topic, wishes[1].after), (&Some(Topic::Project(ProjectId::DEFAULT)), None));
        let text = format!(r#"{{"type":"resume","cursors":{{"task:{id}":7}}}}"#);
        let Ok(Ask::Subscribe(wishes)) = parsed(&text) else { panic!("no subscription") };
        assert_eq!(wishes[0].after, Some(7));
    }

    #[test]
    fn events_say_what_is_wanted() {
        let wanted = |topic: &str, events: &str| {
            let text = format!(r#"{{"type":"subscribe","topics":["{topic}"]{events}}}"#);
            let Ok(Ask::Subscribe(wishes)) = parsed(&text) else { panic!("no subscription: {text}") };
            (wishes[0].topic.is_some(), wishes[0].lifecycle, wishes[0].counted.clone())
        };
        let lane = QueueName::new("default").expect("a name");
        assert_eq!(wanted("project:me", ""), (true, false, Some(Counted::Project)));
        assert_eq!(wanted("project:me", r#","events":["lifecycle"]"#), (true, true, None));
        assert_eq!(wanted("project:me", r#","events":["counters"]"#), (false, true, Some(Counted::Project)));
        let both = r#","events":["counters","lifecycle"]"#;
        assert_eq!(wanted("project:me", both), (true, true, Some(Counted::Project)));
        assert_eq!(wanted("queue:default", ""), (false, false, Some(Counted::Queue(lane))));
        assert_eq!(wanted("batch:batch_01jd0000000000000000000000", both).2, None);
    }

    #[test]
    fn what_is_wrong_is_named() {
        let cases = [
            (r#"{"type":"subscribe"}"#, "topics"),
            (r#"{"type":"subscribe","topics":["queue:"]}"#, "topics"),
            (r#"{"type":"subscribe","topics":["queue:default"],"events":["lifecycle"]}"#, "events"),
            (
                r#"{"type":"subscribe","topics":["batch:batch_01jd0000000000000000000000"],"events":["counters"]}"#,
                "events",
            ),
            (r#"{"type":"subscribe","topics":["project:me"],"events":[]}"#, "events"),
            (r#"{"type":"subscribe","topics":["project:me"],"events":["all"]}"#, "events"),
            (r#"{"type":"subscribe","topics":["project:me"],"afer":{}}"#, "afer"),
            (r#"{"type":"subscrib","topics":[]}"#, "type"),
            (r#"{"type":"task.create"}"#, "task"),
        ];
        for (text, field) in cases {
            let Err(ApiError::Invalid { param, .. }) = parsed(text) else { panic!("{text}") };
            assert_eq!(param.as_deref(), Some(field), "{text}");
        }
        assert!(parsed("{").is_err() && parsed("[]").is_err());
        assert!(matches!(
            parsed(r#"{"type":"task.cancel","task_id":"task_1"}"#),
            Err(ApiError::NotFound { .. })
        ));
    }

    #[test]
    fn events_are_spliced_in_verbatim() {
        assert_eq!(
            event("task:x", 3, r#"{"a":1}"#),
            r#"{"type":"event","topic":"task:x","seq":3,"event":{"a":1}}"#
        );
        assert_eq!(Say::Pong { id: Some("6") }.text(), r#"{"type":"pong","id":"6"}"#);
    }
}
