//! Two projects and every scope against every operation of the OpenAPI document: what is added to it later is tested by being there.

use super::both_modes;
use harness::{App, Client, Mode, Operation, Tenant, chat};
use reqwest::Method;
use serde_json::{Value, json};
use shared::identity::Scope;

both_modes!(nobody_sees_what_is_anothers, every_operation_asks_for_its_scope);

/// What a project has: an id of each kind, and a word that is nobody else's business.
struct Estate {
    task: String,
    batch: String,
    endpoint: String,
    delivery: String,
    canary: &'static str,
}

async fn estate(tenant: &Tenant, canary: &'static str) -> anyhow::Result<Estate> {
    let ask = json!({"endpoint": "/v1/chat/completions", "body": chat(canary, json!({"echo": true})),
                     "metadata": {"canary": canary}});
    // Nobody listens there, and nothing is sent: it is not public.
    let endpoint = json!({"name": canary, "url": "https://localhost:9/", "event_types": ["task.completed"]});
    let endpoint = tenant.client.post("/v1/webhook_endpoints", &endpoint).await?.expect(200)?;
    let task = tenant.client.submit(&ask).await?;
    let lines = json!({"endpoint": "/v1/chat/completions", "completion_window": "24h", "metadata": {"canary": canary},
        "requests": [{"custom_id": canary, "method": "POST", "url": "/v1/chat/completions", "body": chat(canary, json!({}))}]});
    let batch = tenant.client.post("/v1/batches", &lines).await?.json()?;
    tenant.client.ended(&task).await?;
    tenant.client.ask(canary, json!({"ttft_ms": 20_000})).await?;
    let deliveries = tenant.client.get("/v1/webhook_deliveries").await?.expect(200)?;
    let id = |value: &Value| value["id"].as_str().unwrap_or_default().to_owned();
    Ok(Estate {
        task,
        batch: id(&batch),
        endpoint: id(&endpoint),
        delivery: id(&deliveries["data"][0]),
        canary,
    })
}

/// The id that a path is about; `None`: it is about no project's property.
fn about<'a>(path: &str, estate: &'a Estate) -> anyhow::Result<Option<&'a str>> {
    Ok(match path {
        _ if !path.contains('{') => None,
        _ if path.starts_with("/v1/tasks/{id}") => Some(&estate.task),
        _ if path.starts_with("/v1/batches/{id}") => Some(&estate.batch),
        _ if path.starts_with("/v1/webhook_endpoints/{id}") => Some(&estate.endpoint),
        _ if path.starts_with("/v1/webhook_deliveries/{id}") => Some(&estate.delivery),
        // The operator's, and what is the same for all.
        _ if path.starts_with("/v1/admin/") || path.starts_with("/v1/models/") => None,
        _ => anyhow::bail!("this test does not know whose {path} is: teach it"),
    })
}

async fn nobody_sees_what_is_anothers(mode: Mode) -> anyhow::Result<()> {
    let app = App::start(mode).await?;
    let (mine, other) = (
        app.tenant("mine", "submit,read,batch,webhooks").await?,
        app.tenant("other", "submit,read,batch,webhooks").await?,
    );
    let estate = estate(&mine, "canary-7f3a").await?;
    let own = estate_is_there(&mine, &estate).await?;
    let unknown = Estate {
        task: shared::task::TaskId::new().to_string(),
        batch: shared::task::BatchId::new().to_string(),
        endpoint: shared::task::EndpointId::new().to_string(),
        delivery: shared::task::DeliveryId::new().to_string(),
        canary: "",
    };
    let mut tried = 0;
    for operation in Operation::all(app.client()).await? {
        if operation.method == Method::GET && operation.path == "/v1/ws" {
            continue;
        }
        let Some(id) = about(&operation.path, &estate)? else {
            let reply = operation.call(&other.client, &operation.path).await?;
            let said = String::from_utf8_lossy(&reply.body);
            assert!(
                !said.contains(estate.canary)
                    && !said.contains(&estate.task)
                    && !said.contains(&estate.batch)
                    && !said.contains(&estate.endpoint)
                    && !said.contains(&estate.delivery),
                "{} {} shows another project's: {said}",
                operation.method,
                operation.path
            );
            continue;
        };
        let nobodys = about(&operation.path, &unknown)?.unwrap_or_default();
        let answers = [
            operation.call(&other.client, &operation.path.replace("{id}", id)).await?,
            operation.call(&other.client, &operation.path.replace("{id}", nobodys)).await?,
        ];
        let [foreign, absent] =
            answers.map(|reply| (reply.status, String::from_utf8_lossy(&reply.body).into_owned()));
        assert_eq!(foreign.0, 404, "{} {}: {}", operation.method, operation.path, foreign.1);
        assert_eq!(
            anonymous(&foreign.1, id),
            anonymous(&absent.1, nobodys),
            "{} {}",
            operation.method,
            operation.path
        );
        tried += 1;
    }
    assert!(tried >= 15, "only {tried} operations have an id");
    in_lists_and_figures(&other, &estate).await?;
    over_the_socket(&other, &estate).await?;
    assert_eq!(estate_is_there(&mine, &estate).await?, own, "nothing was changed");
    // The same idempotency key means another task.
    let body = json!({"endpoint": "/v1/chat/completions", "body": chat("a", json!({}))});
    let mut ids = Vec::new();
    for tenant in [&mine, &other] {
        let request =
            tenant.client.request(Method::POST, "/v1/tasks").header("idempotency-key", "one").json(&body);
        ids.push(Client::send(request).await?.expect(202)?["id"].clone());
    }
    assert_ne!(ids[0], ids[1]);
    Ok(())
}

/// An error without the id it names and its request's.
fn anonymous(body: &str, id: &str) -> Value {
    let mut body: Value = serde_json::from_str(&body.replace(id, "ID")).unwrap_or_default();
    body["error"]["request_id"] = Value::Null;
    body
}

async fn estate_is_there(tenant: &Tenant, estate: &Estate) -> anyhow::Result<Value> {
    let batch = tenant.client.get(&format!("/v1/batches/{}", estate.batch)).await?.expect(200)?;
    Ok(json!([tenant.client.task(&estate.task).await?["status"], batch["metadata"], batch["cancelling_at"]]))
}

async fn in_lists_and_figures(other: &Tenant, estate: &Estate) -> anyhow::Result<()> {
    let queues = other.client.get("/v1/queues").await?.expect(200)?;
    for queue in queues["data"].as_array().into_iter().flatten() {
        let figures = [&queue["queued"], &queue["scheduled"], &queue["in_progress"]];
        assert_eq!(figures, [&json!(0); 3], "another project's tasks are counted: {queue}");
    }
    let of_batch = other.client.get(&format!("/v1/tasks?batch_id={}", estate.batch)).await?.expect(200)?;
    assert_eq!(of_batch["data"], json!([]));
    for path in [format!("/v1/tasks?after={}", estate.task), format!("/v1/batches?after={}", estate.batch)] {
        assert_eq!(other.client.get(&path).await?.expect(400)?["error"]["param"], "after", "{path}");
    }
    Ok(())
}

async fn over_the_socket(other: &Tenant, estate: &Estate) -> anyhow::Result<()> {
    let mut socket = other.client.watch().await?;
    for topic in [format!("task:{}", estate.task), format!("batch:{}", estate.batch)] {
        let said = socket.subscribe(&json!({"type": "subscribe", "id": "1", "topics": [topic]})).await?;
        assert_eq!(said["type"], "error", "{said}");
    }
    let cancel = json!({"type": "task.cancel", "id": "2", "task_id": estate.task});
    let said = socket.subscribe(&cancel).await?;
    assert_eq!(
        (&said["type"], &said["error"]["code"]),
        (&json!("error"), &json!("task_not_found")),
        "{said}"
    );
    Ok(())
}

async fn every_operation_asks_for_its_scope(mode: Mode) -> anyhow::Result<()> {
    let app = App::start(mode).await?;
    let mut keys = Vec::new();
    for scope in Scope::ALL {
        keys.push((scope.as_str(), app.tenant("acme", scope.as_str()).await?));
    }
    assert_eq!(keys[0].1.client.get("/v1/tasks").await?.status, 403, "it closes the door");
    for operation in Operation::all(app.client()).await? {
        let path = operation.path.replace("{id}", "nothing");
        for (scope, tenant) in &keys {
            let reply = operation.call(&tenant.client, &path).await?;
            let may = operation.scope.as_deref().is_none_or(|needed| needed == *scope);
            let refused = matches!(reply.status, 401 | 403);
            assert_eq!(may, !refused, "{} {path} with {scope}: {}", operation.method, reply.status);
        }
        let stranger = operation.call(app.client(), &path).await?.status;
        assert_eq!(stranger == 401, operation.scope.is_some(), "{} {path}: {stranger}", operation.method);
    }
    let mut socket = keys
        .iter()
        .find(|(scope, _)| *scope == "read")
        .map(|(_, key)| &key.client)
        .expect("a key")
        .watch()
        .await?;
    let create = json!({"type": "task.create", "id": "1", "task": {"endpoint": "/v1/chat/completions", "body": chat("a", json!({}))}});
    let said = socket.subscribe(&create).await?;
    assert_eq!(said["error"]["code"], "insufficient_scope", "{said}");
    Ok(())
}
