//! API keys: made by the command line and over HTTP, refused everywhere once they have ended, streams included.

use super::both_modes;
use harness::{App, Client, Mode, Watch, within};
use reqwest::Method;
use serde_json::{Value, json};
use std::time::{Duration, Instant};

both_modes!(
    the_first_key_closes_the_door,
    a_revoked_key_is_refused_everywhere,
    a_key_is_rotated_without_a_gap,
    bad_keys_are_all_refused_alike,
    what_an_admin_does_is_written_down,
);

/// Until there is a key, nobody on this machine needs one.
async fn the_first_key_closes_the_door(mode: Mode) -> anyhow::Result<()> {
    let app = App::start(mode).await?;
    let sdk = app.client().with_key("whatever an SDK insists on");
    assert_eq!(app.client().get("/v1/tasks").await?.status, 200);
    assert_eq!(sdk.get("/v1/tasks").await?.status, 200);
    let tenant = app.tenant("acme", "submit,read").await?;
    assert_eq!(tenant.client.get("/v1/tasks").await?.status, 200, "a key works at once");
    within(Duration::from_secs(5), "the door is closed", async || {
        Ok((app.client().get("/v1/tasks").await?.status == 401).then_some(()))
    })
    .await?;
    assert_eq!(sdk.get("/v1/tasks").await?.status, 401);
    assert_eq!(app.client().get("/readyz").await?.status, 200, "health needs no key");
    let id = tenant.client.ask("mine", json!({})).await?;
    assert_eq!(tenant.client.ended(&id).await?["status"], "completed");
    let refused = tenant.client.post("/v1/batches", &json!({})).await?;
    assert_eq!(refused.expect(403)?["error"]["code"], "insufficient_scope");
    assert!(refused.header("www-authenticate").contains("batch"), "{refused:?}");
    Ok(())
}

async fn a_revoked_key_is_refused_everywhere(mode: Mode) -> anyhow::Result<()> {
    let app = App::with(mode).apis(2).start().await?;
    let tenant = app.tenant("acme", "submit,read").await?;
    let clients: Vec<Client> = app.apis.iter().map(|api| api.with_key(&tenant.key)).collect();
    for client in &clients {
        assert_eq!(client.get("/v1/tasks").await?.status, 200);
    }
    let id = tenant.client.ask("a long one", json!({"ttft_ms": 600_000})).await?;
    let stream = clients[clients.len() - 1].open_events(&id, None).await?;
    let mut socket: Watch = tenant.client.watch().await?;
    let topics = json!({"type": "subscribe", "topics": [format!("task:{id}")]});
    assert_eq!(socket.subscribe(&topics).await?["type"], "ack");
    app.keys(&["revoke", &tenant.id]).await?;
    let revoked = Instant::now();
    for client in &clients {
        within(Duration::from_secs(5), "it is refused", async || {
            Ok((client.get("/v1/tasks").await?.status == 401).then_some(()))
        })
        .await?;
    }
    // Both ends come without being asked for.
    stream.text().await?;
    let closed = loop {
        match socket.next().await {
            Ok(_) => {}
            Err(closed) => break closed.to_string(),
        }
    };
    assert!(closed.contains("4401"), "{closed}");
    assert!(revoked.elapsed() < Duration::from_secs(10), "streams end as soon as it is known");
    Ok(())
}

async fn a_key_is_rotated_without_a_gap(mode: Mode) -> anyhow::Result<()> {
    let app = App::start(mode).await?;
    let old = app.tenant("acme", "read").await?;
    assert_eq!(old.client.get("/v1/tasks").await?.status, 200);
    let new = app.known(&app.keys(&["rotate", &old.id, "--overlap", "1s"]).await?)?;
    assert_eq!(new.client.get("/v1/tasks").await?.status, 200);
    within(Duration::from_secs(6), "the old one ends", async || {
        assert_eq!(new.client.get("/v1/tasks").await?.status, 200, "the new one always works");
        Ok((old.client.get("/v1/tasks").await?.status == 401).then_some(()))
    })
    .await?;
    assert_eq!(new.client.post("/v1/tasks", &json!({})).await?.status, 403, "with the same rights");
    Ok(())
}

/// The answer but for its request's id.
fn refusal(reply: &harness::Reply) -> anyhow::Result<Value> {
    let mut body = reply.expect(401)?;
    body["error"]["request_id"] = Value::Null;
    Ok(body)
}

async fn bad_keys_are_all_refused_alike(mode: Mode) -> anyhow::Result<()> {
    let app = App::start(mode).await?;
    let good = app.tenant("acme", "read").await?.key;
    let revoked = app.tenant("acme", "read").await?;
    app.keys(&["revoke", &revoked.id]).await?;
    let brief = ["create", "-p", "acme", "-s", "read", "--expires-in", "1ms"];
    let expired = app.known(&app.keys(&brief).await?)?.key;
    let (head, last) = good.split_at(good.len() - 1);
    let other = if last == "0" { "1" } else { "0" };
    assert_eq!(app.client().with_key(&good).get("/v1/tasks").await?.status, 200, "it closes the door");
    let shown = [
        String::new(),
        "Bearer".to_owned(),
        "Bearer ".to_owned(),
        format!("Basic {good}"),
        format!("Token {good}"),
        good.clone(),
        format!("Bearer {head}"),
        format!("Bearer {head}{other}"),
        format!("Bearer {good}0"),
        format!("Bearer {}", good.to_uppercase()),
        format!("Bearer x{good}"),
        format!("Bearer {good} {good}"),
        format!("Bearer {}", revoked.key),
        format!("Bearer {expired}"),
        format!("Bearer {}", shared::identity::ApiKey::generate().expose()),
        format!("Bearer {}", revoked.id),
        "Bearer ' or 1=1 --".to_owned(),
        format!("Bearer {}", "A".repeat(8_000)),
    ];
    let nothing = refusal(&app.client().get("/v1/tasks").await?)?;
    for authorization in shown {
        let request = app.client().request(Method::GET, "/v1/tasks").header("authorization", &authorization);
        assert_eq!(refusal(&Client::send(request).await?)?, nothing, "{authorization}");
    }
    for (name, value) in [("x-api-key", good.as_str()), ("cookie", &format!("key={good}"))] {
        let request = app.client().request(Method::GET, "/v1/tasks").header(name, value);
        assert_eq!(refusal(&Client::send(request).await?)?, nothing, "{name}");
    }
    let in_query = app.client().get(&format!("/v1/tasks?api_key={good}&access_token={good}")).await?;
    assert_eq!(refusal(&in_query)?, nothing, "no keys in URLs");
    assert_eq!(refusal(&app.client().get("/v1/nothing/here").await?)?, nothing, "strangers learn nothing");
    Ok(())
}

async fn what_an_admin_does_is_written_down(mode: Mode) -> anyhow::Result<()> {
    let app = App::start(mode).await?;
    let admin = app.tenant("operators", "admin").await?;
    let project = admin.client.post("/v1/admin/projects", &json!({"name": "acme"})).await?.expect(201)?;
    let twice = admin.client.post("/v1/admin/projects", &json!({"name": "acme"})).await?;
    assert_eq!(twice.status, 409);
    let wanted =
        json!({"project": "acme", "name": "ci", "scopes": ["submit", "read"], "expires_in_s": 3_600});
    let made = admin.client.post("/v1/admin/keys", &wanted).await?.expect(201)?;
    assert_eq!((&made["project_id"], &made["scopes"]), (&project["id"], &json!(["submit", "read"])));
    let tenant = app.known(&made)?;
    let id = tenant.client.ask("hello", json!({})).await?;
    assert_eq!(
        admin.client.get(&format!("/v1/tasks/{id}")).await?.status,
        403,
        "an admin key reads no tasks"
    );
    let rotated =
        admin.client.post(&format!("/v1/admin/keys/{}/rotate", tenant.id), &json!({"overlap_s": 60})).await?;
    let rotated = app.known(&rotated.expect(201)?)?;
    let revoke = format!("/v1/admin/keys/{}/revoke", tenant.id);
    assert!(admin.client.post(&revoke, &json!({})).await?.expect(200)?["revoked_at"].is_number());
    assert_eq!(rotated.client.task(&id).await?["id"], id.as_str());
    let late = admin.client.post(&format!("/v1/admin/keys/{}/rotate", tenant.id), &json!({})).await?;
    assert_eq!(late.expect(409)?["error"]["code"], "conflict", "it is there, and has ended");
    let listed = admin.client.get("/v1/admin/keys").await?.expect(200)?;
    assert_eq!(listed["data"].as_array().map(Vec::len), Some(3));
    let log = admin.client.get("/v1/admin/audit").await?.expect(200)?;
    let acts: Vec<(&str, &str)> = log["data"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|act| Some((act["action"].as_str()?, act["actor"].as_str()?)))
        .collect();
    let by_key = admin.id.as_str();
    let expected = [
        ("key.revoke", by_key),
        ("key.rotate", by_key),
        ("key.create", by_key),
        ("project.create", by_key),
        ("key.create", "command line"),
        ("project.create", "command line"),
    ];
    assert_eq!(acts, expected);
    for text in [listed.to_string(), log.to_string(), app.keys(&["list"]).await?.to_string()] {
        for secret in [&admin.key, &tenant.key, &rotated.key] {
            assert!(!text.contains(secret.as_str()), "a key is shown once");
        }
    }
    bad_wishes(&admin.client).await
}

async fn bad_wishes(admin: &Client) -> anyhow::Result<()> {
    let key = |change: Value| {
        let mut wanted = json!({"project": "acme", "scopes": ["read"]});
        wanted
            .as_object_mut()
            .into_iter()
            .for_each(|wanted| wanted.extend(change.as_object().cloned().unwrap_or_default()));
        wanted
    };
    let table = [
        ("/v1/admin/projects", json!({"name": "Acme"}), 400, "name"),
        ("/v1/admin/projects", json!({"name": ""}), 400, "name"),
        ("/v1/admin/projects", json!({"name": "x".repeat(65)}), 400, "name"),
        ("/v1/admin/projects", json!({"name": "a", "id": "proj_1"}), 400, "id"),
        ("/v1/admin/keys", key(json!({"project": "nobody"})), 404, "project"),
        ("/v1/admin/keys", key(json!({"scopes": []})), 400, "scopes"),
        ("/v1/admin/keys", key(json!({"scopes": ["write"]})), 400, "scopes"),
        ("/v1/admin/keys", key(json!({"expires_in_s": 0})), 400, "expires_in_s"),
        ("/v1/admin/keys", key(json!({"expires_in_s": 400_000_000})), 400, "expires_in_s"),
        ("/v1/admin/keys", key(json!({"name": "x".repeat(129)})), 400, "name"),
        ("/v1/admin/keys/key_1/revoke", json!({}), 404, "id"),
    ];
    for (path, body, status, param) in table {
        let refused = admin.post(path, &body).await?;
        assert_eq!(refused.expect(status)?["error"]["param"], param, "{path} {body}");
    }
    Ok(())
}
