//! The judge finds every broken promise, and none where none is.

use harness::{Seen, check};

fn stands(state: &str, attempt: u32, result: bool) -> Seen {
    Seen::Stands { task: "t".into(), state: state.into(), attempt, result, tokens: Some(3) }
}

fn accepted(task: &str) -> Seen {
    Seen::Accepted { task: task.into(), key: Some("k".into()) }
}

fn row(attempt: u32, from: &str, to: &str) -> Seen {
    Seen::Row { task: "t".into(), attempt, from: from.into(), to: to.into() }
}

fn call(attempt: u32, how: &str, started: f64, ended: f64) -> Seen {
    Seen::Call { task: "t".into(), attempt, how: how.into(), started, ended, tokens: 3 }
}

fn event(seq: i64, name: &str) -> Seen {
    Seen::Event { watcher: "w".into(), seq, name: name.into() }
}

fn read(state: &str) -> Seen {
    Seen::Read { task: "t".into(), state: state.into() }
}

#[test]
fn a_good_run_is_without_fault() {
    let run = [
        accepted("t"),
        row(1, "queued", "in_progress"),
        row(1, "in_progress", "scheduled"),
        row(1, "scheduled", "queued"),
        row(2, "queued", "in_progress"),
        row(2, "in_progress", "completed"),
        call(1, "client_closed", 0.0, 1.0),
        call(2, "finished", 2.0, 3.0),
        read("queued"),
        read("completed"),
        event(0, "task.created"),
        event(1, "task.completed"),
        Seen::Batch { total: 2, completed: 1, failed: 1 },
        Seen::Left { thing: "rows in progress".into(), count: 0 },
        stands("completed", 2, true),
    ];
    assert_eq!(check(&run), Vec::<String>::new());
}

#[test]
fn every_broken_promise_is_found() {
    let cancelled = || Seen::Cancelled { task: "t".into(), at: 10.0 };
    let broken: Vec<(&str, Vec<Seen>)> = vec![
        ("is lost", vec![accepted("t")]),
        ("is still queued", vec![accepted("t"), stands("queued", 0, false)]),
        ("means t and u", vec![accepted("t"), accepted("u")]),
        ("from completed to failed", vec![row(1, "completed", "failed")]),
        ("wrote after attempt 2", vec![row(2, "queued", "in_progress"), row(1, "in_progress", "failed")]),
        ("but stood at", vec![row(1, "queued", "in_progress"), row(1, "queued", "in_progress")]),
        (
            "ended 2 times",
            vec![
                row(1, "in_progress", "failed"),
                row(1, "failed", "queued"),
                row(2, "in_progress", "failed"),
            ],
        ),
        ("result is missing", vec![stands("completed", 1, false)]),
        ("result is there", vec![stands("expired", 1, true)]),
        ("no call finished", vec![stands("completed", 2, true), call(1, "finished", 0.0, 1.0)]),
        (
            "are accounted",
            vec![
                call(1, "finished", 0.0, 1.0),
                Seen::Stands {
                    task: "t".into(),
                    state: "completed".into(),
                    attempt: 1,
                    result: true,
                    tokens: Some(9),
                },
            ],
        ),
        ("was cancelled and is", vec![cancelled(), stands("completed", 1, true)]),
        ("after its cancel", vec![cancelled(), call(1, "finished", 13.0, 14.0)]),
        ("went on for", vec![cancelled(), call(1, "finished", 9.0, 16.0)]),
        ("was read as failed", vec![read("failed"), read("queued")]),
        ("saw event 2", vec![event(0, "task.created"), event(2, "task.completed")]),
        ("saw event 0", vec![event(0, "task.created"), event(0, "task.created")]),
        ("was left at event", vec![event(0, "task.created")]),
        ("twice", vec![call(1, "finished", 0.0, 1.0), call(1, "finished", 0.0, 1.0)]),
        ("a batch of 3", vec![Seen::Batch { total: 3, completed: 1, failed: 1 }]),
        ("no such attempt", vec![stands("failed", 1, false), call(2, "status", 0.0, 1.0)]),
        ("are left", vec![Seen::Left { thing: "rows".into(), count: 1 }]),
    ];
    for (words, history) in broken {
        let faults = check(&history);
        assert!(faults.iter().any(|fault| fault.contains(words)), "{words}: {faults:?}");
    }
}
