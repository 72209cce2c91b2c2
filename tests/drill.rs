//! `drill-table <heading> <lines> <results>`: what the drills of one run have shown, as one table on stdout and beside it as JSON.
//!
//! In: the heading, and the file of lines that `harness::report` wrote. Out: `<results>.json` and `<results>.md`.

use anyhow::Context;
use serde_json::{Value, json};
use std::{collections::BTreeMap, path::Path};

fn main() -> anyhow::Result<()> {
    let mut args = std::env::args().skip(1);
    let mut next = |what: &str| args.next().with_context(|| format!("{what} is missing"));
    let (heading, lines, results) = (next("the heading")?, next("the file of lines")?, next("the results")?);
    let lines = std::fs::read_to_string(&lines).with_context(|| lines.clone())?;
    let mut drills: Vec<Value> = lines.lines().map(serde_json::from_str).collect::<Result<_, _>>()?;
    anyhow::ensure!(!drills.is_empty(), "no drill has reported");
    drills.sort_by_key(|drill| (number(drill), text(drill, "drill"), text(&drill["figures"], "mode")));
    let table = table(&heading, &places(drills.clone()));
    let results = Path::new(&results);
    let json = json!({"heading": heading, "drills": drills});
    std::fs::write(results.with_extension("json"), format!("{}\n", serde_json::to_string_pretty(&json)?))?;
    std::fs::write(results.with_extension("md"), &table)?;
    print!("{table}");
    Ok(())
}

/// Place in the table: the catalogue's numbers, then what has a name.
fn number(drill: &Value) -> u32 {
    text(drill, "number").parse().unwrap_or(u32::MAX)
}

fn text(value: &Value, field: &str) -> String {
    value[field].as_str().unwrap_or_default().to_owned()
}

/// Deaths at named places are one line per mode.
fn places(drills: Vec<Value>) -> Vec<Value> {
    let (mut lines, mut deaths): (Vec<Value>, BTreeMap<String, (u64, u64)>) = (Vec::new(), BTreeMap::new());
    for drill in drills {
        if drill["figures"]["place"].is_null() {
            lines.push(drill);
            continue;
        }
        let (runs, died) = deaths.entry(text(&drill["figures"], "mode")).or_default();
        *runs += 1;
        *died += drill["figures"]["deaths"].as_u64().unwrap_or_default();
    }
    lines.extend(deaths.into_iter().map(|(mode, (runs, died))| {
        let figures =
            json!({"mode": mode, "runs, each at a place": runs, "deaths": died, "broken promises": 0});
        json!({"number": "3", "drill": "death at named places", "figures": figures})
    }));
    lines.sort_by_key(|drill| (number(drill), text(drill, "drill"), text(&drill["figures"], "mode")));
    lines
}

fn table(heading: &str, drills: &[Value]) -> String {
    let mut table = format!("{heading}\n\n| no. | drill | mode | figures |\n|---|---|---|---|\n");
    for drill in drills {
        let figures = drill["figures"].as_object().into_iter().flatten().filter(|(name, _)| *name != "mode");
        let figures: Vec<String> = figures.map(|(name, value)| format!("{name} {}", short(value))).collect();
        let (number, what, mode) =
            (text(drill, "number"), text(drill, "drill"), text(&drill["figures"], "mode"));
        let mode = if mode.is_empty() { "–".to_owned() } else { mode };
        table += &format!("| {number} | {what} | {mode} | {} |\n", figures.join("; "));
    }
    table
}

/// A value without more digits than it is worth.
fn short(value: &Value) -> String {
    match value {
        Value::Number(number) if number.is_f64() => format!("{:.2}", number.as_f64().unwrap_or_default()),
        Value::Object(fields) => {
            let fields: Vec<String> =
                fields.iter().map(|(name, value)| format!("{name} {}", short(value))).collect();
            fields.join(", ")
        }
        Value::Array(items) => items.iter().map(short).collect::<Vec<_>>().join(", "),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}
