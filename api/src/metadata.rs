//! The pairs that clients may give to tasks and batches. Pure.

use crate::{error::ApiError, few::Pairs};
use std::sync::Arc;

/// Pairs at most.
pub(crate) const METADATA_MAX: usize = 16;

/// A client's pairs.
pub(crate) type Metadata = Pairs<METADATA_MAX>;

/// Metadata as JSON.
///
/// # Errors
/// 400 that names the pair and its limit.
pub(crate) fn check(Pairs(pairs): &Metadata) -> Result<Arc<str>, ApiError> {
    for (key, value) in pairs {
        let fault = if key.is_empty() || key.chars().count() > 64 {
            "keys must have 1 to 64 characters"
        } else if value.chars().count() > 512 {
            "values may have at most 512 characters"
        } else if key.contains('\0') || value.contains('\0') {
            "U+0000 cannot be stored"
        } else {
            continue;
        };
        let param: String = format!("metadata.{key}").chars().take(80).collect();
        return Err(ApiError::invalid(param, format!("Invalid 'metadata': {fault}.")));
    }
    Ok(serde_json::to_string(pairs).expect("pairs of strings are JSON").into())
}
