//! What a client wants: from the body of `POST /v1/tasks` to a valid task. Pure.

use crate::{
    bare,
    docs::schema,
    error::ApiError,
    metadata::{self, Metadata},
    parse::{self, nearest, read, read_at},
    webhooks::secret::Wanted as OwnWebhook,
};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use sha2::{Digest, Sha256};
use shared::{
    clock::UnixMs,
    config::Config,
    task::{Backoff, Fingerprint, Policy, QueueName, Relay},
};
use std::{borrow::Cow, ops::RangeInclusive, sync::Arc, time::Duration};

const DAY_S: f64 = 86_400.0;

/// The body of `POST /v1/tasks`.
#[derive(Debug, Deserialize, Serialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = NewTask, example = json!({
    "endpoint": "/v1/chat/completions",
    "body": {"model": "sim-chat", "messages": [{"role": "user", "content": "Why is the sky blue?"}]}
}))]
pub(crate) struct Wanted<'a> {
    /// Upstream path, e.g. `/v1/chat/completions`.
    #[serde(borrow)]
    pub(crate) endpoint: Cow<'a, str>,
    /// The upstream's request body: a JSON object that names a `model`. Sent on as it came.
    #[serde(borrow, skip_serializing_if = "is_apart")]
    #[schema(schema_with = schema::request, required)]
    pub(crate) body: &'a RawValue,
    /// The lane; `default` if none is named.
    #[serde(default)]
    queue: Option<Cow<'a, str>>,
    /// −100 to 100, higher first.
    #[serde(default, deserialize_with = "parse::whole")]
    #[schema(minimum = -100, maximum = 100)]
    priority: Option<i64>,
    /// Start after this many seconds; before the deadline.
    #[serde(default)]
    #[schema(minimum = 0, maximum = 2592000)]
    delay_s: Option<f64>,
    /// Start at this moment, Unix seconds; before the deadline. Not together with `delay_s`.
    #[serde(default)]
    #[schema(value_type = Option<f64>, minimum = 0, maximum = 4000000000i64)]
    scheduled_at: Option<UnixMs>,
    /// Time limits and retries.
    #[serde(default)]
    policy: Option<WantedPolicy>,
    /// Up to 16 pairs of your own: keys up to 64 characters, values up to 512.
    #[serde(default)]
    #[schema(schema_with = schema::metadata)]
    metadata: Option<Metadata>,
    /// Who is to be told of its end, beside the project's endpoints.
    #[serde(default)]
    pub(crate) webhook: Option<OwnWebhook>,
}

/// Time limits and retries; what is left out comes from the configuration.
#[derive(Debug, Default, Deserialize, Serialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields, default)]
#[schema(as = Policy)]
struct WantedPolicy {
    /// Longest wait for the first attempt.
    #[schema(minimum = 1, maximum = 2592000)]
    queue_timeout_s: Option<f64>,
    /// Longest time of one attempt.
    #[schema(minimum = 1, maximum = 2592000)]
    execution_timeout_s: Option<f64>,
    /// From accepted to the deadline.
    #[schema(minimum = 1, maximum = 2592000)]
    ttl_s: Option<f64>,
    /// Failures at which to give up.
    #[serde(deserialize_with = "parse::whole")]
    #[schema(minimum = 1, maximum = 100)]
    max_attempts: Option<i64>,
    /// Waits between attempts.
    backoff: Option<WantedBackoff>,
    /// How long the finished task is kept.
    #[schema(minimum = 1, maximum = 2592000)]
    result_ttl_s: Option<f64>,
    /// `deltas` or `lifecycle`.
    #[schema(schema_with = schema::relay)]
    events: Option<Relay>,
}

/// Bounds of the waits between attempts.
#[derive(Debug, Default, Deserialize, Serialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields, default)]
#[schema(as = Backoff)]
struct WantedBackoff {
    /// Upper bound of the first wait, milliseconds.
    #[serde(deserialize_with = "parse::whole")]
    #[schema(minimum = 1, maximum = 3600000)]
    base_ms: Option<i64>,
    /// Upper bound of every wait, milliseconds.
    #[serde(deserialize_with = "parse::whole")]
    #[schema(minimum = 1, maximum = 3600000)]
    max_ms: Option<i64>,
}

/// The body is a part of its own in the fingerprint.
fn is_apart(_: &&RawValue) -> bool {
    true
}

/// What is valid of it.
#[derive(Debug)]
pub(crate) struct Valid {
    /// The lane.
    pub(crate) queue: QueueName,
    /// Place in it.
    pub(crate) priority: i16,
    /// Model named in the body.
    pub(crate) model: Arc<str>,
    /// Wait before it starts.
    pub(crate) delay: Duration,
    /// Moment of its start.
    pub(crate) run_at: Option<UnixMs>,
    /// Limits.
    pub(crate) policy: Policy,
    /// Kind of relay.
    pub(crate) relay: Relay,
    /// The client's pairs as JSON.
    pub(crate) metadata: Option<Arc<str>>,
}

impl<'a> Wanted<'a> {
    /// Parses the body.
    ///
    /// # Errors
    /// 400 that names the place.
    pub(crate) fn parse(json: &'a [u8]) -> Result<Self, ApiError> {
        read(json).map_err(|error| bare::told(json).unwrap_or(error))
    }

    /// Checks everything that needs no look at what is served.
    ///
    /// # Errors
    /// 400 that names the field and its limit.
    pub(crate) fn check(&self, config: &Config) -> Result<Valid, ApiError> {
        let model = model_of(self.body, "body")?.into();
        let queue = lane(config, self.queue.as_deref())?;
        let relay = match queue.as_str() {
            "batch" => Relay::Lifecycle,
            _ => Relay::Deltas,
        };
        let wanted = self.policy.as_ref();
        let policy =
            wanted.map_or_else(|| Ok(config.policy.clone()), |wanted| wanted.over(&config.policy))?;
        let (delay, run_at) = self.start(policy.ttl)?;
        Ok(Valid {
            priority: whole("priority", self.priority, -100..=100)?.unwrap_or(0),
            relay: wanted.and_then(|wanted| wanted.events).unwrap_or(relay),
            metadata: self.metadata.as_ref().map(metadata::check).transpose()?,
            queue,
            model,
            delay,
            run_at,
            policy,
        })
    }

    fn start(&self, ttl: Duration) -> Result<(Duration, Option<UnixMs>), ApiError> {
        if self.delay_s.is_some() && self.scheduled_at.is_some() {
            return Err(ApiError::invalid(
                "scheduled_at",
                "'delay_s' and 'scheduled_at' exclude each other: send one.",
            ));
        }
        let delay = seconds("delay_s", self.delay_s, 0.0..=30.0 * DAY_S)?.unwrap_or_default();
        let late = |param| {
            ApiError::invalid(param, format!("'{param}' must lie before the deadline ('policy.ttl_s')."))
        };
        if !delay.is_zero() && delay >= ttl {
            return Err(late("delay_s"));
        }
        // This clock only warns of a typing error here; when the task runs is decided on the database's.
        if self.scheduled_at.is_some_and(|at| at >= UnixMs::now().plus(ttl)) {
            return Err(late("scheduled_at"));
        }
        Ok((delay, self.scheduled_at))
    }

    /// What an idempotency key stands for: the body's bytes, and the options whatever their order was.
    pub(crate) fn fingerprint(&self) -> Fingerprint {
        let options = serde_json::to_vec(self).expect("options have string keys only");
        let parts: [&[u8]; 3] = [b"POST /v1/tasks", &options, self.body.get().as_bytes()];
        let mut hash = Sha256::new();
        for part in parts {
            hash.update((part.len() as u64).to_le_bytes());
            hash.update(part);
        }
        hash.finalize().into()
    }
}

impl WantedPolicy {
    fn over(&self, default: &Policy) -> Result<Policy, ApiError> {
        let limit = |name: &str, value| seconds(&format!("policy.{name}"), value, 1.0..=30.0 * DAY_S);
        let backoff =
            self.backoff.as_ref().map_or(Ok(default.backoff), |backoff| backoff.over(default.backoff))?;
        Ok(Policy {
            queue_timeout: limit("queue_timeout_s", self.queue_timeout_s)?.or(default.queue_timeout),
            execution_timeout: limit("execution_timeout_s", self.execution_timeout_s)?
                .unwrap_or(default.execution_timeout),
            ttl: limit("ttl_s", self.ttl_s)?.unwrap_or(default.ttl),
            max_attempts: whole("policy.max_attempts", self.max_attempts, 1..=100)?
                .unwrap_or(default.max_attempts),
            backoff,
            result_ttl: limit("result_ttl_s", self.result_ttl_s)?.unwrap_or(default.result_ttl),
        })
    }
}

impl WantedBackoff {
    fn over(&self, default: Backoff) -> Result<Backoff, ApiError> {
        let limit = |name: &str, value| whole::<u32>(&format!("policy.backoff.{name}"), value, 1..=3_600_000);
        let wait = |ms: u32| Duration::from_millis(ms.into());
        let base = limit("base_ms", self.base_ms)?.map_or(default.base, wait);
        let max = limit("max_ms", self.max_ms)?.map_or(default.max, wait).max(base);
        Ok(Backoff { base, max })
    }
}

/// The `model` of an upstream's request body found at `at`.
///
/// # Errors
/// 400: the body is no object, or names no model.
pub(crate) fn model_of(body: &RawValue, at: &str) -> Result<String, ApiError> {
    #[derive(Deserialize)]
    struct Head {
        model: Option<String>,
    }
    if !body.get().starts_with('{') {
        return Err(ApiError::Invalid {
            message: format!("Invalid type for '{at}': expected a JSON object."),
            code: "invalid_type",
            param: Some(at.to_owned()),
        });
    }
    let param = format!("{at}.model");
    let head: Head = read_at(body.get().as_bytes(), at)?;
    let model = head.model.ok_or_else(|| ApiError::Invalid {
        message: format!("Missing required parameter: '{param}'."),
        code: "missing_required_parameter",
        param: Some(param.clone()),
    })?;
    if model.is_empty() || model.chars().count() > 256 || model.contains('\0') {
        return Err(ApiError::invalid(
            param.as_str(),
            format!("'{param}' must have 1 to 256 characters, none of them U+0000."),
        ));
    }
    Ok(model)
}

/// The configured lane of that name.
fn lane(config: &Config, wanted: Option<&str>) -> Result<QueueName, ApiError> {
    let wanted = wanted.unwrap_or("default");
    let found = config.lanes.iter().find(|lane| lane.name.as_str() == wanted);
    found.map(|lane| lane.name.clone()).ok_or_else(|| {
        let known: Vec<&str> = config.lanes.iter().map(|lane| lane.name.as_str()).collect();
        let hint =
            nearest(wanted, &known).map_or_else(String::new, |near| format!(" Did you mean '{near}'?"));
        ApiError::invalid("queue", format!("Unknown queue: use one of {}.{hint}", known.join(", ")))
    })
}

fn whole<T: TryFrom<i64>>(
    param: &str,
    value: Option<i64>,
    range: RangeInclusive<i64>,
) -> Result<Option<T>, ApiError> {
    let Some(value) = value else { return Ok(None) };
    let fits = range.contains(&value).then(|| T::try_from(value).ok()).flatten();
    let (low, high) = range.into_inner();
    fits.map(Some)
        .ok_or_else(|| ApiError::invalid(param, format!("'{param}' must be between {low} and {high}.")))
}

fn seconds(
    param: &str,
    value: Option<f64>,
    range: RangeInclusive<f64>,
) -> Result<Option<Duration>, ApiError> {
    let Some(value) = value else { return Ok(None) };
    if range.contains(&value) {
        return Ok(Some(Duration::from_secs_f64(value)));
    }
    let (low, high) = range.into_inner();
    Err(ApiError::invalid(param, format!("'{param}' must be between {low} and {high} seconds.")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use shared::config::Mode;

    fn check(json: &str) -> Result<Valid, (String, Option<String>)> {
        let config = Config::new(Mode::Embedded { data_dir: "unused".into() });
        Wanted::parse(json.as_bytes()).and_then(|wanted| wanted.check(&config)).map_err(|error| match error {
            ApiError::Invalid { message, param, .. } => (message, param),
            other => panic!("{other:?}"),
        })
    }

    fn with(options: &str) -> String {
        format!(r#"{{"endpoint":"/v1/chat/completions","body":{{"model":"m","n":1}}{options}}}"#)
    }

    #[test]
    fn defaults_come_from_the_configuration() {
        let valid = check(&with("")).expect("valid");
        assert_eq!(
            (valid.queue.as_str(), valid.priority, valid.relay, &*valid.model),
            ("default", 0, Relay::Deltas, "m")
        );
        assert_eq!(check(&with(r#","queue":"batch""#)).expect("valid").relay, Relay::Lifecycle);
        let deltas = with(r#","queue":"batch","policy":{"events":"deltas"}"#);
        assert_eq!(check(&deltas).expect("valid").relay, Relay::Deltas);
    }

    #[test]
    fn what_is_out_of_bounds_is_named() {
        let long = format!(r#","metadata":{{"k":"{}"}}"#, "x".repeat(513));
        let cases = [
            (r#","priority":101"#, "priority"),
            (r#","queue":"fast""#, "queue"),
            (r#","delay_s":-1"#, "delay_s"),
            (r#","delay_s":1,"scheduled_at":2"#, "scheduled_at"),
            (r#","delay_s":90000"#, "delay_s"),
            (r#","policy":{"ttl_s":0.5}"#, "policy.ttl_s"),
            (r#","policy":{"ttl_s":2592001}"#, "policy.ttl_s"),
            (r#","policy":{"max_attempts":0}"#, "policy.max_attempts"),
            (r#","policy":{"events":"all"}"#, "policy.events"),
            (r#","policy":{"backoff":{"base_ms":0}}"#, "policy.backoff.base_ms"),
            (r#","metadata":{"tags":[]}"#, "metadata.tags"),
            (r#","metadata":{"k":"\u0000"}"#, "metadata.k"),
            (long.as_str(), "metadata.k"),
            (r#","stream":true"#, "stream"),
        ];
        for (options, field) in cases {
            let (message, param) = check(&with(options)).expect_err(options);
            assert_eq!(param.as_deref(), Some(field), "{message}");
        }
        for (body, field) in [
            ("[]", "body"),
            ("{}", "body.model"),
            (r#"{"model":7}"#, "body.model"),
            (r#"{"model":null}"#, "body.model"),
        ] {
            let (message, param) =
                check(&format!(r#"{{"endpoint":"/v1/x","body":{body}}}"#)).expect_err(body);
            assert_eq!(param.as_deref(), Some(field), "{message}");
        }
    }

    #[test]
    fn a_fingerprint_forgets_order_but_not_content() {
        let print = |json: &str| Wanted::parse(json.as_bytes()).expect("valid").fingerprint();
        let one = print(r#"{"endpoint":"/e","body":{"model":"m"},"priority":1}"#);
        assert_eq!(one, print(r#"{ "priority":1, "body":{"model":"m"},"endpoint":"/e" }"#));
        assert_ne!(one, print(r#"{"endpoint":"/e","body":{"model":"m"},"priority":2}"#));
        assert_ne!(one, print(r#"{"endpoint":"/e","body":{"model":"n"},"priority":1}"#));
    }
}
