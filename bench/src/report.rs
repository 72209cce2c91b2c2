//! Raw figures as JSON, and the table people read: medians with their spread, and ratios within a round.

use crate::{
    measure::{Figures, Measure},
    system::System,
};
use serde::Serialize;
use shared::clock::UnixMs;
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    path::{Path, PathBuf},
};

/// The figures of one measurement.
#[derive(Debug, Serialize)]
pub(crate) struct Run {
    pub(crate) round: u32,
    pub(crate) measure: Measure,
    pub(crate) system: System,
    pub(crate) figures: Figures,
}

/// What a reader must know of where the figures are from.
#[derive(Debug, Serialize)]
struct Setting<'a> {
    command: &'a str,
    /// Milliseconds since the epoch.
    ended_at: UnixMs,
    commit: String,
    cores: usize,
    processor: String,
    memory_gb: u64,
    kernel: String,
    programs: BTreeMap<&'static str, String>,
}

/// Where the results went.
pub(crate) struct Paths {
    pub(crate) raw: PathBuf,
    pub(crate) table: PathBuf,
}

/// A run's most telling figures in a line.
pub(crate) fn line(figures: &Figures) -> String {
    figures.iter().map(|(name, value)| format!("{name} {}", short(*value))).collect::<Vec<_>>().join(", ")
}

/// Writes `<profile>.json` and `<profile>.md` into the folder.
///
/// # Errors
/// The folder cannot be written.
pub(crate) async fn write(
    folder: &Path,
    profile: &str,
    command: &str,
    runs: &[Run],
) -> anyhow::Result<Paths> {
    std::fs::create_dir_all(folder)?;
    let setting = setting(command).await;
    let paths =
        Paths { raw: folder.join(format!("{profile}.json")), table: folder.join(format!("{profile}.md")) };
    // One run per line: a change of one is a change of a line.
    let lines: Vec<String> = runs.iter().map(serde_json::to_string).collect::<Result<_, _>>()?;
    let raw = format!(
        "{{\"setting\":{},\n\"runs\":[\n{}\n]}}\n",
        serde_json::to_string(&setting)?,
        lines.join(",\n")
    );
    std::fs::write(&paths.raw, raw)?;
    std::fs::write(&paths.table, table(&setting, runs))?;
    Ok(paths)
}

async fn setting(command: &str) -> Setting<'_> {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let field = |text: &str, name: &str| {
        let line = text.lines().find(|line| line.starts_with(name));
        line.and_then(|line| line.split_once(':'))
            .map(|(_, value)| value.trim().to_owned())
            .unwrap_or_default()
    };
    let memory = field(&read("/proc/meminfo"), "MemTotal");
    let memory_kb: u64 = memory.split(' ').next().and_then(|kb| kb.parse().ok()).unwrap_or_default();
    Setting {
        command,
        ended_at: UnixMs::now(),
        commit: said("git", &["describe", "--always", "--dirty"]).await,
        cores: std::thread::available_parallelism().map_or(0, usize::from),
        processor: field(&read("/proc/cpuinfo"), "model name"),
        memory_gb: memory_kb / 1_000_000,
        kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
        programs: BTreeMap::from([
            ("redis", said("redis-server", &["--version"]).await),
            ("rust", said("rustc", &["--version"]).await),
            ("node", said("node", &["--version"]).await),
            ("python", said("python3", &["--version"]).await),
        ]),
    }
}

/// What a program says; empty if it is not there.
async fn said(program: &str, args: &[&str]) -> String {
    let output = tokio::process::Command::new(program).args(args).output().await;
    output.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned()).unwrap_or_default()
}

fn table(setting: &Setting<'_>, runs: &[Run]) -> String {
    let mut text = format!(
        "`{}` at {} on {} × {}, {} GB, Linux {}.\nMedian over rounds (least … most); in brackets the median of the \
         ratios to the first column's system within a round, as first / this.\n",
        setting.command, setting.commit, setting.cores, setting.processor, setting.memory_gb, setting.kernel,
    );
    let measures: BTreeSet<Measure> = runs.iter().map(|run| run.measure).collect();
    for measure in measures {
        let here: Vec<&Run> = runs.iter().filter(|run| run.measure == measure).collect();
        let mut systems: Vec<System> = here.iter().map(|run| run.system).collect();
        systems.sort();
        systems.dedup();
        let names: BTreeSet<&String> = here.iter().flat_map(|run| run.figures.keys()).collect();
        let _ = write!(text, "\n| {measure} |");
        systems.iter().for_each(|system| text += &format!(" {system} |"));
        text += &format!("\n|---|{}\n", "---:|".repeat(systems.len()));
        for name in names {
            text += &format!("| {name} |");
            for &system in &systems {
                text += &format!(" {} |", cell(&here, name, systems[0], system));
            }
            text.push('\n');
        }
    }
    text
}

fn cell(runs: &[&Run], name: &str, first: System, system: System) -> String {
    let of = |system: System| -> BTreeMap<u32, f64> {
        let of_system = runs.iter().filter(|run| run.system == system);
        of_system.filter_map(|run| Some((run.round, *run.figures.get(name)?))).collect()
    };
    let (these, firsts) = (of(system), of(first));
    let Some(middle) = median(these.values().copied().collect()) else { return "–".into() };
    let least = these.values().copied().fold(f64::INFINITY, f64::min);
    let most = these.values().copied().fold(f64::NEG_INFINITY, f64::max);
    let mut cell = short(middle);
    if these.len() > 1 {
        cell += &format!(" ({} … {})", short(least), short(most));
    }
    let ratios = these.iter().filter_map(|(round, this)| Some(firsts.get(round)? / this));
    match median(ratios.filter(|ratio| ratio.is_finite()).collect()) {
        Some(ratio) if system != first => cell + &format!(" [{}]", short(ratio)),
        _ => cell,
    }
}

/// The middle value; the mean of the two in the middle.
fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() {
        0 => None,
        count if count % 2 == 1 => Some(values[middle]),
        _ => Some(f64::midpoint(values[middle - 1], values[middle])),
    }
}

/// Three digits that count.
fn short(value: f64) -> String {
    match value.abs() {
        large if large >= 100.0 => {
            let whole = format!("{value:.0}");
            let groups: Vec<&str> = whole
                .as_bytes()
                .rchunks(3)
                .rev()
                .filter_map(|group| std::str::from_utf8(group).ok())
                .collect();
            groups.join(",")
        }
        middle if middle >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

#[cfg(test)]
mod tests {
    use super::{median, short};

    #[test]
    fn medians() {
        assert_eq!(median(vec![]), None);
        assert_eq!(median(vec![3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(vec![4.0, 1.0, 2.0, 3.0]), Some(2.5));
    }

    #[test]
    fn figures_are_short() {
        assert_eq!(short(1_234_567.8), "1,234,568");
        assert_eq!(short(123.4), "123");
        assert_eq!(short(12.34), "12.3");
        assert_eq!(short(0.987), "0.99");
    }
}
