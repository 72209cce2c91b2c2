//! The documents say what the code does: wherever a sentence can be checked, it is.

mod events;
mod websocket;

use crate::tidy::{none, root, text};
use shared::task::{State, Step};
use std::collections::BTreeSet;

/// The cells of a document's table rows whose first cell is code.
fn rows(document: &str) -> Vec<Vec<String>> {
    let rows = document.lines().filter(|line| line.starts_with("| `"));
    rows.map(|row| row.trim_matches('|').split('|').map(|cell| cell.trim().replace('`', "")).collect())
        .collect()
}

#[test]
fn the_lifecycle_table_is_the_state_machine() {
    let document = text("docs/lifecycle.md");
    let written: BTreeSet<[String; 3]> =
        rows(&document).into_iter().filter_map(|row| row[..3].to_vec().try_into().ok()).collect();
    let name = |step: Step| format!("{step:?}").to_lowercase();
    let coded: BTreeSet<[String; 3]> = State::ALL
        .into_iter()
        .flat_map(|from| Step::ALL.map(|step| (from, step)))
        .filter_map(|(from, step)| Some([from.to_string(), name(step), from.next(step)?.to_string()]))
        .collect();
    assert_eq!(written, coded);
}

#[test]
fn the_lifecycle_table_names_files_that_call_their_verb() {
    let document = text("docs/lifecycle.md");
    none(rows(&document).iter().filter_map(|row| {
        let (verb, file) = (row[3].strip_prefix("Store::")?, &row[4]);
        let called = root().join(file).is_file() && text(file).contains(&format!(".{verb}("));
        (!called).then(|| format!("docs/lifecycle.md: {file} does not call {verb}"))
    }));
}

#[test]
fn the_journey_names_functions_that_exist() {
    let document = text("ARCHITECTURE.md");
    let named: Vec<(&str, &str)> = document.split('`').filter_map(|code| code.split_once(".rs::")).collect();
    assert!(named.len() >= 10, "ARCHITECTURE.md tells the journey by file and function");
    none(named.into_iter().filter_map(|(file, function)| {
        let path = format!("{file}.rs");
        let known = root().join(&path).is_file()
            && ["(", "<"].iter().any(|after| text(&path).contains(&format!("fn {function}{after}")));
        (!known).then(|| format!("ARCHITECTURE.md: {path} has no function {function}"))
    }));
}

#[test]
fn paths_in_the_code_map_exist() {
    none(text("ARCHITECTURE.md").lines().filter_map(|line| {
        let path = line.strip_prefix("- `")?.split('`').next()?.to_owned();
        (!root().join(&path).exists()).then(|| format!("ARCHITECTURE.md: there is no {path}"))
    }));
}

#[test]
fn architecture_is_short() {
    assert!(text("ARCHITECTURE.md").lines().count() <= 150);
}

#[test]
fn every_error_code_is_explained() {
    let document = text("docs/errors.md");
    let source = text("shared/src/task/outcome.rs");
    let codes = source
        .lines()
        .filter_map(|line| line.trim().strip_prefix("Self::")?.split_once(" => \"")?.1.split_once('"'));
    let codes: Vec<&str> = codes.map(|(code, _)| code).collect();
    assert!(codes.len() >= 10, "the codes are where this test looks for them");
    none(
        codes
            .iter()
            .filter(|code| !document.contains(&format!("| `{code}` |")))
            .map(|code| format!("docs/errors.md does not explain {code}")),
    );
}

#[test]
fn every_setting_is_documented() {
    let (document, source) = (text("docs/configuration.md"), text("shared/src/config/raw.rs"));
    let rows = source.lines().filter_map(|line| line.split_once("key!(\"")?.1.split_once('"'));
    let names: Vec<&str> = rows.map(|(name, _)| name).collect();
    assert!(names.len() >= 30, "the settings are where this test looks for them");
    none(
        names
            .iter()
            .filter(|name| !document.contains(&format!("`{name}`")))
            .map(|name| format!("docs/configuration.md does not explain {name}")),
    );
}

#[test]
fn operations_names_tests_that_exist() {
    let document = text("docs/operations.md");
    let rows = document.lines().filter(|line| line.starts_with("| ") && line.ends_with("` |"));
    let named: Vec<&str> =
        rows.filter_map(|row| row.rsplit('|').nth(1)).flat_map(|cell| cell.split(',')).collect();
    assert!(named.len() >= 20, "each failure names its test");
    none(named.into_iter().filter_map(|name| {
        let file = format!("tests/it/crash/{}.rs", name.trim().trim_matches('`'));
        (!root().join(&file).is_file()).then(|| format!("docs/operations.md: there is no {file}"))
    }));
}
