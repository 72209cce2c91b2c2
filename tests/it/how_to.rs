//! The pages in docs/how-to and README.md do what they say: their settings are set, their commands run in one shell, and what they show
//! is what comes out (`…` stands for anything). So it is for each page alone, and for a reader who follows all of them, in order, in one
//! folder, twice.

use crate::{
    journey::tokens,
    shown::{blocks, fits, section},
};
use anyhow::Context;
use harness::{Process, free_address, logs_folder, program, within};
use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

macro_rules! pages {
    ($($name:ident $file:literal,)*) => {$(
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $name() -> anyhow::Result<()> {
            follow($file).await
        }
    )*};
}

pages! {
    cors "cors.md",
    input_validation "input-validation.md",
    jwt "jwt.md",
    rate_limits "rate-limits.md",
    webhooks "webhooks.md",
}

/// Where the pages say that it listens.
const HERE: &str = "127.0.0.1:8080";
const MARK: &str = "--- next ---";

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/how-to")
}

/// The pages in the order in which README.md and then the folder have them.
fn pages() -> anyhow::Result<Vec<PathBuf>> {
    let mut pages = vec![folder().join("../../README.md")];
    let found = std::fs::read_dir(folder())?.map(|page| Ok(page?.path()));
    pages.extend(found.collect::<anyhow::Result<std::collections::BTreeSet<_>>>()?);
    Ok(pages)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_pages_can_be_followed_in_one_folder_twice() -> anyhow::Result<()> {
    let home = tempfile::tempdir()?;
    for page in pages()?.iter().chain(&pages()?) {
        follow_in(home.path(), page).await?;
    }
    Ok(())
}

async fn follow(file: &str) -> anyhow::Result<()> {
    follow_in(tempfile::tempdir()?.path(), &folder().join(file)).await
}

async fn follow_in(home: &Path, file: &Path) -> anyhow::Result<()> {
    let page = std::fs::read_to_string(file)?;
    let page = if file.ends_with("README.md") { section(&page, "## Try it")? } else { &page };
    let (address, file) = (free_address()?, file.display());
    let blocks = blocks(page);
    let settings: Vec<&str> =
        blocks.iter().filter(|(kind, _)| *kind == "toml").map(|(_, text)| *text).collect();
    std::fs::write(home.join("longhaul.toml"), settings.concat())?;
    let (keys, token) = tokens::of_a_provider()?;
    std::fs::write(home.join("jwks.json"), keys)?;
    let mut server = serve(home, address).await?;
    // The commands, each followed by what it shows.
    let mut steps: Vec<(String, &str)> = Vec::new();
    for (kind, text) in blocks {
        match (kind, steps.last_mut()) {
            // The server runs already, and the program is built.
            ("sh", _) if text.starts_with("longhaul serve") || text.starts_with("cargo ") => {}
            ("sh", _) => steps.push((text.replace(HERE, &address.to_string()), "")),
            ("text", Some(step)) => step.1 = text,
            _ => {}
        }
    }
    anyhow::ensure!(!steps.is_empty(), "{file} shows no command");
    let script: String = steps.iter().map(|(command, _)| format!("{command}\necho '{MARK}'\n")).collect();
    let programs = program("longhaul")?;
    let programs = programs.parent().context("a program is in a folder")?.display();
    let server_url = format!("export LONGHAUL_SERVER=http://{address}");
    let script = format!("unset \"${{!LONGHAUL_@}}\"\n{server_url}\nPATH='{programs}':$PATH\n{script}");
    let mut shell = Command::new("bash");
    shell.args(["-euo", "pipefail", "-c", &script]).current_dir(home).env("TOKEN", token);
    let done = tokio::task::spawn_blocking(move || shell.output()).await??;
    let (out, err) = (String::from_utf8(done.stdout)?, String::from_utf8_lossy(&done.stderr).into_owned());
    anyhow::ensure!(done.status.success(), "{file}: {err}\n{out}\n{}", server.last_words());
    for ((command, shown), said) in steps.iter().zip(out.split(MARK)) {
        let mut lines = said.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "));
        for wanted in shown.lines() {
            anyhow::ensure!(
                lines.any(|line| fits(wanted, &line)),
                "{file}: {command}\nshould show {wanted}\nand says {said}"
            );
        }
    }
    // The folder is free for the next page.
    server.signal("TERM")?;
    server.wait_end(Duration::from_secs(25)).await?;
    Ok(())
}

/// Starts it with the settings in the folder.
async fn serve(home: &Path, address: SocketAddr) -> anyhow::Result<Process> {
    let start = |command: &mut Command| {
        command.env_clear().arg("serve").current_dir(home).env("LONGHAUL_API__LISTEN", address.to_string());
    };
    let server = Process::start("serve", &program("longhaul")?, start, &logs_folder()?)?;
    let client = reqwest::Client::builder().no_proxy().build()?;
    within(Duration::from_secs(20), "it is ready", async || {
        let reply = client.get(format!("http://{address}/readyz")).send().await.ok();
        Ok(reply.filter(|reply| reply.status() == 200).map(drop))
    })
    .await?;
    Ok(server)
}

#[test]
fn every_page_is_followed() -> anyhow::Result<()> {
    let source = include_str!("how_to.rs");
    for page in std::fs::read_dir(folder())? {
        let name = page?.file_name().to_string_lossy().into_owned();
        assert!(source.contains(&format!("\"{name}\"")), "{name} is not followed by a test");
    }
    Ok(())
}
