//! The judge of a history: what Longhaul promises, checked line by line, without the system.
//!
//! Pure. The invariants are those of the promises: nothing accepted is lost, a run ends once, only the newest attempt writes, a cancel
//! is final, events have no gaps, an idempotency key means one task, an attempt calls the model once, nothing is left behind.

use crate::history::Seen;
use std::collections::{BTreeMap, BTreeSet};

/// A call that a cancel did not stop within this time, seconds, is a broken promise; so is one that starts so long after it.
const STOP_MAX: f64 = 5.0;

/// Ends of a call after which the whole answer was handed over, be it a strange one.
const WHOLE: [&str; 8] =
    ["finished", "raw", "huge_bytes", "lone_surrogate", "usage", "drip_ms", "split", "omit_done"];

/// Everything that breaks a promise, in words; empty if all held.
#[must_use]
pub fn check(history: &[Seen]) -> Vec<String> {
    let mut faults = Vec::new();
    faults.extend(lost(history));
    faults.extend(keys(history));
    faults.extend(runs(history));
    faults.extend(results(history));
    faults.extend(cancels(history));
    faults.extend(readers(history));
    faults.extend(events(history));
    faults.extend(calls(history));
    faults.extend(rest(history));
    faults
}

fn is_terminal(state: &str) -> bool {
    matches!(state, "completed" | "failed" | "cancelled" | "expired")
}

/// How the tasks stand at the end: state, attempt, whether there is a result, its tokens.
fn stands(history: &[Seen]) -> BTreeMap<&str, (&str, u32, bool, Option<u64>)> {
    let stand = history.iter().filter_map(|seen| match seen {
        Seen::Stands { task, state, attempt, result, tokens } => {
            Some((task.as_str(), (state.as_str(), *attempt, *result, *tokens)))
        }
        _ => None,
    });
    stand.collect()
}

/// Every accepted task is there and has ended.
fn lost(history: &[Seen]) -> Vec<String> {
    let stands = stands(history);
    let open = |task: &str| match stands.get(task) {
        None => Some(format!("{task} was accepted and is lost")),
        Some((state, ..)) if !is_terminal(state) => Some(format!("{task} was accepted and is still {state}")),
        Some(_) => None,
    };
    let accepted = history.iter().filter_map(|seen| match seen {
        Seen::Accepted { task, .. } => open(task),
        _ => None,
    });
    accepted.collect()
}

/// One key, one task.
fn keys(history: &[Seen]) -> Vec<String> {
    let mut tasks: BTreeMap<&str, &str> = BTreeMap::new();
    let mut faults = Vec::new();
    for seen in history {
        if let Seen::Accepted { task, key: Some(key) } = seen {
            let first = tasks.entry(key).or_insert(task);
            if first != task {
                faults.push(format!("key {key} means {first} and {task}"));
            }
        }
    }
    faults
}

/// A row's attempt only rises, and only a retry leads out of a terminal state.
fn runs(history: &[Seen]) -> Vec<String> {
    let retried: BTreeSet<&str> = history
        .iter()
        .filter_map(|seen| if let Seen::Retried { task } = seen { Some(task.as_str()) } else { None })
        .collect();
    let mut rows: BTreeMap<&str, (u32, &str)> = BTreeMap::new();
    let mut faults = Vec::new();
    for seen in history {
        let Seen::Row { task, attempt, from, to } = seen else { continue };
        if is_terminal(from) && !(to == "queued" && retried.contains(task.as_str())) {
            faults.push(format!("{task} went from {from} to {to}"));
        }
        if let Some((newest, stood)) = rows.insert(task, (*attempt, to)) {
            if *attempt < newest {
                faults.push(format!("attempt {attempt} of {task} wrote after attempt {newest}"));
            }
            if stood != from {
                faults.push(format!("{task} went from {from}, but stood at {stood}"));
            }
        }
    }
    let mut ends: BTreeMap<&str, u32> = BTreeMap::new();
    for seen in history {
        if let Seen::Row { task, to, .. } = seen
            && is_terminal(to)
            && !retried.contains(task.as_str())
        {
            *ends.entry(task).or_default() += 1;
        }
    }
    let twice = ends.iter().filter(|(_, ends)| **ends > 1);
    faults.extend(twice.map(|(task, ends)| format!("{task} ended {ends} times")));
    faults
}

/// A result is there if and only if the task completed, and it is what the model sent to the newest attempt.
fn results(history: &[Seen]) -> Vec<String> {
    let mut faults = Vec::new();
    let finished: BTreeMap<(&str, u32), Option<u64>> = history
        .iter()
        .filter_map(|seen| match seen {
            Seen::Call { task, attempt, how, tokens, .. } if WHOLE.contains(&how.as_str()) => {
                // What a strange answer says of its tokens is as strange.
                Some(((task.as_str(), *attempt), (how == "finished").then_some(*tokens)))
            }
            _ => None,
        })
        .collect();
    let calls = history.iter().any(|seen| matches!(seen, Seen::Call { .. }));
    for (task, (state, attempt, result, tokens)) in stands(history) {
        if (state == "completed") != result && state != "failed" {
            faults.push(format!(
                "{task} is {state}, and its result is {}",
                if result { "there" } else { "missing" }
            ));
        }
        if state != "completed" || !calls {
            continue;
        }
        match finished.get(&(task, attempt)) {
            None => faults.push(format!("{task} completed by attempt {attempt}, for which no call finished")),
            Some(sent) if sent.is_some() && tokens.is_some() && tokens != *sent => {
                faults.push(format!("{task}: {sent:?} tokens were sent, {tokens:?} are accounted"));
            }
            Some(_) => {}
        }
    }
    faults
}

/// After a cancel was answered the task stays cancelled, and the model is left alone.
fn cancels(history: &[Seen]) -> Vec<String> {
    let stands = stands(history);
    let mut faults = Vec::new();
    let cancelled: BTreeMap<&str, f64> = history
        .iter()
        .filter_map(|seen| match seen {
            Seen::Cancelled { task, at } => Some((task.as_str(), *at)),
            _ => None,
        })
        .collect();
    for task in cancelled.keys() {
        if let Some((state, ..)) = stands.get(task)
            && *state != "cancelled"
        {
            faults.push(format!("{task} was cancelled and is {state}"));
        }
    }
    for seen in history {
        let Seen::Call { task, attempt, started, ended, .. } = seen else { continue };
        let Some(at) = cancelled.get(task.as_str()) else { continue };
        if *started > at + 2.0 {
            faults.push(format!(
                "attempt {attempt} of {task} called the model {:.1} s after its cancel",
                started - at
            ));
        }
        if *ended > at + STOP_MAX {
            faults.push(format!(
                "the call of attempt {attempt} of {task} went on for {:.1} s after its cancel",
                ended - at
            ));
        }
    }
    faults
}

/// No reader sees an ended task go on, unless another run was asked for.
fn readers(history: &[Seen]) -> Vec<String> {
    let mut ended: BTreeMap<&str, &str> = BTreeMap::new();
    let mut faults = Vec::new();
    for seen in history {
        match seen {
            Seen::Retried { task } => {
                ended.remove(task.as_str());
            }
            Seen::Read { task, state } => {
                if let Some(before) = ended.get(task.as_str())
                    && before != state
                {
                    faults.push(format!("{task} was read as {before} and then as {state}"));
                }
                if is_terminal(state) {
                    ended.insert(task, state);
                }
            }
            _ => {}
        }
    }
    faults
}

/// What a watcher sees has no gap and no repeat, and ends with the terminal event. A snapshot starts the count anew.
fn events(history: &[Seen]) -> Vec<String> {
    let mut last: BTreeMap<&str, (i64, &str)> = BTreeMap::new();
    let mut faults = Vec::new();
    for seen in history {
        let Seen::Event { watcher, seq, name } = seen else { continue };
        if let Some((before, _)) = last.insert(watcher, (*seq, name))
            && *seq != before + 1
            && name != "task.snapshot"
        {
            faults.push(format!("{watcher} saw event {seq} ({name}) after {before}"));
        }
    }
    let ends = ["task.completed", "task.failed", "task.cancelled", "task.expired", "task.snapshot"];
    let open = last.iter().filter(|(_, (_, name))| !ends.contains(name));
    faults.extend(open.map(|(watcher, (seq, name))| format!("{watcher} was left at event {seq} ({name})")));
    faults
}

/// An attempt calls the model at most once, and no attempt does that the row does not know of.
fn calls(history: &[Seen]) -> Vec<String> {
    let stands = stands(history);
    let mut seen_before = BTreeSet::new();
    let mut faults = Vec::new();
    for seen in history {
        if let Seen::Call { task, attempt, .. } = seen
            && !seen_before.insert((task, attempt))
        {
            faults.push(format!("attempt {attempt} of {task} called the model twice"));
        }
        if let Seen::Call { task, attempt, .. } = seen
            && stands.get(task.as_str()).is_some_and(|(_, newest, ..)| attempt > newest)
        {
            faults.push(format!(
                "attempt {attempt} of {task} called the model, and the row knows of no such attempt"
            ));
        }
    }
    faults
}

/// Batches add up, and nothing is left at work.
fn rest(history: &[Seen]) -> Vec<String> {
    let fault = |seen: &Seen| match seen {
        Seen::Batch { total, completed, failed } if completed + failed != *total => {
            Some(format!("a batch of {total} lines has {completed} completed and {failed} failed"))
        }
        Seen::Left { thing, count } if *count != 0 => Some(format!("{count} {thing} are left")),
        _ => None,
    };
    history.iter().filter_map(fault).collect()
}
