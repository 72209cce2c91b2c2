//! Parts of one process that stop one after the other: each room, when it leaves, tells the next.
//!
//! So the API stops accepting before the worker stops working, and what the worker needs stays until the worker is done. A
//! room that leaves without being asked to ends all of them.

use std::{fmt, future::Future, mem};
use tokio::task::{JoinError, JoinSet};
use tokio_util::sync::CancellationToken;

/// The rooms of a process, in the order in which they stop.
#[derive(Default)]
pub struct Rooms {
    set: JoinSet<Result<(), String>>,
    first: CancellationToken,
    last: CancellationToken,
}

impl Rooms {
    /// No rooms yet.
    #[must_use]
    pub fn new() -> Self {
        let first = CancellationToken::new();
        Self { set: JoinSet::new(), last: first.clone(), first }
    }

    /// Opens a room that is told to stop once the one opened before it has left.
    pub fn open<F, E>(&mut self, name: &'static str, room: impl FnOnce(CancellationToken) -> F)
    where
        F: Future<Output = Result<(), E>> + Send + 'static,
        E: fmt::Display + 'static,
    {
        let next = CancellationToken::new();
        let stop = mem::replace(&mut self.last, next.clone());
        let room = room(stop.clone());
        self.set.spawn(async move {
            // Dropped however the room leaves, a panic included.
            let _tells_the_next = next.drop_guard();
            let left = room.await.map_err(|error| format!("{name}: {error:#}"));
            match left {
                Ok(()) if !stop.is_cancelled() => Err(format!("{name} ended without being asked to")),
                left => left,
            }
        });
    }

    /// Waits for `stop` or for the first room that leaves, then for all of them.
    ///
    /// # Errors
    /// What made the first of the failed rooms leave.
    pub async fn run(mut self, stop: CancellationToken) -> Result<(), String> {
        let early = stop.run_until_cancelled(self.set.join_next()).await.flatten();
        self.first.cancel();
        let mut outcome = early.map_or(Ok(()), flat);
        while let Some(left) = self.set.join_next().await {
            outcome = outcome.and(flat(left));
        }
        outcome
    }
}

fn flat(left: Result<Result<(), String>, JoinError>) -> Result<(), String> {
    left.unwrap_or_else(|error| Err(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{
        convert::Infallible,
        sync::{Arc, Mutex},
    };

    #[tokio::test]
    async fn rooms_stop_in_the_order_of_opening_and_a_failure_ends_all() {
        let order = Arc::new(Mutex::new(Vec::new()));
        let mut rooms = Rooms::new();
        for name in ["api", "worker"] {
            let order = order.clone();
            rooms.open(name, |stop| async move {
                stop.cancelled().await;
                order.lock().expect("no panic before").push(name);
                Ok::<_, Infallible>(())
            });
        }
        rooms.open("simulator", |_| async { Err("broke") });
        assert_eq!(rooms.run(CancellationToken::new()).await, Err("simulator: broke".to_owned()));
        assert_eq!(*order.lock().expect("no panic before"), ["api", "worker"]);
    }
}
