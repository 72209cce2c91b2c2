//! The small roles: simulated model, health, migration, configuration.

use crate::{
    args::{Form, SimArgs},
    client::Client,
    output::{self, Failure as Failed, Outcome, USAGE},
};
use shared::{
    config::{self, Database, Flags, Settings},
    process::{self, Failure},
    rooms::Rooms,
    store::{PostgresStore, SqliteStore, Store},
};
use std::path::Path;
use tokio_util::sync::CancellationToken;

/// `longhaul sim`.
pub(crate) async fn sim(args: SimArgs, stop: CancellationToken) -> Result<(), Failure> {
    let listener = process::listen(args.listen).await?;
    output::say(&format!("SIMULATED model at http://{} (its ledger: /_sim/ledger)", args.listen));
    let mut rooms = Rooms::new();
    rooms.open("simulator", |stop| simulator::serve(listener, args.behaviour, stop));
    rooms.run(stop).await.map_err(Failure::Role)
}

/// `longhaul health`.
pub(crate) async fn health(client: &Client) -> Outcome {
    #[derive(serde::Deserialize)]
    struct Health {
        status: String,
    }
    if client.form == Form::Id {
        return Err(Failed::new(USAGE, "health has no id: use -o table or -o json"));
    }
    let ready = client.get("/readyz").await?;
    match client.form {
        Form::Table => output::raw(output::parse::<Health>(&ready)?.status.as_bytes()),
        _ => output::raw(ready.trim_ascii_end()),
    }
}

/// `longhaul migrate`.
pub(crate) async fn migrate(flags: &Flags) -> Result<(), Failure> {
    let settings = Settings::gather(flags)?;
    let (what, migrated) = match settings.database()? {
        Database::Postgres(url) => ("the Postgres database".to_owned(), postgres(url.expose()).await),
        Database::Folder(folder) => (format!("the data folder {}", folder.display()), sqlite(&folder).await),
    };
    migrated.map_err(|error| Failure::Role(format!("cannot migrate {what}: {error:#}")))?;
    output::say(&format!("the schema of {what} is up to date"));
    Ok(())
}

async fn postgres(url: &str) -> anyhow::Result<()> {
    Ok(PostgresStore::open(url, 2).await?.migrate().await?)
}

async fn sqlite(folder: &Path) -> anyhow::Result<()> {
    shared::folder::private(folder)?;
    Ok(SqliteStore::open(&folder.join("longhaul.db")).await?.migrate().await?)
}

/// `longhaul config check`.
pub(crate) fn check(flags: &Flags) -> Outcome {
    let mistakes = Settings::mistakes(flags);
    if mistakes.is_empty() {
        return output::raw(b"ok");
    }
    let count = mistakes.len();
    for mistake in mistakes {
        output::raw(mistake.to_string().as_bytes())?;
    }
    let s = if count == 1 { "" } else { "s" };
    Err(Failed::new(USAGE, format!("{count} mistake{s} in the configuration")))
}

/// `longhaul config show`.
pub(crate) fn config(flags: &Flags, defaults: bool) -> Result<String, config::Error> {
    let settings = Settings::gather(flags)?;
    let config = settings.config()?;
    Ok(config::show(&settings, &config, defaults))
}
