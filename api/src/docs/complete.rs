//! What the handlers' annotations leave to one place: the answers that operations share, the forms of parameters, where the id in an
//! answer leads, and the words that the configuration decides.

use super::{operations, schema};
use crate::error::PROBLEM;
use shared::config::Config;
use utoipa::{
    Modify,
    openapi::{
        Content, OpenApi, Ref, RefOr, Response, ResponseBuilder, Schema,
        link::LinkBuilder,
        path::{Operation, Parameter, ParameterIn},
        response::ResponsesBuilder,
    },
};

/// Completes the description.
pub(super) struct Complete;

impl Modify for Complete {
    fn modify(&self, description: &mut OpenApi) {
        for (path, item) in &mut description.paths.paths {
            for (_, operation) in operations(item) {
                let name = operation.operation_id.clone().unwrap_or_default();
                share(operation);
                for parameter in operation.parameters.iter_mut().flatten() {
                    let RefOr::T(parameter) = parameter else { continue };
                    if let Some(schema) = form(path, &name, parameter) {
                        parameter.schema = Some(schema.into());
                    }
                }
                for (_, status, verbs) in LINKS.iter().filter(|(from, ..)| *from == name) {
                    link(operation, status, verbs);
                }
            }
        }
    }
}

/// Adds an answer in the common form, if the operation does not describe it itself.
pub(super) fn refuse(operation: &mut Operation, status: &str, why: &str) {
    let error = |name| Content::new(Some(Ref::from_schema_name(name)));
    let response =
        ResponseBuilder::new().description(why).content("application/json", error("ErrorResponse"));
    operation.responses.responses.entry(status.to_owned()).or_insert_with(|| response.build().into());
}

/// What all operations with parameters or bodies answer; every error also in RFC 9457's form.
fn share(operation: &mut Operation) {
    if operation.parameters.is_some() || operation.request_body.is_some() {
        refuse(operation, "400", "Not valid: `param` names the field.");
    }
    if operation.request_body.is_some() {
        refuse(operation, "408", "The body did not arrive in time.");
        refuse(operation, "413", "The body is too large.");
        refuse(operation, "415", "Not JSON.");
    }
    match operation.operation_id.as_deref() {
        Some("get_task_result") => relay(operation),
        Some("stream_task_events") => {
            if let Some(RefOr::T(events)) = operation.responses.responses.get_mut("200") {
                let lines = Content::new(None::<RefOr<Schema>>);
                events.content.insert("application/x-ndjson".to_owned(), lines.into());
            }
        }
        _ => {}
    }
    for response in operation.responses.responses.values_mut() {
        let RefOr::T(response) = response else { continue };
        if is_error(response) {
            let problem = Content::new(Some(Ref::from_schema_name("Problem")));
            response.content.insert(PROBLEM.to_owned(), problem.into());
        }
    }
}

/// A result has the model server's own status and content type, whatever they are.
fn relay(operation: &mut Operation) {
    let verbatim = Response::new("What the model server answered.");
    let any = ResponsesBuilder::new().response("2XX", verbatim.clone()).response("4XX", verbatim).build();
    operation.responses.responses.extend(any.responses);
    for (status, response) in &mut operation.responses.responses {
        let RefOr::T(response) = response else { continue };
        if status == "2XX" || status.starts_with('4') {
            response.content.insert("*/*".to_owned(), Content::new(None::<RefOr<Schema>>).into());
        }
    }
}

fn is_error(response: &Response) -> bool {
    response.content.values().any(|content| match content {
        RefOr::T(content) => content
            .schema
            .as_ref()
            .is_some_and(|schema| *schema == Ref::from_schema_name("ErrorResponse").into()),
        RefOr::Ref(_) => false,
    })
}

/// The form of a parameter, where its annotation cannot say it.
fn form(path: &str, operation: &str, parameter: &Parameter) -> Option<Schema> {
    if operation == "open_socket" {
        return Some(match parameter.name.as_str() {
            "Upgrade" => schema::word(["websocket"]).into(),
            "Connection" => schema::word(["Upgrade"]).into(),
            "Sec-WebSocket-Version" => schema::word(["13"]).into(),
            _ => return None,
        });
    }
    let kind = match path.split('/').nth(if path.starts_with("/v1/admin/") { 3 } else { 2 })? {
        "tasks" => "task_",
        "batches" => "batch_",
        "keys" => "key_",
        "projects" => "proj_",
        "audit" => "act_",
        "webhook_endpoints" => "we_",
        "webhook_deliveries" => "evt_",
        _ => return None,
    };
    Some(match (&parameter.parameter_in, parameter.name.as_str()) {
        (ParameterIn::Path, "id") => schema::id(kind).into(),
        (_, "after" | "Last-Event-ID") if operation == "stream_task_events" => schema::seq().into(),
        (_, "after") => schema::id(kind).into(),
        (_, "status") if path == "/v1/webhook_deliveries" => schema::delivery_state().into(),
        (_, "endpoint_id") => schema::id("we_").into(),
        (_, "status") => schema::states().into(),
        (_, "queue") => schema::lane().into(),
        (_, "model") => schema::sought().into(),
        (_, "batch_id") => schema::id("batch_").into(),
        (_, "metadata") => schema::sought_pairs().into(),
        (_, "order") => schema::word(["desc", "asc"]).into(),
        (_, "until") => schema::word(["terminal", "started", "change"]).into(),
        (_, "include") => schema::word(["input"]).into(),
        (_, "Idempotency-Key") => schema::idempotency_key().into(),
        _ => return None,
    })
}

const TASK: &[&str] =
    &["get_task", "get_task_result", "stream_task_events", "cancel_task", "retry_task", "delete_task"];
const BATCH: &[&str] = &["get_batch", "get_batch_results", "cancel_batch"];
const ENDPOINT: &[&str] = &[
    "get_webhook_endpoint",
    "update_webhook_endpoint",
    "rotate_webhook_secret",
    "test_webhook_endpoint",
    "delete_webhook_endpoint",
];
const KEY: &[&str] = &["limit_key", "rotate_key", "revoke_key"];

/// Where the `id` of an answer leads: the operation, the status, and what can be called with it.
const LINKS: [(&str, &str, &[&str]); 9] = [
    ("create_task", "200", TASK),
    ("create_task", "202", TASK),
    ("retry_task", "202", TASK),
    ("create_batch", "200", BATCH),
    ("create_key", "201", KEY),
    ("rotate_key", "201", KEY),
    ("create_project", "201", &["limit_project"]),
    ("create_webhook_endpoint", "200", ENDPOINT),
    ("redeliver_webhook", "200", &["redeliver_webhook"]),
];

fn link(operation: &mut Operation, status: &str, verbs: &[&str]) {
    let Some(RefOr::T(response)) = operation.responses.responses.get_mut(status) else { return };
    for verb in verbs {
        let link = LinkBuilder::new().operation_id(*verb).parameter("id", "$response.body#/id");
        response.links.insert((*verb).to_owned(), link.build().into());
    }
}

/// Names the lanes and the endpoints that are configured: no others are taken.
pub(super) fn configure(description: &mut OpenApi, config: &Config) {
    let mut endpoints = config.endpoints();
    endpoints.sort();
    let lanes = config.lanes.iter().map(|lane| lane.name.to_string());
    let words = [
        ("NewTask", "endpoint", schema::word(endpoints.clone())),
        ("NewTask", "queue", schema::word_or_null(lanes)),
        ("NewBatch", "endpoint", schema::word(endpoints)),
    ];
    let Some(components) = &mut description.components else { return };
    for (name, field, words) in words {
        if let Some(RefOr::T(Schema::Object(wanted))) = components.schemas.get_mut(name)
            && let Some(RefOr::T(Schema::Object(field))) = wanted.properties.get_mut(field)
        {
            field.enum_values = words.enum_values;
        }
    }
}
