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
    if let Some(key) = &house.fresh_key {
        line("key", &format!("{} (shown this once; kept in the data folder)", key.expose()));
    }
    line("try", &format!("longhaul run \"Why is the sky blue?\"{}", elsewhere(&url)));
}

/// The flag that a client needs to find this server.
pub(crate) fn elsewhere(url: &str) -> String {
    if url == "http://127.0.0.1:8080" { String::new() } else { format!(" --server {url}") }
}

fn line(name: &str, value: &str) {
    say(&format!("  {name:<9} {value}"));
}
