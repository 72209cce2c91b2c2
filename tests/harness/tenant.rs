//! Keys of an app's projects, made by the command line as an operator makes them.

use crate::{App, Client, output};
use anyhow::Context;
use serde_json::Value;

/// A key of a project.
#[derive(Debug, Clone)]
pub struct Tenant {
    /// A client of the first API that shows the key.
    pub client: Client,
    /// The key's id.
    pub id: String,
    /// The key itself.
    pub key: String,
}

impl App {
    /// Makes a key of a project, which is made with it if there is none of that name.
    ///
    /// # Errors
    /// `longhaul keys create` failed.
    pub async fn tenant(&self, project: &str, scopes: &str) -> anyhow::Result<Tenant> {
        let made = self.keys(&["create", "--project", project, "--scopes", scopes]).await?;
        self.known(&made)
    }

    /// The tenant of an answer that shows a key.
    ///
    /// # Errors
    /// It shows none.
    pub fn known(&self, made: &Value) -> anyhow::Result<Tenant> {
        let text = |name: &str| made[name].as_str().map(str::to_owned).with_context(|| made.to_string());
        let key = text("key")?;
        self.secret("API key", &key);
        Ok(Tenant { client: self.client().with_key(&key), id: text("id")?, key })
    }

    /// Runs `longhaul keys` on the app's own database; its answer.
    ///
    /// # Errors
    /// It failed: what it said.
    pub async fn keys(&self, args: &[&str]) -> anyhow::Result<Value> {
        let folder = self.data().display().to_string();
        let place = match &self.database {
            Some(url) => ["--database-url", url.as_str()],
            None => ["--data-dir", folder.as_str()],
        };
        let said = output(&[&["keys"], args, &place, &["-o", "json"]].concat(), &[]).await?;
        let (out, err) = (String::from_utf8(said.stdout)?, String::from_utf8(said.stderr)?);
        anyhow::ensure!(said.status.success(), "longhaul keys {}: {err}", args.join(" "));
        Ok(serde_json::from_str(&out)?)
    }
}
