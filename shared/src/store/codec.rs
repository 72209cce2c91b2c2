//! What both engines share: how words, numbers and JSON are kept in columns, and what a database's error means to callers.

use super::{BatchState, Error, Result, Settle};
use crate::{
    clock::ms,
    identity::{Digest, Quotas, Scopes},
    task::{ErrorCode, QueueName, Relay, State, TaskError, Usage},
    webhook::{Attempt, DeliveryState, EventType},
};
use serde::{Serialize, de::DeserializeOwned};
use sqlx::{
    SqlSafeStr,
    migrate::{Migration, MigrationType, Migrator},
};
use std::{sync::Arc, time::Duration};

/// How long an idempotency key is remembered.
pub(super) const KEY_TTL: Duration = Duration::from_secs(24 * 3600);

/// How long a dead worker stays readable for people.
pub(super) const WORKER_TTL: Duration = Duration::from_secs(3600);

impl From<sqlx::Error> for Error {
    fn from(error: sqlx::Error) -> Self {
        use sqlx::Error as E;
        let away = match &error {
            E::Io(_) | E::Tls(_) | E::Protocol(_) | E::PoolTimedOut | E::PoolClosed | E::WorkerCrashed => {
                true
            }
            E::BeginFailed => true,
            E::Database(cause) => cause.code().is_some_and(|code| passes(&code)),
            _ => false,
        };
        match &error {
            E::Database(cause) if cause.code().is_some_and(|code| is_full(&code)) => Self::Full(error),
            _ if away => Self::Unavailable(error),
            _ => Self::Broken(error),
        }
    }
}

/// Whether an engine's error code tells of the moment (overload, restart, failover, deadlock, timeout), not of the statement.
///
/// Postgres codes have five characters; SQLite's are decimal numbers with the kind in the low byte.
fn passes(code: &str) -> bool {
    if code.len() == 5 {
        let class = ["08", "40", "53", "57P", "58"].iter().any(|class| code.starts_with(class));
        return class || matches!(code, "57014" | "55P03" | "25P03" | "25006");
    }
    // Busy, locked, interrupted, I/O error, disk full, cannot open.
    code.parse::<u32>().is_ok_and(|code| matches!(code & 0xff, 5 | 6 | 9 | 10 | 13 | 14))
}

/// Whether an engine's error code says that the disk is full.
pub(super) fn is_full(code: &str) -> bool {
    code == "53100" || code == "13"
}

/// Whether the statement failed because of a value in it: such a row is refused alone.
pub(super) fn is_bad_data(error: &Error) -> bool {
    match error {
        Error::Broken(sqlx::Error::Encode(_) | sqlx::Error::InvalidArgument(_)) => true,
        Error::Broken(sqlx::Error::Database(cause)) => {
            cause.code().is_some_and(|code| ["22", "23", "54"].iter().any(|class| code.starts_with(class)))
        }
        _ => false,
    }
}

/// What [`super::Submitted::Refused`] says of such a row.
pub(super) const BAD_DATA: &str = "a value of this task cannot be stored";

/// The migrations that are compiled in: number, name and text of each.
pub(super) fn migrator(migrations: &[(i64, &'static str, &'static str)]) -> Migrator {
    let migration = |&(version, name, sql): &(i64, &'static str, &'static str)| {
        Migration::new(version, name.into(), MigrationType::Simple, sql.into_sql_str(), false)
    };
    Migrator::with_migrations(migrations.iter().map(migration).collect())
}

/// The sentence for an ending that no worker wrote.
pub(super) fn sentence(code: ErrorCode) -> &'static str {
    match code {
        ErrorCode::DeadlineExceeded => "The deadline passed before the task was done.",
        ErrorCode::QueueTimeout => "The task waited in its queue for longer than its queue timeout.",
        ErrorCode::WorkerCrashed => "The worker died while it ran the task.",
        _ => "The task was stopped.",
    }
}

/// The column's state.
pub(super) fn state(word: &str) -> Result<State> {
    word.parse().map_err(|_| Error::Unreadable { column: "state" })
}

/// The column's batch state.
pub(super) fn batch_state(word: &str) -> Result<BatchState> {
    let found = BatchState::ALL.into_iter().find(|state| state.as_str() == word);
    found.ok_or(Error::Unreadable { column: "state" })
}

/// The column's kind of relay.
pub(super) fn relay(word: &str) -> Result<Relay> {
    let found = [Relay::Lifecycle, Relay::Deltas].into_iter().find(|relay| relay.as_str() == word);
    found.ok_or(Error::Unreadable { column: "relay" })
}

/// The column's queue name.
pub(super) fn queue(name: &str) -> Result<QueueName> {
    QueueName::new(name).ok_or(Error::Unreadable { column: "queue" })
}

/// The column's scopes.
pub(super) fn scopes(names: &str) -> Result<Scopes> {
    names.parse().map_err(|_| Error::Unreadable { column: "scopes" })
}

/// The column's limits.
pub(super) fn quotas(text: Option<&str>) -> Result<Quotas> {
    Ok(from_json(text, "quotas")?.unwrap_or_default())
}

/// Limits as they are kept: none of them is no row's worth.
pub(super) fn kept_quotas(quotas: &Quotas) -> Option<String> {
    (*quotas != Quotas::default()).then(|| json(quotas))
}

/// The column's digest.
pub(super) fn digest(bytes: &[u8]) -> Result<Digest> {
    bytes.try_into().map_err(|_| Error::Unreadable { column: "digest" })
}

/// A JSON column's text.
pub(super) fn json<T: Serialize + ?Sized>(value: &T) -> String {
    serde_json::to_string(value).expect("plain structs and lists of text always serialise")
}

/// A JSON column's value.
pub(super) fn from_json<T: DeserializeOwned>(text: Option<&str>, column: &'static str) -> Result<Option<T>> {
    text.map(serde_json::from_str).transpose().map_err(|_| Error::Unreadable { column })
}

/// The column's error.
pub(super) fn error(text: Option<&str>) -> Result<Option<TaskError>> {
    from_json(text, "error")
}

/// Four token columns, in the order input, cached, output, reasoning; all null without a report.
pub(super) fn usage([input, cached, output, reasoning]: [Option<i64>; 4]) -> Option<Usage> {
    Some(Usage {
        input_tokens: input?,
        cached_tokens: cached?,
        output_tokens: output?,
        reasoning_tokens: reasoning?,
    })
}

/// Milliseconds from a column; a clock that stepped back counts as zero.
pub(super) fn span(ms: i64) -> Duration {
    Duration::from_millis(ms.try_into().unwrap_or(0))
}

/// A count from a column.
pub(super) fn count(value: i64) -> u64 {
    value.try_into().unwrap_or(0)
}

/// A small number from a column, which holds no negative ones.
pub(super) fn small(value: i32) -> u32 {
    value.try_into().unwrap_or(0)
}

/// A small number for a column.
pub(super) fn int(value: u32) -> i32 {
    value.try_into().unwrap_or(i32::MAX)
}

/// A small number for a short column.
pub(super) fn short(value: u32) -> i16 {
    value.try_into().unwrap_or(i16::MAX)
}

/// A shared text from a column.
pub(super) fn shared(text: Option<String>) -> Option<Arc<str>> {
    text.map(Arc::from)
}

/// Text without U+0000, which Postgres refuses.
pub(super) fn printable(text: &str) -> String {
    text.replace('\0', "")
}

/// Types of events from a column: names, a space before and after each.
pub(super) fn event_types(text: &str) -> Result<Vec<EventType>> {
    text.split_whitespace().map(event_type).collect()
}

/// Types of events for a column: one is found in it with the spaces around it.
pub(super) fn kept_event_types(types: &[EventType]) -> String {
    types.iter().fold(" ".to_owned(), |text, kind| text + kind.as_str() + " ")
}

pub(super) fn event_type(text: &str) -> Result<EventType> {
    text.parse().map_err(|_| Error::Unreadable { column: "event_type" })
}

pub(super) fn delivery_state(text: &str) -> Result<DeliveryState> {
    let found = DeliveryState::ALL.into_iter().find(|state| state.as_str() == text);
    found.ok_or(Error::Unreadable { column: "state" })
}

/// An HTTP status from a column.
pub(super) fn status(value: Option<i16>) -> Option<u16> {
    value.and_then(|value| value.try_into().ok())
}

/// Why a delivery ended whose endpoint was disabled.
pub(super) const DISABLED: &str = "the endpoint is disabled";

/// A [`Settle`] as columns.
pub(super) struct Settled {
    pub(super) state: DeliveryState,
    pub(super) status: Option<i16>,
    pub(super) error: Option<String>,
    /// Milliseconds.
    pub(super) again: Option<i64>,
    pub(super) gone: bool,
}

pub(super) fn settled(settle: &Settle) -> Settled {
    let column = |status: u16| i16::try_from(status).ok();
    let (state, status, error, again) = match (&settle.outcome, settle.again.map(ms)) {
        (Attempt::Taken { status }, _) => (DeliveryState::Delivered, column(*status), None, None),
        (Attempt::Gone, _) => (DeliveryState::Failed, column(410), Some("status 410 Gone".to_owned()), None),
        (Attempt::Failed { status, error, .. }, again) => {
            let state = if again.is_some() { DeliveryState::Pending } else { DeliveryState::Failed };
            (state, status.and_then(column), Some(printable(error)), again)
        }
    };
    Settled { state, status, error, again, gone: settle.outcome == Attempt::Gone }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_of_the_moment_are_told_from_codes_of_the_statement() {
        for code in ["57P01", "57014", "53300", "08006", "40P01", "25006", "5", "517", "2570", "13"] {
            assert!(passes(code), "{code}");
        }
        for code in ["22021", "23505", "42P01", "1", "19", "1555"] {
            assert!(!passes(code), "{code}");
        }
    }

    #[test]
    fn usage_needs_all_its_columns() {
        let [a, b, c, d] = [1, 2, 3, 4].map(Some);
        assert_eq!(usage([a, b, c, d]).map(|usage| usage.reasoning_tokens), Some(4));
        assert_eq!(usage([None, b, c, d]), None);
    }

    #[test]
    fn a_clock_that_stepped_back_is_no_wait() {
        assert_eq!((span(-5), span(7)), (Duration::ZERO, Duration::from_millis(7)));
    }
}
