//! `POST /v1/moderations`: flags texts that contain `[flagged]`.

use serde::Serialize;

use crate::embeddings::inputs;
use crate::error::Failure;
use crate::reply::{Answer, json, required};
use crate::request::Ask;

#[derive(Serialize)]
struct Said<'a> {
    id: &'static str,
    model: &'a str,
    results: Vec<Judged>,
}

#[derive(Serialize)]
struct Judged {
    flagged: bool,
    categories: Violence<bool>,
    category_scores: Violence<f32>,
}

#[derive(Serialize)]
struct Violence<T> {
    violence: T,
}

/// Answers a request for a judgement.
pub(crate) fn answer(ask: &Ask<'_>) -> Result<Answer, Failure> {
    let judge = |text: &String| {
        let flagged = text.contains("[flagged]");
        let score = if flagged { 0.99 } else { 0.01 };
        Judged {
            flagged,
            categories: Violence { violence: flagged },
            category_scores: Violence { violence: score },
        }
    };
    let inputs = inputs(required(ask.input, "input")?)?;
    let results = inputs.iter().map(judge).collect();
    Ok(Answer::whole(json(&Said { id: "modr-sim", model: &ask.model, results })))
}
