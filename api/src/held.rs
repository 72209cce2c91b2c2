//! Room for long bodies on their way to readers: so many bytes of them are in this process at once, for one project and for all.
//!
//! Whoever reads a body takes room for it first, and gives it back when the last byte has gone to the transport or the reader has
//! left. A reader that takes nothing is cut off ([`crate::taken`]), so that room comes back.

use crate::error::ApiError;
use axum::body::{Body, Bytes, HttpBody};
use hyper::body::{Frame, SizeHint};
use shared::task::ProjectId;
use std::{
    collections::HashMap,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError, Weak},
    task::{Context, Poll},
    time::Duration,
};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::timeout,
};

/// Longest wait for room.
const PATIENCE: Duration = Duration::from_secs(5);
/// Bytes that one permit stands for.
const UNIT: u64 = 1 << 10;

/// All of this process' room is taken.
#[derive(Debug, thiserror::Error)]
#[error("{0} bytes of answers are on their way to readers, the limit of api.read_bytes_max")]
struct Full(usize);

/// Permits of which each project has as many.
pub(crate) struct Each {
    permits: usize,
    projects: Mutex<HashMap<ProjectId, Weak<Semaphore>>>,
}

/// The room of one process.
pub(crate) struct Room {
    all: Arc<Semaphore>,
    bytes_max: usize,
    project_bytes_max: usize,
    patience: Duration,
    each: Each,
}

/// Room that is taken until this is dropped.
pub(crate) struct Held {
    _all: OwnedSemaphorePermit,
    _own: OwnedSemaphorePermit,
}

impl Each {
    /// So many for each project.
    pub(crate) fn new(permits: usize) -> Self {
        Self { permits, projects: Mutex::default() }
    }

    /// Those of a project; they are forgotten when nobody has or wants one.
    pub(crate) fn of(&self, project: ProjectId) -> Arc<Semaphore> {
        let mut projects = self.projects.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(own) = projects.get(&project).and_then(Weak::upgrade) {
            return own;
        }
        projects.retain(|_, own| own.strong_count() > 0);
        let own = Arc::new(Semaphore::new(self.permits));
        projects.insert(project, Arc::downgrade(&own));
        own
    }
}

impl Room {
    /// Room for so many bytes of all projects and of each one.
    pub(crate) fn new(bytes_max: usize, project_bytes_max: usize) -> Self {
        let all = Arc::new(Semaphore::new(units(bytes_max as u64)));
        let each = Each::new(units(project_bytes_max as u64));
        Self { all, bytes_max, project_bytes_max, patience: PATIENCE, each }
    }

    /// Waits for room for so many bytes; more than there is counts as all of it.
    ///
    /// # Errors
    /// 429 if the project's own readers hold too much for 5 s, 503 if those of all projects do.
    pub(crate) async fn take(&self, project: ProjectId, bytes: u64) -> Result<Held, ApiError> {
        let most = self.project_bytes_max.min(self.bytes_max) as u64;
        let permits = u32::try_from(units(bytes.min(most))).unwrap_or(u32::MAX);
        let take = async |of: Arc<Semaphore>| {
            let taken = timeout(self.patience, of.acquire_many_owned(permits)).await.ok()?;
            Some(taken.expect("the permits are never closed"))
        };
        let limit = self.project_bytes_max;
        let own = take(self.each.of(project)).await.ok_or(ApiError::ReadersSlow { limit })?;
        let full = || ApiError::Unavailable(Arc::new(Full(self.bytes_max)));
        let all = take(self.all.clone()).await.ok_or_else(full)?;
        Ok(Held { _all: all, _own: own })
    }
}

fn units(bytes: u64) -> usize {
    usize::try_from(bytes.div_ceil(UNIT)).unwrap_or(usize::MAX).clamp(1, Semaphore::MAX_PERMITS)
}

/// A body with the room that it takes.
struct Holding {
    body: Body,
    _held: Held,
}

/// Keeps the room until the body is gone.
pub(crate) fn holding(body: impl Into<Body>, held: Option<Held>) -> Body {
    let body = body.into();
    match held {
        Some(held) => Body::new(Holding { body, _held: held }),
        None => body,
    }
}

impl HttpBody for Holding {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt;

    const MB: u64 = 1 << 20;

    #[tokio::test]
    async fn a_project_and_all_of_them_have_their_bounds() {
        let room = Room { patience: Duration::from_millis(1), ..Room::new(8 << 20, 4 << 20) };
        let (a, b, c) = (ProjectId::new(), ProjectId::new(), ProjectId::new());
        let first = room.take(a, 3 * MB).await.expect("room");
        assert!(matches!(room.take(a, 2 * MB).await, Err(ApiError::ReadersSlow { .. })));
        let second = room.take(b, 100 * MB).await.expect("a longer one takes all that a project has");
        assert!(matches!(room.take(c, 2 * MB).await, Err(ApiError::Unavailable(_))));
        let room = Room { patience: PATIENCE, ..room };
        let mut waits = Box::pin(room.take(a, 2 * MB));
        assert!((&mut waits).now_or_never().is_none());
        drop((first, second));
        assert!(waits.await.is_ok());
    }
}
