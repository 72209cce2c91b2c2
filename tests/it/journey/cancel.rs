//! Stopping a task: final once answered, and the model server stops working on it.

use super::both_modes;
use harness::{App, Mode, eventually};
use serde_json::json;

both_modes!(a_waiting_task_is_cancelled, a_running_task_is_cancelled, an_ended_task_stays_as_it_is);

async fn a_waiting_task_is_cancelled(mode: Mode) -> anyhow::Result<()> {
    let app = App::with(mode).slots(1).start().await?;
    let client = app.client();
    let running = client.ask("first", json!({"ttft_ms": 60_000})).await?;
    client.reaches(&running, "in_progress").await?;
    let waiting = client.ask("second", json!({})).await?;
    assert_eq!(client.task(&waiting).await?["status"], "queued");

    let path = format!("/v1/tasks/{waiting}/cancel");
    let cancelled = client.post(&path, &json!({"reason": "no longer needed"})).await?.expect(200)?;
    assert_eq!(cancelled["status"], "cancelled");
    let again = client.post(&path, &json!({})).await?.expect(200)?;
    assert_eq!(again["finished_at"], cancelled["finished_at"], "the second cancel changes nothing");
    let answer = client.get(&format!("/v1/tasks/{waiting}/result")).await?;
    assert_eq!((answer.status, answer.header("x-should-retry")), (409, "false"));
    Ok(())
}

async fn a_running_task_is_cancelled(mode: Mode) -> anyhow::Result<()> {
    let app = App::with(mode).slots(1).start().await?;
    let client = app.client();
    let id = client.ask("a long one", json!({"tokens": 2_000, "itl_ms": 50})).await?;
    client.reaches(&id, "in_progress").await?;
    eventually("the model is at work", async || Ok((app.executions(&id) == ["running"]).then_some(())))
        .await?;
    let cancelled = client.post(&format!("/v1/tasks/{id}/cancel"), &json!({})).await?.expect(200)?;
    assert_eq!(cancelled["status"], "cancelled");
    let closed = async || Ok((app.executions(&id) == ["client_closed"]).then_some(()));
    eventually("the connection to the model is closed", closed).await?;
    assert_eq!(client.task(&id).await?["status"], "cancelled");
    // Its slot, the only one, is free.
    let next = client.ask("the next one", json!({})).await?;
    assert_eq!(client.ended(&next).await?["status"], "completed");
    Ok(())
}

async fn an_ended_task_stays_as_it_is(mode: Mode) -> anyhow::Result<()> {
    let app = App::start(mode).await?;
    let client = app.client();
    let id = client.ask("quick", json!({})).await?;
    let ended = client.ended(&id).await?;
    let answer = client.post(&format!("/v1/tasks/{id}/cancel"), &json!({})).await?.expect(200)?;
    assert_eq!(answer["status"], "completed");
    assert_eq!(client.task(&id).await?["finished_at"], ended["finished_at"]);
    Ok(())
}
