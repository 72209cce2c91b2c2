//! What every [`Events`] promises. Each case has tasks of its own, so cases may run in any order.

use serde_json::value::RawValue;
use shared::{
    clock::UnixMs,
    events::{Append, Appended, Events, Subscription, no_details},
    task::{BatchId, Event, EventKind, ProjectId, TaskId, Topic},
};
use std::{sync::Arc, time::Duration};
use tokio::time::timeout;

/// Most events a log keeps.
const EVENTS_MAX: usize = 10_000;

/// Runs every case.
pub(crate) async fn all(events: &dyn Events) {
    seqs_rise_by_one_from_the_floor(events).await;
    what_is_read_is_what_was_told(events).await;
    an_older_attempt_is_stale(events).await;
    a_terminal_event_seals_the_attempt(events).await;
    another_run_goes_on_in_the_same_log(events).await;
    without_a_log_events_are_only_published(events).await;
    a_slice_is_answered_one_by_one_in_order(events).await;
    two_listeners_hear_everything_in_order(events).await;
    deltas_stay_on_the_task_topic(events).await;
    a_topic_can_be_left_and_joined_again(events).await;
    many_topics_at_once(events).await;
    racing_speakers_get_distinct_seqs(events).await;
    a_long_log_forgets_its_beginning(events).await;
    a_finished_log_is_kept_for_a_while(events).await;
    a_removed_log_stays_away(events).await;
    who_is_left_over_can_be_found(events).await;
}

fn data(json: &str) -> Arc<RawValue> {
    RawValue::from_string(json.to_owned()).expect("JSON").into()
}

fn say(task: TaskId, attempt: u32, floor: i64, kinds: &[EventKind]) -> Append {
    let events = kinds.iter().map(|&kind| (kind, UnixMs(1_700_000_000_123), no_details())).collect();
    Append { task, attempt, floor, start: false, events, topics: Vec::new() }
}

fn start(task: TaskId, attempt: u32, floor: i64, kinds: &[EventKind]) -> Append {
    Append { start: true, ..say(task, attempt, floor, kinds) }
}

async fn one(events: &dyn Events, append: Append) -> Appended {
    let answers = events.append(&[append]).await.expect("the events answer");
    assert_eq!(answers.len(), 1);
    answers[0]
}

async fn seqs(events: &dyn Events, task: TaskId, after: Option<i64>) -> Vec<i64> {
    events.read(task, after).await.expect("the events answer").events.iter().map(|event| event.seq).collect()
}

async fn hear(subscription: &mut Subscription, count: usize) -> Vec<Arc<Event>> {
    let mut heard = Vec::new();
    while heard.len() < count {
        let next = timeout(Duration::from_secs(5), subscription.next()).await;
        heard.push(next.unwrap_or_else(|_| panic!("heard {} of {count}", heard.len())).expect("no lag"));
    }
    heard
}

async fn silent(subscription: &mut Subscription) {
    let next = timeout(Duration::from_millis(100), subscription.next()).await;
    assert!(next.is_err(), "heard {next:?}");
}

async fn seqs_rise_by_one_from_the_floor(events: &dyn Events) {
    let task = TaskId::new();
    assert_eq!(
        one(events, start(task, 1, 5, &[EventKind::Started, EventKind::Delta])).await,
        Appended::Last(6)
    );
    assert_eq!(one(events, say(task, 1, 5, &[EventKind::Delta])).await, Appended::Last(7));
    assert_eq!(one(events, say(task, 1, 0, &[EventKind::Delta])).await, Appended::Last(8));
    assert_eq!(one(events, say(task, 1, 9, &[EventKind::Delta])).await, Appended::Last(9));
    assert_eq!(
        one(events, say(task, 1, 20, &[EventKind::Delta])).await,
        Appended::Last(20),
        "a floor above the last"
    );
    assert_eq!(seqs(events, task, None).await, [5, 6, 7, 8, 9, 20]);
    assert_eq!(seqs(events, task, Some(7)).await, [8, 9, 20]);
    assert_eq!(seqs(events, task, Some(20)).await, [0; 0]);
    assert_eq!(events.read(task, Some(20)).await.expect("the events answer").first, Some(5));
    let other = TaskId::new();
    assert_eq!(one(events, start(other, 0, 0, &[EventKind::Created])).await, Appended::Last(0));
}

async fn what_is_read_is_what_was_told(events: &dyn Events) {
    let task = TaskId::new();
    let mut listener = events.subscribe(Topic::Task(task)).await.expect("the events answer");
    let details = r#"{"chunk":"data: {\"n\":12345678901234567890.10}\n\n","e":"é\u0000😀"}"#;
    let mut append = start(task, 3, 2, &[EventKind::Delta]);
    append.events[0].2 = data(details);
    one(events, append).await;
    let log = events.read(task, None).await.expect("the events answer");
    let heard = hear(&mut listener, 1).await;
    for event in [&log.events[0], &*heard[0]] {
        assert_eq!((event.kind, event.seq, event.task_id, event.attempt), (EventKind::Delta, 2, task, 3));
        assert_eq!((event.ts, event.data.get()), (UnixMs(1_700_000_000_123), details));
    }
    let unknown = events.read(TaskId::new(), None).await.expect("the events answer");
    assert!(unknown.first.is_none() && unknown.events.is_empty());
}

async fn an_older_attempt_is_stale(events: &dyn Events) {
    let task = TaskId::new();
    one(events, start(task, 1, 1, &[EventKind::Started])).await;
    one(events, say(task, 2, 3, &[EventKind::Started])).await;
    assert_eq!(one(events, say(task, 1, 9, &[EventKind::Delta])).await, Appended::Stale);
    assert_eq!(one(events, start(task, 1, 9, &[EventKind::Completed])).await, Appended::Stale);
    assert_eq!(one(events, say(task, 2, 0, &[EventKind::Delta])).await, Appended::Last(4));
    assert_eq!(seqs(events, task, None).await, [1, 3, 4]);
}

async fn a_terminal_event_seals_the_attempt(events: &dyn Events) {
    for end in [EventKind::Completed, EventKind::Failed, EventKind::Cancelled, EventKind::Expired] {
        let task = TaskId::new();
        one(events, start(task, 1, 1, &[EventKind::Started])).await;
        assert_eq!(one(events, say(task, 1, 1, &[EventKind::Delta, end])).await, Appended::Last(3));
        for late in [EventKind::Delta, EventKind::Completed, EventKind::Retrying] {
            assert_eq!(
                one(events, say(task, 1, 3, &[late])).await,
                Appended::Stale,
                "{late:?} after {end:?}"
            );
        }
        assert_eq!(seqs(events, task, None).await, [1, 2, 3]);
    }
}

async fn another_run_goes_on_in_the_same_log(events: &dyn Events) {
    let task = TaskId::new();
    one(events, start(task, 1, 1, &[EventKind::Started, EventKind::Failed])).await;
    // The row has moved on to its next run: the floor says so. The old run's worker does not know.
    assert_eq!(one(events, say(task, 1, 3, &[EventKind::Queued])).await, Appended::Last(3));
    assert_eq!(one(events, say(task, 1, 1, &[EventKind::Delta])).await, Appended::Stale);
    assert_eq!(one(events, start(task, 2, 4, &[EventKind::Started])).await, Appended::Last(4));
    assert_eq!(one(events, say(task, 2, 4, &[EventKind::Delta])).await, Appended::Last(5));
    assert_eq!(one(events, say(task, 1, 9, &[EventKind::Delta])).await, Appended::Stale);
    assert_eq!(seqs(events, task, None).await, [1, 2, 3, 4, 5]);
}

async fn without_a_log_events_are_only_published(events: &dyn Events) {
    let task = TaskId::new();
    let mut listener = events.subscribe(Topic::Task(task)).await.expect("the events answer");
    assert_eq!(one(events, say(task, 1, 1, &[EventKind::Started])).await, Appended::Unkept(1));
    assert_eq!(
        one(events, say(task, 1, 2, &[EventKind::Reset, EventKind::Completed])).await,
        Appended::Unkept(3)
    );
    let heard: Vec<i64> = hear(&mut listener, 3).await.iter().map(|event| event.seq).collect();
    assert_eq!(heard, [1, 2, 3]);
    assert!(events.read(task, None).await.expect("the events answer").first.is_none());
}

async fn a_slice_is_answered_one_by_one_in_order(events: &dyn Events) {
    let (a, b) = (TaskId::new(), TaskId::new());
    let slice = [
        start(a, 2, 4, &[EventKind::Started]),
        say(b, 1, 7, &[EventKind::Started]),
        say(a, 1, 9, &[EventKind::Delta]),
        say(a, 2, 4, &[EventKind::Completed]),
        say(a, 2, 4, &[EventKind::Delta]),
    ];
    use Appended::{Last, Stale, Unkept};
    assert_eq!(
        events.append(&slice).await.expect("the events answer"),
        [Last(4), Unkept(7), Stale, Last(5), Stale]
    );
    assert!(events.append(&[]).await.expect("the events answer").is_empty());
    let many: Vec<Append> = (0..600).map(|i| say(TaskId::new(), 1, i, &[EventKind::Started])).collect();
    let expected: Vec<Appended> = (0..600).map(Unkept).collect();
    assert_eq!(events.append(&many).await.expect("the events answer"), expected);
}

async fn two_listeners_hear_everything_in_order(events: &dyn Events) {
    let task = TaskId::new();
    let mut first = events.subscribe(Topic::Task(task)).await.expect("the events answer");
    let mut second = events.subscribe(Topic::Task(task)).await.expect("the events answer");
    one(events, start(task, 1, 0, &[EventKind::Created])).await;
    for _ in 0..50 {
        one(events, say(task, 1, 0, &[EventKind::Delta; 4])).await;
    }
    for listener in [&mut first, &mut second] {
        let heard: Vec<i64> = hear(listener, 201).await.iter().map(|event| event.seq).collect();
        assert_eq!(heard, (0..201).collect::<Vec<_>>());
        silent(listener).await;
    }
}

async fn deltas_stay_on_the_task_topic(events: &dyn Events) {
    let (task, project, batch) = (TaskId::new(), ProjectId::new(), BatchId::new());
    let mut of_task = events.subscribe(Topic::Task(task)).await.expect("the events answer");
    let mut of_project = events.subscribe(Topic::Project(project)).await.expect("the events answer");
    let mut of_batch = events.subscribe(Topic::Batch(batch)).await.expect("the events answer");
    let mut of_control = events.subscribe(Topic::Control).await.expect("the events answer");
    let kinds = [EventKind::Started, EventKind::Delta, EventKind::Reset, EventKind::Completed];
    let topics = vec![Topic::Project(project), Topic::Batch(batch)];
    one(events, Append { topics, ..start(task, 1, 1, &kinds) }).await;
    let other = TaskId::new();
    one(events, Append { topics: vec![Topic::Control], ..say(other, 0, 1, &[EventKind::Cancelled]) }).await;
    let told = |heard: Vec<Arc<Event>>| heard.iter().map(|event| event.kind).collect::<Vec<_>>();
    assert_eq!(told(hear(&mut of_task, 4).await), kinds);
    assert_eq!(told(hear(&mut of_project, 2).await), [EventKind::Started, EventKind::Completed]);
    assert_eq!(told(hear(&mut of_batch, 2).await), [EventKind::Started, EventKind::Completed]);
    // Everybody's cancels are heard there.
    while hear(&mut of_control, 1).await[0].task_id != other {}
    silent(&mut of_task).await;
    silent(&mut of_project).await;
    silent(&mut of_batch).await;
}

async fn a_topic_can_be_left_and_joined_again(events: &dyn Events) {
    let task = TaskId::new();
    for floor in 0..20 {
        let mut listener = events.subscribe(Topic::Task(task)).await.expect("the events answer");
        one(events, say(task, 1, floor, &[EventKind::Started])).await;
        // What was told just before may still be on its way.
        while hear(&mut listener, 1).await[0].seq != floor {}
        drop(listener);
        one(events, say(task, 1, 1000, &[EventKind::Started])).await;
    }
    let mut stays = events.subscribe(Topic::Task(task)).await.expect("the events answer");
    drop(events.subscribe(Topic::Task(task)).await.expect("the events answer"));
    tokio::time::sleep(Duration::from_millis(50)).await;
    one(events, say(task, 1, 7, &[EventKind::Started])).await;
    // Another listener's leaving changes nothing.
    while hear(&mut stays, 1).await[0].seq != 7 {}
}

async fn many_topics_at_once(events: &dyn Events) {
    let tasks: Vec<TaskId> = (0..500).map(|_| TaskId::new()).collect();
    let joined =
        futures_util::future::join_all(tasks.iter().map(|&task| events.subscribe(Topic::Task(task)))).await;
    let appends: Vec<Append> = tasks.iter().map(|&task| say(task, 1, 1, &[EventKind::Started])).collect();
    events.append(&appends).await.expect("the events answer");
    for (task, listener) in tasks.iter().zip(joined) {
        assert_eq!(hear(&mut listener.expect("confirmed"), 1).await[0].task_id, *task);
    }
}

async fn racing_speakers_get_distinct_seqs(events: &dyn Events) {
    let task = TaskId::new();
    one(events, start(task, 1, 0, &[EventKind::Started])).await;
    let speak = async || {
        for _ in 0..50 {
            one(events, say(task, 1, 0, &[EventKind::Delta; 2])).await;
        }
    };
    tokio::join!(speak(), speak(), speak());
    assert_eq!(seqs(events, task, None).await, (0..301).collect::<Vec<_>>());
}

async fn a_long_log_forgets_its_beginning(events: &dyn Events) {
    let task = TaskId::new();
    let total = i64::try_from(EVENTS_MAX).expect("it fits") + 500;
    for part in 0..total / 100 {
        one(events, start(task, 1, part, &[EventKind::Delta; 100])).await;
    }
    let log = events.read(task, Some(3)).await.expect("the events answer");
    assert_eq!((log.first, log.events.len()), (Some(500), EVENTS_MAX));
    assert_eq!(log.events.last().map(|event| event.seq), Some(total - 1));
    assert_eq!(one(events, say(task, 1, 0, &[EventKind::Completed])).await, Appended::Last(total));
}

async fn a_finished_log_is_kept_for_a_while(events: &dyn Events) {
    let (over, running) = (TaskId::new(), TaskId::new());
    one(events, start(over, 1, 0, &[EventKind::Created, EventKind::Completed])).await;
    one(events, start(running, 1, 0, &[EventKind::Created])).await;
    assert_eq!(seqs(events, over, None).await, [0, 1]);
    let gone = async || Ok(seqs(events, over, None).await.is_empty().then_some(()));
    harness::eventually("its time is over", gone).await.expect("it goes");
    assert_eq!(seqs(events, running, None).await, [0]);
}

/// The attempt does not know of it yet.
async fn a_removed_log_stays_away(events: &dyn Events) {
    let task = TaskId::new();
    one(events, start(task, 1, 1, &[EventKind::Started, EventKind::Delta])).await;
    events.remove(task).await.expect("the events answer");
    let read = async || events.read(task, None).await.expect("the events answer");
    assert!(read().await.first.is_none() && read().await.events.is_empty());
    let mut listener = events.subscribe(Topic::Task(task)).await.expect("the events answer");
    for late in [start(task, 1, 3, &[EventKind::Delta]), start(task, 7, 90, &[EventKind::Started])] {
        assert_eq!(one(events, late).await, Appended::Stale);
    }
    silent(&mut listener).await;
    assert!(read().await.first.is_none() && read().await.events.is_empty());
    events.remove(TaskId::new()).await.expect("one that never was");
}

async fn who_is_left_over_can_be_found(events: &dyn Events) {
    let tasks = [TaskId::new(), TaskId::new(), TaskId::new()];
    let [running, ended, removed] = tasks;
    for task in tasks {
        one(events, start(task, 1, 1, &[EventKind::Started, EventKind::Delta])).await;
    }
    one(events, say(ended, 1, 3, &[EventKind::Completed])).await;
    events.remove(removed).await.expect("the events answer");
    let unfinished = async || {
        let (mut cursor, mut found) = (0, Vec::new());
        loop {
            let (next, some) = events.unfinished(cursor).await.expect("the events answer");
            found.extend(some);
            cursor = next;
            if cursor == 0 {
                return tasks.map(|task| found.contains(&task));
            }
        }
    };
    assert_eq!(unfinished().await, [true, false, false]);
    events.finish(&[running, TaskId::new()]).await.expect("the events answer");
    assert_eq!(unfinished().await, [false; 3]);
    assert_eq!(seqs(events, running, None).await, [1, 2], "for a while");
}
