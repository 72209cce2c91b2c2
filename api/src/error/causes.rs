//! What other rooms' errors are to clients.

use super::ApiError;
use shared::{batcher::Closed, input, objects, store};
use std::sync::Arc;

impl From<store::Error> for ApiError {
    fn from(error: store::Error) -> Self {
        Self::from(Arc::new(error))
    }
}

impl From<Arc<store::Error>> for ApiError {
    fn from(error: Arc<store::Error>) -> Self {
        match *error {
            store::Error::Unavailable(_) => Self::Unavailable(error),
            store::Error::Full(_) => Self::Full(error),
            _ => Self::Internal(error),
        }
    }
}

impl From<objects::Error> for ApiError {
    fn from(error: objects::Error) -> Self {
        match error {
            objects::Error::TooLarge { limit, .. } => Self::TooLarge { limit },
            objects::Error::Missing => {
                Self::Gone { message: "the body is gone from the object store".into(), code: "body_missing" }
            }
            objects::Error::Unavailable(_) => Self::Unavailable(Arc::new(error)),
        }
    }
}

impl From<input::Refusal> for ApiError {
    fn from(refusal: input::Refusal) -> Self {
        Self::Invalid { message: refusal.message, code: "input_refused", param: refusal.field }
    }
}

impl From<Closed> for ApiError {
    fn from(closed: Closed) -> Self {
        Self::Unavailable(Arc::new(closed))
    }
}

impl From<tokio::time::error::Elapsed> for ApiError {
    fn from(elapsed: tokio::time::error::Elapsed) -> Self {
        Self::Unavailable(Arc::new(elapsed))
    }
}
