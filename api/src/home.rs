//! What people find who come without knowing the way: the page at `/`, and the answers to paths that are not there.

use crate::{error::ApiError, parse::nearest, routes, state::Shared, view};
use axum::{
    extract::State,
    response::{Html, IntoResponse, Response},
};
use http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, header};
use serde_json::json;
use shared::{config::Config, redact::elide};

/// The page, with its own address left open.
const PAGE: &str = include_str!("home.html");
/// What it is, in one sentence.
const WHAT: &str = "Inference that takes longer than an HTTP request should: submit a task, hold a durable id at once, get the \
                    answer later.";
/// Where the page takes itself to be if the request does not say.
const HERE: &str = "127.0.0.1:8080";
/// Endpoints of OpenAI and others at which a model answers one request: what is sent there can be sent as a task.
const ANSWERED: [&str; 13] = [
    "/v1/chat/completions",
    "/v1/completions",
    "/v1/responses",
    "/v1/embeddings",
    "/v1/messages",
    "/v1/moderations",
    "/v1/audio/speech",
    "/v1/audio/transcriptions",
    "/v1/audio/translations",
    "/v1/images/generations",
    "/v1/images/edits",
    "/v1/rerank",
    "/v1/score",
];
/// Things of OpenAI's API that outlive a request, and have no counterpart here.
const KEPT: [&str; 8] = [
    "/v1/assistants",
    "/v1/threads",
    "/v1/vector_stores",
    "/v1/fine_tuning",
    "/v1/uploads",
    "/v1/realtime",
    "/v1/conversations",
    "/v1/containers",
];

/// `GET /`: for a person a page, as JSON for who asks for that.
pub(crate) async fn home(State(app): State<Shared>, headers: HeaderMap) -> Response {
    let base = base(&app.config, &headers);
    let accepts = headers.get(header::ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or("*/*");
    let mut response = if accepts.contains("json") && !accepts.contains("text/html") {
        let links = json!({"docs": "/docs", "redoc": "/redoc", "openapi": "/openapi.json", "models": "/v1/models", "tasks": "/v1/tasks"});
        let body = json!({"name": "Longhaul", "version": env!("CARGO_PKG_VERSION"), "description": WHAT, "links": links});
        view::respond(StatusCode::OK, body.to_string())
    } else {
        let page = PAGE.replace("{what}", WHAT).replace("{version}", env!("CARGO_PKG_VERSION"));
        Html(page.replace("{base}", &base)).into_response()
    };
    let headers = response.headers_mut();
    headers.insert(header::VARY, HeaderValue::from_static("Accept, Host"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// Where the caller has found this server. Whatever could not stand in a page or a shell as it is is not repeated.
fn base(config: &Config, headers: &HeaderMap) -> String {
    let plain = |host: &&str| {
        let is_plain =
            |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b':' | b'[' | b']');
        !host.is_empty() && host.len() <= 255 && host.bytes().all(is_plain)
    };
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok()).filter(plain).unwrap_or(HERE);
    let scheme = if config.api.tls_cert.is_some() { "https" } else { "http" };
    format!("{scheme}://{host}")
}

/// The answer to a path that is not there: it names itself, and the way that was probably looked for.
pub(crate) fn nowhere(config: &Config, method: &Method, uri: &Uri) -> ApiError {
    let path = uri.path();
    let shown =
        format!("No such path: {} {}.", method.as_str().get(..16).unwrap_or(method.as_str()), short(path));
    ApiError::not_found(format!("{shown} {}", advice(config, path)))
}

fn advice(config: &Config, asked: &str) -> String {
    let path = asked.trim_end_matches('/');
    // Clients whose base URL lacks the version, or has it twice, mean the same.
    let rest = path.trim_start_matches("/v1");
    let versioned = format!("/v1{rest}");
    let configured = config.endpoints();
    let mut endpoints = configured.iter().map(String::as_str).chain(ANSWERED);
    let is_below = |parent: &str| {
        versioned.strip_prefix(parent).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    if let Some(endpoint) = endpoints.find(|endpoint| is_below(endpoint) || path == *endpoint) {
        return format!(
            "Send the request as a task: POST /v1/tasks with {{\"endpoint\": \"{endpoint}\", \"body\": {{…}}}}, the request itself as \
             'body'; GET /v1/tasks/{{id}}/result has the answer."
        );
    }
    if is_below("/v1/files") {
        return "Files are not kept here: POST /v1/batches takes the lines of a batch as 'requests', \
                GET /v1/batches/{id}/results has its answers."
            .to_owned();
    }
    if KEPT.iter().any(|parent| is_below(parent)) {
        return "There is no counterpart here: POST /v1/tasks takes single requests to a model.".to_owned();
    }
    let near = nearest(path, routes::paths()).or_else(|| nearest(&versioned, routes::paths()));
    let hint =
        near.filter(|near| *near != asked).map_or_else(String::new, |near| format!("Did you mean {near}? "));
    format!("{hint}GET /openapi.json lists those that there are.")
}

/// A path, bounded.
fn short(path: &str) -> String {
    const MOST: usize = 120;
    match path.char_indices().nth(MOST) {
        Some((end, _)) => format!("{}…", &path[..end]),
        None => elide(path.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use shared::config::Mode;

    fn said(path: &str) -> String {
        let config = Config::new(Mode::Embedded { data_dir: "unused".into() });
        nowhere(&config, &Method::POST, &path.parse().expect("a URI")).to_string()
    }

    #[test]
    fn an_unknown_path_names_itself_but_not_its_query() {
        let said = said("/v1/weather?key=secret-word");
        assert!(said.starts_with("No such path: POST /v1/weather. ") && !said.contains("secret"), "{said}");
        assert!(super::tests::said(&format!("/{}", "x".repeat(5_000))).len() < 300);
        assert!(super::tests::said(&format!("/{}", "ä".repeat(500))).len() < 400);
    }

    #[test]
    fn what_openai_has_and_longhaul_has_not_yet_says_how() {
        for (path, endpoint) in [
            ("/v1/chat/completions", "/v1/chat/completions"),
            ("/v1/chat/completions/", "/v1/chat/completions"),
            ("/chat/completions", "/v1/chat/completions"),
            ("/v1/v1/chat/completions", "/v1/chat/completions"),
            ("/v1/responses", "/v1/responses"),
            ("/v1/responses/resp_1", "/v1/responses"),
            ("/v1/messages", "/v1/messages"),
            ("/v1/audio/speech", "/v1/audio/speech"),
        ] {
            let said = said(path);
            assert!(
                said.contains("POST /v1/tasks with") && said.contains(&format!("\"{endpoint}\"")),
                "{said}"
            );
        }
        assert!(
            said("/v1/files").contains("POST /v1/batches") && said("/v1/files/file-1").contains("batches")
        );
        assert!(said("/v1/assistants").contains("no counterpart"));
    }

    #[test]
    fn a_typing_error_gets_a_hint() {
        for (path, meant) in [
            ("/v1/task", "/v1/tasks"),
            ("/tasks", "/v1/tasks"),
            ("/v1/tasks/", "/v1/tasks"),
            ("/docz", "/docs"),
        ] {
            assert!(said(path).contains(&format!("Did you mean {meant}?")), "{}", said(path));
        }
        assert!(!said("/favicon.ico").contains("Did you mean"), "{}", said("/favicon.ico"));
    }

    #[test]
    fn the_page_is_small_and_holds_nothing_that_runs() {
        assert!(PAGE.len() < 6_000, "{}", PAGE.len());
        for never in ["<script", "javascript:", "onclick", "src="] {
            assert!(!PAGE.contains(never), "{never}");
        }
    }

    #[test]
    fn only_a_plain_host_is_repeated() {
        let config = Config::new(Mode::Embedded { data_dir: "unused".into() });
        let base = |host: &'static str| {
            super::base(&config, &[(header::HOST, HeaderValue::from_static(host))].into_iter().collect())
        };
        assert_eq!(base("models.example.com:81"), "http://models.example.com:81");
        assert_eq!(base("[::1]:8080"), "http://[::1]:8080");
        for bad in ["<b>", "a\"b", "$(x)", "a'b", ""] {
            assert_eq!(base(bad), format!("http://{HERE}"), "{bad}");
        }
    }
}
