//! Serves the API alone, embedded, in a temporary folder: `cargo run -p api --example embedded [port]`.

use shared::{
    backends::Backends,
    config::{Config, Mode},
};
use std::sync::Arc;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let port: u16 = std::env::args().nth(1).map_or(Ok(8080), |port| port.parse())?;
    let folder = std::env::temp_dir().join(format!("longhaul-api-{}", std::process::id()));
    let mut config = Config::new(Mode::Embedded { data_dir: folder });
    config.api.key = std::env::args().nth(2).map(shared::config::Secret::new);
    let config = Arc::new(config);
    let backends = Backends::open(&config).await?;
    let stop = CancellationToken::new();
    let serving = api::serve(TcpListener::bind(("127.0.0.1", port)).await?, backends, config, stop.clone());
    tokio::select! {
        ended = serving => ended,
        _ = async { tokio::signal::ctrl_c().await?; stop.cancel(); std::future::pending::<anyhow::Result<()>>().await } => Ok(()),
    }
}
