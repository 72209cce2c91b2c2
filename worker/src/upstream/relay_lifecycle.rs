//! An answer that is kept as it comes, byte for byte, whatever its type.

use super::{
    Reply,
    body::{Body, Gathered},
    silence,
};
use crate::classify::Failure;
use shared::task::ErrorCode;
use std::time::Duration;
use tokio::time::Instant;

/// How long a whole answer waits for an orderly end that does not come.
const GRACE: Duration = Duration::from_secs(3);
/// How long and how much of what a refusal says is waited for.
const REFUSAL: Duration = Duration::from_secs(5);
const REFUSAL_BYTES_MAX: usize = 1 << 20;

/// Reads the whole body, within the limits of size and silence. One that breaks off, falls silent, or goes on with nothing but signs of life
/// is over if `is_whole` says so of what has come.
pub(super) async fn read(mut body: Body<'_>, is_whole: impl Fn(&[u8]) -> bool) -> Result<Reply, Failure> {
    let mut gathered = Gathered::default();
    let head = body.head();
    let mut deadline = Instant::now() + body.limits.first_byte_timeout;
    // When to ask whether it is whole: once after each piece that says something.
    let mut ask = None;
    loop {
        let until = ask.map_or(deadline, |ask: Instant| ask.min(deadline));
        let failure = match body.piece(until).await {
            Ok(None) => break,
            Ok(Some(piece)) => {
                let says_something = !piece.trim_ascii().is_empty() && !piece.starts_with(b":");
                gathered.add(piece);
                if says_something {
                    deadline = Instant::now() + body.limits.idle_timeout;
                    ask = Some(Instant::now() + GRACE);
                }
                if Instant::now() < until || says_something {
                    continue;
                }
                silence("the upstream fell silent inside its answer")
            }
            Err(failure) => failure,
        };
        if is_whole(gathered.bytes()) {
            break;
        }
        if failure.code != ErrorCode::UpstreamTimeout || Instant::now() >= deadline {
            return Err(failure);
        }
        ask = None;
    }
    Ok(Reply { body: gathered.into_bytes(), ..head })
}

/// Reads what a refusal says, as far as it comes: the status has said what matters.
pub(super) async fn read_refusal(mut body: Body<'_>) -> Reply {
    let mut gathered = Gathered::default();
    let deadline = Instant::now() + REFUSAL.min(body.limits.first_byte_timeout);
    while gathered.bytes().len() < REFUSAL_BYTES_MAX
        && let Ok(Some(piece)) = body.piece(deadline).await
    {
        gathered.add(piece);
    }
    Reply { body: gathered.into_bytes(), ..body.head() }
}
