//! What can be wrong with a configuration: always one line that names the setting, where it was set and the way out.

use std::{fmt, path::PathBuf};

/// Where a value came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// Nobody set it.
    Default,
    /// The file, and the line in it.
    File(PathBuf, usize),
    /// The variable of that name.
    Env(String),
    /// The flag of that name.
    Flag(&'static str),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File(path, line) => write!(f, "file {}:{line}", path.display()),
            Self::Env(name) => write!(f, "env {name}"),
            Self::Flag(name) => write!(f, "flag {name}"),
        }
    }
}

/// The configuration does not hold.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No setting has this name.
    #[error("unknown setting {name} ({origin}){}", .near.as_ref().map_or(String::new(), |near| format!(": did you mean {near}?")))]
    Unknown {
        /// The name.
        name: String,
        /// Where it stands.
        origin: Origin,
        /// A known name that looks like it.
        near: Option<String>,
    },
    /// A value outside its limits.
    #[error("{key} is {value} ({origin}): {expected}")]
    Invalid {
        /// The setting.
        key: &'static str,
        /// Its value, masked if secret.
        value: String,
        /// Where it was set.
        origin: Origin,
        /// The limit it missed.
        expected: String,
    },
    /// A file that cannot be read.
    #[error("cannot read {}: {why}", .path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        why: String,
    },
    /// A secret's file that cannot be read.
    #[error("cannot read the file that {name} names: {why}")]
    SecretFile {
        /// The variable.
        name: String,
        /// Why.
        why: String,
    },
    /// A secret and its file are both given.
    #[error("both {0} and {0}_FILE are set: keep one of them")]
    Twice(String),
    /// The key of an upstream is not where the file says.
    #[error("the key of upstream {name}: {why}")]
    UpstreamKey {
        /// The upstream.
        name: String,
        /// Why.
        why: String,
    },
    /// One URL without the other.
    #[error("{0}")]
    Mode(&'static str),
}

impl Error {
    /// The setting whose value does not hold.
    pub(super) fn key(&self) -> Option<&'static str> {
        match self {
            Self::Invalid { key, .. } => Some(key),
            _ => None,
        }
    }
}

/// The known name nearest to `name`, if one is near enough to be meant.
pub(super) fn nearest<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> Option<String> {
    let scored = known.map(|known| (strsim::normalized_damerau_levenshtein(name, known), known));
    let best = scored.max_by(|a, b| a.0.total_cmp(&b.0))?;
    (best.0 >= 0.6).then(|| best.1.to_owned())
}
