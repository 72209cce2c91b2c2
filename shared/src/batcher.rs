//! Group commit: many callers, one round trip. Submits and finishes commit through it.

use std::{future::Future, sync::Arc, time::Duration};
use tokio::{
    sync::{Mutex, mpsc, oneshot, watch},
    task::JoinSet,
    time::sleep,
};

/// How a batcher gathers.
#[derive(Debug, Clone, Copy)]
pub struct Gather {
    /// Most items of one flush.
    pub items_max: usize,
    /// How long gathered items wait for a flush that is under way, and so for more of their kind: long enough for any healthy
    /// commit, short enough for one that hangs. An idle batcher flushes at once.
    pub linger: Duration,
    /// Flushes under way at once, when each is full or the one before it hangs.
    pub lanes: usize,
    /// Items waiting before callers wait too.
    pub backlog_max: usize,
    /// Whether an item is flushed although its caller left before the flush began.
    pub heirless: bool,
}

impl Default for Gather {
    fn default() -> Self {
        Self {
            items_max: 128,
            linger: Duration::from_millis(10),
            lanes: 4,
            backlog_max: 4096,
            heirless: true,
        }
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
        let flushing = Flushing(Arc::new(watch::Sender::new(0)));
        for _ in 0..gather.lanes.max(1) {
            tasks.spawn(lane(receiver.clone(), flushing.clone(), gather, flush.clone()));
        }
        Self { sender }
    }

    /// Hands one item in and waits for its answer.
    ///
    /// # Errors
    /// [`Closed`] if the batcher is gone.
    ///
    /// # Cancel safety
    /// Once handed in, the item is flushed even if the caller leaves, unless the batcher drops such items: then the caller
    /// who leaves before the flush takes its item along.
    pub async fn call(&self, item: T) -> Result<R, Closed> {
        let (answer, wait) = oneshot::channel();
        self.sender.send((item, answer)).await.map_err(|_| Closed)?;
        wait.await.map_err(|_| Closed)
    }
}

type Waiting<T, R> = Arc<Mutex<mpsc::Receiver<(T, oneshot::Sender<R>)>>>;

/// The number of flushes under way.
#[derive(Clone)]
struct Flushing(Arc<watch::Sender<usize>>);

impl Flushing {
    /// Counts a flush until the guard is dropped, even by a panic.
    fn begin(&self) -> impl Drop {
        struct Guard(Flushing);

        impl Drop for Guard {
            fn drop(&mut self) {
                self.0.0.send_modify(|count| *count -= 1);
            }
        }

        self.0.send_modify(|count| *count += 1);
        Guard(self.clone())
    }

    /// Waits until none is.
    async fn none(&self) {
        // The sender is part of self: the channel is open.
        let _ = self.0.subscribe().wait_for(|count| *count == 0).await;
    }
}

async fn lane<T, R, F, Fut>(waiting: Waiting<T, R>, flushing: Flushing, gather: Gather, flush: F)
where
    F: Fn(Vec<T>) -> Fut,
    Fut: Future<Output = Vec<R>>,
{
    loop {
        let mut gathered = Vec::new();
        let under_way = {
            // The lane that holds the lock gathers; the others flush or wait for their turn.
            let mut receiver = waiting.lock().await;
            if receiver.recv_many(&mut gathered, gather.items_max).await == 0 {
                return;
            }
            // While a commit is under way, a little patience makes the next one worth more.
            let more = async {
                loop {
                    let room = gather.items_max - gathered.len();
                    if room == 0 || receiver.recv_many(&mut gathered, room).await == 0 {
                        return;
                    }
                }
            };
            tokio::select! {
                biased;
                () = flushing.none() => {}
                () = more => {}
                () = sleep(gather.linger) => {}
            }
            flushing.begin()
        };
        if !gather.heirless {
            gathered.retain(|(_, answer)| !answer.is_closed());
        }
        if gathered.is_empty() {
            continue;
        }
        let (items, answers): (Vec<T>, Vec<_>) = gathered.into_iter().unzip();
        let given = flush(items).await;
        drop(under_way);
        for (answer, reply) in given.into_iter().zip(answers) {
            // A caller that has left needs no answer.
            let _ = reply.send(answer);
        }
    }
}
