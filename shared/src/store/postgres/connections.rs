//! Connections for the statements of a task's way.
//!
//! A pool asks every connection that comes back whether it is well, because it may have been left in the middle of an answer:
//! a round trip per statement, as much work for both sides as a short statement itself. Here a connection that comes back after
//! a whole answer is not asked. One that was left before is set aside, and counts as at work until its statement is over: Postgres
//! goes on with it, and a caller without patience must not get a second server process.

use super::{ACQUIRE, RESTED};
use crate::store::{Error, Result, codec::is_bad_data};
use sqlx::{Connection, PgConnection, postgres::PgConnectOptions};
use std::{
    collections::VecDeque,
    mem,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::timeout,
};

/// Longest wait for a sign of life.
const WELL: Duration = Duration::from_millis(500);
/// A connection that was left for longer than any statement may take has lost its server.
const LOST: Duration = Duration::from_secs(35);
/// A connection is not used for longer: what it holds on the server's side goes with it.
const AGE_MAX: Duration = Duration::from_secs(1_800);

/// Up to so many connections, opened when they are needed. Cheap to clone.
#[derive(Clone)]
pub(super) struct Connections {
    options: Arc<PgConnectOptions>,
    idle: Arc<Mutex<Idle>>,
    permits: Arc<Semaphore>,
}

/// Connections that nobody uses.
#[derive(Default)]
struct Idle {
    /// After a whole answer, the one used last at the end.
    rested: Vec<Open>,
    /// In the middle of an answer, each still with its permit.
    left: VecDeque<(Open, OwnedSemaphorePermit)>,
}

struct Open {
    connection: PgConnection,
    opened: Instant,
    used: Instant,
}

/// A connection at work: see [`Lent::back`].
pub(super) struct Lent {
    // Both are there until the connection comes back.
    work: Option<(Open, OwnedSemaphorePermit)>,
    idle: Arc<Mutex<Idle>>,
}

impl Connections {
    pub(super) fn new(options: PgConnectOptions, most: u32) -> Self {
        let permits = Arc::new(Semaphore::new(most.max(1) as usize));
        Self { options: options.into(), idle: Arc::default(), permits }
    }

    /// A connection, within 2 s.
    ///
    /// # Errors
    /// [`Error::Unavailable`]: all are at work, or the server does not answer.
    pub(super) async fn lend(&self) -> Result<Lent> {
        timeout(ACQUIRE, self.find()).await.unwrap_or(Err(Error::Unavailable(sqlx::Error::PoolTimedOut)))
    }

    async fn find(&self) -> Result<Lent> {
        let (rested, permit) = loop {
            // Looked at now and then while all are at work.
            let free = timeout(WELL / 5, self.permits.clone().acquire_owned());
            match free.await {
                Ok(permit) => break (self.rested().await, permit.expect("the permits are never closed")),
                Err(_) => {
                    if let Some((open, permit)) = self.over().await {
                        break (Some(open), permit);
                    }
                }
            }
        };
        let open = match rested {
            Some(open) => open,
            None => {
                let connection = PgConnection::connect_with(&self.options).await?;
                Open { connection, opened: Instant::now(), used: Instant::now() }
            }
        };
        Ok(Lent { work: Some((open, permit)), idle: self.idle.clone() })
    }

    /// A connection that has rested and is well.
    async fn rested(&self) -> Option<Open> {
        loop {
            let mut open = lock(&self.idle).rested.pop()?;
            if open.opened.elapsed() > AGE_MAX {
                continue;
            }
            if open.used.elapsed() <= RESTED || open.is_well().await {
                return Some(open);
            }
            // Those below it have rested for longer.
            lock(&self.idle).rested.clear();
        }
    }

    /// A connection whose statement is over although its caller has left.
    async fn over(&self) -> Option<(Open, OwnedSemaphorePermit)> {
        let (mut open, permit) = lock(&self.idle).left.pop_front()?;
        if open.is_well().await {
            return Some((open, permit));
        }
        if open.used.elapsed() < LOST {
            lock(&self.idle).left.push_back((open, permit));
        }
        None
    }
}

fn lock(idle: &Mutex<Idle>) -> MutexGuard<'_, Idle> {
    idle.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Open {
    /// Whether the server answers, behind whatever it has still to say.
    async fn is_well(&mut self) -> bool {
        matches!(timeout(WELL, self.connection.ping()).await, Ok(Ok(())))
    }
}

impl Lent {
    /// For one statement after the other.
    pub(super) fn connection(&mut self) -> &mut PgConnection {
        &mut self.work.as_mut().expect("it has not come back").0.connection
    }

    /// Ends the work with what came of it. The connection can be used again if that was an answer; if the server was lost on
    /// the way, the others that rest have lost it too.
    pub(super) fn back<T>(mut self, came: Result<T>) -> Result<T> {
        let Some((mut open, _permit)) = self.work.take() else { return came };
        open.used = Instant::now();
        let mut idle = lock(&self.idle);
        match &came {
            Err(Error::Unavailable(error)) if is_lost(error) => drop(mem::take(&mut idle.rested)),
            // A statement that fails by itself may do so for as long as it stays prepared.
            Err(error @ Error::Broken(_)) if !is_bad_data(error) => {}
            _ => idle.rested.push(open),
        }
        came
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        if let Some((mut open, permit)) = self.work.take() {
            open.used = Instant::now();
            lock(&self.idle).left.push_back((open, permit));
        }
    }
}

/// Whether the wire or the server is gone, and not just this statement.
fn is_lost(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Database(cause) => {
            let code = cause.code().unwrap_or_default();
            code.starts_with("08") || code.starts_with("57P") || code == "25006"
        }
        _ => true,
    }
}
