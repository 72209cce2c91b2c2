//! The effective configuration as TOML that can be read back. Secrets, and logins in URLs, are masked.

use super::{Config, Origin, Settings, raw::KEYS};
use crate::redact::without_logins;
use std::fmt::Write;

/// One line per setting: `section.key = value`, and where the value came from. A default has no origin worth naming unless
/// `defaults` asks for it.
#[must_use]
pub fn show(settings: &Settings, config: &Config, defaults: bool) -> String {
    let lines = KEYS.iter().filter_map(|key| Some((key.name, (key.show)(config)?)));
    lines.fold(String::new(), |mut text, (name, value)| {
        let value = without_logins(&value);
        let written = match settings.origin(name) {
            Origin::Default if !defaults => writeln!(text, "{name} = {value}"),
            origin => writeln!(text, "{name} = {value}  # {origin}"),
        };
        written.expect("a String takes every write");
        text
    })
}
