//! The apalis worker, fed by our own `Backend`: a channel of leases that the pump has claimed already.
//!
//! Its error is `Infallible` and its stream never ends, because apalis restarts a failed backend in a tight loop and keeps a
//! worker without a stream as a zombie. Queue and database errors stay in the pump.

use crate::{claim::Lease, context::Context, run::attempt};
use apalis::{
    layers::WorkerBuilderExt,
    prelude::{Backend, Data, Monitor, ParallelizeExt, Task, WorkerBuilder, WorkerContext},
};
use apalis_core::backend::{BackendConfig, finalize::Ephemeral};
use std::{
    convert::Infallible,
    sync::{Arc, Mutex, PoisonError},
    task::Poll,
};
use tokio::{sync::mpsc, time::sleep};
use tokio_util::task::{AbortOnDropHandle, TaskTracker};
use tower_layer::Identity;

/// Where claimed leases wait for their handler. Shared, because the pump takes back what has not started when it stops.
#[derive(Clone)]
pub(crate) struct Leases(Arc<Mutex<mpsc::Receiver<Lease>>>);

impl Leases {
    /// A channel with room for all slots and trials, so that handing over never waits.
    pub(crate) fn channel(slots: usize) -> (mpsc::Sender<Lease>, Self) {
        let (sender, receiver) = mpsc::channel(slots);
        (sender, Self(Arc::new(Mutex::new(receiver))))
    }

    /// One that has not started.
    pub(crate) fn take_back(&self) -> Option<Lease> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).try_recv().ok()
    }
}

impl Backend for Leases {
    type Task = Task<Lease>;
    type Error = Infallible;

    fn poll_ready(
        &mut self,
        _: &mut std::task::Context<'_>,
        _: &WorkerContext,
    ) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn poll_next(
        &mut self,
        waker: &mut std::task::Context<'_>,
        _: &WorkerContext,
    ) -> Poll<Option<Result<Self::Task, Infallible>>> {
        let next = self.0.lock().unwrap_or_else(PoisonError::into_inner).poll_recv(waker);
        next.map(|lease| lease.map(|lease| Ok(Task::new(lease))))
    }

    fn poll_close(
        &mut self,
        _: &mut std::task::Context<'_>,
        _: &WorkerContext,
    ) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }
}

impl BackendConfig for Leases {
    type Args = Lease;
    type Id = u64;
    type Kind = Ephemeral;
    type Config = ();
    type Layer = Identity;

    fn config(&self) -> &() {
        &()
    }

    fn middleware(&mut self, _: &mut WorkerContext) -> Identity {
        Identity::new()
    }
}

/// Runs attempts until the drain; then lets them finish within the grace time and aborts the rest. No attempt runs when it returns.
pub(crate) async fn serve(ctx: &Arc<Context>, leases: Leases) {
    let attempts = TaskTracker::new();
    let (tracker, data, grace) = (attempts.clone(), ctx.clone(), ctx.config.worker.grace);
    let monitor = Monitor::new()
        .register(move |_restarts| {
            let tracker = tracker.clone();
            WorkerBuilder::new("longhaul")
                .backend(leases.clone())
                .parallelize(move |attempt| AbortOnDropHandle::new(tracker.spawn(attempt)))
                .catch_panic()
                .data(data.clone())
                .build(|lease: Lease, ctx: Data<Arc<Context>>| async move { attempt(lease, &ctx).await })
        })
        // Counted from the signal: a `sleep` made here would count from now.
        .with_terminator(async move { sleep(grace).await });
    let signal = async {
        ctx.drain.cancelled().await;
        Ok(())
    };
    if let Err(error) = monitor.run_with_signal(signal).await {
        tracing::error!(error = &error as &dyn std::error::Error, "the worker's monitor failed");
    }
    attempts.close();
    attempts.wait().await;
}
