//! The truth on SQLite: one file, for a laptop or a single machine.
//!
//! `open` holds the connections and runs every verb; the verbs themselves are leaves, by who asks for them. Writing leaves get
//! the transaction and its moment, reading leaves get the readers. Times are integers, ids 16 bytes, lists one JSON value.

mod batches;
mod finish;
mod open;
mod owner;
mod read;
mod registry;
mod rows;
mod submit;
mod sweep;
#[cfg(test)]
mod tests;
mod upstreams;
mod webhooks;
mod worker;

pub use open::SqliteStore;

use super::*;
use futures_util::FutureExt;

#[async_trait]
impl Store for SqliteStore {
    async fn migrate(&self) -> Result<()> {
        self.apply_migrations().await
    }

    async fn check(&self) -> Result<()> {
        self.check_schema().await
    }

    async fn check_writing(&self) -> Result<()> {
        self.write(|db, now| {
            async move {
                let sql = "insert into readiness (id, at) values (1, ?1) on conflict (id) do update set at = excluded.at";
                sqlx::query(sql).bind(now.0).execute(db).await?;
                Ok(())
            }
            .boxed()
        })
        .await
    }

    async fn close(&self) -> Result<()> {
        self.checkpoint().await
    }

    async fn submit_early(&self, tasks: &[NewTask], early: Early<'_>) -> Result<Vec<Submitted>> {
        let answers = submit::submit(self, tasks).await?;
        early(&answers);
        Ok(answers)
    }

    async fn create_batch(&self, batch: &NewBatch, tasks: &[NewTask]) -> Result<BatchCreated> {
        let (batch, tasks) = (batch.clone(), tasks.to_vec());
        self.write(move |db, now| submit::create_batch(db, now, batch, tasks).boxed()).await
    }

    async fn get(&self, project: ProjectId, id: TaskId) -> Result<Option<Task>> {
        self.read(|db| read::get(db, project, id)).await
    }

    async fn whole(&self, project: ProjectId, id: TaskId) -> Result<Option<(Task, Option<Kept>)>> {
        self.read(|db| read::whole(db, project, id)).await
    }
    async fn list(&self, project: ProjectId, query: &ListQuery) -> Result<TaskPage> {
        self.read(|db| read::list(db, project, query)).await
    }

    async fn payload(&self, project: ProjectId, id: TaskId) -> Result<Option<Payload>> {
        self.read(|db| read::payload(db, project, id)).await
    }

    async fn answer(&self, project: ProjectId, id: TaskId) -> Result<Option<crate::task::Answer>> {
        self.read(|db| read::answer(db, project, id)).await
    }

    async fn glance(&self, ids: &[TaskId]) -> Result<Vec<Change>> {
        self.read(|db| read::glance(db, ids)).await
    }

    async fn position(&self, project: ProjectId, id: TaskId) -> Result<Option<u64>> {
        self.read(|db| read::position(db, project, id)).await
    }

    async fn batch(&self, project: ProjectId, id: BatchId) -> Result<Option<Batch>> {
        self.read(|db| batches::batch(db, project, id)).await
    }

    async fn batches(&self, project: ProjectId, after: Option<BatchId>, limit: u32) -> Result<Page<Batch>> {
        self.read(|db| batches::batches(db, project, after, limit)).await
    }

    async fn queues(&self, project: Option<ProjectId>) -> Result<Vec<QueueFigures>> {
        self.read(|db| read::queues(db, project)).await
    }

    async fn keyed(&self, project: ProjectId, key: &str) -> Result<Option<(TaskId, Fingerprint)>> {
        let now = UnixMs::now();
        self.read(|db| read::keyed(db, now, project, key)).await
    }

    async fn waiting(&self, project: ProjectId, queues: &[QueueName], most: u32) -> Result<u32> {
        self.read(|db| read::waiting(db, project, queues, most)).await
    }

    async fn cancel(&self, project: ProjectId, id: TaskId, reason: &str) -> Result<Option<Cancelled>> {
        let reason = reason.to_owned();
        self.write(move |db, now| owner::cancel(db, now, project, id, reason).boxed()).await
    }

    async fn retry(&self, project: ProjectId, id: TaskId, rerun: &Rerun) -> Result<Option<Retried>> {
        let rerun = rerun.clone();
        self.write(move |db, now| owner::retry(db, now, project, id, rerun).boxed()).await
    }

    async fn delete(&self, project: ProjectId, id: TaskId, force: bool) -> Result<Option<Deleted>> {
        self.write(move |db, now| owner::delete(db, now, project, id, force).boxed()).await
    }

    async fn cancel_batch(&self, project: ProjectId, id: BatchId) -> Result<Option<Batch>> {
        self.write(move |db, now| batches::cancel_batch(db, now, project, id).boxed()).await
    }

    async fn cancel_batch_tasks(&self, limit: u32) -> Result<Vec<Change>> {
        self.write(move |db, now| batches::cancel_batch_tasks(db, now, limit).boxed()).await
    }

    async fn register(&self, worker: &NewWorker) -> Result<()> {
        let worker = worker.clone();
        self.write(move |db, now| worker::register(db, now, worker).boxed()).await
    }

    async fn heartbeat(
        &self,
        worker: WorkerId,
        ttl: Duration,
        running: u32,
    ) -> Result<Option<Vec<(TaskId, u32)>>> {
        self.write(move |db, now| worker::heartbeat(db, now, worker, ttl, running).boxed()).await
    }

    async fn retire(&self, worker: WorkerId) -> Result<()> {
        self.write(move |db, now| worker::retire(db, now, worker).boxed()).await
    }

    async fn claim(&self, worker: WorkerId, ids: &[TaskId], served: &Served) -> Result<Vec<Claimed>> {
        let (ids, served) = (ids.to_vec(), served.clone());
        self.write(move |db, now| worker::claim(db, now, worker, ids, served).boxed()).await
    }

    async fn claim_capped(&self, worker: WorkerId, ids: &[TaskId], served: &Served) -> Result<Vec<Claimed>> {
        let (ids, served) = (ids.to_vec(), served.clone());
        self.write(move |db, now| worker::claim_capped(db, now, worker, ids, served).boxed()).await
    }

    async fn has_suspects(&self, queues: &[QueueName], served: &Served) -> Result<bool> {
        let now = UnixMs::now();
        self.read(|db| worker::has_suspects(db, now, queues, served)).await
    }

    async fn claim_suspect(
        &self,
        worker: WorkerId,
        queues: &[QueueName],
        served: &Served,
    ) -> Result<Option<Claimed>> {
        let (queues, served) = (queues.to_vec(), served.clone());
        self.write(move |db, now| worker::claim_suspect(db, now, worker, queues, served).boxed()).await
    }

    async fn claim_ready(
        &self,
        worker: WorkerId,
        queues: &[QueueName],
        limit: u32,
        served: &Served,
    ) -> Result<Vec<Claimed>> {
        let (queues, served) = (queues.to_vec(), served.clone());
        self.write(move |db, now| worker::claim_ready(db, now, worker, queues, limit, served).boxed()).await
    }

    async fn finish(&self, ends: &[Finish]) -> Result<Vec<Finished>> {
        let ends = ends.to_vec();
        self.write(move |db, now| finish::finish(db, now, ends).boxed()).await
    }

    async fn again(&self, agains: &[Again]) -> Result<Vec<Finished>> {
        let agains = agains.to_vec();
        self.write(move |db, now| finish::again(db, now, agains).boxed()).await
    }

    async fn release(&self, worker: WorkerId, claims: &[(TaskId, u32)]) -> Result<Vec<Change>> {
        let claims = claims.to_vec();
        self.write(move |db, now| worker::release(db, now, worker, claims).boxed()).await
    }

    async fn due(&self, limit: u32) -> Result<Vec<(Change, Bell)>> {
        self.write(move |db, now| sweep::due(db, now, limit).boxed()).await
    }

    async fn ready(&self, queue: &QueueName, limit: u32, served: &Served) -> Result<Vec<Bell>> {
        self.read(|db| sweep::ready(db, queue, limit, served)).await
    }

    async fn ready_capped(&self, queues: &[QueueName], limit: u32, served: &Served) -> Result<Vec<Bell>> {
        self.read(|db| sweep::ready_capped(db, queues, limit, served)).await
    }

    async fn expire(&self, limit: u32) -> Result<Vec<Change>> {
        self.write(move |db, now| sweep::expire(db, now, limit).boxed()).await
    }

    async fn reap(&self, limit: u32, spread: Duration, crashes_max: u32) -> Result<Vec<Change>> {
        self.write(move |db, now| sweep::reap(db, now, limit, spread, crashes_max).boxed()).await
    }

    async fn close_batches(&self, limit: u32) -> Result<Vec<BatchId>> {
        self.write(move |db, now| batches::close_batches(db, now, limit).boxed()).await
    }

    async fn forget(&self, limit: u32) -> Result<Forgotten> {
        self.write(move |db, now| sweep::forget(db, now, limit).boxed()).await
    }

    async fn put_models(&self, upstream: &str, models: Option<&[String]>) -> Result<()> {
        let (upstream, models) = (upstream.to_owned(), models.map(<[String]>::to_vec));
        self.write(move |db, now| upstreams::put_models(db, now, upstream, models).boxed()).await
    }

    async fn models(&self, within: Duration) -> Result<Vec<UpstreamModels>> {
        self.read(|db| upstreams::models(db, within)).await
    }

    async fn pause(&self, scope: &Scope, wait: Duration, cause: Cause) -> Result<()> {
        let scope = scope.clone();
        self.write(move |db, now| upstreams::pause(db, now, scope, wait, cause).boxed()).await
    }

    async fn resume(&self, scope: &Scope) -> Result<()> {
        let scope = scope.clone();
        self.write(move |db, now| upstreams::resume(db, now, scope).boxed()).await
    }

    async fn probe(&self, scope: &Scope, wait: Duration) -> Result<bool> {
        let scope = scope.clone();
        self.write(move |db, now| upstreams::probe(db, now, scope, wait).boxed()).await
    }

    async fn pauses(&self) -> Result<Vec<Pause>> {
        self.read(upstreams::pauses).await
    }

    async fn workers(&self) -> Result<Vec<Worker>> {
        self.read(worker::workers).await
    }

    async fn now(&self) -> Result<UnixMs> {
        self.read(open::now).await
    }
}
