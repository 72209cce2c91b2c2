//! Group commit: many callers, one round trip. Submits and finishes commit through it.

use std::{future::Future, sync::Arc, time::Duration};
use tokio::sync::{Mutex, mpsc, oneshot};
use tokio::task::JoinSet;

/// How a batcher gathers.
#[derive(Debug, Clone, Copy)]
pub struct Gather {
    /// Most items of one flush.
    pub items_max: usize,
    /// How long a flush may wait for more items while another flush is under way. An idle batcher flushes at once.
    pub linger: Duration,
    /// Flushes under way at once.
    pub lanes: usize,
    /// Items waiting before callers wait too.
    pub backlog_max: usize,
}

impl Default for Gather {
    fn default() -> Self {
        Self { items_max: 128, linger: Duration::from_millis(2), lanes: 2, backlog_max: 4096 }
    }
}

/// The batcher has been shut down, or a flush was lost with its task.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("shutting down")]
pub struct Closed;

/// Gathers items of type `T` and answers each with an `R`. Cheap to clone; when the last clone is gone, what is gathered is
/// flushed and the lanes end.
pub struct Batcher<T, R> {
    sender: mpsc::Sender<(T, oneshot::Sender<R>)>,
}

impl<T, R> Clone for Batcher<T, R> {
    fn clone(&self) -> Self {
        Self { sender: self.sender.clone() }
    }
}

impl<T: Send + 'static, R: Send + 'static> Batcher<T, R> {
    /// `flush` gets 1 to `items_max` items and gives one answer per item, in order. Its lanes run on `tasks`, so that the
    /// owner can wait for the last flush.
    pub fn start<F, Fut>(tasks: &mut JoinSet<()>, gather: Gather, flush: F) -> Self
    where
        F: Fn(Vec<T>) -> Fut + Clone + Send + 'static,
        Fut: Future<Output = Vec<R>> + Send + 'static,
    {
        let (sender, receiver) = mpsc::channel(gather.backlog_max);
        let receiver = Arc::new(Mutex::new(receiver));
        for _ in 0..gather.lanes.max(1) {
            tasks.spawn(lane(receiver.clone(), gather, flush.clone()));
        }
        Self { sender }
    }

    /// Hands one item in and waits for its answer.
    ///
    /// # Errors
    /// [`Closed`] if the batcher is gone.
    ///
    /// # Cancel safety
    /// Once handed in, the item is flushed even if the caller leaves.
    pub async fn call(&self, item: T) -> Result<R, Closed> {
        let (answer, wait) = oneshot::channel();
        self.sender.send((item, answer)).await.map_err(|_| Closed)?;
        wait.await.map_err(|_| Closed)
    }
}

type Waiting<T, R> = Arc<Mutex<mpsc::Receiver<(T, oneshot::Sender<R>)>>>;

async fn lane<T, R, F, Fut>(waiting: Waiting<T, R>, gather: Gather, flush: F)
where
    F: Fn(Vec<T>) -> Fut,
    Fut: Future<Output = Vec<R>>,
{
    let mut idle = true;
    loop {
        let mut gathered = Vec::new();
        {
            // The lane that holds the lock gathers; the others flush or wait for their turn.
            let mut receiver = waiting.lock().await;
            if receiver.recv_many(&mut gathered, gather.items_max).await == 0 {
                return;
            }
            // A lane that has just flushed is under load: a little patience makes the next commit worth more.
            if !idle && gathered.len() < gather.items_max {
                let more = async {
                    loop {
                        let room = gather.items_max - gathered.len();
                        if room == 0 || receiver.recv_many(&mut gathered, room).await == 0 {
                            return;
                        }
                    }
                };
                // Out of patience: flush what there is.
                let _ = tokio::time::timeout(gather.linger, more).await;
            }
            idle = gathered.len() == 1 && receiver.is_empty();
        }
        let (items, answers): (Vec<T>, Vec<_>) = gathered.into_iter().unzip();
        for (answer, reply) in flush(items).await.into_iter().zip(answers) {
            // A caller that has left needs no answer.
            let _ = reply.send(answer);
        }
    }
}
