//! Calls against a small model server that says what the test wants.

use super::{client::open, *};
use crate::{classify::Kind, context::Shout, tests::claimed};
use axum::{Router, body::Body, extract::Request, response::Response, routing::any};
use quiet::Quiet;
use shared::{
    config::{Config, Mode, Upstream},
    events::{Append, Appended},
    task::EventKind,
};
use std::{
    sync::{Arc, Mutex},
    time::Duration,
};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// The pieces of an answer: wait, then bytes; a body without an end breaks off.
#[derive(Clone)]
struct Script {
    status: u16,
    content_type: &'static str,
    pieces: Vec<(u64, &'static str)>,
    breaks: bool,
}

fn json(status: u16, body: &'static str) -> Script {
    Script { status, content_type: "application/json", pieces: vec![(0, body)], breaks: false }
}

fn stream(pieces: &[(u64, &'static str)]) -> Script {
    Script { status: 200, content_type: "text/event-stream", pieces: pieces.to_vec(), breaks: false }
}

struct Told {
    outcome: Result<Reply, Failure>,
    spent: Option<Usage>,
    appends: Vec<Append>,
    floor: i64,
    took: Duration,
    request: String,
}

/// Calls a server that follows the script.
async fn call(script: Script, body: &'static str, limits: impl FnOnce(&mut config::Worker)) -> Told {
    let (mut told, _) = calls_within(&[script], body, 1, limits).await;
    told.remove(0)
}

/// Calls a server that follows the scripts, one after the other, the last one for ever, `times` in a row; what it was sent comes second.
async fn calls(scripts: &[Script], body: &'static str, times: usize) -> (Vec<Told>, Vec<String>) {
    calls_within(scripts, body, times, |_| {}).await
}

async fn calls_within(
    scripts: &[Script],
    body: &'static str,
    times: usize,
    limits: impl FnOnce(&mut config::Worker),
) -> (Vec<Told>, Vec<String>) {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let (note, scripts) = (seen.clone(), scripts.to_vec());
    let app = Router::new().fallback(any(move |request: Request| {
        let (scripts, note) = (scripts.clone(), note.clone());
        async move {
            let names = ["longhaul-task-id", "longhaul-attempt", "authorization"];
            let head: Vec<_> = names.map(|name| request.headers().contains_key(name)).into();
            let path = request.uri().path().to_owned();
            let body = axum::body::to_bytes(request.into_body(), 1 << 20).await.unwrap();
            let mut seen = note.lock().unwrap();
            seen.push(format!("{path} {head:?} {}", String::from_utf8_lossy(&body)));
            answer(scripts[(seen.len() - 1).min(scripts.len() - 1)].clone())
        }
    }));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/v1", listener.local_addr().unwrap());
    let mut tasks = JoinSet::new();
    tasks.spawn(async move { axum::serve(listener, app).await.unwrap() });

    let mut config = Config::new(Mode::Embedded { data_dir: "unused".into() });
    config.upstreams = vec![Upstream {
        name: "u".into(),
        url,
        key: Some(config::Secret::new("k")),
        endpoints: vec![],
        any_model: false,
    }];
    limits(&mut config.worker);
    let servers = open(&config).unwrap();
    let mut all = Vec::new();
    for _ in 0..times {
        let appends = Arc::new(Mutex::new(Vec::new()));
        let shout = Shout::start(&mut tasks, Arc::new(Quiet(appends.clone())));
        let claimed = claimed("/v1/chat/completions");
        let (begun, mut spent) = (Instant::now(), None);
        let mut teller = Teller::new(shout, &claimed, CancellationToken::new());
        let call = Call {
            claimed: &claimed,
            body: body.into(),
            server: &servers["u"],
            limits: &config.worker,
            teller: &mut teller,
            spent: &mut spent,
        };
        let outcome = call.make().await;
        let took = begun.elapsed();
        let (appends, request) = (appends.lock().unwrap().clone(), seen.lock().unwrap().last().cloned());
        let request = request.unwrap_or_default();
        all.push(Told { outcome, spent, appends, floor: teller.floor().answer, took, request });
    }
    let seen = seen.lock().unwrap().clone();
    (all, seen)
}

fn answer(script: Script) -> Response {
    let pieces = futures_util::stream::unfold(
        (script.pieces.into_iter(), script.breaks),
        |(mut pieces, breaks)| async move {
            match pieces.next() {
                Some((wait, piece)) => {
                    tokio::time::sleep(Duration::from_millis(wait)).await;
                    Some((Ok(piece), (pieces, breaks)))
                }
                None if breaks => Some((Err(std::io::Error::other("broken")), (pieces, false))),
                None => None,
            }
        },
    );
    let response = Response::builder().status(script.status).header("content-type", script.content_type);
    response.header("x-request-id", "r1").body(Body::from_stream(pieces)).unwrap()
}

/// An event log that writes down what it is told.
mod quiet {
    use super::{Append, Appended, Arc, Mutex};
    use futures_util::future::{BoxFuture, FutureExt, ready};
    use shared::{
        events::{Events, Hub, Log, Result, Subscription},
        task::{TaskId, Topic},
    };

    pub(super) struct Quiet(pub(super) Arc<Mutex<Vec<Append>>>);

    impl Events for Quiet {
        fn append<'a, 'b, 'c>(&'a self, appends: &'b [Append]) -> BoxFuture<'c, Result<Vec<Appended>>>
        where
            'a: 'c,
            'b: 'c,
            Self: 'c,
        {
            let last = |append: &Append| Appended::Last(append.floor + append.events.len() as i64 - 1);
            let told = appends.iter().map(last).collect();
            self.0.lock().unwrap().extend_from_slice(appends);
            ready(Ok(told)).boxed()
        }

        fn read<'a, 'c>(&'a self, _: TaskId, _: Option<i64>) -> BoxFuture<'c, Result<Log>>
        where
            'a: 'c,
            Self: 'c,
        {
            ready(Ok(Log::default())).boxed()
        }

        fn remove<'a, 'c>(&'a self, _: TaskId) -> BoxFuture<'c, Result<()>>
        where
            'a: 'c,
            Self: 'c,
        {
            ready(Ok(())).boxed()
        }

        fn unfinished<'a, 'c>(&'a self, _: u64) -> BoxFuture<'c, Result<(u64, Vec<TaskId>)>>
        where
            'a: 'c,
            Self: 'c,
        {
            ready(Ok((0, Vec::new()))).boxed()
        }

        fn finish<'a, 'b, 'c>(&'a self, _: &'b [TaskId]) -> BoxFuture<'c, Result<()>>
        where
            'a: 'c,
            'b: 'c,
            Self: 'c,
        {
            ready(Ok(())).boxed()
        }

        fn subscribe<'a, 'c>(&'a self, topic: Topic) -> BoxFuture<'c, Result<Subscription>>
        where
            'a: 'c,
            Self: 'c,
        {
            ready(Ok(Hub::new(|_| {}).subscribe(topic).0)).boxed()
        }
    }
}

const FIRST: &str = "data: {\"id\":\"c\",\"choices\":[{\"index\":0,\"delta\":{\"role\":\"assistant\",\"content\":\"a\"}}]}\n\n";
const LAST: &str = "data: {\"id\":\"c\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\"b\"},\"finish_reason\":\"stop\"}]}\n\n\
                    data: {\"id\":\"c\",\"choices\":[],\"usage\":{\"prompt_tokens\":1,\"completion_tokens\":2}}\n\n";
const DONE: &str = "data: [DONE]\n\n";
const FOLDED: &str = r#"{"id":"c","choices":[{"index":0,"message":{"role":"assistant","content":"ab"},"finish_reason":"stop"}],"usage":{"prompt_tokens":1,"completion_tokens":2},"object":"chat.completion"}"#;

fn code(told: &Told) -> (Kind, ErrorCode) {
    let failure = told.outcome.as_ref().unwrap_err();
    (failure.kind, failure.code)
}

#[tokio::test]
async fn a_quick_stream_is_folded_and_leaves_no_log() {
    let told = call(stream(&[(0, FIRST), (0, LAST), (0, DONE)]), r#"{"model":"m"}"#, |_| {}).await;
    let reply = told.outcome.unwrap();
    assert_eq!(reply.body, FOLDED);
    assert_eq!((reply.content_type.as_str(), reply.request_id.as_deref()), ("application/json", Some("r1")));
    // A busy machine may be slower than what counts as quick.
    if told.took < Duration::from_millis(50) {
        assert_eq!((told.appends.len(), told.floor), (0, 0));
    }
    assert_eq!(told.spent.map(|usage| (usage.input_tokens, usage.output_tokens)), Some((1, 2)));
    let options = r#"{"stream":true,"stream_options":{"include_usage":true},"model":"m"}"#;
    assert_eq!(told.request, format!("/v1/chat/completions [true, true, true] {options}"));
}

#[tokio::test]
async fn a_slow_stream_is_told_chunk_by_chunk() {
    let told = call(stream(&[(0, FIRST), (150, LAST), (0, DONE)]), "{}", |_| {}).await;
    assert!(told.outcome.is_ok());
    let kinds: Vec<Vec<_>> =
        told.appends.iter().map(|append| append.events.iter().map(|event| event.0).collect()).collect();
    assert_eq!(kinds[0], [EventKind::Started, EventKind::Delta]);
    assert!(kinds[1..].iter().flatten().all(|kind| *kind == EventKind::Delta));
    assert_eq!(kinds.iter().flatten().count(), 4);
    assert_eq!((told.appends[0].floor, told.appends[0].start, told.appends[1].floor), (2, true, 4));
    assert!(told.appends[0].events[1].2.get().starts_with(r#"{"chunk":{"id":"c""#));
    assert_eq!(told.floor, 6);
}

#[tokio::test]
async fn an_unfinished_stream_is_never_an_answer() {
    let truncated = (Kind::Transient, ErrorCode::UpstreamTruncated);
    assert_eq!(code(&call(stream(&[(0, FIRST)]), "{}", |_| {}).await), truncated);
    assert_eq!(code(&call(stream(&[(0, FIRST), (0, DONE)]), "{}", |_| {}).await), truncated);
    let broken = Script { breaks: true, ..stream(&[(0, FIRST)]) };
    assert_eq!(code(&call(broken, "{}", |_| {}).await), truncated);
    let broken = Script { breaks: true, ..json(200, "{\"choices\":[]}") };
    assert_eq!(code(&call(broken, "{}", |_| {}).await), truncated);
    let garbled = stream(&[(0, "data: {\"choices\":[\n\n")]);
    assert_eq!(code(&call(garbled, "{}", |_| {}).await), (Kind::Transient, ErrorCode::UpstreamMalformed));
}

#[tokio::test]
async fn errors_inside_a_success_are_errors() {
    let failed = (Kind::Transient, ErrorCode::UpstreamFailed);
    let inside = stream(&[(0, FIRST), (0, "data: {\"error\":{\"code\":500}}\n\n")]);
    assert_eq!(code(&call(inside, "{}", |_| {}).await), failed);
    assert_eq!(code(&call(json(200, r#"{"error":{"message":"m"}}"#), "{}", |_| {}).await), failed);
}

#[tokio::test]
async fn silence_has_its_limits() {
    let timeout = (Kind::Transient, ErrorCode::UpstreamTimeout);
    let slow = |limits: &mut config::Worker| limits.idle_timeout = Duration::from_millis(50);
    assert_eq!(code(&call(stream(&[(0, FIRST), (500, LAST)]), "{}", slow).await), timeout);
    let slow = |limits: &mut config::Worker| limits.first_byte_timeout = Duration::from_millis(50);
    assert_eq!(code(&call(stream(&[(500, FIRST)]), "{}", slow).await), timeout);
}

#[tokio::test]
async fn what_is_no_stream_is_kept_byte_for_byte() {
    let body = " {\"choices\" : [{\"message\":{\"content\":\"\"},\"finish_reason\":\"stop\"}], \"usage\":{\"prompt_tokens\":3}} ";
    let told = call(json(200, body), "{}", |_| {}).await;
    assert_eq!(told.outcome.unwrap().body, body);
    assert_eq!(told.spent.map(|usage| usage.input_tokens), Some(3));
    let told = call(json(503, "busy"), "{}", |_| {}).await;
    assert_eq!(told.outcome.unwrap_err().reply.unwrap().body, "busy");
    let told = call(json(200, "0123456789"), "{}", |limits| limits.answer_bytes_max = 5).await;
    assert_eq!(code(&told), (Kind::Permanent, ErrorCode::UpstreamMalformed));
}

#[tokio::test]
async fn a_body_that_cannot_stream_is_refused() {
    let told = call(json(200, "{}"), "[]", |_| {}).await;
    assert_eq!(code(&told), (Kind::Permanent, ErrorCode::UpstreamRejected));
}

#[tokio::test]
async fn a_whole_answer_needs_no_orderly_end() {
    // Silence, signs of life for ever, and a broken connection after the reason of the end and the figures.
    let silent = call(stream(&[(0, FIRST), (0, LAST), (30_000, DONE)]), "{}", |_| {}).await;
    assert_eq!(silent.outcome.unwrap().body, FOLDED);
    assert!(silent.took < Duration::from_secs(15), "{:?}", silent.took);
    let mut alive = vec![(0, FIRST), (0, LAST)];
    alive.extend(std::iter::repeat_n((100, ": ping\n\n"), 300));
    let alive = call(stream(&alive), "{}", |_| {}).await;
    assert_eq!(alive.outcome.unwrap().body, FOLDED);
    assert!(alive.took < Duration::from_secs(15), "{:?}", alive.took);
    // What was written just before the break may be lost with it: that is the comment.
    let broken = Script { breaks: true, ..stream(&[(0, FIRST), (0, LAST), (100, ": bye\n\n")]) };
    assert_eq!(call(broken, "{}", |_| {}).await.outcome.unwrap().body, FOLDED);
    let spoilt = stream(&[(0, FIRST), (0, LAST), (0, "data: {\"error\":\"too late\"}\n\n")]);
    assert_eq!(call(spoilt, "{}", |_| {}).await.outcome.unwrap().body, FOLDED);
    // The same for one that is not streamed.
    let whole = Script { pieces: vec![(0, FOLDED), (30_000, " ")], ..json(200, "") };
    let whole = call(whole, "{}", |_| {}).await;
    assert_eq!(whole.outcome.unwrap().body, FOLDED);
    assert!(whole.took < Duration::from_secs(15), "{:?}", whole.took);
}

#[tokio::test]
async fn signs_of_life_do_not_keep_a_slot_for_ever() {
    let mut alive = vec![(0, FIRST)];
    alive.extend(std::iter::repeat_n((20, ": ping\n\n"), 500));
    let short = |limits: &mut config::Worker| {
        (limits.first_byte_timeout, limits.idle_timeout) =
            (Duration::from_millis(300), Duration::from_millis(200));
    };
    let told = call(stream(&alive), "{}", short).await;
    assert_eq!(code(&told), (Kind::Transient, ErrorCode::UpstreamTimeout));
}

#[tokio::test]
async fn labels_do_not_count() {
    let body = r#"{"choices":[{"message":{"role":"assistant","content":"a"},"finish_reason":"stop"}]}"#;
    let labelled = |content_type, script: Script| Script { content_type, ..script };
    let told = call(labelled("text/event-stream", json(200, body)), "{}", |_| {}).await;
    assert_eq!(told.outcome.unwrap().body, body);
    for label in ["application/json", "text/plain", "application/x-ndjson"] {
        let told = call(labelled(label, stream(&[(0, FIRST), (0, LAST), (0, DONE)])), "{}", |_| {}).await;
        assert_eq!(told.outcome.unwrap().body, FOLDED, "{label}");
    }
    let refused = r#"{"error":{"message":"no such tool","code":400}}"#;
    let told = call(labelled("text/event-stream", json(200, refused)), "{}", |_| {}).await;
    assert_eq!(code(&told), (Kind::Permanent, ErrorCode::UpstreamRejected));
    // A refusal that is never ended has been said all the same.
    let hanging = Script { pieces: vec![(0, refused), (60_000, " ")], ..json(400, "") };
    let told = call(labelled("text/event-stream", hanging), "{}", |_| {}).await;
    assert_eq!(code(&told), (Kind::Permanent, ErrorCode::UpstreamRejected));
    let said = told.outcome.unwrap_err().said.unwrap();
    assert_eq!(said.message.as_deref(), Some("no such tool"));
}

#[tokio::test]
async fn what_is_added_may_be_refused() {
    // Once more without the stream, and never with it again: two requests, then one.
    let refusal =
        json(400, r#"{"error":{"message":"your organization must be verified to stream","param":"stream"}}"#);
    let body = r#"{"choices":[{"message":{"role":"assistant","content":"a"},"finish_reason":"stop"}]}"#;
    let script = [refusal, json(200, body)];
    let (told, requests) = calls(&script, r#"{"model":"m"}"#, 2).await;
    assert!(told.iter().all(|told| told.outcome.as_ref().is_ok_and(|reply| reply.body == body)));
    let streams: Vec<bool> = requests.iter().map(|request| request.contains("\"stream\":true")).collect();
    assert_eq!(streams, [true, false, false]);
    // Only the figures are refused.
    let refusal =
        json(422, r#"{"detail":[{"loc":["body","stream_options"],"msg":"Extra inputs are not permitted"}]}"#);
    let whole = Script { pieces: vec![(0, FIRST), (0, LAST), (0, DONE)], ..stream(&[]) };
    let (told, requests) = calls(&[refusal, whole], r#"{"model":"m"}"#, 2).await;
    assert!(told.iter().all(|told| told.outcome.is_ok()));
    let options: Vec<bool> = requests.iter().map(|request| request.contains("stream_options")).collect();
    assert_eq!(options, [true, false, false]);
    // A refusal of the client's own words is final.
    let refusal = json(400, r#"{"error":{"message":"temperature is out of range"}}"#);
    let (told, requests) = calls(&[refusal], r#"{"model":"m"}"#, 1).await;
    assert_eq!((code(&told[0]), requests.len()), ((Kind::Permanent, ErrorCode::UpstreamRejected), 1));
}
