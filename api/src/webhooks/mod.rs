//! Who is told of ends by webhook: endpoints in the form that OpenAI's clients drive, and what became of deliveries.

pub(crate) mod deliveries;
pub(crate) mod endpoints;
pub(crate) mod secret;
mod view;

use crate::{error::ApiError, few::Few};
use shared::webhook::EventType;

/// Types that a caller may list; there are fewer.
pub(crate) const TYPES_MAX: usize = 32;

/// Types of events, each once.
///
/// # Errors
/// One is unknown, or there is none.
pub(crate) fn event_types(param: &str, names: &Few<String, TYPES_MAX>) -> Result<Vec<EventType>, ApiError> {
    let mut types = Vec::new();
    for name in &names.0 {
        types.push(event_type(param, name)?);
    }
    types.sort();
    types.dedup();
    if types.is_empty() {
        return Err(ApiError::invalid(param, format!("'{param}' must name at least one type of event.")));
    }
    Ok(types)
}

fn event_type(param: &str, name: &str) -> Result<EventType, ApiError> {
    name.parse().map_err(|_| {
        let known = EventType::ALL.map(EventType::as_str).join(", ");
        ApiError::invalid(param, format!("'{param}' must be of {known}."))
    })
}
