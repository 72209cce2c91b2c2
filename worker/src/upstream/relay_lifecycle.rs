//! An answer that is kept as it comes, byte for byte, whatever its type.

use super::{Gathered, Reply, head, piece};
use crate::classify::Failure;
use shared::config;

/// Reads the whole body, within the limits of size and silence.
pub(super) async fn read(mut response: reqwest::Response, limits: &config::Worker) -> Result<Reply, Failure> {
    let mut gathered = Gathered::default();
    let mut limit = limits.first_byte_timeout;
    while let Some(piece) = piece(&mut response, limit).await? {
        gathered.add(piece, limits.answer_bytes_max)?;
        limit = limits.idle_timeout;
    }
    Ok(Reply { body: gathered.into_bytes(), ..head(&response) })
}
