//! The file layer: TOML into `section.key` entries with their line, and keys of upstreams that are kept elsewhere.

use super::{
    Error, Origin,
    layers::{Environment, set},
    nearest,
    raw::KEYS,
};
use std::{collections::BTreeMap, path::Path};
use toml::{Table, Value, de::DeTable};

/// Every entry of the file, known names only; what is wrong with the others goes to `faults`.
pub(super) fn read(
    path: &Path,
    env: &Environment,
    faults: &mut Vec<Error>,
) -> BTreeMap<&'static str, (Value, Origin)> {
    let mut values = BTreeMap::new();
    let (text, table) = match parsed(path) {
        Ok(parsed) => parsed,
        Err(why) => {
            faults.push(Error::Unreadable { path: path.to_owned(), why });
            return values;
        }
    };
    let lines = lines(&text);
    for (name, value) in flatten(table) {
        let origin = Origin::File(path.to_owned(), lines.get(&name).copied().unwrap_or(1));
        let Some(key) = KEYS.iter().find(|key| key.name == name) else {
            let near = nearest(&name, KEYS.iter().map(|key| key.name));
            faults.push(Error::Unknown { name, origin, near });
            continue;
        };
        match if key.name == "upstreams" { with_keys(value, env) } else { Ok(value) } {
            Ok(value) => drop(values.insert(key.name, (value, origin))),
            Err(fault) => faults.push(fault),
        }
    }
    values
}

fn parsed(path: &Path) -> Result<(String, Table), String> {
    let text = std::fs::read_to_string(path).map_err(|error| error.to_string())?;
    let table = text.parse().map_err(|error: toml::de::Error| syntax(&error, &text))?;
    Ok((text, table))
}

/// The content of a secret's file, without the line end that editors leave. A complaint does not repeat the path: it may be the secret,
/// in the wrong place.
pub(super) fn secret(path: &Path) -> Result<String, String> {
    let text = std::fs::read_to_string(path).map_err(|error| error.to_string())?;
    Ok(text.trim().to_owned())
}

/// `line 3: …`, in one line.
fn syntax(error: &toml::de::Error, text: &str) -> String {
    let line = error.span().map_or(1, |span| line_at(text, span.start));
    format!("line {line}: {}", error.message().replace('\n', ", "))
}

fn line_at(text: &str, offset: usize) -> usize {
    text.as_bytes()[..offset.min(text.len())].iter().filter(|byte| **byte == b'\n').count() + 1
}

fn flatten(table: Table) -> Vec<(String, Value)> {
    let entry = |(name, value): (String, Value)| match value {
        Value::Table(section) => {
            section.into_iter().map(|(key, value)| (format!("{name}.{key}"), value)).collect()
        }
        value => vec![(name, value)],
    };
    table.into_iter().flat_map(entry).collect()
}

/// The line of every entry.
fn lines(text: &str) -> BTreeMap<String, usize> {
    let mut lines = BTreeMap::new();
    let Ok(table) = DeTable::parse(text) else { return lines };
    for (name, value) in table.get_ref() {
        lines.insert(name.get_ref().to_string(), line_at(text, name.span().start));
        for (key, _) in value.get_ref().as_table().into_iter().flatten() {
            lines.insert(format!("{}.{}", name.get_ref(), key.get_ref()), line_at(text, key.span().start));
        }
    }
    lines
}

/// Replaces `key_env` and `key_file` of every upstream by the key they lead to.
fn with_keys(mut upstreams: Value, env: &Environment) -> Result<Value, Error> {
    for upstream in upstreams.as_array_mut().into_iter().flatten().filter_map(Value::as_table_mut) {
        let name = upstream.get("name").and_then(Value::as_str).unwrap_or("?").to_owned();
        let missing = |why: String| Error::UpstreamKey { name: name.clone(), why };
        let given =
            ["key", "key_env", "key_file"].into_iter().filter(|form| upstream.contains_key(*form)).count();
        if given > 1 {
            return Err(missing("give one of key, key_env and key_file".to_owned()));
        }
        if let Some(variable) = upstream.remove("key_env") {
            let variable = variable.as_str().unwrap_or_default();
            let key = set(env, variable)
                .ok_or_else(|| missing("the variable that key_env names is not set".to_owned()))?;
            upstream.insert("key".to_owned(), Value::from(key));
        }
        if let Some(path) = upstream.remove("key_file") {
            let key = secret(Path::new(path.as_str().unwrap_or_default()))
                .map_err(|why| missing(format!("cannot read the file that key_file names: {why}")))?;
            upstream.insert("key".to_owned(), Value::from(key));
        }
    }
    Ok(upstreams)
}
