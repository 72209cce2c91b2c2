//! The lifecycle events that a row can tell without a log. Pure.
//!
//! `last_seq` rises by at least one with every change of the row. So where the row's state needs exactly `last_seq` changes to
//! come about, each of them is known, and so is its seq. A longer history is told as one snapshot.

use super::no_details;
use crate::{
    clock::UnixMs,
    task::{Event, EventKind, State, Task},
};

/// What the row tells with `seq > after`, in order: its exact events, or one `task.snapshot` at `last_seq`. Details are empty.
#[must_use]
pub fn derive(task: &Task, after: Option<i64>) -> Vec<Event> {
    let unseen = |event: &Event| after.is_none_or(|after| event.seq > after);
    let history = simple(task).or_else(|| ending(task, after));
    history.unwrap_or_else(|| vec![snapshot(task)]).into_iter().filter(unseen).collect()
}

/// The whole history, if it has no detours.
fn simple(task: &Task) -> Option<Vec<Event>> {
    let mut told = vec![(EventKind::Created, 0, task.created_at)];
    if task.attempt == 1 {
        told.push((EventKind::Started, 1, task.started_at?));
    }
    if task.state.is_terminal() {
        told.push((EventKind::of(task.state), task.attempt, task.finished_at?));
    }
    let shows = match task.state {
        State::Scheduled | State::Queued => task.attempt == 0,
        State::InProgress => task.attempt == 1,
        _ => task.attempt <= 1,
    };
    let events: Vec<Event> =
        (0..).zip(told).map(|(seq, (kind, attempt, ts))| event(task, kind, seq, attempt, ts)).collect();
    (shows && events.last()?.seq == task.last_seq).then_some(events)
}

/// The terminal event, if it is the only one that the watcher misses.
fn ending(task: &Task, after: Option<i64>) -> Option<Vec<Event>> {
    let next = after?.checked_add(1)? == task.last_seq;
    let ending = event(task, EventKind::of(task.state), task.last_seq, task.attempt, task.finished_at?);
    (next && task.state.is_terminal()).then(|| vec![ending])
}

fn snapshot(task: &Task) -> Event {
    let ts = task.finished_at.or(task.started_at).unwrap_or(task.created_at);
    event(task, EventKind::Snapshot, task.last_seq, task.attempt, ts)
}

fn event(task: &Task, kind: EventKind, seq: i64, attempt: u32, ts: UnixMs) -> Event {
    Event { kind, seq, task_id: task.id, attempt, ts, data: no_details() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::task::{ProjectId, QueueName, Relay, TaskId};

    fn task(state: State, attempt: u32, last_seq: i64) -> Task {
        Task {
            id: TaskId::new(),
            project: ProjectId::DEFAULT,
            queue: QueueName::new("default").expect("a well-formed name"),
            priority: 0,
            state,
            endpoint: "/v1/chat/completions".into(),
            model: "m".into(),
            relay: Relay::Lifecycle,
            attempt,
            failures: 0,
            crashes: 0,
            max_attempts: 3,
            last_seq,
            created_at: UnixMs(1),
            run_at: None,
            started_at: (attempt > 0).then_some(UnixMs(2)),
            finished_at: state.is_terminal().then_some(UnixMs(3)),
            expires_at: UnixMs(9),
            result_expires_at: None,
            worker: None,
            batch: None,
            metadata: None,
            error: None,
            usage: None,
            answer_status: None,
        }
    }

    fn told(state: State, attempt: u32, last_seq: i64, after: Option<i64>) -> Vec<(EventKind, i64)> {
        derive(&task(state, attempt, last_seq), after).iter().map(|event| (event.kind, event.seq)).collect()
    }

    #[test]
    fn a_straight_life_is_told_in_full() {
        use EventKind::{Cancelled, Completed, Created, Started};
        assert_eq!(told(State::Queued, 0, 0, None), [(Created, 0)]);
        assert_eq!(told(State::InProgress, 1, 1, None), [(Created, 0), (Started, 1)]);
        assert_eq!(told(State::Completed, 1, 2, None), [(Created, 0), (Started, 1), (Completed, 2)]);
        assert_eq!(told(State::Cancelled, 0, 1, None), [(Created, 0), (Cancelled, 1)]);
    }

    #[test]
    fn only_what_comes_after_the_cursor() {
        use EventKind::{Completed, Started};
        assert_eq!(told(State::Completed, 1, 2, Some(0)), [(Started, 1), (Completed, 2)]);
        assert_eq!(told(State::Completed, 1, 2, Some(2)), []);
        assert_eq!(told(State::Completed, 1, 57, Some(57)), []);
        assert_eq!(told(State::Failed, 3, 9, Some(i64::MAX)), []);
    }

    #[test]
    fn a_longer_history_is_a_snapshot_or_its_missing_end() {
        use EventKind::{Failed, Snapshot};
        assert_eq!(told(State::Queued, 0, 1, None), [(Snapshot, 1)]);
        assert_eq!(told(State::Scheduled, 1, 2, Some(0)), [(Snapshot, 2)]);
        assert_eq!(told(State::InProgress, 2, 3, None), [(Snapshot, 3)]);
        assert_eq!(told(State::Failed, 3, 9, Some(4)), [(Snapshot, 9)]);
        assert_eq!(told(State::Failed, 3, 9, Some(8)), [(Failed, 9)]);
    }
}
