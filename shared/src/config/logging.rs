//! How the program logs: decided by the environment alone, because it must work before the configuration is read.

use super::layers::{environment, set};
use std::io::IsTerminal;

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// For a person, with colours if wanted.
    Pretty {
        /// Colours.
        colours: bool,
    },
    /// One JSON object per line.
    Json,
}

/// Filter and form of log lines.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Logging {
    /// Directives as `tracing-subscriber` reads them; `None`: the program's own choice.
    pub filter: Option<String>,
    /// Their form.
    pub format: LogFormat,
}

impl Logging {
    /// `RUST_LOG` or `LONGHAUL_LOG`, and `LONGHAUL_LOG_FORMAT` (`pretty` or `json`; pretty on a terminal, JSON elsewhere).
    #[must_use]
    pub fn from_env() -> Self {
        let env = environment();
        let terminal = std::io::stderr().is_terminal();
        let pretty = match set(&env, "LONGHAUL_LOG_FORMAT") {
            Some("pretty") => true,
            Some("json") => false,
            _ => terminal,
        };
        let colours = terminal && set(&env, "NO_COLOR").is_none() && set(&env, "TERM") != Some("dumb");
        Self {
            filter: set(&env, "RUST_LOG").or_else(|| set(&env, "LONGHAUL_LOG")).map(str::to_owned),
            format: if pretty { LogFormat::Pretty { colours } } else { LogFormat::Json },
        }
    }
}
