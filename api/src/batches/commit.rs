//! The making of a batch: its lines checked, judged and charged, and all of it committed in one statement.

use crate::{
    catalogue,
    error::ApiError,
    fetch::{DEADLINE_BODY, patiently},
    few::Few,
    judge::{Judged, judge},
    limits::Admitted,
    lines::{self, Fault, GoodLine, WantedBatch},
    metadata, parse,
    state::App,
};
use bytes::Bytes;
use serde::Serialize;
use serde_json::value::RawValue;
use shared::{
    catalog::{self, Refusal},
    failpoint::{self, Point},
    news::News,
    objects::Part,
    store::{BatchCreated, Bell, NewBatch},
    task::{
        BatchId, BatchLine, Change, Idempotency, NewTask, Policy, QueueName, Relay, State as TaskState,
        TaskId,
    },
};
use std::{sync::Arc, time::Duration};
use tokio::time::timeout;

/// Validates and commits a batch: its id, and whether the key brought an earlier one back.
pub(super) async fn commit(
    app: &App,
    bytes: &Bytes,
    idempotency: Option<Idempotency>,
) -> Result<(BatchId, bool), ApiError> {
    let wanted: WantedBatch = parse::read(bytes)?;
    let window = lines::window(&wanted.completion_window)?;
    let metadata = wanted.metadata.as_ref().map(metadata::check).transpose()?;
    let requests = requests(&wanted)?;
    let notes = app.catalogue.notes().await?;
    let endpoint: Arc<str> = wanted.endpoint.as_ref().into();
    if let Err(refusal @ Refusal::Endpoint(_)) = catalog::admit(&app.config, &notes, &endpoint, "") {
        return Err(ApiError::invalid("endpoint", format!("Invalid value: '{endpoint}'. {refusal}.")));
    }
    let admits = |model: &str| {
        let admitted = catalog::admit(&app.config, &notes, &endpoint, model);
        admitted.map_err(|_| catalogue::unserved(&app.config, &notes, model))
    };
    let checked = lines::check(requests, &endpoint, admits);
    let bodies: Vec<&RawValue> = checked.good.iter().map(|line| line.body).collect();
    let admitted = app.limiter.admit(&app.visitor, &endpoint, &bodies).await?;
    let judged = checked.good.iter().map(|line| {
        let body = bytes.slice_ref(line.body.get().as_bytes());
        Judged { model: line.model.clone(), body }
    });
    let verdicts = judge(app, &endpoint, judged.collect()).await;
    let checked = verdicts.map(|verdicts| checked.judged(verdicts));
    if !matches!(checked, Ok(Ok(_))) {
        app.limiter.give_back(&admitted).await;
    }
    let id = BatchId::new();
    let batch = |model, errors| NewBatch {
        id,
        project: app.project,
        endpoint: endpoint.clone(),
        completion_window: wanted.completion_window.to_string(),
        window,
        model,
        metadata: metadata.clone(),
        errors,
        result_ttl: app.config.policy.result_ttl,
        idempotency: idempotency.clone(),
    };
    let (batch, tasks) = match checked? {
        Ok(lines) => {
            let first = lines.first().map(|line| line.model.clone());
            let model = first.filter(|first| lines.iter().all(|line| line.model == *first));
            let tasks = line_tasks(app, id, &endpoint, window, bytes, lines, &admitted).await?;
            (batch(model, None), tasks)
        }
        Err(faults) => (batch(None, Some(errors(&faults))), Vec::new()),
    };
    match store(app, &batch, &tasks).await? {
        BatchCreated::Stored => Ok((id, false)),
        // Another process was first.
        BatchCreated::Replayed(earlier) => {
            app.limiter.give_back(&admitted).await;
            Ok((earlier, true))
        }
        BatchCreated::KeyReused => {
            app.limiter.give_back(&admitted).await;
            Err(ApiError::KeyReused)
        }
    }
}

fn requests<'b, 'a>(wanted: &'b WantedBatch<'a>) -> Result<&'b [&'a RawValue], ApiError> {
    match (&wanted.requests, &wanted.input_file_id) {
        (_, Some(_)) => Err(ApiError::invalid(
            "input_file_id",
            "Files are not supported yet: send the requests as 'requests'.",
        )),
        (None, None) => Err(ApiError::Invalid {
            message: "Missing required parameter: 'requests'.".into(),
            code: "missing_required_parameter",
            param: Some("requests".into()),
        }),
        (Some(Few(requests)), None) => Ok(requests),
    }
}

fn errors(faults: &[Fault]) -> String {
    #[derive(Serialize)]
    struct Errors<'a> {
        object: &'static str,
        data: &'a [Fault],
    }
    serde_json::to_string(&Errors { object: "list", data: faults }).expect("faults have string keys only")
}

/// The tasks of the lines, with large bodies kept.
async fn line_tasks(
    app: &App,
    batch: BatchId,
    endpoint: &Arc<str>,
    window: Duration,
    bytes: &Bytes,
    lines: Vec<GoodLine<'_>>,
    admitted: &Admitted,
) -> Result<Vec<NewTask>, ApiError> {
    let lanes = &app.config.lanes;
    let named = lanes.iter().find(|lane| lane.name.as_str() == "batch").or(lanes.last());
    let queue: QueueName =
        named.map(|lane| lane.name.clone()).ok_or_else(|| ApiError::not_found("No queue is configured."))?;
    let policy = Policy { ttl: window, ..app.config.policy.clone() };
    let mut tasks = Vec::with_capacity(lines.len());
    for (line, good) in (0..).zip(lines) {
        let id = TaskId::new();
        let body = bytes.slice_ref(good.body.get().as_bytes());
        let payload =
            timeout(DEADLINE_BODY, app.backends.objects.keep(app.project, id, Part::Request, body)).await??;
        tasks.push(NewTask {
            id,
            project: app.project,
            queue: queue.clone(),
            priority: 0,
            endpoint: endpoint.clone(),
            model: good.model,
            payload,
            relay: Relay::Lifecycle,
            delay: Duration::ZERO,
            run_at: None,
            policy: policy.clone(),
            metadata: None,
            idempotency: None,
            batch: Some(BatchLine { batch, line, custom_id: good.custom_id.into() }),
            reserved: admitted.reserved(tasks.len()),
            moderation: good.moderation,
            webhook: None,
        });
    }
    Ok(tasks)
}

/// Commits a batch with its tasks, and tells of them.
async fn store(app: &App, batch: &NewBatch, tasks: &[NewTask]) -> Result<BatchCreated, ApiError> {
    let store = &app.backends.store;
    let twice = async {
        match store.create_batch(batch, tasks).await {
            // Perhaps only the reply was lost: the same ids make the repeat harmless.
            Err(error) if error.passes() => store.create_batch(batch, tasks).await,
            answer => answer,
        }
    };
    let created = patiently(app, twice).await?;
    if created != BatchCreated::Stored {
        return Ok(created);
    }
    failpoint::pass(Point::BatchCommitted);
    for task in tasks {
        metrics::counter!("longhaul_tasks_submitted_total", "queue" => task.queue.to_string()).increment(1);
    }
    let bells = tasks.iter().map(|task| Bell {
        task: task.id,
        project: task.project,
        queue: task.queue.clone(),
        priority: task.priority,
        orphan: false,
    });
    let changes = tasks.iter().map(|task| Change {
        task: task.id,
        project: task.project,
        batch: Some(batch.id),
        attempt: 0,
        seq: 0,
        state: TaskState::Queued,
        at: None,
    });
    app.herald.tell(News { bells: bells.collect(), changes: changes.collect() });
    Ok(created)
}
