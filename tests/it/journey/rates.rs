//! Requests and tokens in any minute, tasks that wait, bad logins: who has used up what is theirs is told so, and nobody else.

use super::both_modes;
use anyhow::Context;
use futures_util::future::join_all;
use harness::{App, Client, Mode, Reply, within};
use reqwest::Method;
use serde_json::{Value, json};
use std::time::Duration;

both_modes!(
    a_key_has_so_many_requests_a_minute,
    a_project_shares_its_requests,
    an_address_is_what_the_proxy_says,
    tokens_are_reserved_and_settled,
    so_many_tasks_may_wait,
    so_many_tasks_run_at_once,
    bad_keys_are_not_looked_at_for_ever,
);

fn code(reply: &Reply) -> anyhow::Result<String> {
    Ok(reply.json()?["error"]["code"].as_str().unwrap_or_default().to_owned())
}

/// How many of `count` requests are let through; the others are refused with 429.
async fn let_through(client: &Client, count: u32) -> anyhow::Result<u32> {
    let mut through = 0;
    for _ in 0..count {
        let reply = client.get("/v1/tasks").await?;
        match reply.status {
            200 => through += 1,
            _ => assert_eq!((reply.status, &*code(&reply)?), (429, "rate_limit_exceeded"), "{reply:?}"),
        }
    }
    Ok(through)
}

async fn a_key_has_so_many_requests_a_minute(mode: Mode) -> anyhow::Result<()> {
    let app = App::with(mode).apis(2).env("LONGHAUL_LIMITS__KEY_REQUESTS_PER_MINUTE", "10").start().await?;
    let (one, other) = (app.tenant("acme", "read").await?, app.tenant("acme", "read").await?);
    let first = one.client.get("/v1/tasks").await?;
    assert_eq!(first.header("ratelimit-policy"), r#""requests";q=10;w=60"#);
    assert_eq!(first.header("ratelimit"), r#""requests";r=9;t=6"#);
    assert_eq!(first.header("x-ratelimit-limit-requests"), "10");
    assert_eq!(first.header("x-ratelimit-remaining-requests"), "9");
    // From whichever API: the limit is one.
    let mut through = 1;
    for api in &app.apis {
        through += let_through(&api.with_key(&one.key), 10).await?;
    }
    assert!((10..=11).contains(&through), "{through}");
    let refused = one.client.get("/v1/tasks").await?;
    assert_eq!(refused.status, 429);
    let wait: u64 = refused.header("retry-after").parse()?;
    assert!((1..=6).contains(&wait), "{refused:?}");
    assert!(refused.header("ratelimit").starts_with(r#""requests";r=0;t="#), "{refused:?}");
    assert_eq!(refused.json()?["error"]["type"], "rate_limit_error");
    let problem = one.client.request(Method::GET, "/v1/tasks").header("accept", "application/problem+json");
    assert_eq!(Client::send(problem).await?.json()?["status"], 429);
    assert_eq!(other.client.get("/v1/tasks").await?.status, 200, "another key has its own");
    assert_eq!(one.client.get("/livez").await?.status, 200, "health is not limited");
    // A limit of its own takes the place of that of all keys, within 5 s.
    app.keys(&["limit", &one.id, "--requests-per-minute", "1000"]).await?;
    within(Duration::from_secs(5), "it may do more", async || {
        Ok((one.client.get("/v1/tasks").await?.status == 200).then_some(()))
    })
    .await
}

async fn a_project_shares_its_requests(mode: Mode) -> anyhow::Result<()> {
    let app = App::start(mode).await?;
    let admin = app.tenant("operators", "admin").await?.client;
    let (one, other) = (app.tenant("acme", "read").await?.client, app.tenant("acme", "read").await?.client);
    let stranger = app.tenant("globex", "read").await?.client;
    let projects = admin.get("/v1/admin/projects").await?.expect(200)?;
    let mine = projects["data"].as_array().and_then(|all| all.iter().find(|one| one["name"] == "acme"));
    let id = mine.map(|project| project["id"].clone()).unwrap_or_default();
    let path = format!("/v1/admin/projects/{}/limits", id.as_str().unwrap_or_default());
    let refused = admin.post(&path, &json!({"requests_per_minute": 0})).await?.expect(400)?;
    assert_eq!(refused["error"]["param"], "requests_per_minute");
    assert_eq!(admin.post(&path, &json!({"requests_per_second": 5})).await?.status, 400);
    let set = admin.post(&path, &json!({"requests_per_minute": 20})).await?.expect(200)?;
    assert_eq!(set["requests_per_minute"], 20);
    let path = "/v1/admin/projects/proj_01m80mxdqye42t0gr1whdysjjb/limits";
    assert_eq!(code(&admin.post(path, &json!({})).await?)?, "project_not_found");
    within(Duration::from_secs(5), "it is known", async || {
        Ok((!one.get("/v1/tasks").await?.header("ratelimit").is_empty()).then_some(()))
    })
    .await?;
    let through = let_through(&one, 15).await? + let_through(&other, 15).await?;
    assert!((15..=21).contains(&through), "{through}");
    assert_eq!(let_through(&stranger, 30).await?, 30, "another project is not limited");
    let acts = admin.get("/v1/admin/audit").await?.expect(200)?;
    assert_eq!(acts["data"][0]["action"], "project.limit", "{acts}");
    Ok(())
}

/// Requests of somebody who says to be there.
async fn said_to_be(client: &Client, address: &str) -> anyhow::Result<u16> {
    let request = client.request(Method::GET, "/v1/tasks").header("x-forwarded-for", address);
    Ok(Client::send(request).await?.status)
}

async fn an_address_is_what_the_proxy_says(mode: Mode) -> anyhow::Result<()> {
    let limited = |app: harness::Builder| {
        app.env("LONGHAUL_LIMITS__IP_REQUESTS_PER_MINUTE", "5").env("LONGHAUL_API_KEY", "an operator's key")
    };
    // Nobody is trusted: whatever they say, they are one.
    let app = limited(App::with(mode)).start().await?;
    let client = app.client().with_key("an operator's key");
    let mut through = 0;
    for n in 0..20 {
        through += u32::from(said_to_be(&client, &format!("203.0.113.{n}")).await? == 200);
    }
    assert!((5..=6).contains(&through), "{through}");
    drop(app);
    let app = limited(App::with(mode)).env("LONGHAUL_API__TRUSTED_PROXIES", "127.0.0.0/8").start().await?;
    let client = app.client().with_key("an operator's key");
    for n in 0..20 {
        assert_eq!(said_to_be(&client, &format!("203.0.113.{n}")).await?, 200);
    }
    let mut through = 0;
    for n in 0..20 {
        // What stands before the last one was written by the caller.
        through += u32::from(said_to_be(&client, &format!("198.51.100.{n}, 203.0.113.200")).await? == 200);
    }
    assert!((5..=6).contains(&through), "{through}");
    Ok(())
}

fn wanted(tokens: u32, sim: Value) -> Value {
    let mut body = harness::chat("count", sim);
    body["max_tokens"] = json!(tokens);
    json!({"endpoint": "/v1/chat/completions", "body": body})
}

async fn tokens_are_reserved_and_settled(mode: Mode) -> anyhow::Result<()> {
    let app = App::with(mode).env("LONGHAUL_LIMITS__PROJECT_TOKENS_PER_MINUTE", "1000").start().await?;
    let client = app.tenant("acme", "submit,read").await?.client;
    let never = client.post("/v1/tasks", &wanted(5_000, json!({}))).await?;
    assert_eq!((never.status, never.header("x-should-retry")), (429, "false"), "{never:?}");
    let slow = || {
        let request = client.request(Method::POST, "/v1/tasks").header("idempotency-key", "slow");
        Client::send(request.json(&wanted(800, json!({"ttft_ms": 1_000, "tokens": 10}))))
    };
    let first = slow().await?;
    let left: u32 = first.header("x-ratelimit-remaining-tokens").parse()?;
    assert!((100..=190).contains(&left), "{first:?}");
    let id = first.expect(202)?["id"].as_str().unwrap_or_default().to_owned();
    let refused = client.post("/v1/tasks", &wanted(800, json!({}))).await?;
    assert_eq!((refused.status, &*code(&refused)?), (429, "rate_limit_exceeded"));
    assert!(refused.header("ratelimit").contains(r#""tokens";r="#), "{refused:?}");
    let again = slow().await?;
    assert_eq!((again.header("idempotent-replayed"), &again.expect(202)?["id"]), ("true", &json!(id)));
    assert_eq!(client.ended(&id).await?["status"], "completed");
    // It wrote ten: the rest is there again, long before a minute is over.
    within(Duration::from_secs(5), "it is settled", async || {
        let reply = client.post("/v1/tasks", &wanted(800, json!({"tokens": 10}))).await?;
        Ok((reply.status == 202).then_some(()))
    })
    .await
}

async fn so_many_tasks_may_wait(mode: Mode) -> anyhow::Result<()> {
    let app = App::with(mode).slots(1).env("LONGHAUL_LIMITS__PROJECT_QUEUED_TASKS", "5").start().await?;
    let client = app.tenant("acme", "submit,read,batch").await?.client;
    let one = json!({"ttft_ms": 60_000});
    let mut accepted = vec![client.submit(&wanted(1, one.clone())).await?];
    within(Duration::from_secs(10), "it runs", async || Ok((app.model.running() == 1).then_some(()))).await?;
    // All at once.
    let body = wanted(1, one);
    let posts = (0..40).map(|_| client.post("/v1/tasks", &body));
    let mut full = None;
    for reply in join_all(posts).await {
        let reply = reply?;
        match reply.status {
            202 => accepted.push(reply.json()?["id"].as_str().unwrap_or_default().to_owned()),
            _ => full = Some(reply),
        }
    }
    let full = full.context("nobody is refused")?;
    assert_eq!((full.status, &*code(&full)?), (429, "queue_full"), "{full:?}");
    // The one that runs may have been counted among those that wait a moment ago.
    assert!((5..=6).contains(&accepted.len()), "five wait, one runs: {}", accepted.len());
    let later =
        json!({"endpoint": "/v1/chat/completions", "body": harness::chat("later", json!({})), "delay_s": 60});
    // If it was counted, there is room for one more.
    within(Duration::from_secs(5), "one that is for later waits as well", async || {
        Ok((client.post("/v1/tasks", &later).await?.status == 429).then_some(()))
    })
    .await?;
    let line = |n| json!({"custom_id": format!("{n}"), "method": "POST", "url": "/v1/chat/completions", "body": harness::chat("x", json!({}))});
    let lines: Vec<Value> = (0..6).map(line).collect();
    let batch = json!({"endpoint": "/v1/chat/completions", "completion_window": "24h", "requests": lines});
    let never = client.post("/v1/batches", &batch).await?;
    assert_eq!((&*code(&never)?, never.header("x-should-retry")), ("queue_full", "false"));
    let other = app.tenant("globex", "submit").await?.client;
    assert_eq!(
        other.post("/v1/tasks", &wanted(1, json!({}))).await?.status,
        202,
        "nobody else is in the way"
    );
    for id in &accepted {
        client.post(&format!("/v1/tasks/{id}/cancel"), &json!({})).await?;
    }
    within(Duration::from_secs(5), "there is room", async || {
        Ok((client.post("/v1/tasks", &wanted(1, json!({}))).await?.status == 202).then_some(()))
    })
    .await
}

async fn so_many_tasks_run_at_once(mode: Mode) -> anyhow::Result<()> {
    let setting = ("LONGHAUL_LIMITS__PROJECT_CONCURRENT_TASKS", "3");
    let app = App::with(mode).workers(2).slots(8).env(setting.0, setting.1).start().await?;
    let (acme, globex) =
        (app.tenant("acme", "submit,read").await?, app.tenant("globex", "submit,read").await?);
    let most = async |client: &Client, count: usize| -> anyhow::Result<usize> {
        let ids = (0..count).map(|_| client.ask("slow", json!({"ttft_ms": 150})));
        let ids = join_all(ids).await.into_iter().collect::<anyhow::Result<Vec<_>>>()?;
        let ends = async {
            join_all(ids.iter().map(|id| client.ended(id))).await.into_iter().collect::<Result<Vec<_>, _>>()
        };
        let mut most = 0;
        let watching = async {
            loop {
                most = most.max(app.model.running());
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        };
        let ended =
            tokio::select! { ended = ends => ended?, () = watching => unreachable!("it watches for ever") };
        assert!(ended.iter().all(|task| task["status"] == "completed"));
        Ok(most)
    };
    assert_eq!(most(&acme.client, 15).await?, 3);
    let (one, other) = tokio::join!(most(&acme.client, 9), most(&globex.client, 9));
    assert_eq!(one?.max(other?), 6, "each has its own");
    let admin = app.tenant("house", "admin").await?.client;
    let projects = admin.get("/v1/admin/projects").await?.expect(200)?;
    let mine = projects["data"].as_array().and_then(|all| all.iter().find(|one| one["name"] == "acme"));
    let id = mine.context("no project")?["id"].as_str().unwrap_or_default().to_owned();
    admin
        .post(&format!("/v1/admin/projects/{id}/limits"), &json!({"concurrent_tasks": 1}))
        .await?
        .expect(200)?;
    within(Duration::from_secs(10), "the new cap holds", async || {
        Ok((most(&acme.client, 5).await? == 1).then_some(()))
    })
    .await
}

async fn bad_keys_are_not_looked_at_for_ever(mode: Mode) -> anyhow::Result<()> {
    let app = App::with(mode).env("LONGHAUL_LIMITS__IP_FAILED_LOGINS_PER_MINUTE", "10").start().await?;
    let good = app.tenant("acme", "read").await?.client;
    assert_eq!(good.get("/v1/tasks").await?.status, 200);
    let mut seen = Vec::new();
    for _ in 0..15 {
        let bad = good.with_key(shared::identity::ApiKey::generate().expose());
        seen.push(bad.get("/v1/tasks").await?.status);
    }
    assert_eq!(seen[..9], [401; 9], "{seen:?}");
    assert_eq!(seen[12..], [429; 3], "{seen:?}");
    let bad = good.with_key("lh_nothing").get("/v1/tasks").await?;
    assert_eq!(code(&bad)?, "too_many_failed_logins");
    assert!(!bad.header("retry-after").is_empty());
    assert_eq!(good.get("/v1/tasks").await?.status, 200, "a key that is known goes on");
    let fresh = app.tenant("acme", "read").await?.client;
    assert_eq!(fresh.get("/v1/tasks").await?.status, 200, "and one that nobody has shown yet");
    assert_eq!(good.with_key("").request(Method::GET, "/livez").send().await?.status(), 200);
    Ok(())
}
