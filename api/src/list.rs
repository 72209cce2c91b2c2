//! Listings: `GET /v1/tasks`, and the list envelope that all listings share.

use crate::{
    error::{ApiError, Wrapped},
    fetch::{DEADLINE, patiently},
    metadata::METADATA_MAX,
    parse::nearest,
    state::App,
    view::{self, Beside, TaskView},
};
use axum::{extract::Query, response::Response};
use http::StatusCode;
use serde::Serialize;
use shared::{
    clock::UnixMs,
    store::{ListQuery, Page},
    task::{QueueName, TaskId},
};
use std::{fmt::Display, str::FromStr};
use tokio::time::timeout;

/// Listings of one project that read the database at once, in one process.
pub(crate) const AT_ONCE: usize = 2;
/// Rows of a page that names no limit.
pub(crate) const LIMIT: u32 = 20;

/// A page of a listing.
#[derive(Serialize, utoipa::ToSchema)]
pub(crate) struct List<T> {
    object: &'static str,
    data: Vec<T>,
    first_id: Option<String>,
    last_id: Option<String>,
    has_more: bool,
}

impl<T> List<T> {
    /// The envelope around a page; `ids` are its first and last ids.
    pub(crate) fn new(data: Vec<T>, ids: (Option<String>, Option<String>), has_more: bool) -> Self {
        Self { object: "list", data, first_id: ids.0, last_id: ids.1, has_more }
    }

    /// The envelope around a page of rows, each with its id.
    pub(crate) fn of<'p, R, I: Display>(
        page: &'p Page<R>,
        id: impl Fn(&'p R) -> I,
        view: impl Fn(&'p R) -> T,
    ) -> Self {
        let name = |row: Option<&'p R>| row.map(|row| id(row).to_string());
        let ids = (name(page.items.first()), name(page.items.last()));
        Self::new(page.items.iter().map(view).collect(), ids, page.has_more)
    }
}

/// A query as its pairs.
pub(crate) type Pairs = Vec<(String, String)>;

/// List tasks.
///
/// Newest first. Entries carry no answers: get them one by one. With filters a page looks at 10,000 tasks at most, 2,000 with
/// `metadata`, and may have few or none: go on with `last_id` as `after` while `has_more` is true.
#[utoipa::path(
    get, path = "/v1/tasks", tag = "tasks", operation_id = "list_tasks",
    params(
        ("status" = Option<Vec<String>>, Query, explode = false, description = "One or more states, comma-separated."),
        ("queue" = Option<String>, Query, description = "Only this lane."),
        ("model" = Option<String>, Query, description = "Only this model."),
        ("batch_id" = Option<String>, Query, description = "Only this batch."),
        ("metadata" = Option<BTreeMap<String, String>>, Query, style = DeepObject, explode, description = "Only with these pairs in the metadata: `metadata[key]=value`."),
        ("created_after" = Option<f64>, Query, description = "Unix seconds.", minimum = 0, maximum = 4000000000i64),
        ("created_before" = Option<f64>, Query, description = "Unix seconds.", minimum = 0, maximum = 4000000000i64),
        ("order" = Option<String>, Query, description = "`desc` (default) or `asc`."),
        ("limit" = Option<u32>, Query, description = "20 if not given.", minimum = 1, maximum = 100),
        ("after" = Option<String>, Query, description = "Only what follows this id."),
    ),
    responses(
        (status = 200, description = "A page.", body = List<TaskView>),
        (status = 400, description = "Not valid: `param` names the parameter.", body = Wrapped),
    )
)]
pub(crate) async fn tasks(app: App, Query(pairs): Query<Pairs>) -> Result<Response, ApiError> {
    let query = query(&pairs)?;
    if let Some(after) = query.after
        && timeout(DEADLINE, app.backends.store.get(app.project, after)).await??.is_none()
    {
        return Err(unknown_cursor(after));
    }
    // A project's listings wait for each other, and not those of others for them.
    let turn = timeout(DEADLINE, app.lists.of(app.project).acquire_owned()).await;
    let _turn = turn.map_err(|_| ApiError::ListsBusy)?.expect("the permits are never closed");
    let page = patiently(&app, app.backends.store.list(app.project, &query)).await?;
    let beside = Beside::default();
    let data = page.items.iter().map(|task| TaskView::new(task, &beside)).collect();
    let first = page.items.first().map(|task| task.id.to_string());
    let last = page.more_after.or(page.items.last().map(|task| task.id)).map(|id| id.to_string());
    let list = List::new(data, (first, last), page.more_after.is_some());
    Ok(view::respond(StatusCode::OK, view::json(&list)))
}

/// The place in a listing that has no filters: `limit` and `after`.
///
/// # Errors
/// 400 that names the parameter.
pub(crate) fn place<I: FromStr>(pairs: &Pairs) -> Result<(u32, Option<I>), ApiError> {
    let (mut most, mut after) = (LIMIT, None);
    for (name, value) in pairs {
        match name.as_str() {
            "limit" => most = limit(value)?,
            "after" => after = Some(value.parse().map_err(|_| unknown_cursor(value))?),
            _ => return Err(unknown(name, &["limit", "after"])),
        }
    }
    Ok((most, after))
}

/// The answer to a cursor that names nothing.
pub(crate) fn unknown_cursor(after: impl Display) -> ApiError {
    ApiError::invalid("after", format!("Nothing with id '{after}' to list after."))
}

/// Reads `limit`.
///
/// # Errors
/// 400.
pub(crate) fn limit(value: &str) -> Result<u32, ApiError> {
    let limit = value.parse().ok().filter(|limit| (1..=100).contains(limit));
    limit.ok_or_else(|| ApiError::invalid("limit", "'limit' must be between 1 and 100."))
}

/// The answer to a parameter that this listing does not have: a filter with a typing error must not list everything.
pub(crate) fn unknown(name: &str, known: &[&str]) -> ApiError {
    let name: String = name.chars().take(64).collect();
    let hint = nearest(&name, known).map_or_else(String::new, |near| format!(" Did you mean '{near}'?"));
    let message = format!("Unknown parameter: '{name}'.{hint}");
    ApiError::Invalid { message, code: "unknown_parameter", param: Some(name) }
}

const NAMES: [&str; 9] =
    ["status", "queue", "model", "batch_id", "created_after", "created_before", "order", "limit", "after"];

fn query(pairs: &Pairs) -> Result<ListQuery, ApiError> {
    let mut query = ListQuery { limit: LIMIT, ..ListQuery::default() };
    for (name, value) in pairs {
        let invalid =
            |message: &str| ApiError::invalid(name.as_str(), format!("'{name}' must be {message}."));
        match name.as_str() {
            "status" | "status[]" => {
                for word in value.split(',') {
                    let state = word
                        .trim()
                        .parse()
                        .map_err(|error| ApiError::invalid("status", format!("{error}.")))?;
                    query.states.push(state);
                }
            }
            "queue" => {
                query.queue = Some(QueueName::new(value).ok_or_else(|| invalid("the name of a queue"))?)
            }
            "model" => query.model = Some(storable(value).ok_or_else(|| invalid("without U+0000"))?),
            "batch_id" => query.batch = Some(value.parse().map_err(|_| invalid("the id of a batch"))?),
            "created_after" => {
                query.created_after = Some(moment(value).ok_or_else(|| invalid("Unix seconds"))?)
            }
            "created_before" => {
                query.created_before = Some(moment(value).ok_or_else(|| invalid("Unix seconds"))?)
            }
            "order" => {
                query.ascending = match value.as_str() {
                    "asc" => true,
                    "desc" => false,
                    _ => return Err(invalid("asc or desc")),
                }
            }
            "limit" => query.limit = limit(value)?,
            "after" => query.after = Some(value.parse::<TaskId>().map_err(|_| unknown_cursor(value))?),
            _ => match name.strip_prefix("metadata[").and_then(|rest| rest.strip_suffix(']')) {
                // No task has more, and every one costs the database something.
                Some(_) if query.metadata.len() == METADATA_MAX => {
                    let message = format!("'metadata' may have at most {METADATA_MAX} pairs.");
                    return Err(ApiError::invalid("metadata", message));
                }
                Some(key) => {
                    let pair = storable(key).zip(storable(value));
                    query.metadata.push(pair.ok_or_else(|| invalid("without U+0000"))?);
                }
                None => return Err(unknown(name, &NAMES)),
            },
        }
    }
    Ok(query)
}

/// A text as a database takes it.
fn storable(text: &str) -> Option<String> {
    (!text.contains('\0')).then(|| text.to_owned())
}

fn moment(value: &str) -> Option<UnixMs> {
    let seconds: f64 = value.parse().ok()?;
    (0.0..=4e9).contains(&seconds).then(|| UnixMs((seconds * 1000.0).round() as i64))
}

#[cfg(test)]
mod tests {
    use super::*;
    use shared::task::State;

    fn pairs(pairs: &[(&str, &str)]) -> Pairs {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn filters_add_up() {
        let query = query(&pairs(&[
            ("status", "queued,failed"),
            ("metadata[team]", "a"),
            ("order", "asc"),
            ("limit", "5"),
        ]));
        let query = query.expect("a valid query");
        assert_eq!(query.states, [State::Queued, State::Failed]);
        assert_eq!(query.metadata, [("team".to_owned(), "a".to_owned())]);
        assert!(query.ascending && query.limit == 5);
    }

    #[test]
    fn a_filter_that_is_wrong_is_named() {
        let cases = [
            ("status", "done"),
            ("limit", "0"),
            ("limit", "101"),
            ("order", "up"),
            ("after", "task_1"),
            ("created_after", "NaN"),
            ("stats", "queued"),
            ("model", "\0"),
            ("metadata[a]", "\0"),
            ("metadata[\0]", "a"),
        ];
        for (name, value) in cases {
            let Err(ApiError::Invalid { param, .. }) = query(&pairs(&[(name, value)])) else {
                panic!("{name}={value}")
            };
            assert_eq!(param.as_deref(), Some(name));
        }
    }
}
