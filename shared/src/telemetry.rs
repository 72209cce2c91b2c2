//! What a process says about itself: log lines on stderr, figures for Prometheus, and the one TLS provider.

use crate::config::{LogFormat, Logging};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use std::{convert::Infallible, io, sync::OnceLock, time::Duration};
use tracing_subscriber::{
    EnvFilter,
    filter::{LevelFilter, Targets},
    fmt,
    layer::SubscriberExt,
    util::SubscriberInitExt,
};

/// Upper bounds of every histogram of seconds: from a fast database write to a very long generation.
const SECONDS: [f64; 18] = [
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 900.0,
    3600.0,
];

static FIGURES: OnceLock<PrometheusHandle> = OnceLock::new();

/// Prepares the process: TLS provider, log lines (`usual` is the filter unless the environment names one), figures.
/// The first thing that every `main` does; repeating it changes nothing.
pub fn process_start(usual: &str) {
    install_tls();
    install_logging(usual, &Logging::from_env());
    install_figures();
}

/// Makes aws-lc-rs the TLS provider of the process.
pub fn install_tls() {
    // Refused only if one is installed already: then it was this one, as no other is compiled in.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
}

/// The figures in Prometheus' text form; empty before [`process_start`].
#[must_use]
pub fn render() -> String {
    FIGURES.get().map(PrometheusHandle::render).unwrap_or_default()
}

/// Keeps histograms small while nobody asks for the figures.
pub async fn upkeep() -> Infallible {
    loop {
        tokio::time::sleep(Duration::from_secs(5)).await;
        if let Some(figures) = FIGURES.get() {
            figures.run_upkeep();
        }
    }
}

/// The most that any filter gets, so that no prompt, answer or key is in a log whatever an operator asks for.
///
/// What we say holds none of them. Libraries know nothing of that: at `trace` they may print what goes over the wire, and some do
/// more. A new one starts at `debug`; `tests/it/journey/canary.rs` searches all logs with everything turned on.
fn ceiling() -> Targets {
    let ours = ["api", "longhaul", "shared", "simulator", "worker"].map(|name| (name, LevelFilter::TRACE));
    Targets::new().with_default(LevelFilter::DEBUG).with_targets(ours).with_targets([
        // Every frame of a socket at `trace`, a client's words of farewell at `debug`.
        ("tungstenite", LevelFilter::INFO),
        ("tokio_tungstenite", LevelFilter::INFO),
        // A proxy's URL, with its login.
        ("reqwest", LevelFilter::INFO),
        // The value of every parameter of the database's URL that it does not know, a password with a typing error in its name.
        ("sqlx_postgres::options", LevelFilter::ERROR),
    ])
}

fn install_logging(usual: &str, logging: &Logging) {
    let filter = EnvFilter::new(logging.filter.as_deref().unwrap_or(usual));
    let told = tracing_subscriber::registry().with(filter).with(ceiling());
    let lines = fmt::layer().with_writer(io::stderr);
    let installed = match logging.format {
        LogFormat::Pretty { colours } => {
            told.with(lines.compact().with_target(false).with_ansi(colours)).try_init()
        }
        LogFormat::Json => told.with(lines.json().flatten_event(true).with_current_span(false)).try_init(),
    };
    if let Err(error) = installed {
        tracing::debug!(%error, "log lines were set up before");
    }
}

fn install_figures() {
    let built =
        PrometheusBuilder::new().set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), &SECONDS);
    match built.map(PrometheusBuilder::install_recorder) {
        Ok(Ok(figures)) => {
            FIGURES.get_or_init(|| figures);
            metrics::gauge!("longhaul_build_info", "version" => env!("CARGO_PKG_VERSION")).set(1.0);
        }
        Ok(Err(error)) => tracing::debug!(%error, "figures were set up before"),
        Err(error) => tracing::error!(%error, "no figures"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tracing::Level;

    #[test]
    fn libraries_never_say_all() {
        let ceiling = ceiling();
        for name in ["api::gate", "longhaul", "longhaul_api", "shared::process", "worker::run", "simulator"] {
            assert!(ceiling.would_enable(name, &Level::TRACE), "{name}");
        }
        for (name, level) in [
            ("tungstenite::protocol", Level::DEBUG),
            ("reqwest::connect", Level::DEBUG),
            ("sqlx_postgres::options::parse", Level::WARN),
            ("hyper::proto::h1::io", Level::TRACE),
            ("a_library_of_tomorrow", Level::TRACE),
        ] {
            assert!(!ceiling.would_enable(name, &level), "{name}");
        }
        assert!(ceiling.would_enable("sqlx::query", &Level::DEBUG));
    }
}
