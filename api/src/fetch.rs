//! Tasks and their answers from the backends, within a deadline.

use crate::{
    error::ApiError,
    parse,
    state::App,
    view::{Beside, TaskView, json},
};
use bytes::Bytes;
use shared::{
    store,
    task::{Answer, Task, TaskId},
};
use std::time::Duration;
use tokio::time::{sleep, timeout};

/// Longest time for one question to a backend.
pub(crate) const DEADLINE: Duration = Duration::from_millis(2_500);

/// Longest time for a large body on its way to or from the object store.
pub(crate) const DEADLINE_BODY: Duration = Duration::from_secs(30);

/// Longest time for a question that may read or write much. A database that says nothing at all is not waited for: see
/// [`patiently`].
const DEADLINE_LONG: Duration = Duration::from_secs(10);

/// Between two looks whether the database is there.
const LOOK: Duration = Duration::from_millis(250);

/// Waits for much work of the database, as long as it answers other questions meanwhile.
///
/// # Errors
/// The database is away, or too slow.
pub(crate) async fn patiently<T>(
    app: &App,
    work: impl Future<Output = store::Result<T>>,
) -> Result<T, ApiError> {
    let silence = async {
        loop {
            sleep(LOOK).await;
            match timeout(DEADLINE - LOOK, app.backends.store.now()).await {
                Ok(Ok(_)) => {}
                Ok(Err(error)) => return error,
                Err(_) => return store::Error::silent(),
            }
        }
    };
    tokio::select! {
        done = timeout(DEADLINE_LONG, work) => Ok(done??),
        failed = silence => Err(failed.into()),
    }
}

/// The answer of a task with its bytes, if it has one; `kept` if it was read along with the task.
///
/// # Errors
/// The database or the object store is away.
pub(crate) async fn answer(
    app: &App,
    task: &Task,
    kept: Option<Answer>,
) -> Result<Option<(Answer, Bytes)>, ApiError> {
    let kept = match kept {
        None if task.answer_status.is_some() => {
            timeout(DEADLINE, app.backends.store.answer(app.project, task.id)).await??
        }
        kept => kept,
    };
    let Some(answer) = kept else { return Ok(None) };
    let body = timeout(DEADLINE_BODY, app.backends.objects.open(&answer.body)).await??;
    Ok(Some((answer, body)))
}

/// A task, if the caller's project has it.
///
/// # Errors
/// 404, or the database is away.
pub(crate) async fn find(app: &App, id: TaskId) -> Result<Task, ApiError> {
    let found = timeout(DEADLINE, app.backends.store.get(app.project, id)).await??;
    found.ok_or_else(|| parse::no_task(id))
}

/// A task with its kept answer, if the caller's project has it, in one look.
///
/// # Errors
/// The database is away.
pub(crate) async fn whole(app: &App, id: TaskId) -> Result<Option<(Task, Option<Answer>)>, ApiError> {
    Ok(timeout(DEADLINE, app.backends.store.whole(app.project, id)).await??)
}

/// A task with its answer, as JSON.
///
/// # Errors
/// The database or the object store is away.
pub(crate) async fn in_full(app: &App, task: &Task, kept: Option<Answer>) -> Result<Vec<u8>, ApiError> {
    let beside = Beside { answer: answer(app, task, kept).await?, ..Beside::default() };
    Ok(json(&TaskView::new(task, &beside)))
}
