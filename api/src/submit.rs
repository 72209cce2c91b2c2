//! `POST /v1/tasks`: validate, keep large bodies, commit together with whoever else submits now, answer 202.
//!
//! The answer waits until the commit is on the disk and for nothing else; bells ring and watchers hear of it as soon as it can be seen.

use crate::{
    catalogue,
    error::{ApiError, Wrapped},
    fetch::{self, DEADLINE, DEADLINE_BODY},
    judge::{Judged, judge},
    limits::{Admitted, Allowance},
    parse::JsonBody,
    state::App,
    view::{self, Beside, Shown, TaskView},
    wait,
    wanted::Wanted,
    webhooks::secret,
};
use axum::{body::Body, response::Response};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use shared::{
    batcher::{Batcher, Gather},
    catalog,
    failpoint::{self, Point},
    news::{Herald, News},
    objects::Part,
    store::{self, Kept, Store, Submitted},
    task::{Fingerprint, Idempotency, NewTask, Payload, Task, TaskId},
};
use std::{sync::Arc, time::Duration};
use tokio::{
    task::{JoinSet, yield_now},
    time::{sleep, timeout},
};

/// Longest `Prefer: wait`.
const WAIT_MAX: u64 = 60;
/// How long a repeat waits for the first request with its key.
const KEY_PATIENCE: Duration = Duration::from_secs(1);
/// Pause before a commit whose reply was lost is repeated.
const AGAIN: Duration = Duration::from_millis(50);

/// What a common commit answers to each of its members.
pub(crate) type Committed = Result<Submitted, Arc<store::Error>>;

/// Starts the common commits on `tasks`.
pub(crate) fn batcher(
    tasks: &mut JoinSet<()>,
    store: Arc<dyn Store>,
    herald: Herald,
) -> Batcher<NewTask, Committed> {
    let gather = Gather { heirless: false, ..Gather::default() };
    Batcher::start(tasks, gather, move |gathered| commit(store.clone(), herald.clone(), gathered))
}

async fn commit(store: Arc<dyn Store>, herald: Herald, tasks: Vec<NewTask>) -> Vec<Committed> {
    metrics::histogram!("longhaul_submit_batch_size").record(tasks.len() as f64);
    failpoint::pass(Point::SubmitTaken);
    // Workers need not wait for the disk: their claim does.
    let early = |answers: &[Submitted]| {
        failpoint::pass(Point::SubmitCommitted);
        herald.tell(News::of_submits(answers));
    };
    // Perhaps only the reply was lost: the same ids make the repeat harmless.
    let twice = async {
        match failpoint::reply(Point::SubmitReply, store.submit_early(&tasks, &early).await) {
            Err(error) if error.passes() => {
                sleep(AGAIN).await;
                store.submit_early(&tasks, &early).await
            }
            answers => answers,
        }
    };
    // Whoever waits for it has left by then.
    let answers = timeout(DEADLINE, twice).await.unwrap_or_else(|_| Err(store::Error::silent()));
    match answers {
        Ok(answers) => {
            for (task, answer) in tasks.iter().zip(&answers) {
                if matches!(answer, Submitted::Accepted(_)) {
                    metrics::counter!("longhaul_tasks_submitted_total", "queue" => task.queue.to_string())
                        .increment(1);
                }
            }
            // Bells ring before answers are written: it costs these little.
            yield_now().await;
            answers.into_iter().map(Ok).collect()
        }
        Err(error) => {
            let error = Arc::new(error);
            tasks.iter().map(|_| Err(error.clone())).collect()
        }
    }
}

/// Create a task.
///
/// The 202 means that the task is committed. With `Prefer: wait=n` the answer is a 200 with the finished task if it
/// finishes within n (at most 60) seconds.
#[utoipa::path(
    post, path = "/v1/tasks", tag = "tasks", operation_id = "create_task",
    params(
        ("Idempotency-Key" = Option<String>, Header, description = "One task per key, for 24 hours."),
        ("Prefer" = Option<String>, Header, description = "`wait=n`: answer when the task is finished, at most n seconds."),
    ),
    request_body = Wanted,
    responses(
        (status = 202, description = "Committed.", body = TaskView, headers(
            ("Location" = String, description = "The task."),
            ("Retry-After" = u32, description = "Seconds before asking makes sense."),
            ("Idempotent-Replayed" = Option<String>, description = "`true` if the key stands for an earlier task."),
        )),
        (status = 200, description = "Finished within the wait.", body = TaskView),
        (status = 404, description = "No upstream serves the model.", body = Wrapped),
        (status = 408, description = "The body came too slowly.", body = Wrapped),
        (status = 409, description = "A request with this idempotency key is under way: repeat.", body = Wrapped),
        (status = 422, description = "The idempotency key was used for another request.", body = Wrapped),
        (status = 507, description = "The database is out of space: repeat when there is room.", body = Wrapped),
    )
)]
pub(crate) async fn create(
    app: App,
    headers: HeaderMap,
    JsonBody(bytes): JsonBody,
) -> Result<Response, ApiError> {
    let key = idempotency_key(&headers)?;
    let patience = prefer_wait(&headers);
    let Accepted { mut task, replayed, allowance } = accept(&app, &bytes, key.as_deref()).await?;
    let mut status = StatusCode::ACCEPTED;
    let mut kept = None;
    if let Some(patience) = patience.filter(|patience| !patience.is_zero() && !task.state.is_terminal()) {
        // The task is committed: whatever becomes of the wait, the client has to hear of it.
        match wait::until(&app, &task, wait::Until::Terminal, patience).await {
            Ok(now) => (task, kept) = now,
            Err(error) => {
                tracing::debug!(%task.id, error = &error as &dyn std::error::Error, "answered without waiting");
            }
        }
        if task.state.is_terminal() && !replayed {
            status = StatusCode::OK;
        }
    }
    let body = match task.state.is_terminal() {
        true => whole(&app, &task, kept).await,
        false => view::json(&TaskView::new(&task, &Beside::default())).into(),
    };
    let mut response = view::respond(status, body);
    let headers = response.headers_mut();
    let location = HeaderValue::try_from(format!("/v1/tasks/{}", task.id)).expect("an id is ASCII");
    headers.insert(header::LOCATION, location);
    if let Some(patience) = patience {
        let applied =
            HeaderValue::try_from(format!("wait={}", patience.as_secs())).expect("digits are ASCII");
        headers.insert("preference-applied", applied);
        headers.insert(header::VARY, HeaderValue::from_static("Prefer"));
    }
    if replayed {
        headers.insert("idempotent-replayed", HeaderValue::from_static("true"));
    }
    view::ask_again(&mut response, &task);
    if let Some(allowance) = allowance {
        response.extensions_mut().insert(allowance);
    }
    Ok(response)
}

/// A committed task.
pub(crate) struct Accepted {
    /// The task.
    pub(crate) task: Task,
    /// An idempotency key brought an earlier one back.
    pub(crate) replayed: bool,
    /// What is left of the caller's tokens, if they are counted.
    pub(crate) allowance: Option<Allowance>,
}

/// The ended task with its answer; without, where that cannot be had now: the task is committed, and the client has to hear of it.
async fn whole(app: &App, task: &Task, kept: Option<Kept>) -> Body {
    match fetch::in_full(app, task, kept.clone()).await {
        Ok(body) => body,
        Err(error) => {
            tracing::debug!(%task.id, error = &error as &dyn std::error::Error, "answered without the answer");
            let beside = Beside { answer: kept.map(Shown::omitted), ..Beside::default() };
            view::json(&TaskView::new(task, &beside)).into()
        }
    }
}

/// Validates, charges and commits one task.
///
/// # Errors
/// As `POST /v1/tasks` answers them.
///
/// # Cancel safety
/// A task whose caller leaves before its commit has begun is not committed, and nobody has been told that it is.
pub(crate) async fn accept(app: &App, bytes: &Bytes, key: Option<&str>) -> Result<Accepted, ApiError> {
    let wanted = Wanted::parse(bytes)?;
    let valid = wanted.check(&app.config)?;
    let notes = app.catalogue.notes().await?;
    catalog::admit(&app.config, &notes, &wanted.endpoint, &valid.model)
        .map_err(|refusal| catalogue::refused(&app.config, &notes, &valid.model, &refusal))?;
    let webhook = secret::of_task(app, wanted.webhook.as_ref()).await?;
    let body = bytes.slice_ref(wanted.body.get().as_bytes());
    let (admitted, moderation) = match admit(app, &wanted, &valid.model, &body).await {
        Ok(admitted) => admitted,
        // What was accepted was accepted, whatever limits and rules say now.
        Err(refusal) => {
            return match key {
                Some(key) => replay(app, key, &wanted.fingerprint()).await?.ok_or(refusal),
                None => Err(refusal),
            };
        }
    };
    let committed = async {
        let id = TaskId::new();
        let payload =
            timeout(DEADLINE_BODY, app.backends.objects.keep(app.project, id, Part::Request, body)).await??;
        if matches!(payload, Payload::Object { .. }) {
            failpoint::pass(Point::SubmitKept);
        }
        let new = NewTask {
            id,
            project: app.project,
            queue: valid.queue,
            priority: valid.priority,
            endpoint: wanted.endpoint.as_ref().into(),
            model: valid.model,
            payload,
            relay: valid.relay,
            delay: valid.delay,
            run_at: valid.run_at,
            policy: valid.policy,
            metadata: valid.metadata,
            idempotency: key
                .map(|key| Idempotency { key: key.to_owned(), fingerprint: wanted.fingerprint() }),
            batch: None,
            reserved: admitted.reserved(0),
            moderation,
            webhook,
        };
        commit_one(app, new).await
    };
    let committed = committed.await;
    // After an error nobody knows: what was taken comes back by itself.
    if !matches!(committed, Err(_) | Ok(Submitted::Accepted(_))) {
        app.limiter.give_back(&admitted).await;
    }
    let allowance = admitted.allowance();
    match committed? {
        Submitted::Accepted(task) => Ok(Accepted { task: *task, replayed: false, allowance }),
        Submitted::Replayed(earlier) => {
            Ok(Accepted { task: fetch::find(app, earlier).await?, replayed: true, allowance: None })
        }
        Submitted::KeyReused => Err(ApiError::KeyReused),
        Submitted::Refused(why) => {
            Err(ApiError::Invalid { message: why, code: "invalid_value", param: None })
        }
    }
}

/// Takes room and tokens for one task, and then judges it: what may not be kept costs no more than the limits allow.
async fn admit(
    app: &App,
    wanted: &Wanted<'_>,
    model: &Arc<str>,
    body: &Bytes,
) -> Result<(Admitted, Vec<String>), ApiError> {
    let admitted = app.limiter.admit(&app.visitor, &wanted.endpoint, &[wanted.body]).await?;
    let judged =
        judge(app, &wanted.endpoint, vec![Judged { model: model.clone(), body: body.clone() }]).await;
    let verdict =
        judged.and_then(|verdicts| Ok(verdicts.into_iter().next().transpose()?.unwrap_or_default()));
    if verdict.is_err() {
        app.limiter.give_back(&admitted).await;
    }
    Ok((admitted, verdict?))
}

/// The task that the key stands for.
async fn replay(app: &App, key: &str, fingerprint: &Fingerprint) -> Result<Option<Accepted>, ApiError> {
    let found = timeout(DEADLINE, app.backends.store.keyed(app.project, key)).await??;
    Ok(match found {
        Some((_, other)) if other != *fingerprint => return Err(ApiError::KeyReused),
        Some((task, _)) => {
            Some(Accepted { task: fetch::find(app, task).await?, replayed: true, allowance: None })
        }
        None => None,
    })
}

/// Waits for its part of a common commit.
async fn commit_one(app: &App, new: NewTask) -> Result<Submitted, ApiError> {
    let key = new.idempotency.as_ref().map(|idempotency| &idempotency.key);
    let under_way = key.map(|key| app.unanswered.begin(&format!("{}/{key}", app.project)));
    let committed = match under_way {
        // The same answer as the first one's, or none: it may yet be refused.
        Some(None) => {
            timeout(KEY_PATIENCE, app.submits.call(new)).await.map_err(|_| ApiError::KeyUnderWay)?
        }
        _ => timeout(DEADLINE, app.submits.call(new)).await?,
    };
    Ok(committed??)
}

/// The idempotency key of a request: with quotes, as the draft wants it, or without, as most clients send it.
///
/// # Errors
/// 400: it is no such key.
pub(crate) fn idempotency_key(headers: &HeaderMap) -> Result<Option<String>, ApiError> {
    let mut values = headers.get_all("idempotency-key").iter();
    let Some(value) = values.next() else { return Ok(None) };
    let text = value.to_str().unwrap_or_default().trim();
    let key = match text.strip_prefix('"') {
        Some(rest) => rest.strip_suffix('"').unwrap_or_default(),
        None => text,
    };
    if (1..=255).contains(&key.len()) && values.next().is_none() {
        return Ok(Some(key.to_owned()));
    }
    Err(ApiError::invalid("Idempotency-Key", "'Idempotency-Key' must be one of 1 to 255 ASCII characters."))
}

/// The patience of RFC 7240: `Prefer: respond-async, wait=10`.
fn prefer_wait(headers: &HeaderMap) -> Option<Duration> {
    let values = headers.get_all("prefer").iter().filter_map(|value| value.to_str().ok());
    let mut preferences = values.flat_map(|value| value.split(','));
    preferences.find_map(|preference| {
        let (name, value) = preference.split(';').next()?.split_once('=')?;
        let seconds: u64 = value.trim().trim_matches('"').parse().ok()?;
        name.trim().eq_ignore_ascii_case("wait").then(|| Duration::from_secs(seconds.min(WAIT_MAX)))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(name: &'static str, value: &str) -> HeaderMap {
        HeaderMap::from_iter([(
            http::HeaderName::from_static(name),
            HeaderValue::from_str(value).expect("a header value"),
        )])
    }

    #[test]
    fn patience_is_read_as_the_rfc_writes_it() {
        let wait = |value| prefer_wait(&header("prefer", value)).map(|patience| patience.as_secs());
        assert_eq!(wait("wait=10"), Some(10));
        assert_eq!(wait("respond-async, Wait=\"5\"; foo=bar"), Some(5));
        assert_eq!(wait("wait=100000"), Some(60));
        assert_eq!(wait("respond-async"), None);
        assert_eq!(wait("wait=soon"), None);
    }

    #[test]
    fn idempotency_keys_come_with_and_without_quotes() {
        let key = |value| idempotency_key(&header("idempotency-key", value));
        assert_eq!(key("\"8e03\"").ok().flatten().as_deref(), Some("8e03"));
        assert_eq!(key("8e03").ok().flatten().as_deref(), Some("8e03"));
        assert!(key("\"\"").is_err() && key("\"8e03").is_err() && key(&"x".repeat(256)).is_err());
    }
}
