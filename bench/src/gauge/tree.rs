//! Processor time and memory of processes with all their descendants, from `/proc`.

use std::{
    collections::{BTreeMap, HashMap},
    fs,
};

/// Root pids by the name of what they are.
pub(crate) type Classes = BTreeMap<&'static str, Vec<u32>>;

/// `/proc` counts in hundredths of a second, whatever the kernel's own clock.
const TICKS_PER_S: f64 = 100.0;

struct Stat {
    parent: u32,
    ticks: f64,
}

/// Parent, and processor time with that of children that have ended and were waited for.
fn stat(pid: u32) -> Option<Stat> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name, in parentheses, may hold anything.
    let fields: Vec<&str> = text.rsplit_once(") ")?.1.split(' ').collect();
    let ticks = (11..=14).map(|at| fields.get(at)?.parse::<f64>().ok()).sum::<Option<f64>>()?;
    Some(Stat { parent: fields.get(1)?.parse().ok()?, ticks })
}

/// Every process with its parent and time.
fn all() -> HashMap<u32, Stat> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    pids.filter_map(|pid| Some((pid, stat(pid)?))).collect()
}

/// The pids at and below these roots; of this process only its own, because it has started all the others.
fn below(roots: &[u32], all: &HashMap<u32, Stat>) -> Vec<u32> {
    let mut found = roots.to_vec();
    let mut at = found.iter().filter(|pid| **pid == std::process::id()).count();
    while let Some(&parent) = found.get(at) {
        found.extend(all.iter().filter(|(_, stat)| stat.parent == parent).map(|(pid, _)| *pid));
        at += 1;
    }
    found.retain(|pid| all.contains_key(pid));
    found
}

/// Seconds of processor time by class, since each process began.
pub(crate) fn cpu_s(classes: &Classes) -> BTreeMap<&'static str, f64> {
    let all = all();
    let seconds =
        |roots: &[u32]| below(roots, &all).iter().map(|pid| all[pid].ticks).sum::<f64>() / TICKS_PER_S;
    classes.iter().map(|(class, roots)| (*class, seconds(roots))).collect()
}

/// Memory by class in MB, shared pages by proportion (PSS).
pub(crate) fn pss_mb(classes: &Classes) -> BTreeMap<&'static str, f64> {
    let all = all();
    let pss = |pid: &u32| -> Option<f64> {
        let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok()?;
        let line = text.lines().find(|line| line.starts_with("Pss:"))?;
        line.split_whitespace().nth(1)?.parse().ok()
    };
    let mb = |roots: &[u32]| below(roots, &all).iter().filter_map(pss).sum::<f64>() * 1024.0 / 1e6;
    classes.iter().map(|(class, roots)| (*class, mb(roots))).collect()
}

/// Seconds that all cores together have been idle.
pub(crate) fn idle_s() -> f64 {
    let text = fs::read_to_string("/proc/stat").unwrap_or_default();
    let fields = text.lines().next().unwrap_or_default().split_whitespace().skip(1);
    fields.skip(3).take(2).filter_map(|field| field.parse::<f64>().ok()).sum::<f64>() / TICKS_PER_S
}
