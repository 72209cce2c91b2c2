//! Commands that people type, against servers that run: what they print, what they refuse, and copies that can be started from.

use anyhow::Context;
use harness::{App, Mode, Process, chat, free_address, logs_folder, output, program, within};
use serde_json::{Value, json};
use std::{
    os::unix::fs::PermissionsExt,
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};
use tokio::io::AsyncWriteExt;

async fn text(args: &[&str], env: &[(&str, &str)]) -> anyhow::Result<(Option<i32>, String, String)> {
    let output = output(args, env).await?;
    Ok((output.status.code(), String::from_utf8(output.stdout)?, String::from_utf8(output.stderr)?))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_form_of_output_is_honoured_or_refused() -> anyhow::Result<()> {
    let app = App::start(Mode::Embedded).await?;
    let server = [("LONGHAUL_SERVER", app.client().base())];
    let (code, out, err) = text(&["run", "Hello", "-o", "json"], &server).await?;
    let task: Value = serde_json::from_str(&out).with_context(|| format!("{out}{err}"))?;
    assert_eq!((code, &task["status"]), (Some(0), &json!("completed")), "{err}");
    let (_, id, _) = text(&["run", "Hello", "-o", "id"], &server).await?;
    assert!(id.starts_with("task_") && id.trim().len() == 31, "{id}");
    for (args, wanted) in [
        (vec!["health"], "ok\n".to_owned()),
        (vec!["health", "-o", "json"], "{\"status\":\"ok\"}\n".to_owned()),
        (vec!["tasks", "delete", id.trim(), "-o", "id"], id.clone()),
    ] {
        let (code, out, err) = text(&args, &server).await?;
        assert_eq!((code, out), (Some(0), wanted), "{args:?}: {err}");
    }
    let (code, ..) = text(&["tasks", "get", id.trim()], &server).await?;
    assert_eq!(code, Some(6), "it is deleted");
    for refused in [vec!["health", "-o", "id"], vec!["tasks", "watch", id.trim(), "-o", "id"]] {
        let (code, out, err) = text(&refused, &server).await?;
        assert!(code == Some(2) && out.is_empty() && err.contains("-o json"), "{refused:?}: {out}{err}");
    }
    let running = app.client().ask("a long one", json!({"ttft_ms": 600_000})).await?;
    let (code, ..) = text(&["tasks", "delete", &running], &server).await?;
    assert_eq!(code, Some(1), "it runs");
    let (code, out, _) = text(&["tasks", "delete", &running, "--force"], &server).await?;
    assert_eq!((code, out), (Some(0), format!("{running} is deleted\n")));
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lists_go_on_beyond_a_page() -> anyhow::Result<()> {
    let app = App::start(Mode::Embedded).await?;
    let server = [("LONGHAUL_SERVER", app.client().base())];
    for n in 0..130 {
        app.client()
            .submit(&json!({"endpoint": "/v1/chat/completions", "body": chat(&n.to_string(), json!({}))}))
            .await?;
    }
    let (_, out, err) = text(&["tasks", "list", "-n", "1000", "-o", "id"], &server).await?;
    let ids: std::collections::BTreeSet<&str> = out.lines().collect();
    assert_eq!((ids.len(), out.lines().count()), (130, 130), "{err}");
    let (_, out, err) = text(&["tasks", "list", "-n", "120", "-o", "json"], &server).await?;
    let list: Value = serde_json::from_str(&out)?;
    assert_eq!(
        (list["data"].as_array().map(Vec::len), &list["has_more"]),
        (Some(120), &json!(true)),
        "{err}"
    );
    let (_, out, err) = text(&["tasks", "list"], &server).await?;
    assert!(out.lines().count() == 21 && err.contains("-n"), "{out}{err}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_prompt_may_come_from_stdin() -> anyhow::Result<()> {
    let app = App::start(Mode::Embedded).await?;
    for (said, status) in [("Hello from a pipe\n", 0), ("", 2)] {
        let mut command = tokio::process::Command::new(program("longhaul")?);
        command.env_clear().args(["run", "-", "--server", app.client().base()]).kill_on_drop(true);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut running = command.spawn()?;
        running.stdin.take().context("it has a stdin")?.write_all(said.as_bytes()).await?;
        let done = running.wait_with_output().await?;
        assert_eq!(done.status.code(), Some(status), "{said:?}: {}", String::from_utf8_lossy(&done.stderr));
    }
    let listed = app.client().get("/v1/tasks").await?.expect(200)?;
    let id = listed["data"][0]["id"].as_str().context("a task was made")?;
    assert!(String::from_utf8(app.sent(id, 1).await?.to_vec())?.contains("Hello from a pipe"));
    Ok(())
}

#[tokio::test]
async fn all_mistakes_of_a_configuration_are_named_at_once() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("longhaul.toml");
    std::fs::write(
        &file,
        "[worker]\nslots = 0\nslot = 7\n[lease]\nttl = \"1s\"\n[api]\ntls_cert = \"cert.pem\"\n\
         [[upstreams]]\nname = \"a\"\nurl = \"nothing\"\n[[upstreams]]\nname = \"b c\"\nurl = \"http://b\"\n",
    )?;
    let path = file.display().to_string();
    let env =
        [("LONGHAUL_API__GRACE", "soon"), ("LONGHAUL_SWEP__PERIOD", "1s"), ("DATABASE_URL", "postgres://x")];
    let (code, out, err) = text(&["config", "check", "--config", &path], &env).await?;
    assert_eq!(code, Some(2), "{out}{err}");
    for wrong in [
        "worker.slots is 0",
        "worker.slot (",
        "lease.ttl",
        "api.tls_key",
        "the url of a",
        "\"b c\" is no name",
        "api.grace",
        "LONGHAUL_SWEP__PERIOD",
        "REDIS_URL",
    ] {
        assert!(out.contains(wrong), "{wrong} is missing:\n{out}");
    }
    assert!(err.contains("8 mistakes"), "one list of two upstreams is one setting: {err}\n{out}");
    let (code, out, err) = text(&["config", "check"], &[]).await?;
    assert_eq!((code, out.as_str()), (Some(0), "ok\n"), "{err}");
    Ok(())
}

#[tokio::test]
async fn keys_are_not_made_in_a_folder_that_is_not_there() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let data = folder.path().join("longhaul-dta").display().to_string();
    for command in [
        vec!["keys", "create", "--project", "acme", "--scopes", "read"],
        vec!["keys", "list"],
        vec!["projects", "create", "acme"],
    ] {
        let (code, out, err) = text(&[&command[..], &["--data-dir", &data]].concat(), &[]).await?;
        assert!(
            code == Some(1) && out.is_empty() && err.contains("there is no database in"),
            "{command:?}: {out}{err}"
        );
        assert!(!Path::new(&data).exists(), "{command:?} made it");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_demo_ends_by_itself_and_shows_a_kill() -> anyhow::Result<()> {
    let (code, out, err) = text(&["demo"], &[]).await?;
    assert!(code == Some(0) && err.contains("longhaul demo --keep"), "{out}{err}");
    let (code, out, err) = text(&["demo", "--chaos"], &[]).await?;
    assert_eq!(code, Some(0), "{out}{err}");
    for word in ["kill -9 ", "Promise 1", "Promise 3", "Promise 6", "6 of 6 tasks", "1, 2"] {
        assert!(out.contains(word), "it does not show {word}:\n{out}{err}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_banner_suggests_works() -> anyhow::Result<()> {
    let (home, address) = (tempfile::tempdir()?, free_address()?);
    let listen = format!("0.0.0.0:{}", address.port());
    let start = |command: &mut Command| {
        command.env_clear().args(["serve", "--listen", &listen]).current_dir(home.path());
    };
    let mut server = Process::start("banner", &program("longhaul")?, start, &logs_folder()?)?;
    for start in ["first", "second"] {
        let suggested = within(Duration::from_secs(20), "it says what to try", async || {
            let said = server.said()?;
            // The last one: the log goes on over a restart.
            let lines: Vec<String> =
                said.lines().filter_map(|line| line.trim().strip_prefix("try ")).map(str::to_owned).collect();
            let ready = reqwest::get(format!("http://{address}/readyz"))
                .await
                .is_ok_and(|reply| reply.status() == 200);
            Ok(lines.last().cloned().filter(|_| ready))
        })
        .await?;
        assert!(server.said()?.contains("longhaul-data/api-key"), "the file is named: {}", server.said()?);
        let mut shell = Command::new("bash");
        shell.env_clear().args(["-euc", suggested.trim()]).current_dir(home.path());
        let done = tokio::task::spawn_blocking(move || shell.output()).await??;
        assert!(done.status.success(), "{start}: {suggested}: {}", String::from_utf8_lossy(&done.stderr));
        server.restart(|_| ())?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backup_can_be_started_from() -> anyhow::Result<()> {
    let mut app = App::with(Mode::Embedded).env("LONGHAUL_OBJECTS__INLINE_BYTES_MAX", "1KiB").start().await?;
    let small = app.client().ask("Hello", json!({})).await?;
    let large = app.client().ask(&"x".repeat(10_000), json!({"text": "y".repeat(10_000)})).await?;
    for id in [&small, &large] {
        app.client().ended(id).await?;
    }
    let copy = tempfile::tempdir()?;
    let (data, file) = (app.data().display().to_string(), copy.path().join("copy.db"));
    let backup = ["backup", &file.display().to_string(), "--data-dir", &data].map(str::to_owned);
    let backup: Vec<&str> = backup.iter().map(String::as_str).collect();
    let (code, _, err) = text(&backup, &[]).await?;
    assert_eq!(code, Some(0), "while it runs: {err}");
    assert_eq!(std::fs::metadata(&file)?.permissions().mode() & 0o777, 0o600, "prompts are in it");
    let (code, _, err) = text(&backup, &[]).await?;
    assert!(code == Some(1) && err.contains("exists"), "nothing is overwritten: {err}");
    app.client().ask("after the copy", json!({})).await?;

    // As docs/operations.md says it.
    let restored = copy.path().join("data");
    std::fs::create_dir(&restored)?;
    std::fs::rename(&file, restored.join("longhaul.db"))?;
    std::fs::rename(copy.path().join("copy.db-objects"), restored.join("objects"))?;
    let listen = free_address()?.to_string();
    let folder = restored.display().to_string();
    let start = |command: &mut Command| {
        command.env_clear().args(["serve", "--listen", &listen, "--data-dir", &folder]);
    };
    let mut server = Process::start("restored", &program("longhaul")?, start, &logs_folder()?)?;
    let client = harness::Client::new(format!("http://{listen}"))?;
    within(Duration::from_secs(20), "it is ready", async || {
        Ok(client.get("/readyz").await.ok().filter(|reply| reply.status == 200).map(drop))
    })
    .await?;
    for id in [&small, &large] {
        assert_eq!(client.task(id).await?["result"], app.client().task(id).await?["result"], "{id}");
    }
    let listed = client.get("/v1/tasks").await?.expect(200)?;
    assert_eq!(listed["data"].as_array().map(Vec::len), Some(2), "what came later is not in it");
    // A graceful stop leaves one file: all that was written is in it.
    server.signal("TERM")?;
    server.wait_end(Duration::from_secs(25)).await?;
    app.stop_api(0).await?;
    for folder in [&restored, &app.data()] {
        for log in ["longhaul.db-wal", "longhaul.db-shm"] {
            assert!(!folder.join(log).exists(), "{log} is left in {}", folder.display());
        }
    }
    Ok(())
}
