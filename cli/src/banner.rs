//! What a person reads first.

use crate::{output::say, serve::House};
use shared::config::Mode;

/// Says what runs, where it is, and what to try.
pub(crate) fn show(house: &House) {
    let url = house.url();
    let config = &house.config;
    say(&format!("Longhaul {} · API and worker in one process", env!("CARGO_PKG_VERSION")));
    line(
        "data",
        &match &config.mode {
            Mode::Embedded { data_dir } => format!("{} (SQLite)", data_dir.display()),
            Mode::Distributed { .. } => "Postgres and Redis".to_owned(),
        },
    );
    let upstreams = config.upstreams.iter().map(|upstream| format!("{} at {}", upstream.name, upstream.url));
    let simulated = if house.is_simulated { " (SIMULATED: answers are made up; set --upstream)" } else { "" };
    line("upstream", &format!("{}{simulated}", upstreams.collect::<Vec<_>>().join(", ")));
    line("api", &url);
    line("docs", &format!("{url}/docs"));
    let program = program();
    let kept = house.kept_key.as_ref().map(|path| path.display());
    let key = match (&house.fresh_key, kept) {
        (Some(key), Some(path)) => {
            line("key", &format!("{} (shown this once; kept in {path})", key.expose()));
            format!("LONGHAUL_API_KEY_FILE={path} ")
        }
        (None, Some(path)) => {
            line("key", &format!("in {path}"));
            format!("LONGHAUL_API_KEY_FILE={path} ")
        }
        (_, None) if config.api.key.is_some() => {
            line("key", "the one that is configured (api.key)");
            "LONGHAUL_API_KEY=… ".to_owned()
        }
        _ => String::new(),
    };
    line("try", &format!("{key}{program} run \"Why is the sky blue?\"{}", elsewhere(&url)));
}

/// This program as it was called: by its name if it was found by that.
pub(crate) fn program() -> String {
    std::env::args_os()
        .next()
        .map_or_else(|| "longhaul".to_owned(), |name| name.to_string_lossy().into_owned())
}

/// The flag that a client needs to find this server.
pub(crate) fn elsewhere(url: &str) -> String {
    if url == "http://127.0.0.1:8080" { String::new() } else { format!(" --server {url}") }
}

fn line(name: &str, value: &str) {
    say(&format!("  {name:<9} {value}"));
}
