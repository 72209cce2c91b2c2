//! What browsers are told.

use super::both_modes;
use harness::{App, Client, Mode, Reply};
use reqwest::Method;
use serde_json::json;

both_modes!(only_named_origins_may_call, answers_are_data);

const OURS: &str = "https://app.example.com";

/// What a browser asks before it lets a page send a task.
async fn preflight(app: &App, origin: &str) -> anyhow::Result<Reply> {
    let request = app.client().request(Method::OPTIONS, "/v1/tasks").header("origin", origin);
    let request = request.header("access-control-request-method", "POST");
    Client::send(
        request.header("access-control-request-headers", "authorization,content-type,idempotency-key"),
    )
    .await
}

async fn only_named_origins_may_call(mode: Mode) -> anyhow::Result<()> {
    let app = App::with(mode)
        .env("LONGHAUL_API__CORS_ORIGINS", &format!("{OURS},http://localhost:3000"))
        .start()
        .await?;
    let tenant = app.tenant("acme", "submit,read").await?;
    let asked = preflight(&app, OURS).await?;
    assert_eq!((asked.status, asked.header("access-control-allow-origin")), (200, OURS));
    for wanted in ["authorization", "content-type", "idempotency-key"] {
        assert!(asked.header("access-control-allow-headers").contains(wanted), "{asked:?}");
    }
    assert!(asked.header("access-control-allow-methods").contains("POST"), "{asked:?}");
    for stranger in
        ["https://example.com", "https://app.example.com.evil.test", "http://app.example.com", "null"]
    {
        assert_eq!(preflight(&app, stranger).await?.header("access-control-allow-origin"), "", "{stranger}");
    }
    let body = json!({"endpoint": "/v1/chat/completions", "body": harness::chat("hello", json!({}))});
    let sent = tenant.client.request(Method::POST, "/v1/tasks").header("origin", OURS).json(&body);
    let sent = Client::send(sent).await?;
    assert_eq!((sent.status, sent.header("access-control-allow-origin")), (202, OURS));
    assert!(sent.header("access-control-expose-headers").contains("location"), "{sent:?}");
    assert_eq!(
        sent.header("access-control-allow-credentials"),
        "",
        "keys are sent by hand, cookies are none"
    );
    let refused = app.client().request(Method::GET, "/v1/tasks").header("origin", OURS);
    let refused = Client::send(refused).await?;
    assert_eq!(
        (refused.status, refused.header("access-control-allow-origin")),
        (401, OURS),
        "a page can read why"
    );
    Ok(())
}

async fn answers_are_data(mode: Mode) -> anyhow::Result<()> {
    let app = App::start(mode).await?;
    for path in
        ["/v1/tasks", "/v1/tasks/nothing", "/v1/nothing", "/livez", "/openapi.json", "/docs/", "/redoc"]
    {
        let reply = app.client().get(path).await?;
        assert_eq!(reply.header("x-content-type-options"), "nosniff", "{path}");
        assert_eq!(reply.header("x-frame-options"), "DENY", "{path}");
        assert!(reply.header("content-security-policy").contains("frame-ancestors 'none'"), "{path}");
        assert_eq!(
            reply.header("access-control-allow-origin"),
            "",
            "{path}: without a list nobody's pages may read"
        );
    }
    Ok(())
}
