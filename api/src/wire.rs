//! Events as clients read them, in one line of JSON each, and bounded: clients' libraries take frames and lines of a limited length,
//! and a client that cannot take its last event comes back for it for ever.
//!
//! A terminal event and a snapshot carry the task. An answer that would make them longer than [`EVENT_BYTES_MAX`] is left out, and
//! so it is for whoever wants lifecycle events only. Output is bounded where it enters the event log: see [`shared::events::bounded`].

use crate::{
    error::ApiError,
    fetch,
    state::App,
    view::{self, Beside, Shown, TaskView},
};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use shared::{
    events::{DETAILS_MAX, bounded, no_details},
    store::Kept,
    task::{Event, EventKind, State, Task},
};
use std::sync::Arc;

/// Longest event, without the output of a snapshot.
const EVENT_BYTES_MAX: usize = 64 << 10;

/// What whoever listens wants of answers and outputs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Bodies {
    /// Those that are not too long.
    Short,
    /// None.
    None,
}

/// What a terminal event and a snapshot carry.
#[derive(Serialize, Deserialize, Default)]
struct Whole<'a> {
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    task: Option<&'a RawValue>,
    /// Of a snapshot: the answer so far.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    output: Option<&'a RawValue>,
    /// Of a snapshot: the answer so far is too long.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    omitted: Option<bool>,
}

/// An event as JSON in one line.
pub(crate) async fn wire(app: &App, event: &Event, bodies: Bodies) -> String {
    // What an earlier version has put into the log is not bounded yet.
    let event = Event { data: bounded(event.data.clone()), ..event.clone() };
    if !event.kind.is_terminal() && event.kind != EventKind::Snapshot {
        return line(&event);
    }
    match told(app, &event, bodies).await {
        Ok(Some(text)) => text,
        Ok(None) => line(&Event { data: no_details(), ..event }),
        Err(error) => {
            tracing::debug!(task = %event.task_id, error = &error as &dyn std::error::Error, "told without its task");
            line(&Event { data: no_details(), ..event })
        }
    }
}

fn line(event: &Event) -> String {
    view::one_line(serde_json::to_string(event).expect("an event has string keys only"))
}

/// The event with its task; `None` if that is gone, has moved on to another run, or is too long even without its answer.
async fn told(app: &App, event: &Event, bodies: Bodies) -> Result<Option<String>, ApiError> {
    let Some((task, kept)) = fetch::whole(app, event.task_id).await? else { return Ok(None) };
    if event.kind.is_terminal() && EventKind::of(task.state) != event.kind {
        return Ok(None);
    }
    let whole = whole_output(app, event, bodies, &task, kept.as_ref()).await?;
    let mut output = serde_json::from_str::<Whole<'_>>(event.data.get()).unwrap_or_default();
    if let Some(whole) = &whole {
        output = serde_json::from_str(whole.get()).unwrap_or_default();
    }
    if bodies == Bodies::None {
        output = Whole::default();
    }
    let fits = |kept: &Kept| bodies == Bodies::Short && kept.len < EVENT_BYTES_MAX as u64;
    if let Some(kept) = kept.clone().filter(fits) {
        let answer = Some(fetch::short(app, task.id, kept).await?);
        if let Some(text) = with_task(event, &task, answer, &output) {
            return Ok(Some(text));
        }
    }
    Ok(with_task(event, &task, kept.map(Shown::omitted), &output))
}

/// What a snapshot of a completed task has in place of its log: the answer, which is all of its output.
async fn whole_output(
    app: &App,
    event: &Event,
    bodies: Bodies,
    task: &Task,
    kept: Option<&Kept>,
) -> Result<Option<Arc<RawValue>>, ApiError> {
    let is_whole = event.kind == EventKind::Snapshot && task.state == State::Completed;
    let Some(kept) = kept.filter(|_| is_whole && bodies == Bodies::Short && event.data.get() == "{}") else {
        return Ok(None);
    };
    if kept.len > DETAILS_MAX as u64 {
        return Ok(Some(view::raw_of(&Whole { omitted: Some(true), ..Whole::default() }).into()));
    }
    let body = fetch::short(app, task.id, kept.clone()).await?.body.unwrap_or_default();
    let output = serde_json::from_slice::<&RawValue>(&body).ok();
    Ok(output.map(|output| bounded(view::raw_of(&Whole { output: Some(output), ..Whole::default() }).into())))
}

/// The event with this task, unless it is too long.
fn with_task(event: &Event, task: &Task, answer: Option<Shown>, output: &Whole<'_>) -> Option<String> {
    let beside = Beside { answer, ..Beside::default() };
    let view = view::raw_of(&TaskView::new(task, &beside));
    let data = view::raw_of(&Whole { task: Some(&view), ..*output });
    let text = line(&Event { data: data.into(), ..event.clone() });
    let rest = output.output.map_or(0, |output| output.get().len());
    (text.len() <= EVENT_BYTES_MAX + rest).then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{story::snapshot, view::tests};
    use bytes::Bytes;

    fn told(body: &str, output: Option<&RawValue>) -> Option<String> {
        let task = tests::task(State::Completed, 9);
        let event = Event { kind: EventKind::Completed, ..snapshot(&task, 9) };
        let answer = tests::shown(Bytes::copy_from_slice(body.as_bytes()));
        with_task(&event, &task, Some(answer), &Whole { output, ..Whole::default() })
    }

    #[test]
    fn an_event_is_measured_as_it_is_written() {
        let long = |unit: &str, bytes: usize| format!("\"{}\"", unit.repeat(bytes / unit.len()));
        for unit in ["x", "é", "\u{2028}", "\u{85}", "\\u0001"] {
            assert!(told(&long(unit, 16 << 10), None).is_some(), "{unit:?}");
            assert!(told(&long(unit, EVENT_BYTES_MAX), None).is_none(), "{unit:?}");
        }
        // It fits as it is stored, and not as it is written.
        assert!(told(&long("x", 40 << 10), None).is_some());
        assert!(told(&long("\u{2029}", 40 << 10), None).is_none());
        let output = serde_json::value::to_raw_value(&"x".repeat(2 * EVENT_BYTES_MAX)).expect("a string");
        assert!(told("1", Some(&output)).is_some(), "output has a bound of its own");
    }
}
