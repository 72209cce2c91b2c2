//! One story of a task out of its log, its row and live events. Pure.

use shared::{
    clock::UnixMs,
    events::{Log, derive, no_details},
    task::{Event, EventKind, State, Task},
};

/// Where an event stands to a cursor.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// Told already.
    Old,
    /// The next one.
    Next,
    /// Something is missing before it.
    Gap,
}

/// The place of an event. A snapshot stands for all before it.
pub(crate) fn place(cursor: Option<i64>, event: &Event) -> Place {
    let next = cursor.map_or(0, |cursor| cursor + 1);
    match event.kind {
        EventKind::Snapshot if event.seq < next => Place::Old,
        EventKind::Snapshot => Place::Next,
        // A terminal event from before the cursor: either told, or of a log that has restarted unseen.
        kind if event.seq < next => {
            if kind.is_terminal() && cursor != Some(event.seq) {
                Place::Gap
            } else {
                Place::Old
            }
        }
        _ if event.seq == next => Place::Next,
        _ => Place::Gap,
    }
}

/// Whether the history that the cursor belongs to is gone: it points beyond the row and the log does not know it.
pub(crate) fn is_lost(cursor: Option<i64>, task: &Task, log: &Log) -> bool {
    let Some(cursor) = cursor else { return false };
    let known = log.events.first().is_some_and(|event| event.seq == cursor);
    let trimmed = log.first.is_some_and(|first| first > cursor);
    cursor > task.last_seq && !known && !trimmed
}

/// The events after the cursor: the log's, around them what the row can tell, and a snapshot for what nobody knows.
pub(crate) fn since(cursor: Option<i64>, task: &Task, log: Log) -> Vec<Event> {
    let next = cursor.map_or(0, |cursor| cursor + 1);
    let (mut told, mut from) = (Vec::new(), next);
    if let Some(first) = log.events.first().filter(|first| log.first == Some(first.seq) && first.seq > next) {
        told = derive(&before(task, first), cursor);
        if !told.iter().map(|event| event.seq).eq(next..first.seq) {
            // The log's own snapshot has the output as well.
            let kept = log.events.iter().rfind(|event| event.kind == EventKind::Snapshot);
            from = kept.map_or(next, |kept| kept.seq);
            told = if kept.is_some() { Vec::new() } else { vec![snapshot(task, first.seq - 1)] };
        }
    }
    for event in log.events.into_iter().filter(|event| event.seq >= from) {
        // A change that nobody was told of has its seq all the same: the log goes on behind it.
        let last = told.last().map(|event| event.seq).or(cursor);
        if event.kind != EventKind::Snapshot && last.is_some_and(|last| event.seq > last + 1) {
            told.push(snapshot(task, event.seq - 1));
        }
        told.push(event);
    }
    let last = told.last().map(|event| event.seq).or(cursor);
    told.extend(derived(task, last));
    told
}

/// What the row tells; the end of a run is told as itself, even where what led to it is not known.
fn derived(task: &Task, cursor: Option<i64>) -> Vec<Event> {
    let mut told = derive(task, cursor);
    if task.state.is_terminal() && told.last().is_some_and(|event| event.kind == EventKind::Snapshot) {
        told = vec![snapshot(task, task.last_seq - 1)];
        told.extend(derive(task, Some(task.last_seq - 1)));
    }
    told
}

/// The row as it stood before the first event of its log: ready, if that is the start of an attempt, else in that attempt.
fn before(task: &Task, first: &Event) -> Task {
    let (state, attempt) = match first.kind {
        EventKind::Started => (State::Queued, first.attempt.saturating_sub(1)),
        _ if first.attempt == task.attempt => (State::InProgress, first.attempt),
        // Earlier attempts have left no trace in the row: this history cannot be told.
        _ => (State::InProgress, u32::MAX),
    };
    Task { state, attempt, finished_at: None, last_seq: first.seq - 1, ..task.clone() }
}

/// The seq of a snapshot: what the row stands at, or just before the terminal event, which then follows.
pub(crate) fn standing(task: &Task) -> i64 {
    if task.state.is_terminal() { task.last_seq - 1 } else { task.last_seq }
}

/// What stands for the events up to this seq.
pub(crate) fn snapshot(task: &Task, seq: i64) -> Event {
    let (kind, task_id, attempt) = (EventKind::Snapshot, task.id, task.attempt);
    Event { kind, seq, task_id, attempt, ts: UnixMs::now(), data: no_details() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::view::tests::task;

    fn event(task: &Task, kind: EventKind, seq: i64) -> Event {
        Event { kind, ..snapshot(task, seq) }
    }

    fn log(task: &Task, seqs: std::ops::Range<i64>) -> Log {
        let events: Vec<Event> = seqs.map(|seq| event(task, EventKind::Delta, seq)).collect();
        Log { first: events.first().map(|event| event.seq), events }
    }

    #[test]
    fn events_are_placed_by_their_seq() {
        let task = task(State::InProgress, 1);
        assert_eq!(place(None, &event(&task, EventKind::Created, 0)), Place::Next);
        assert_eq!(place(None, &event(&task, EventKind::Started, 1)), Place::Gap);
        assert_eq!(place(Some(3), &event(&task, EventKind::Delta, 3)), Place::Old);
        assert_eq!(place(Some(3), &event(&task, EventKind::Delta, 4)), Place::Next);
        assert_eq!(place(Some(40), &event(&task, EventKind::Snapshot, 2)), Place::Old);
        assert_eq!(place(Some(40), &event(&task, EventKind::Snapshot, 44)), Place::Next);
        assert_eq!(place(Some(40), &event(&task, EventKind::Completed, 3)), Place::Gap);
        assert_eq!(place(Some(40), &event(&task, EventKind::Completed, 40)), Place::Old);
    }

    #[test]
    fn row_and_log_make_one_story() {
        let mut running = task(State::InProgress, 1);
        (running.attempt, running.started_at) = (1, Some(running.created_at));
        let seqs =
            |cursor, log| since(cursor, &running, log).iter().map(|event| event.seq).collect::<Vec<_>>();
        assert_eq!(seqs(None, log(&running, 2..5)), [0, 1, 2, 3, 4]);
        assert_eq!(seqs(Some(2), log(&running, 2..5)), [3, 4]);
        assert_eq!(seqs(None, Log::default()), [0, 1]);
        assert_eq!(seqs(None, log(&running, 7..9)), [6, 7, 8]);
        let mut kept = log(&running, 7..12);
        kept.events[3].kind = EventKind::Snapshot;
        assert_eq!(seqs(None, kept.clone()), [10, 11], "what the log's own snapshot stands for is not told");
        assert_eq!(seqs(Some(8), kept), [9, 10, 11]);
        let mut holed = log(&running, 2..4);
        holed.events.extend(log(&running, 7..9).events);
        assert_eq!(seqs(None, holed.clone()), [0, 1, 2, 3, 6, 7, 8]);
        assert_eq!(since(Some(3), &running, holed.clone())[0].kind, EventKind::Snapshot);
        assert_eq!(seqs(Some(7), holed), [8]);
        let from_start = Log {
            first: Some(1),
            events: vec![Event { attempt: 1, ..event(&running, EventKind::Started, 1) }],
        };
        let kinds: Vec<_> = since(None, &running, from_start).iter().map(|event| event.kind).collect();
        assert_eq!(kinds, [EventKind::Created, EventKind::Started]);
    }

    #[test]
    fn every_run_ends_with_its_own_event() {
        let mut done = task(State::Completed, 9);
        (done.attempt, done.started_at, done.finished_at) = (2, Some(done.created_at), Some(done.created_at));
        let told = |cursor| {
            since(cursor, &done, Log::default())
                .iter()
                .map(|event| (event.kind, event.seq))
                .collect::<Vec<_>>()
        };
        assert_eq!(told(None), [(EventKind::Snapshot, 8), (EventKind::Completed, 9)]);
        assert_eq!(told(Some(8)), [(EventKind::Completed, 9)]);
        assert_eq!(told(Some(9)), []);
    }

    #[test]
    fn a_cursor_that_nobody_knows_is_lost() {
        let running = task(State::InProgress, 1);
        assert!(is_lost(Some(40), &running, &log(&running, 0..0)));
        assert!(is_lost(Some(40), &running, &Log { first: Some(2), events: Vec::new() }));
        assert!(!is_lost(Some(40), &running, &log(&running, 40..42)));
        assert!(!is_lost(Some(1), &running, &Log::default()));
        assert!(!is_lost(None, &running, &Log::default()));
    }
}
