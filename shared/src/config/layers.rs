//! The layers of the configuration: per setting flag > environment > file > default.
//!
//! Environment: `LONGHAUL_SECTION__KEY` for every setting that is not a list, and the bare names `DATABASE_URL`, `REDIS_URL`,
//! `PORT` (listens on all addresses, as platforms expect), `LONGHAUL_API_KEY`, `LONGHAUL_UPSTREAM` and `LONGHAUL_UPSTREAM_KEY`.
//! A secret may also be named by its file: the same name with `_FILE`. An empty variable counts as unset. Of two names for
//! one setting the longer form wins. File: `--config`, else `LONGHAUL_CONFIG`, else `longhaul.toml` in the working folder.

use super::{
    Config, Error, Flags, Mode, Origin, Secret, file,
    raw::{self, KEYS},
};
use crate::redact::without_logins;
use std::{
    collections::BTreeMap,
    ffi::OsString,
    path::{Path, PathBuf},
};
use toml::{Table, Value};

/// Names that mean something without being a setting of their own.
const OTHER_NAMES: [&str; 7] = [
    "LONGHAUL_CONFIG",
    "LONGHAUL_LOG",
    "LONGHAUL_LOG_FORMAT",
    "LONGHAUL_SERVER",
    "LONGHAUL_UPSTREAM",
    "LONGHAUL_UPSTREAM_KEY",
    "LONGHAUL_UPSTREAM_KEY_FILE",
];

/// Short names of settings.
const BARE_NAMES: [(&str, &str); 4] = [
    ("PORT", "api.listen"),
    ("DATABASE_URL", "database.url"),
    ("REDIS_URL", "redis.url"),
    ("LONGHAUL_API_KEY", "api.key"),
];

/// Lists have no form in the environment.
const LISTS: [&str; 3] = ["queues", "upstreams", "routes"];

/// The environment, as the layers read it.
pub(super) type Environment = BTreeMap<String, String>;

/// What was set, and by what: the winning layer of every setting that is not left at its default.
#[derive(Debug)]
pub struct Settings {
    values: BTreeMap<&'static str, (Value, Origin)>,
    embedded: bool,
}

/// Where the rows are, for a command that needs nothing else.
#[derive(Debug)]
pub enum Database {
    /// `postgres://…`
    Postgres(Secret),
    /// The data folder.
    Folder(PathBuf),
}

/// Reads all layers into a configuration.
///
/// # Errors
/// One line that names the setting, its value and what was expected.
pub fn load(flags: &Flags) -> Result<Config, Error> {
    Settings::gather(flags)?.config()
}

/// The API key that the environment names, for a client that reads no configuration.
///
/// # Errors
/// It is given twice, or its file cannot be read.
pub fn api_key() -> Result<Option<Secret>, Error> {
    Ok(secret_in(&environment(), "LONGHAUL_API_KEY")?.map(|(key, _)| Secret::new(key)))
}

/// The environment, but for what is no Unicode: no setting is.
#[expect(clippy::disallowed_methods, reason = "this is the one place")]
pub(super) fn environment() -> Environment {
    let unicode =
        |(name, value): (OsString, OsString)| Some((name.into_string().ok()?, value.into_string().ok()?));
    std::env::vars_os().filter_map(unicode).collect()
}

impl Settings {
    /// Reads all layers: the file, the environment, the flags.
    ///
    /// # Errors
    /// An unknown name, or a file that cannot be read.
    pub fn gather(flags: &Flags) -> Result<Self, Error> {
        Self::from_parts(flags, &environment(), Path::new("."))
    }

    /// Everything that is wrong with the configuration, in the order of the layers and then of the settings.
    #[must_use]
    pub fn mistakes(flags: &Flags) -> Vec<Error> {
        let (settings, mut faults) = Self::collect(flags, &environment(), Path::new("."));
        faults.extend(settings.read().1);
        faults
    }

    pub(super) fn from_parts(flags: &Flags, env: &Environment, folder: &Path) -> Result<Self, Error> {
        let (settings, faults) = Self::collect(flags, env, folder);
        faults.into_iter().next().map_or(Ok(settings), Err)
    }

    /// All layers, and what is wrong with them.
    pub(super) fn collect(flags: &Flags, env: &Environment, folder: &Path) -> (Self, Vec<Error>) {
        let (mut values, mut faults) = (BTreeMap::new(), Vec::new());
        let named = flags.file.clone().or_else(|| set(env, "LONGHAUL_CONFIG").map(PathBuf::from));
        let usual = || Some(folder.join("longhaul.toml")).filter(|path| path.is_file());
        if let Some(path) = named.or_else(usual) {
            values.extend(file::read(&path, env, &mut faults));
        }
        values.extend(from_env(env, &mut faults));
        for (key, flag, value) in &flags.values {
            let value = match *key {
                "upstreams" => bare_upstreams(value, env),
                _ => Ok(Value::from(value.as_str())),
            };
            match value {
                Ok(value) => drop(values.insert(*key, (value, Origin::Flag(flag)))),
                Err(fault) => faults.push(fault),
            }
        }
        (Self { values, embedded: flags.embedded }, faults)
    }

    /// Where the effective value of a setting came from.
    #[must_use]
    pub fn origin(&self, key: &str) -> &Origin {
        self.values.get(key).map_or(&Origin::Default, |(_, origin)| origin)
    }

    /// The configuration these settings make.
    ///
    /// # Errors
    /// The first setting that does not hold.
    pub fn config(&self) -> Result<Config, Error> {
        let (config, faults) = self.read();
        faults.into_iter().next().map_or(Ok(config), Err)
    }

    /// The configuration with what holds of these settings, and everything that does not.
    fn read(&self) -> (Config, Vec<Error>) {
        let mut faults = Vec::new();
        let mode = self.mode().unwrap_or_else(|fault| {
            faults.push(fault);
            Mode::Embedded { data_dir: PathBuf::new() }
        });
        let mut config = Config::new(mode);
        // `queues` is read before the rest, because it also decides which queues a worker serves if nobody says so.
        let (lists, scalars): (Vec<_>, Vec<_>) = KEYS.iter().partition(|key| LISTS.contains(&key.name));
        for key in lists.into_iter().chain(scalars) {
            if let Some((value, origin)) = self.values.get(key.name) {
                let Err(expected) = (key.read)(&mut config, value) else { continue };
                let value = if key.secret { "***".to_owned() } else { brief(value) };
                faults.push(Error::Invalid { key: key.name, value, origin: origin.clone(), expected });
            }
        }
        let wrong: Vec<&str> = faults.iter().filter_map(Error::key).collect();
        let between = raw::check(&config).into_iter().filter(|(name, _)| !wrong.contains(name));
        let between: Vec<Error> = between
            .map(|(name, expected)| {
                let shown = KEYS.iter().find(|key| key.name == name && !LISTS.contains(&name));
                let value = shown.and_then(|key| (key.show)(&config)).unwrap_or_else(|| "a list".to_owned());
                Error::Invalid { key: name, value, origin: self.origin(name).clone(), expected }
            })
            .collect();
        faults.extend(between);
        (config, faults)
    }

    /// The database alone.
    ///
    /// # Errors
    /// The Redis URL is set and the database URL is not.
    pub fn database(&self) -> Result<Database, Error> {
        match self.url("database.url", &["postgres://", "postgresql://"])? {
            Some(url) => Ok(Database::Postgres(Secret::new(url))),
            None => match self.mode()? {
                Mode::Embedded { data_dir } => Ok(Database::Folder(data_dir)),
                Mode::Distributed { database_url, .. } => Ok(Database::Postgres(database_url)),
            },
        }
    }

    fn mode(&self) -> Result<Mode, Error> {
        let data_dir = self.text("data_dir");
        if self.embedded {
            return raw::mode(data_dir, None, None).map_err(Error::Mode);
        }
        let database = self.url("database.url", &["postgres://", "postgresql://"])?;
        raw::mode(data_dir, database, self.url("redis.url", &["redis://", "rediss://"])?).map_err(Error::Mode)
    }

    fn text(&self, key: &str) -> Option<&str> {
        self.values.get(key).and_then(|(value, _)| value.as_str()).filter(|text| !text.is_empty())
    }

    fn url(&self, key: &'static str, schemes: &[&str]) -> Result<Option<&str>, Error> {
        let url = self.text(key);
        if url.is_none_or(|url| schemes.iter().any(|scheme| url.starts_with(scheme))) {
            return Ok(url);
        }
        let expected = format!("expected a URL that starts with {}", schemes.join(" or "));
        Err(Error::Invalid { key, value: "***".to_owned(), origin: self.origin(key).clone(), expected })
    }
}

/// A value in an error message: scalars as typed, lists (which may hold keys) not at all.
fn brief(value: &Value) -> String {
    match value {
        Value::Array(_) | Value::Table(_) => "a list".to_owned(),
        other => without_logins(&other.to_string()).into_owned(),
    }
}

fn from_env(env: &Environment, faults: &mut Vec<Error>) -> BTreeMap<&'static str, (Value, Origin)> {
    let mut values = BTreeMap::new();
    let bare = BARE_NAMES.map(|(name, key)| (name.to_owned(), key));
    let scalars = KEYS.iter().filter(|key| !LISTS.contains(&key.name));
    let long = scalars.map(|key| (env_name(key.name), key.name));
    let mut known: Vec<String> = OTHER_NAMES.map(str::to_owned).to_vec();
    for (name, key) in bare.into_iter().chain(long) {
        let secret = KEYS.iter().any(|row| row.name == key && row.secret);
        let found = if secret {
            secret_in(env, &name).unwrap_or_else(|fault| {
                faults.push(fault);
                None
            })
        } else {
            set(env, &name).map(|text| (text.to_owned(), name.clone()))
        };
        if let Some((text, by)) = found {
            let text = if name == "PORT" { format!("0.0.0.0:{text}") } else { text };
            values.insert(key, (Value::from(text), Origin::Env(by)));
        }
        if secret {
            known.push(format!("{name}_FILE"));
        }
        known.push(name);
    }
    if let Some(urls) = set(env, "LONGHAUL_UPSTREAM") {
        match bare_upstreams(urls, env) {
            Ok(upstreams) => {
                values.insert("upstreams", (upstreams, Origin::Env("LONGHAUL_UPSTREAM".to_owned())));
            }
            Err(fault) => faults.push(fault),
        }
    }
    for (name, value) in env.iter().filter(|(name, _)| name.starts_with("LONGHAUL_")) {
        if !known.contains(name) && !is_service_link(name, value) {
            let near = super::nearest(name, known.iter().map(String::as_str));
            faults.push(Error::Unknown { name: name.clone(), origin: Origin::Env(name.clone()), near });
        }
    }
    values
}

/// The name of a setting in the environment.
fn env_name(key: &str) -> String {
    format!("LONGHAUL_{}", key.replace('.', "__").to_uppercase())
}

/// A variable that is set and not empty.
pub(super) fn set<'a>(env: &'a Environment, name: &str) -> Option<&'a str> {
    env.get(name).map(String::as_str).filter(|value| !value.is_empty())
}

/// A secret from its variable or from the file that `<name>_FILE` names, and the variable's name.
fn secret_in(env: &Environment, name: &str) -> Result<Option<(String, String)>, Error> {
    let by_file = format!("{name}_FILE");
    match (set(env, name), set(env, &by_file)) {
        (Some(_), Some(_)) => Err(Error::Twice(name.to_owned())),
        (Some(value), None) => Ok(Some((value.to_owned(), name.to_owned()))),
        (None, Some(path)) => match file::secret(Path::new(path)) {
            Ok(value) => Ok(Some((value, by_file))),
            Err(why) => Err(Error::SecretFile { name: by_file, why }),
        },
        (None, None) => Ok(None),
    }
}

/// Upstreams of which only the URL is known: `default`, `default-2`, …
fn bare_upstreams(urls: &str, env: &Environment) -> Result<Value, Error> {
    let key = secret_in(env, "LONGHAUL_UPSTREAM_KEY")?.map(|(key, _)| key);
    let urls = urls.split(',').map(str::trim).filter(|url| !url.is_empty());
    let tables = urls.enumerate().map(|(i, url)| {
        let name = if i == 0 { "default".to_owned() } else { format!("default-{}", i + 1) };
        let mut table =
            Table::from_iter([("name".to_owned(), Value::from(name)), ("url".to_owned(), Value::from(url))]);
        table.extend(key.clone().map(|key| ("key".to_owned(), Value::from(key))));
        Value::Table(table)
    });
    Ok(Value::Array(tables.collect()))
}

/// Kubernetes sets such variables in every pod beside a Service whose name starts with `longhaul`.
fn is_service_link(name: &str, value: &str) -> bool {
    let is_url = value.starts_with("tcp://") || value.starts_with("udp://");
    name.contains("_SERVICE_HOST")
        || name.contains("_SERVICE_PORT")
        || name.contains("_PORT_")
        || (name.ends_with("_PORT") && is_url)
}
