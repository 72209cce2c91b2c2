//! Two sizes of one test: small in `scripts/test`, full in `scripts/drill`, which also wants the figures.

use anyhow::Context;
use serde_json::{Value, json};
use std::{fs::OpenOptions, io::Write};

#[expect(clippy::disallowed_methods, reason = "scripts/drill tells the tests of itself")]
fn file() -> Option<std::ffi::OsString> {
    std::env::var_os("LONGHAUL_DRILL_FILE").filter(|file| !file.is_empty())
}

/// `full` under `scripts/drill`, else `small`.
#[must_use]
pub fn size<T>(small: T, full: T) -> T {
    if file().is_some() { full } else { small }
}

/// What a drill has shown: one line of the table. `number` is its place in the catalogue of drills. A figure that is a constant
/// here is one that the drill has asserted.
///
/// # Errors
/// The file is not writable.
pub fn report(number: &str, drill: &str, figures: &Value) -> anyhow::Result<()> {
    let line = json!({"number": number, "drill": drill, "figures": figures});
    let Some(file) = file() else { return Ok(()) };
    let mut file = OpenOptions::new().create(true).append(true).open(&file).context("the drill's file")?;
    writeln!(file, "{line}").context("the drill's file")
}
