//! Connections for the statements of a task's way.
//!
//! A pool asks every connection that comes back whether it is well, because it may have been left in the middle of an answer:
//! a round trip per statement, as much work for both sides as a short statement itself. Here a connection comes back only after
//! a whole answer, and one that was left in any other way is closed.

use super::{ACQUIRE, RESTED};
use crate::store::{Error, Result};
use sqlx::{Connection, PgConnection, postgres::PgConnectOptions};
use std::{
    ops::{Deref, DerefMut},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Instant,
};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::timeout,
};

/// Up to so many connections, opened when they are needed. Cheap to clone.
#[derive(Clone)]
pub(super) struct Connections {
    options: Arc<PgConnectOptions>,
    free: Arc<Mutex<Vec<Rested>>>,
    permits: Arc<Semaphore>,
}

/// A connection that waits for work, the one used last on top.
struct Rested {
    connection: PgConnection,
    since: Instant,
}

/// A connection at work. Dropping it closes it: see [`Lent::back`].
pub(super) struct Lent {
    connection: PgConnection,
    free: Arc<Mutex<Vec<Rested>>>,
    _permit: OwnedSemaphorePermit,
}

impl Connections {
    pub(super) fn new(options: PgConnectOptions, most: u32) -> Self {
        Self {
            options: options.into(),
            free: Arc::default(),
            permits: Arc::new(Semaphore::new(most.max(1) as usize)),
        }
    }

    /// A connection, within 2 s.
    ///
    /// # Errors
    /// [`Error::Unavailable`]: all are at work, or the server does not answer.
    pub(super) async fn lend(&self) -> Result<Lent> {
        timeout(ACQUIRE, self.find()).await.unwrap_or(Err(Error::Unavailable(sqlx::Error::PoolTimedOut)))
    }

    async fn find(&self) -> Result<Lent> {
        let permit = self.permits.clone().acquire_owned().await.expect("the permits are never closed");
        let rested = lock(&self.free).pop();
        let connection = match rested {
            Some(rested) => match rested.well().await {
                Some(connection) => Some(connection),
                None => {
                    // Those below it have rested for longer.
                    lock(&self.free).clear();
                    None
                }
            },
            None => None,
        };
        let connection = match connection {
            Some(connection) => connection,
            None => PgConnection::connect_with(&self.options).await?,
        };
        Ok(Lent { connection, free: self.free.clone(), _permit: permit })
    }
}

impl Rested {
    /// The connection, if it is well.
    async fn well(mut self) -> Option<PgConnection> {
        let asked = self.since.elapsed() > RESTED;
        (!asked || self.connection.ping().await.is_ok()).then_some(self.connection)
    }
}

fn lock(free: &Mutex<Vec<Rested>>) -> MutexGuard<'_, Vec<Rested>> {
    free.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Lent {
    /// Ends the work with what came of it. The connection goes back unless the server was lost on the way: then the others
    /// that wait have lost it too.
    pub(super) fn back<T>(self, came: Result<T>) -> Result<T> {
        let mut free = lock(&self.free);
        match came {
            Err(Error::Unavailable(_)) => free.clear(),
            _ => free.push(Rested { connection: self.connection, since: Instant::now() }),
        }
        came
    }
}

impl Deref for Lent {
    type Target = PgConnection;

    fn deref(&self) -> &PgConnection {
        &self.connection
    }
}

impl DerefMut for Lent {
    fn deref_mut(&mut self) -> &mut PgConnection {
        &mut self.connection
    }
}
