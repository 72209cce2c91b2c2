//! What docs/webhooks.md shows for verifying: each snippet takes what was really sent, and refuses what an attacker would send.

use super::verify::verify;
use crate::{
    journey::both_modes,
    shown::{blocks, section},
    tidy::text,
};
use anyhow::Context;
use harness::{App, Mode, Received, Receiver};
use reqwest::header::HeaderMap;
use serde_json::{Value, json};
use standardwebhooks::Webhook;
use std::{path::Path, process::Command};

both_modes!(the_snippets_take_what_is_ours_and_nothing_else);

/// Appended to the snippets: the cases of a file, each `true` if it was accepted.
const PYTHON: &str = r#"
import json, sys

def is_accepted(case):
    try:
        verify(case["headers"], case["body"].encode(), case["secret"])
    except ValueError:
        return False
    return True

print(json.dumps([is_accepted(case) for case in json.load(open(sys.argv[1]))]))
"#;
const TYPESCRIPT: &str = r#"
import { readFileSync } from "node:fs";

const cases = JSON.parse(readFileSync(process.argv[2]!, "utf8"));
const accepted = cases.map(({ headers, body, secret }: { headers: IncomingHttpHeaders, body: string, secret: string }) => {
  try {
    verify(headers, Buffer.from(body), secret);
  } catch {
    return false;
  }
  return true;
});
console.log(JSON.stringify(accepted));
"#;

/// One request and the secret that its receiver has.
struct Case {
    headers: HeaderMap,
    body: Vec<u8>,
    secret: String,
}

impl Case {
    fn of(told: &Received, secret: &str) -> Self {
        Self { headers: told.headers.clone(), body: told.body.clone(), secret: secret.to_owned() }
    }

    /// Signed with the true secret, so many seconds from now.
    fn shifted(told: &Received, secret: &str, seconds: i64) -> anyhow::Result<Self> {
        let stamp = told.header("webhook-timestamp").parse::<i64>()? + seconds;
        let mut case = Self::of(told, secret);
        let signature = Webhook::new(secret)?.sign(told.id(), stamp, &told.body)?;
        case.headers.insert("webhook-timestamp", stamp.into());
        case.headers.insert("webhook-signature", signature.parse()?);
        Ok(case)
    }

    fn json(&self) -> anyhow::Result<Value> {
        let headers = self.headers.iter().map(|(name, value)| Ok((name.to_string(), json!(value.to_str()?))));
        let headers: serde_json::Map<_, _> = headers.collect::<anyhow::Result<_>>()?;
        Ok(json!({"headers": headers, "body": std::str::from_utf8(&self.body)?, "secret": self.secret}))
    }
}

/// The true request, and what must be refused.
fn cases(told: &Received, secret: &str) -> anyhow::Result<[Case; 6]> {
    let other = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
    let (mut changed, mut moved) = (Case::of(told, secret), Case::of(told, secret));
    changed.body.push(b' ');
    let stamp = told.header("webhook-timestamp").parse::<i64>()? + 1;
    moved.headers.insert("webhook-timestamp", stamp.into());
    Ok([
        Case::of(told, secret),
        changed,
        moved,
        Case::of(told, other),
        Case::shifted(told, secret, -400)?,
        Case::shifted(told, secret, 400)?,
    ])
}

/// Runs a snippet on the cases; what it made of each.
async fn run(program: &Path, file: &Path, snippet: &str, cases: &[Case]) -> anyhow::Result<Value> {
    let told = cases.iter().map(Case::json).collect::<anyhow::Result<Vec<_>>>()?;
    let input = file.with_extension("json");
    std::fs::write(file, snippet)?;
    std::fs::write(&input, json!(told).to_string())?;
    let mut command = Command::new(program);
    command.env_clear().arg(file).arg(input);
    let done = tokio::task::spawn_blocking(move || command.output()).await??;
    anyhow::ensure!(done.status.success(), "{snippet}\n{}", String::from_utf8_lossy(&done.stderr));
    Ok(serde_json::from_slice(&done.stdout)?)
}

async fn the_snippets_take_what_is_ours_and_nothing_else(mode: Mode) -> anyhow::Result<()> {
    let (Some(python), Some(node)) = (harness::foreign("python3"), harness::foreign("node")) else {
        return Ok(());
    };
    let app = App::with(mode).env("LONGHAUL_WEBHOOKS__PRIVATE_NETWORKS", "127.0.0.0/8").start().await?;
    let (client, receiver) = (app.client(), Receiver::start([204]).await?);
    let wanted = json!({"name": "mine", "url": receiver.url(), "event_types": ["task.completed"]});
    let made = client.post("/v1/webhook_endpoints", &wanted).await?.expect(200)?;
    client.ask("Say it in Greek: Καλημέρα", json!({"text": "Καλημέρα \u{1f600}"})).await?;
    let cases = cases(&receiver.has(1).await?[0], made["signing_secret"].as_str().context("a secret")?)?;
    let (page, folder) = (text("docs/webhooks.md"), tempfile::tempdir()?);
    let (mut ran, only_the_first) = (Vec::new(), json!([true, false, false, false, false, false]));
    for (language, snippet) in blocks(section(&page, "## Verify")?) {
        let (python_file, node_file) = (folder.path().join("verify.py"), folder.path().join("verify.mts"));
        let accepted = match language {
            "python" => run(&python, &python_file, &format!("{snippet}{PYTHON}"), &cases).await?,
            "typescript" => run(&node, &node_file, &format!("{snippet}{TYPESCRIPT}"), &cases).await?,
            "rust" => {
                assert_eq!(snippet, include_str!("verify.rs"), "the page shows what is compiled");
                json!(cases.each_ref().map(|case| verify(&case.headers, &case.body, &case.secret).is_ok()))
            }
            other => anyhow::bail!("no test for {other}"),
        };
        assert_eq!(accepted, only_the_first, "{snippet}");
        ran.push(language);
    }
    assert_eq!(ran, ["python", "python", "typescript", "rust"]);
    Ok(())
}
