//! Bodies and ids from clients. Whatever is wrong with one is said with the path of the field.
//!
//! A body is parsed without looking where in it the parser stands; only when that fails is it parsed again, slower, to name
//! the place.

use crate::{
    discard::{discard, discard_rest},
    error::ApiError,
    shape::{self, DEPTH_MAX, Fault, TEXT_MAX},
    slow_body::is_too_slow,
    state::Shared,
    wording,
};
use axum::{
    body::{Body, HttpBody},
    extract::{FromRequest, Request},
};
use bytes::{Bytes, BytesMut};
use http::{HeaderMap, header};
use http_body_util::BodyExt;
use serde::{
    Deserialize, Deserializer,
    de::{Error as _, Unexpected},
};
use serde_json::error::Category;
use shared::{
    redact::{elide, without_value},
    task::{BatchId, TaskId},
};

/// Bytes of a name at most that may be a typing error for another.
const NAME_MAX: usize = 64;

/// A body without a length that has made this many bytes is given room for as many more as there are in [`STEP`]: what grows by
/// doubling is there three times while it is moved.
const STEP_FROM: usize = 1 << 20;
const STEP: usize = 16 << 20;

/// Up to here a floating point number is exactly one whole number.
const EXACT: f64 = 9_007_199_254_740_992.0;

/// A JSON body, not parsed yet.
pub(crate) struct JsonBody(pub(crate) Bytes);

/// A JSON body that may be missing. Clients differ in the content type that they send with nothing.
pub(crate) struct MaybeJson(pub(crate) Option<Bytes>);

impl FromRequest<Shared> for JsonBody {
    type Rejection = ApiError;

    async fn from_request(request: Request, app: &Shared) -> Result<Self, ApiError> {
        if !is_json(request.headers()) {
            discard(request).await;
            return Err(ApiError::MediaType);
        }
        collect(request, app).await.map(Self)
    }
}

impl FromRequest<Shared> for MaybeJson {
    type Rejection = ApiError;

    async fn from_request(request: Request, app: &Shared) -> Result<Self, ApiError> {
        let declared = is_json(request.headers());
        let body = collect(request, app).await?;
        // Some clients write down that there is nothing.
        match (matches!(body.trim_ascii(), b"" | b"null"), declared) {
            (true, _) => Ok(Self(None)),
            (false, true) => Ok(Self(Some(body))),
            (false, false) => Err(ApiError::MediaType),
        }
    }
}

fn is_json(headers: &HeaderMap) -> bool {
    let Some(value) = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()) else {
        return false;
    };
    let kind = value.split(';').next().unwrap_or_default().trim();
    kind.eq_ignore_ascii_case("application/json") || kind.to_ascii_lowercase().ends_with("+json")
}

/// Whether the body is what it says, and not something that would have to be expanded first.
fn is_plain(headers: &HeaderMap) -> bool {
    headers
        .get_all(header::CONTENT_ENCODING)
        .iter()
        .all(|coding| coding.as_bytes().eq_ignore_ascii_case(b"identity"))
}

/// The whole body, if it is no longer than we take.
async fn collect(request: Request, app: &Shared) -> Result<Bytes, ApiError> {
    let (parts, mut body) = request.into_parts();
    let limit = app.config.api.body_bytes_max;
    let collected = match is_plain(&parts.headers) {
        true => take(&mut body, limit).await,
        false => Err(ApiError::Encoding),
    };
    if matches!(collected, Err(ApiError::Encoding | ApiError::TooLarge { .. })) {
        discard_rest(&parts, body).await;
    }
    collected
}

async fn take(body: &mut Body, limit: usize) -> Result<Bytes, ApiError> {
    let too_large = ApiError::TooLarge { limit };
    let known = usize::try_from(body.size_hint().lower()).unwrap_or(usize::MAX);
    if known > limit {
        return Err(too_large);
    }
    let mut first = Bytes::new();
    let mut rest = BytesMut::new();
    loop {
        let Some(frame) = body.frame().await else { break };
        let Ok(data) = frame.map_err(|error| broken(&error))?.into_data() else { continue };
        if first.len().max(rest.len()) + data.len() > limit {
            return Err(too_large);
        }
        // A body usually comes in one piece, which then needs no copy.
        if first.is_empty() && rest.is_empty() {
            first = data;
            continue;
        }
        if rest.is_empty() {
            // Memory that is only reserved costs nothing until something comes.
            rest.reserve(known.max(first.len()));
            rest.extend_from_slice(&first);
        }
        if rest.capacity() - rest.len() < data.len() {
            let step = if rest.len() < STEP_FROM { rest.len() } else { STEP.max(rest.len()) };
            rest.reserve(step.min(limit - rest.len()).max(data.len()));
        }
        rest.extend_from_slice(&data);
    }
    Ok(if rest.is_empty() { first } else { rest.freeze() })
}

fn broken(error: &axum::Error) -> ApiError {
    match is_too_slow(error) {
        true => ApiError::Slow,
        false => {
            ApiError::Invalid { message: "the body broke off".into(), code: "invalid_body", param: None }
        }
    }
}

/// Parses a body.
///
/// # Errors
/// 400 that names the line and column of malformed JSON, or the path of the field that does not fit.
pub(crate) fn read<'a, T: Deserialize<'a>>(json: &'a [u8]) -> Result<T, ApiError> {
    shape::check(json).map_err(misshapen)?;
    read_at(json, "")
}

fn misshapen(fault: Fault) -> ApiError {
    let (code, message) = match fault {
        Fault::Deep => ("json_too_deep", format!("the body is nested deeper than {DEPTH_MAX} levels")),
        Fault::Long => ("invalid_value", format!("a text outside of 'body' is longer than {TEXT_MAX} bytes")),
        Fault::Half => {
            ("invalid_json", "the body is not well-formed JSON: an escape stands for half a character".into())
        }
    };
    ApiError::Invalid { message, code, param: None }
}

/// As [`read`], for a part of the body that is found at `prefix`.
pub(crate) fn read_at<'a, T: Deserialize<'a>>(json: &'a [u8], prefix: &str) -> Result<T, ApiError> {
    // A list of a record's values would do for the parser; clients who send one are mistaken.
    if json.trim_ascii_start().first() == Some(&b'[') {
        let what = if prefix.is_empty() { "the body" } else { prefix };
        let message = format!("Invalid type for {what}: expected a JSON object.");
        let param = (!prefix.is_empty()).then(|| prefix.to_owned());
        return Err(ApiError::Invalid { message, code: "invalid_type", param });
    }
    serde_json::from_slice(json).map_err(|error| diagnose::<T>(json, prefix, error))
}

/// A whole number, also where it is written as `1.0`: to JSON both are one.
///
/// # Errors
/// It is no whole number, or none of the wanted size.
pub(crate) fn whole<'de, T: TryFrom<i64>, D: Deserializer<'de>>(from: D) -> Result<Option<T>, D::Error> {
    let Some(number) = Option::<serde_json::Number>::deserialize(from)? else { return Ok(None) };
    let float = number.as_f64().unwrap_or(f64::NAN);
    let exact = (float.fract() == 0.0 && float.abs() < EXACT).then_some(float as i64);
    let fits = number.as_i64().or(exact).and_then(|number| T::try_from(number).ok());
    fits.map(Some)
        .ok_or_else(|| D::Error::invalid_type(Unexpected::Other(&number.to_string()), &"a whole number"))
}

fn diagnose<'a, T: Deserialize<'a>>(json: &'a [u8], prefix: &str, error: serde_json::Error) -> ApiError {
    let malformed = |error: &serde_json::Error| ApiError::Invalid {
        message: format!("the body is not well-formed JSON: {}", wording::malformed(&error.to_string())),
        code: "invalid_json",
        param: None,
    };
    if error.classify() != Category::Data {
        return malformed(&error);
    }
    let mut parser = serde_json::Deserializer::from_slice(json);
    match serde_path_to_error::deserialize::<_, T>(&mut parser) {
        Ok(_) => malformed(&error),
        Err(found) => explain(&join(prefix, &found.path().to_string()), found.inner()),
    }
}

fn join(parent: &str, child: &str) -> String {
    match (parent, child) {
        (parent, "" | ".") => parent.to_owned(),
        ("", child) => child.to_owned(),
        (parent, child) => format!("{parent}.{child}"),
    }
}

/// Says in our words what the parser says in its own.
fn explain(path: &str, error: &serde_json::Error) -> ApiError {
    let text = elide(error.to_string());
    let text = text.rsplit_once(" at line ").map_or(text.as_str(), |(text, _)| text);
    let text = &*without_value(text);
    let path = &elide(path.to_owned());
    let place = if path.is_empty() { "the body".to_owned() } else { format!("'{path}'") };
    let quoted = |text: &str| text.split('`').skip(1).step_by(2).map(str::to_owned).collect::<Vec<_>>();
    let (message, code, param) = if text.starts_with("missing field") {
        let param = join(path, quoted(text).first().map_or("", String::as_str));
        (format!("Missing required parameter: '{param}'."), "missing_required_parameter", param)
    } else if text.starts_with("unknown field") {
        let names = quoted(text);
        let (name, known) = names.split_first().map_or(("", &[][..]), |(name, known)| (name.as_str(), known));
        let param = if path.rsplit('.').next() == Some(name) { path.to_owned() } else { join(path, name) };
        let hint = nearest(name, known).map_or_else(String::new, |near| format!(" Did you mean '{near}'?"));
        (format!("Unknown parameter: '{param}'.{hint}"), "unknown_parameter", param)
    } else if text.starts_with("duplicate field") {
        let param = join(path, quoted(text).first().map_or("", String::as_str));
        (format!("Duplicate parameter: '{param}'."), "duplicate_parameter", param)
    } else if text.starts_with("invalid type: ") {
        (format!("Invalid type for {place}: {}.", wording::mismatch(text)), "invalid_type", path.to_owned())
    } else {
        (format!("Invalid value for {place}: {}.", wording::mismatch(text)), "invalid_value", path.to_owned())
    };
    ApiError::Invalid { message, code, param: (!param.is_empty()).then_some(param) }
}

/// The known name that a typing error is most likely to have come from.
pub(crate) fn nearest<'a, S: AsRef<str>>(name: &str, known: &'a [S]) -> Option<&'a str> {
    // What this costs grows with the length of both.
    if name.len() > NAME_MAX {
        return None;
    }
    let scored =
        known.iter().map(|known| (strsim::damerau_levenshtein(name, known.as_ref()), known.as_ref()));
    scored.filter(|(distance, known)| *distance <= known.len() / 3 + 1).min().map(|(_, known)| known)
}

/// The task id in a path: an ill-formed one is answered as an unknown one.
///
/// # Errors
/// 404.
pub(crate) fn task_id(text: &str) -> Result<TaskId, ApiError> {
    text.parse().map_err(|_| no_task(text))
}

/// The answer to an unknown task id.
pub(crate) fn no_task(id: impl std::fmt::Display) -> ApiError {
    ApiError::NotFound {
        message: format!("No task found with id '{id}'."),
        code: "task_not_found",
        param: Some("id"),
    }
}

/// The batch id in a path.
///
/// # Errors
/// 404.
pub(crate) fn batch_id(text: &str) -> Result<BatchId, ApiError> {
    text.parse().map_err(|_| no_batch(text))
}

/// The answer to an unknown batch id.
pub(crate) fn no_batch(id: impl std::fmt::Display) -> ApiError {
    ApiError::NotFound {
        message: format!("No batch found with id '{id}'."),
        code: "batch_not_found",
        param: Some("id"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::value::RawValue;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Outer<'a> {
        #[serde(rename = "endpoint")]
        _endpoint: String,
        #[serde(rename = "body", borrow)]
        _body: &'a RawValue,
        #[serde(rename = "policy")]
        _policy: Option<Inner>,
    }

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Inner {
        #[serde(rename = "max_attempts")]
        _max_attempts: i64,
    }

    #[test]
    fn errors_name_the_field() {
        let cases = [
            (r#"{"body":{}}"#, "missing_required_parameter", Some("endpoint")),
            (r#"{"endpoint":1,"body":{}}"#, "invalid_type", Some("endpoint")),
            (r#"{"endpoint":"x","body":{},"polcy":{}}"#, "unknown_parameter", Some("polcy")),
            (
                r#"{"endpoint":"x","body":{},"policy":{}}"#,
                "missing_required_parameter",
                Some("policy.max_attempts"),
            ),
            (
                r#"{"endpoint":"x","body":{},"policy":{"max_attempts":"3"}}"#,
                "invalid_type",
                Some("policy.max_attempts"),
            ),
            (r#"{"endpoint":"x","body":{},"policy":{"tries":3}}"#, "unknown_parameter", Some("policy.tries")),
            (r#"{"endpoint":"x","body":{"#, "invalid_json", None),
        ];
        for (json, wanted, field) in cases {
            let Err(ApiError::Invalid { code, param, message }) = read::<Outer>(json.as_bytes()) else {
                panic!("{json}")
            };
            assert_eq!((code, param.as_deref()), (wanted, field), "{json}: {message}");
        }
    }

    #[test]
    fn whole_numbers_are_whole_however_they_are_written() {
        #[derive(Debug, Deserialize)]
        struct Number {
            #[serde(default, deserialize_with = "whole")]
            n: Option<u32>,
        }
        let number = |json: &str| read::<Number>(json.as_bytes()).map(|number| number.n);
        for (json, n) in
            [("{}", None), (r#"{"n":null}"#, None), (r#"{"n":7}"#, Some(7)), (r#"{"n":7.0}"#, Some(7))]
        {
            assert_eq!(number(json).ok(), Some(n), "{json}");
        }
        for json in [r#"{"n":7.5}"#, r#"{"n":-1}"#, r#"{"n":1e99}"#, r#"{"n":"7"}"#, r#"{"n":4294967296}"#] {
            let Err(ApiError::Invalid { code, param, .. }) = number(json) else { panic!("{json}") };
            assert_eq!((code, param.as_deref()), ("invalid_type", Some("n")), "{json}");
        }
    }

    #[test]
    fn a_typing_error_gets_a_hint() {
        let error = read::<Outer>(br#"{"endpoint":"x","body":{},"polcy":{}}"#).expect_err("refused");
        assert!(error.to_string().contains("Did you mean 'policy'?"), "{error}");
    }

    #[test]
    fn malformed_json_names_the_place() {
        let error = read::<Outer>(b"{\n  \"endpoint\": oops}").expect_err("refused");
        assert!(error.to_string().contains("line 2 column"), "{error}");
    }
}
