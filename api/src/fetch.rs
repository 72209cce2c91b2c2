//! Tasks and their answers from the backends, within a deadline.

use crate::{
    error::ApiError,
    held::{Held, holding},
    parse,
    state::App,
    view::{Beside, Shown, TaskView, json},
};
use axum::body::Body;
use futures_util::stream;
use shared::{
    store::{self, Kept, SHORT_BYTES},
    task::{Payload, Task, TaskId},
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

/// Bytes of an object that are read at once.
const PIECE: u64 = 1 << 20;

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

/// What is kept of a task's answer, if it has one: `kept` if it was read along with the task.
///
/// # Errors
/// The database is away.
pub(crate) async fn kept(app: &App, task: &Task, kept: Option<Kept>) -> Result<Option<Kept>, ApiError> {
    match kept {
        None if task.answer_status.is_some() => Ok(whole(app, task.id).await?.and_then(|(_, kept)| kept)),
        kept => Ok(kept),
    }
}

/// An answer with its bytes, and the room that they take, and something that is made of them as well.
///
/// # Errors
/// The database or the object store is away, or there is no room.
pub(crate) async fn answer(app: &App, id: TaskId, kept: Kept) -> Result<(Shown, Option<Held>), ApiError> {
    let held = room(app, kept.len).await?;
    Ok((short(app, id, kept).await?, held))
}

/// Room for so many bytes and for what is made of them as well; few need none.
///
/// # Errors
/// There is none.
pub(crate) async fn room(app: &App, bytes: u64) -> Result<Option<Held>, ApiError> {
    match bytes > u64::from(SHORT_BYTES) {
        true => Ok(Some(app.room.take(app.project, bytes.saturating_mul(2)).await?)),
        false => Ok(None),
    }
}

/// An answer with its bytes, of which the caller knows that they are few, or has room for them.
///
/// # Errors
/// The database or the object store is away.
pub(crate) async fn short(app: &App, id: TaskId, kept: Kept) -> Result<Shown, ApiError> {
    let payload = match &kept.body {
        Some(payload) => payload.clone(),
        None => {
            let read = timeout(DEADLINE_BODY, app.backends.store.answer(app.project, id)).await??;
            read.ok_or_else(|| parse::no_task(id))?.body
        }
    };
    let body = timeout(DEADLINE_BODY, app.backends.objects.open(&payload)).await??;
    Ok(Shown { kept, body: Some(body) })
}

/// The bytes of an answer, and nothing around them: of an object a piece at a time.
///
/// # Errors
/// The database or the object store is away, or there is no room.
pub(crate) async fn verbatim(app: &App, id: TaskId, kept: Kept) -> Result<Body, ApiError> {
    let Some(Payload::Object { key, len }) = &kept.body else {
        let (shown, held) = answer(app, id, kept).await?;
        return Ok(holding(shown.body.unwrap_or_default(), held));
    };
    let held = app.room.take(app.project, PIECE.min(*len)).await?;
    let (app, key, len) = (app.clone(), key.clone(), *len);
    let piece = async move |from: u64| {
        let range = from..(from + PIECE).min(len);
        Ok::<_, ApiError>(timeout(DEADLINE_BODY, app.backends.objects.piece(&key, range)).await??)
    };
    // The first one tells whether there is anything to answer with.
    let first = piece(0).await?;
    let rest = stream::try_unfold((Some(first), 0, piece), move |(next, from, piece)| async move {
        if from >= len {
            return Ok::<_, ApiError>(None);
        }
        let bytes = match next {
            Some(first) => first,
            None => piece(from).await?,
        };
        let to = from + PIECE;
        Ok(Some((bytes, (None, to, piece))))
    });
    Ok(holding(Body::from_stream(rest), Some(held)))
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
pub(crate) async fn whole(app: &App, id: TaskId) -> Result<Option<(Task, Option<Kept>)>, ApiError> {
    Ok(timeout(DEADLINE, app.backends.store.whole(app.project, id)).await??)
}

/// A task with its answer, as JSON.
///
/// # Errors
/// The database or the object store is away, or there is no room.
pub(crate) async fn in_full(app: &App, task: &Task, known: Option<Kept>) -> Result<Body, ApiError> {
    let (answer, held) = match kept(app, task, known).await? {
        Some(kept) => answer(app, task.id, kept).await.map(|(shown, held)| (Some(shown), held))?,
        None => (None, None),
    };
    let beside = Beside { answer, ..Beside::default() };
    Ok(holding(json(&TaskView::new(task, &beside)), held))
}
