//! Judges request bodies by the input rules: short ones at once, long ones on threads of their own, a few at a time.

use crate::{error::ApiError, state::App};
use bytes::Bytes;
use shared::input::{self, Refusal};
use std::{
    panic::resume_unwind,
    sync::{Arc, LazyLock},
    thread::available_parallelism,
};
use tokio::{sync::Semaphore, task::spawn_blocking};

/// Bytes up to which judging takes less time than it takes to have another thread do it.
const AT_ONCE_MAX: usize = 16 << 10;

/// As many long bodies as there are processors are judged at once: more would take as long, and more memory.
static JUDGES: LazyLock<Arc<Semaphore>> =
    LazyLock::new(|| Arc::new(Semaphore::new(available_parallelism().map_or(1, usize::from))));

/// A body that is to be judged.
pub(crate) struct Judged {
    /// The model named in it.
    pub(crate) model: Arc<str>,
    /// The body.
    pub(crate) body: Bytes,
}

/// The names of the rules whose moderation model has yet to pass a body, or why it is refused.
pub(crate) type Verdict = Result<Vec<String>, Refusal>;

/// Judges bodies: one verdict per body, in order.
///
/// # Errors
/// The process ends.
///
/// # Cancel safety
/// Judging goes on, and nobody hears of it.
pub(crate) async fn judge(app: &App, endpoint: &str, bodies: Vec<Judged>) -> Result<Vec<Verdict>, ApiError> {
    let project = app.visitor.caller.project_name.clone();
    if !input::applies(&app.config.input_rules, &project, endpoint) {
        return Ok(bodies.iter().map(|_| Ok(Vec::new())).collect());
    }
    let (config, endpoint) = (app.config.clone(), endpoint.to_owned());
    let bytes: usize = bodies.iter().map(|judged| judged.body.len()).sum();
    let work = move || {
        let judge = |Judged { model, body }: &Judged| {
            input::check(&config.input_rules, &project, &endpoint, model, body)
        };
        bodies.iter().map(judge).collect()
    };
    if bytes <= AT_ONCE_MAX {
        return Ok(work());
    }
    // Whoever leaves does not make room for another one before the work is done.
    let permit = JUDGES.clone().acquire_owned().await.expect("nobody closes it");
    let judging = spawn_blocking(move || {
        let _permit = permit;
        work()
    });
    match judging.await {
        Ok(verdicts) => Ok(verdicts),
        Err(error) => match error.try_into_panic() {
            Ok(panic) => resume_unwind(panic),
            Err(ended) => Err(ApiError::Unavailable(Arc::new(ended))),
        },
    }
}
