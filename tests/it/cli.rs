//! The command line, run as a person runs it.

use harness::output;
use std::time::{Duration, Instant};

async fn text(args: &[&str], env: &[(&str, &str)]) -> anyhow::Result<(Option<i32>, String, String)> {
    let output = output(args, env).await?;
    Ok((output.status.code(), String::from_utf8(output.stdout)?, String::from_utf8(output.stderr)?))
}

#[tokio::test]
async fn the_demo_shows_a_task_from_end_to_end() -> anyhow::Result<()> {
    let (code, out, err) = text(&["demo", "--exit"], &[]).await?;
    assert_eq!(code, Some(0), "{out}{err}");
    for word in ["SIMULATED", "completed", "/v1/tasks"] {
        assert!((out.clone() + &err).contains(word), "the demo does not say {word}:\n{out}{err}");
    }
    Ok(())
}

#[tokio::test]
async fn the_configuration_shows_values_and_where_they_come_from() -> anyhow::Result<()> {
    let env = [("LONGHAUL_WORKER__SLOTS", "7"), ("LONGHAUL_API_KEY", "open-sesame")];
    let (code, out, err) = text(&["config", "show"], &env).await?;
    assert_eq!(code, Some(0), "{err}");
    assert!(out.contains("slots = 7") && out.contains("LONGHAUL_WORKER__SLOTS"), "{out}");
    assert!(!out.contains("open-sesame"), "a secret is never shown: {out}");
    Ok(())
}

#[tokio::test]
async fn a_wrong_setting_is_named_with_what_was_expected() -> anyhow::Result<()> {
    let table = [
        (("LONGHAUL_WORKER__SLOTS", "many"), ["LONGHAUL_WORKER__SLOTS", "whole number"]),
        (("LONGHAUL_WORKER__SLOT", "7"), ["LONGHAUL_WORKER__SLOT", "LONGHAUL_WORKER__SLOTS"]),
        (("DATABASE_URL", "postgres://localhost/x"), ["database URL is set", "REDIS_URL"]),
        (("LONGHAUL_LEASE__TTL", "1s"), ["lease.ttl", "heartbeat"]),
    ];
    for (variable, words) in table {
        let (code, _, err) = text(&["config", "show"], &[variable]).await?;
        assert!(code.is_some_and(|code| code != 0), "{variable:?}: {err}");
        assert!(words.iter().all(|word| err.contains(word)), "{variable:?}: {err}");
        assert!(err.lines().count() <= 3, "one thing to say, not a stack of it: {err}");
    }
    Ok(())
}

#[tokio::test]
async fn a_port_that_is_taken_is_said_so() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let taken = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let address = taken.local_addr()?.to_string();
    let data = folder.path().display().to_string();
    let (code, out, err) = text(&["serve", "--listen", &address, "--data-dir", &data], &[]).await?;
    assert!(code.is_some_and(|code| code != 0), "{out}");
    assert!(err.contains(&address), "it does not say which port: {err}");
    Ok(())
}

#[tokio::test]
async fn an_unreachable_database_is_said_within_seconds() -> anyhow::Result<()> {
    // Port 1 stays free: one that is free just now may be another test's in a moment, and its server hangs where a closed port refuses.
    let started = Instant::now();
    let database = "postgres://longhaul:secret-word@127.0.0.1:1/longhaul";
    let env = [("DATABASE_URL", database), ("REDIS_URL", "redis://127.0.0.1:1")];
    let (code, _, err) = text(&["api"], &env).await?;
    assert!(code.is_some_and(|code| code != 0), "{err}");
    assert!(err.contains("cannot use the Postgres database"), "{err}");
    assert!(!err.contains("secret-word"), "a secret is never shown: {err}");
    assert!(started.elapsed() < Duration::from_secs(5), "it took {:?}", started.elapsed());
    Ok(())
}

#[tokio::test]
async fn help_fits_a_person() -> anyhow::Result<()> {
    let (code, out, _) = text(&["--help"], &[]).await?;
    assert_eq!(code, Some(0));
    for command in ["serve", "demo", "api", "worker", "migrate", "config"] {
        assert!(out.contains(command), "{command} is missing:\n{out}");
    }
    Ok(())
}
