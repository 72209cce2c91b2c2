//! Group commit: many callers, one round trip. Submits and finishes commit through it.

use futures_util::{FutureExt, StreamExt, stream::FuturesUnordered};
use std::{future::Future, panic::AssertUnwindSafe, time::Duration};
use tokio::{
    sync::{mpsc, oneshot},
    task::JoinSet,
    time::{Instant, sleep_until},
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
    pub flushes_max: usize,
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
            flushes_max: 4,
            backlog_max: 4096,
            heirless: true,
        }
    }
}

/// The batcher has been shut down, or a flush has panicked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("shutting down")]
pub struct Closed;

/// Gathers items of type `T` and answers each with an `R`. Cheap to clone; when the last clone is gone, what is gathered is
/// flushed and the batcher ends.
pub struct Batcher<T, R> {
    sender: mpsc::Sender<Item<T, R>>,
}

impl<T, R> Clone for Batcher<T, R> {
    fn clone(&self) -> Self {
        Self { sender: self.sender.clone() }
    }
}

impl<T: Send + 'static, R: Send + 'static> Batcher<T, R> {
    /// `flush` gets 1 to `items_max` items and gives one answer per item, in order. All of them run in one task on `tasks`: an item
    /// that comes alone goes from its caller's hands straight into its flush, and the owner can wait for the last one.
    pub fn start<F, Fut>(tasks: &mut JoinSet<()>, gather: Gather, flush: F) -> Self
    where
        F: Fn(Vec<T>) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Vec<R>> + Send + 'static,
    {
        let (sender, receiver) = mpsc::channel(gather.backlog_max);
        tasks.spawn(run(receiver, gather, flush));
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

type Item<T, R> = (T, oneshot::Sender<R>);

async fn run<T, R, F, Fut>(mut receiver: mpsc::Receiver<Item<T, R>>, gather: Gather, flush: F)
where
    F: Fn(Vec<T>) -> Fut,
    Fut: Future<Output = Vec<R>>,
{
    let mut flushes = FuturesUnordered::new();
    let mut gathered = Vec::new();
    let (mut ripe_at, mut open) = (Instant::now(), true);
    loop {
        let room = gather.items_max.saturating_sub(gathered.len());
        // While a flush is under way, a little patience makes the next one worth more.
        let is_ripe = flushes.is_empty() || room == 0 || !open || Instant::now() >= ripe_at;
        let may_flush = !gathered.is_empty() && flushes.len() < gather.flushes_max.max(1);
        if may_flush && is_ripe {
            let items = std::mem::take(&mut gathered);
            // The panic itself has been told by the panic hook; its callers see a closed batcher.
            flushes.push(AssertUnwindSafe(flush_one(items, gather.heirless, &flush)).catch_unwind());
            continue;
        }
        let was_empty = gathered.is_empty();
        tokio::select! {
            biased;
            Some(_) = flushes.next() => {}
            count = receiver.recv_many(&mut gathered, room), if open && room > 0 => {
                open = count > 0;
                if was_empty {
                    ripe_at = Instant::now() + gather.linger;
                }
            }
            () = sleep_until(ripe_at), if may_flush && !is_ripe => {}
            else => return,
        }
    }
}

async fn flush_one<T, R, Fut>(gathered: Vec<Item<T, R>>, heirless: bool, flush: &impl Fn(Vec<T>) -> Fut)
where
    Fut: Future<Output = Vec<R>>,
{
    let wanted = gathered.into_iter().filter(|(_, answer)| heirless || !answer.is_closed());
    let (items, answers): (Vec<T>, Vec<_>) = wanted.unzip();
    if items.is_empty() {
        return;
    }
    for (answer, reply) in flush(items).await.into_iter().zip(answers) {
        // A caller that has left needs no answer.
        let _ = reply.send(answer);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use tokio::sync::{Semaphore, mpsc::UnboundedReceiver};

    type Gated = (JoinSet<()>, Batcher<u32, u32>, Arc<Semaphore>, UnboundedReceiver<Vec<u32>>);

    /// A batcher whose flushes tell what they got and wait for a permit, or panic at a zero.
    fn gated(gather: Gather) -> Gated {
        let (mut tasks, gate) = (JoinSet::new(), Arc::new(Semaphore::new(0)));
        let (told, begun) = mpsc::unbounded_channel();
        let wait = gate.clone();
        let batcher = Batcher::start(&mut tasks, gather, move |items: Vec<u32>| {
            let (wait, told) = (wait.clone(), told.clone());
            async move {
                told.send(items.clone()).unwrap();
                assert!(!items.contains(&0), "a flush that panics");
                wait.acquire().await.unwrap().forget();
                items.iter().map(|item| item * 10).collect()
            }
        });
        (tasks, batcher, gate, begun)
    }

    /// Calls of their own tasks, in this order; their answers are the tasks'.
    fn call(callers: &mut JoinSet<Result<u32, Closed>>, batcher: &Batcher<u32, u32>, items: &[u32]) {
        for &item in items {
            let batcher = batcher.clone();
            callers.spawn(async move { batcher.call(item).await });
        }
    }

    #[tokio::test]
    async fn what_comes_during_a_flush_goes_together_with_the_next() {
        let (_tasks, batcher, gate, mut begun) = gated(Gather::default());
        let mut callers = JoinSet::new();
        call(&mut callers, &batcher, &[1]);
        assert_eq!(begun.recv().await, Some(vec![1]), "alone, and at once");
        call(&mut callers, &batcher, &[2, 3]);
        tokio::task::yield_now().await;
        gate.add_permits(1);
        assert_eq!(begun.recv().await, Some(vec![2, 3]));
        gate.add_permits(1);
        let mut answers = callers.join_all().await;
        answers.sort_by_key(|answer| answer.unwrap_or(0));
        assert_eq!(answers, [Ok(10), Ok(20), Ok(30)]);
    }

    #[tokio::test]
    async fn a_flush_that_hangs_is_not_waited_for_for_long() {
        let gather = Gather { items_max: 2, flushes_max: 3, ..Gather::default() };
        let (_tasks, batcher, _gate, mut begun) = gated(gather);
        let mut callers = JoinSet::new();
        call(&mut callers, &batcher, &[1]);
        assert_eq!(begun.recv().await, Some(vec![1]));
        let since = Instant::now();
        for item in [2, 3] {
            call(&mut callers, &batcher, &[item]);
            assert_eq!(begun.recv().await, Some(vec![item]));
        }
        assert!(since.elapsed() >= 2 * gather.linger);
        call(&mut callers, &batcher, &[4]);
        tokio::time::sleep(5 * gather.linger).await;
        assert!(begun.try_recv().is_err(), "three at once, and no more");
    }

    #[tokio::test]
    async fn a_full_one_waits_for_nothing() {
        let gather = Gather { items_max: 2, linger: Duration::from_secs(3_600), ..Gather::default() };
        let (_tasks, batcher, _gate, mut begun) = gated(gather);
        let mut callers = JoinSet::new();
        call(&mut callers, &batcher, &[1]);
        assert_eq!(begun.recv().await, Some(vec![1]));
        call(&mut callers, &batcher, &[2, 3]);
        assert_eq!(begun.recv().await, Some(vec![2, 3]));
    }

    #[tokio::test]
    async fn a_panic_costs_its_own_callers_alone() {
        let (_tasks, batcher, gate, _begun) = gated(Gather::default());
        gate.add_permits(1);
        assert_eq!(batcher.call(0).await, Err(Closed));
        assert_eq!(batcher.call(1).await, Ok(10));
    }

    #[tokio::test]
    async fn who_left_is_flushed_only_by_a_batcher_that_owes_it() {
        for heirless in [false, true] {
            let (mut tasks, batcher, gate, mut begun) = gated(Gather { heirless, ..Gather::default() });
            let (mut stays, mut leaves) = (JoinSet::new(), JoinSet::new());
            call(&mut stays, &batcher, &[1]);
            assert_eq!(begun.recv().await, Some(vec![1]));
            call(&mut leaves, &batcher, &[2]);
            tokio::task::yield_now().await;
            leaves.shutdown().await;
            gate.add_permits(2);
            assert_eq!(stays.join_all().await, [Ok(10)]);
            drop(batcher);
            tasks.join_next().await;
            assert_eq!(begun.recv().await, heirless.then(|| vec![2]), "the last ones are flushed at the end");
        }
    }
}
