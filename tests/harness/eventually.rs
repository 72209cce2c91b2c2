//! Waiting for what must come, instead of sleeping and hoping.

use anyhow::Context;
use std::time::{Duration, Instant};

/// Longest wait for anything that a test waits for, unless it says otherwise.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Asks `look` until it answers `Some`, for at most [`PATIENCE`].
///
/// # Errors
/// `what` did not come to pass; or `look` failed, which ends the wait at once.
pub async fn eventually<T>(
    what: &str,
    look: impl AsyncFnMut() -> anyhow::Result<Option<T>>,
) -> anyhow::Result<T> {
    within(PATIENCE, what, look).await
}

/// As [`eventually`], for at most `patience`.
///
/// # Errors
/// As [`eventually`].
pub async fn within<T>(
    patience: Duration,
    what: &str,
    mut look: impl AsyncFnMut() -> anyhow::Result<Option<T>>,
) -> anyhow::Result<T> {
    let started = Instant::now();
    let mut pause = Duration::from_millis(2);
    while started.elapsed() < patience {
        if let Some(seen) = look().await.with_context(|| format!("while waiting until {what}"))? {
            return Ok(seen);
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(Duration::from_millis(100));
    }
    anyhow::bail!("waited {patience:?} in vain until {what}")
}
