//! Large bodies: what is longer than the inline limit is kept in an object store, a folder or S3, and the row holds its key.

use crate::task::{Payload, ProjectId, TaskId};
use bytes::Bytes;
use object_store::{ObjectStore, ObjectStoreExt, PutPayload, path::Path};
use std::{ops::Range, sync::Arc};

/// The object store failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Longer than the database takes and no object store is configured.
    #[error("the body has {len} bytes; without an object store (objects.url) at most {limit} are taken")]
    TooLarge {
        /// Bytes of the body.
        len: usize,
        /// Bytes taken.
        limit: usize,
    },
    /// The object is not there.
    #[error("the object is gone")]
    Missing,
    /// Not reachable, or out of space.
    #[error("the object store is unavailable")]
    Unavailable(#[source] object_store::Error),
}

/// Bytes that a database row may hold when there is no object store.
const ROW_BYTES_MAX: usize = 16 << 20;

/// Where large bodies are kept. Cheap to clone.
#[derive(Clone)]
pub struct Objects {
    store: Option<Arc<dyn ObjectStore>>,
    inline_bytes_max: usize,
}

/// Which body of a task an object is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// What the client sent.
    Request,
    /// What this attempt's upstream answered.
    Answer {
        /// The attempt.
        attempt: u32,
    },
}

impl Objects {
    /// Bodies over `inline_bytes_max` go to `store`; without one everything stays inline, up to 16 MiB.
    #[must_use]
    pub fn new(store: Option<Arc<dyn ObjectStore>>, inline_bytes_max: usize) -> Self {
        Self { store, inline_bytes_max }
    }

    /// Keeps a body: inline if it is short, else as an object that is durable when this returns.
    ///
    /// # Errors
    /// [`Error::TooLarge`], [`Error::Unavailable`].
    pub async fn keep(
        &self,
        project: ProjectId,
        task: TaskId,
        part: Part,
        body: Bytes,
    ) -> Result<Payload, Error> {
        let len = body.len();
        if len <= self.inline_bytes_max {
            return Ok(Payload::Inline(body));
        }
        let Some(store) = &self.store else {
            let limit = ROW_BYTES_MAX;
            return if len <= limit {
                Ok(Payload::Inline(body))
            } else {
                Err(Error::TooLarge { len, limit })
            };
        };
        let name = match part {
            Part::Request => "request".to_owned(),
            Part::Answer { attempt } => format!("answer-{attempt}"),
        };
        let key = format!("{project}/{task}/{name}");
        store
            .put(&Path::from(key.as_str()), PutPayload::from_bytes(body))
            .await
            .map_err(Error::Unavailable)?;
        Ok(Payload::Object { key, len: len as u64 })
    }

    /// The bytes of a body.
    ///
    /// # Errors
    /// [`Error::Missing`], [`Error::Unavailable`].
    pub async fn open(&self, payload: &Payload) -> Result<Bytes, Error> {
        let key = match payload {
            Payload::Inline(bytes) => return Ok(bytes.clone()),
            Payload::Object { key, .. } => key,
        };
        let store = self.store.as_ref().ok_or(Error::Missing)?;
        match store.get(&Path::from(key.as_str())).await {
            Ok(found) => found.bytes().await.map_err(Error::Unavailable),
            Err(object_store::Error::NotFound { .. }) => Err(Error::Missing),
            Err(error) => Err(Error::Unavailable(error)),
        }
    }

    /// A part of an object.
    ///
    /// # Errors
    /// [`Error::Missing`], [`Error::Unavailable`].
    pub async fn piece(&self, key: &str, range: Range<u64>) -> Result<Bytes, Error> {
        let store = self.store.as_ref().ok_or(Error::Missing)?;
        match store.get_range(&Path::from(key), range).await {
            Ok(piece) => Ok(piece),
            Err(object_store::Error::NotFound { .. }) => Err(Error::Missing),
            Err(error) => Err(Error::Unavailable(error)),
        }
    }

    /// Removes objects; one that is already gone is fine.
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    pub async fn remove(&self, keys: &[String]) -> Result<(), Error> {
        let Some(store) = &self.store else { return Ok(()) };
        for key in keys {
            match store.delete(&Path::from(key.as_str())).await {
                Ok(()) | Err(object_store::Error::NotFound { .. }) => {}
                Err(error) => return Err(Error::Unavailable(error)),
            }
        }
        Ok(())
    }
}
