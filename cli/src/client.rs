//! The client: one HTTP connection pool, one place where answers become exit statuses.

use crate::{
    QUIET_LOG,
    args::{ClientArgs, Form},
    output::{self, ERROR, Failure, INTERRUPTED, NOT_FOUND, Outcome, UNAUTHORISED, UNREACHABLE, USAGE},
};
use bytes::Bytes;
use reqwest::{Method, RequestBuilder, Response, StatusCode, redirect};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::value::RawValue;
use shared::{
    config::{self, Secret},
    process,
    redact::without_logins,
};
use std::{process::ExitCode, time::Duration};
use tokio_util::sync::CancellationToken;

/// Silence after which a stream counts as broken; the server says something every 15 s.
const SILENCE: Duration = Duration::from_secs(45);
/// Longest time of a request that is no stream; a long poll waits 30 s of it.
const PATIENCE: Duration = Duration::from_secs(60);

/// A server and a key.
#[derive(Clone)]
pub(crate) struct Client {
    http: reqwest::Client,
    /// The server's base URL.
    pub(crate) server: String,
    key: Option<Secret>,
    /// How to print.
    pub(crate) form: Form,
}

/// Entries of one page at most.
const PAGE: usize = 100;

/// What a listing holds, entry by entry.
#[derive(Serialize)]
pub(crate) struct Listed {
    /// The entries as they came.
    pub(crate) data: Vec<Box<RawValue>>,
    /// Whether there are more.
    pub(crate) has_more: bool,
}

impl Listed {
    /// The entries, as far as they are printed.
    pub(crate) fn read<T: DeserializeOwned>(&self) -> Outcome<Vec<T>> {
        self.data.iter().map(|entry| output::parse(entry.get().as_bytes())).collect()
    }

    /// Prints it as the API answers one page.
    pub(crate) fn print(&self) -> Outcome {
        let text = serde_json::to_string(self).map_err(|error| Failure::new(ERROR, error.to_string()))?;
        output::raw(format!(r#"{{"object":"list",{}"#, &text[1..]).as_bytes())
    }

    /// Says that there are more, to a person.
    pub(crate) fn say_more(&self) {
        if self.has_more {
            output::say(&format!("only the newest {} are shown: see more with -n", self.data.len()));
        }
    }
}

/// Runs a client command to its exit status.
pub(crate) fn main(
    args: &ClientArgs,
    command: impl AsyncFnOnce(&Client, CancellationToken) -> Outcome,
) -> ExitCode {
    process::run_to_status(QUIET_LOG, async |stop| {
        let outcome = match from_args(args) {
            Ok(client) => command(&client, stop).await,
            Err(failure) => Err(failure),
        };
        status(outcome)
    })
}

/// Says why a command failed; its exit status.
pub(crate) fn status(outcome: Outcome) -> ExitCode {
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            process::complain(&failure.message);
            ExitCode::from(failure.status)
        }
    }
}

fn from_args(args: &ClientArgs) -> Outcome<Client> {
    let key = match &args.api_key {
        Some(key) => Some(Secret::new(key.as_str())),
        None => config::api_key().map_err(|error| Failure::new(USAGE, error.to_string()))?,
    };
    Client::new(&args.server, key, args.output)
}

impl Client {
    /// A client of this server.
    pub(crate) fn new(server: &str, key: Option<Secret>, form: Form) -> Outcome<Self> {
        let server = server.trim_end_matches('/').to_owned();
        let url = reqwest::Url::parse(&server).ok().filter(|url| matches!(url.scheme(), "http" | "https"));
        let url = url.ok_or_else(|| {
            Failure::new(
                USAGE,
                format!("{} is no URL such as http://127.0.0.1:8080", without_logins(&server)),
            )
        })?;
        let local = matches!(url.host_str(), Some("127.0.0.1" | "localhost" | "[::1]"));
        let http = reqwest::Client::builder()
            .connect_timeout(Duration::from_secs(5))
            .read_timeout(SILENCE)
            // A redirect would carry the key to another place.
            .redirect(redirect::Policy::none())
            .user_agent(concat!("longhaul/", env!("CARGO_PKG_VERSION")));
        let http = if local { http.no_proxy() } else { http };
        let http = http.build().map_err(|error| Failure::new(ERROR, format!("no HTTP client: {error}")))?;
        Ok(Self { http, server, key, form })
    }

    /// The body of a GET.
    pub(crate) async fn get(&self, path: &str) -> Outcome<Bytes> {
        self.send(self.request(Method::GET, path).timeout(PATIENCE)).await
    }

    /// The body of a DELETE.
    pub(crate) async fn delete(&self, path: &str) -> Outcome<Bytes> {
        self.send(self.request(Method::DELETE, path).timeout(PATIENCE)).await
    }

    /// A listing, page by page, up to `limit` entries: each as it came, and whether there are more.
    pub(crate) async fn pages(&self, path: &str, query: &str, limit: u32) -> Outcome<Listed> {
        #[derive(Deserialize)]
        struct Page {
            data: Vec<Box<RawValue>>,
            last_id: Option<String>,
            has_more: bool,
        }
        let mut listed = Listed { data: Vec::new(), has_more: true };
        let mut after = String::new();
        while listed.has_more && listed.data.len() < limit as usize {
            let most = (limit as usize - listed.data.len()).min(PAGE);
            let body = self.get(&format!("{path}?limit={most}{query}{after}")).await?;
            let page: Page = output::parse(&body)?;
            listed.data.extend(page.data);
            listed.has_more = page.has_more;
            let Some(last) = page.last_id else { break };
            after = format!("&after={last}");
        }
        Ok(listed)
    }

    /// The body of a POST with nothing to say.
    pub(crate) async fn post(&self, path: &str) -> Outcome<Bytes> {
        self.send(self.request(Method::POST, path).timeout(PATIENCE)).await
    }

    /// The body of a POST of `body`.
    pub(crate) async fn post_body(
        &self,
        path: &str,
        kind: &'static str,
        body: impl Into<reqwest::Body>,
    ) -> Outcome<Bytes> {
        let request = self.request(Method::POST, path).timeout(PATIENCE).header("content-type", kind);
        self.send(request.body(body)).await
    }

    /// A task's event stream from after `last`; `None` if there is nothing after it.
    pub(crate) async fn events(&self, id: &str, last: Option<&str>) -> Outcome<Option<Response>> {
        let mut request = self.request(Method::GET, &format!("/v1/tasks/{id}/events"));
        if let Some(last) = last {
            request = request.header("last-event-id", last);
        }
        let response = self.good(request).await?;
        Ok((response.status() != StatusCode::NO_CONTENT).then_some(response))
    }

    fn request(&self, method: Method, path: &str) -> RequestBuilder {
        let request = self.http.request(method, format!("{}{path}", self.server));
        match &self.key {
            Some(key) => request.bearer_auth(key.expose()),
            None => request,
        }
    }

    async fn send(&self, request: RequestBuilder) -> Outcome<Bytes> {
        let response = self.good(request).await?;
        response.bytes().await.map_err(|error| self.unreachable(&error))
    }

    async fn good(&self, request: RequestBuilder) -> Outcome<Response> {
        let response = request.send().await.map_err(|error| self.unreachable(&error))?;
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        let body = response.bytes().await.unwrap_or_default();
        let exit = match status {
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => UNAUTHORISED,
            StatusCode::NOT_FOUND => NOT_FOUND,
            _ => ERROR,
        };
        Err(Failure::new(exit, format!("{} (HTTP {})", said(&body), status.as_u16())))
    }

    fn unreachable(&self, error: &reqwest::Error) -> Failure {
        let what = if error.is_timeout() { "does not answer in time" } else { "cannot be reached" };
        let cause = std::iter::successors(std::error::Error::source(error), |error| error.source()).last();
        let cause = cause.map_or(String::new(), |cause| format!(": {cause}"));
        Failure::new(
            UNREACHABLE,
            format!(
                "{} {what}{cause}. Is it running? Start it with `longhaul serve`",
                without_logins(&self.server)
            ),
        )
    }
}

/// The message of an error envelope.
fn said(body: &[u8]) -> String {
    #[derive(Deserialize)]
    struct Envelope {
        error: Error,
    }
    #[derive(Deserialize)]
    struct Error {
        message: String,
    }
    let envelope = serde_json::from_slice::<Envelope>(body);
    envelope.map_or_else(|_| "the server refused".to_owned(), |envelope| envelope.error.message)
}

/// Waits for `work` unless a signal comes first; then `left` says how to come back.
pub(crate) async fn or_detach<T>(
    stop: &CancellationToken,
    left: impl FnOnce() -> String,
    work: impl Future<Output = Outcome<T>>,
) -> Outcome<T> {
    match stop.run_until_cancelled(work).await {
        Some(outcome) => outcome,
        None => Err(Failure::new(INTERRUPTED, left())),
    }
}
