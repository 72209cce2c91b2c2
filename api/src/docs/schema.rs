//! Forms that annotations have no words for. Each says exactly what is taken.

use serde_json::Value;
use shared::{
    task::{Relay, State},
    webhook::{DeliveryState, EventType},
};
use utoipa::openapi::{
    Array, Object, Ref, RefOr, Schema,
    schema::{AdditionalProperties, AnyOf, AnyOfBuilder, ArrayBuilder, ObjectBuilder, SchemaType, Type},
};

/// Text that can be stored: U+0000 cannot.
const STORABLE: &str = r"^[^\u0000]*$";

/// Whole numbers of seconds, minutes, hours and days, each up to 30 days.
const WINDOW: &str = "^0*(([1-9][0-9]{0,5}|1[0-9]{6}|2[0-4][0-9]{5}|25[0-8][0-9]{4}|259[01][0-9]{3}|2592000)s\
                      |([1-9][0-9]{0,3}|[1-3][0-9]{4}|4[0-2][0-9]{3}|43[01][0-9]{2}|43200)m\
                      |([1-9][0-9]?|[1-6][0-9]{2}|7[01][0-9]|720)h|([1-9]|[12][0-9]|30)d)$";

fn text() -> ObjectBuilder {
    ObjectBuilder::new().schema_type(SchemaType::Type(Type::String))
}

fn or_null(kind: Type) -> SchemaType {
    [kind, Type::Null].into_iter().collect()
}

fn nullable(kind: Type) -> ObjectBuilder {
    ObjectBuilder::new().schema_type(or_null(kind))
}

/// Any JSON.
pub(crate) fn anything() -> Object {
    ObjectBuilder::new().schema_type(SchemaType::AnyValue).description(Some("Any JSON.")).build()
}

/// The body of an answer.
pub(crate) fn answer() -> Object {
    let text = "The body, verbatim; null if it is not JSON.";
    ObjectBuilder::new().schema_type(SchemaType::AnyValue).description(Some(text)).build()
}

/// Null, and nothing else.
pub(crate) fn nothing() -> Object {
    let text = "Files are not supported yet: send `requests`.";
    ObjectBuilder::new().schema_type(SchemaType::Type(Type::Null)).description(Some(text)).build()
}

/// An id with this prefix.
pub(crate) fn id(prefix: &str) -> Object {
    text().pattern(Some(format!("^{prefix}[0-7][0-9a-hjkmnp-tv-z]{{25}}$"))).build()
}

/// One of these words.
pub(crate) fn word<W: Into<Value>>(words: impl IntoIterator<Item = W>) -> Object {
    text().enum_values(Some(words)).build()
}

/// One of these words, or null.
pub(crate) fn word_or_null(words: impl IntoIterator<Item = String>) -> Object {
    let words = words.into_iter().map(Value::from).chain([Value::Null]);
    nullable(Type::String).enum_values(Some(words)).build()
}

/// Where a task stands.
pub(crate) fn state() -> Object {
    let mut words = word(State::ALL.map(State::as_str));
    words.description = Some("Where a task stands.".to_owned());
    words
}

/// States, with commas.
pub(crate) fn states() -> Array {
    ArrayBuilder::new().items(state()).min_items(Some(1)).build()
}

/// How an answer is relayed.
pub(crate) fn relay() -> Object {
    let mut words = word_or_null([Relay::Deltas, Relay::Lifecycle].map(|relay| relay.as_str().to_owned()));
    words.description = Some("What watchers are told.".to_owned());
    words
}

/// A text that is stored, of at most so many characters.
fn storable(most: usize) -> ObjectBuilder {
    text().max_length(Some(most)).pattern(Some(STORABLE))
}

/// The name of a key.
pub(crate) fn name() -> Object {
    storable(128).description(Some("What people call it, at most 128 characters.")).build()
}

/// Why a task is cancelled.
pub(crate) fn reason() -> Object {
    let text = "Why, for people: up to 512 characters.";
    nullable(Type::String).max_length(Some(512)).pattern(Some(STORABLE)).description(Some(text)).build()
}

/// Scopes of a key.
pub(crate) fn scopes() -> Array {
    let words = shared::identity::Scope::ALL.map(shared::identity::Scope::as_str);
    let array = ArrayBuilder::new()
        .items(word(words))
        .min_items(Some(1))
        .max_items(Some(crate::admin::keys::SCOPES_MAX));
    array.description(Some("What it may do.")).build()
}

/// Where a webhook goes.
pub(crate) fn webhook_url() -> Object {
    let says = "Where to: `https`, at a public address.";
    text()
        .max_length(Some(shared::webhook::URL_MAX))
        .pattern(Some("^https://[^@/]+/"))
        .description(Some(says))
        .build()
}

/// A type of event that webhooks tell of.
pub(crate) fn event_type() -> Object {
    word(EventType::ALL.map(EventType::as_str))
}

/// Types of events.
pub(crate) fn event_types() -> Array {
    let most = crate::webhooks::TYPES_MAX;
    ArrayBuilder::new()
        .items(event_type())
        .min_items(Some(1))
        .max_items(Some(most))
        .description(Some("Of what."))
        .build()
}

/// Types of events, or null.
pub(crate) fn event_types_or_null() -> Array {
    let mut form = event_types();
    form.schema_type = or_null(Type::Array);
    form
}

/// Where a webhook goes, or null.
pub(crate) fn webhook_url_or_null() -> Object {
    let mut form = webhook_url();
    form.schema_type = or_null(Type::String);
    form
}

/// What people call it, or null.
pub(crate) fn name_or_null() -> Object {
    let mut form = name();
    form.schema_type = or_null(Type::String);
    form
}

/// Where a delivery stands.
pub(crate) fn delivery_state() -> Object {
    word(DeliveryState::ALL.map(DeliveryState::as_str))
}

/// A name that is looked for.
pub(crate) fn sought() -> Object {
    text().pattern(Some(STORABLE)).build()
}

/// The name of a lane.
pub(crate) fn lane() -> Object {
    text().pattern(Some("^[a-z][a-z0-9_-]{0,63}$")).build()
}

/// Pairs that are looked for.
pub(crate) fn sought_pairs() -> Object {
    ObjectBuilder::new()
        .schema_type(SchemaType::Type(Type::Object))
        .min_properties(Some(1))
        .property_names(Some(Schema::Object(sought())))
        .additional_properties(Some(AdditionalProperties::RefOr(RefOr::T(Schema::Object(sought())))))
        .build()
}

/// The client's own pairs.
pub(crate) fn metadata() -> Object {
    let keys = storable(64).min_length(Some(1)).build();
    let values = RefOr::T(Schema::Object(storable(512).build()));
    nullable(Type::Object)
        .description(Some("Up to 16 pairs of your own: keys up to 64 characters, values up to 512."))
        .max_properties(Some(16))
        .property_names(Some(Schema::Object(keys)))
        .additional_properties(Some(AdditionalProperties::RefOr(values)))
        .build()
}

/// An idempotency key: with quotes, or without.
pub(crate) fn idempotency_key() -> Object {
    text().pattern(Some(r#"^("[ -~]{1,255}"|[!#-~]([ -~]{0,253}[!-~])?)$"#)).build()
}

/// A completion window.
pub(crate) fn window() -> Object {
    let words = "`24h`, or another whole number of `s`, `m`, `h` or `d` up to 30 days.";
    text().pattern(Some(WINDOW)).description(Some(words)).examples(["24h"]).build()
}

/// The model server's request.
pub(crate) fn request() -> Object {
    let model = storable(256).min_length(Some(1)).description(Some("See `GET /v1/models`.")).build();
    ObjectBuilder::new()
        .schema_type(SchemaType::Type(Type::Object))
        .description(Some(
            "The upstream's request body: a JSON object that names a `model`. Sent on as it came.",
        ))
        .property("model", model)
        .required("model")
        .build()
}

/// The requests of a batch. One with a fault does not make the batch a bad request, but one that fails.
pub(crate) fn requests() -> Array {
    let item = AnyOfBuilder::new().item(Ref::from_schema_name("Line")).item(anything());
    let text = "1 to 1,000 requests. What is wrong with one of them is told by a batch that is `failed`.";
    ArrayBuilder::new().items(item).max_items(Some(1_000)).description(Some(text)).build()
}

/// The seq of an event, or −1: before all of them. Clients who have none yet may say so by nothing.
pub(crate) fn seq() -> AnyOf {
    let whole = ObjectBuilder::new().schema_type(SchemaType::Type(Type::Integer));
    let whole = whole.minimum(Some(-1)).maximum(Some(crate::stream::SEQ_MAX));
    AnyOfBuilder::new().item(whole).item(text().max_length(Some(0))).build()
}
