//! `POST /v1/embeddings`: a unit vector for each input, the same for the same text.

use serde::{Deserialize, Serialize};

use crate::error::Failure;
use crate::reply::{Answer, json, required};
use crate::request::{Ask, unknown_fields};
use crate::text::{Seed, base64, prompt_tokens};
use crate::usage::Shown;

const DEFAULT_DIMENSIONS: usize = 256;
const MAX_DIMENSIONS: usize = 4096;
const MAX_INPUTS: usize = 2048;

#[derive(Serialize)]
struct List<'a> {
    object: &'static str,
    data: Vec<Embedding>,
    model: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    usage: Option<Shown<Usage>>,
    #[serde(flatten)]
    extra: crate::request::Extra,
}

#[derive(Serialize)]
struct Embedding {
    object: &'static str,
    index: usize,
    embedding: Vector,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Vector {
    Floats(Vec<f32>),
    Base64(String),
}

#[derive(Serialize)]
struct Usage {
    prompt_tokens: u64,
    total_tokens: u64,
}

/// Answers a request for embeddings.
pub(crate) fn answer(ask: &Ask<'_>, body: &[u8]) -> Result<Answer, Failure> {
    let inputs = inputs(required(ask.input, "input")?)?;
    let dimensions = ask.dimensions.unwrap_or(DEFAULT_DIMENSIONS);
    if !(1..=MAX_DIMENSIONS).contains(&dimensions) {
        return Err(Failure::invalid(Some("dimensions"), "Invalid 'dimensions': expected 1 to 4096."));
    }
    let packed = match ask.encoding_format.as_deref() {
        None | Some("float") => false,
        Some("base64") => true,
        Some(_) => return Err(Failure::invalid(Some("encoding_format"), "Expected 'float' or 'base64'.")),
    };
    let embed = |(index, input): (usize, &String)| {
        let vector =
            unit_vector(&Seed::of(&[b"embedding", ask.model.as_bytes(), input.as_bytes()]), dimensions);
        let embedding =
            if packed { Vector::Base64(base64(&little_endian(&vector))) } else { Vector::Floats(vector) };
        Embedding { object: "embedding", index, embedding }
    };
    let tokens = inputs.iter().map(|input| prompt_tokens(input)).sum();
    let list = List {
        object: "list",
        data: inputs.iter().enumerate().map(embed).collect(),
        model: &ask.model,
        usage: ask.sim.usage.unwrap_or_default().shown(
            Usage { prompt_tokens: tokens, total_tokens: tokens },
            ["prompt_tokens", "completion_tokens", "total_tokens"],
        ),
        extra: if ask.sim.echo_fields { unknown_fields(body)? } else { Default::default() },
    };
    Ok(Answer::whole(json(&list)))
}

/// A string, a list of strings, a list of token numbers or a list of such lists, as one text each.
pub(crate) fn inputs(input: &str) -> Result<Vec<String>, Failure> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Input {
        Text(String),
        Texts(Vec<String>),
        Tokens(Vec<u32>),
        Lists(Vec<Vec<u32>>),
    }
    let inputs = match serde_json::from_str(input) {
        Ok(Input::Text(text)) => vec![text],
        Ok(Input::Texts(texts)) => texts,
        Ok(Input::Tokens(list)) => vec![format!("{list:?}")],
        Ok(Input::Lists(lists)) => lists.iter().map(|list| format!("{list:?}")).collect(),
        Err(_) => Vec::new(),
    };
    match inputs.len() {
        1..=MAX_INPUTS if inputs.iter().all(|input| !input.is_empty()) => Ok(inputs),
        _ => Err(Failure::invalid(
            Some("input"),
            "'input' must be 1 to 2048 texts or token lists, none empty.",
        )),
    }
}

fn unit_vector(seed: &Seed, dimensions: usize) -> Vec<f32> {
    let mut rng = seed.rng(0);
    let vector: Vec<f32> = (0..dimensions).map(|_| rng.f32() - 0.5).collect();
    let length =
        vector.iter().map(|x| f64::from(*x) * f64::from(*x)).sum::<f64>().sqrt().max(f64::MIN_POSITIVE);
    vector.into_iter().map(|x| (f64::from(x) / length) as f32).collect()
}

fn little_endian(vector: &[f32]) -> Vec<u8> {
    vector.iter().flat_map(|x| x.to_le_bytes()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn vectors_are_unit_and_repeat() {
        let vector = unit_vector(&Seed::of(&[b"x"]), 300);
        let square: f32 = vector.iter().map(|x| x * x).sum();
        assert!((square - 1.0).abs() < 1e-4);
        assert_eq!(vector, unit_vector(&Seed::of(&[b"x"]), 300));
    }

    #[test]
    fn inputs_in_all_four_shapes() {
        assert_eq!(inputs(r#""a""#).unwrap().len(), 1);
        assert_eq!(inputs(r#"["a","b"]"#).unwrap().len(), 2);
        assert_eq!(inputs("[1,2]").unwrap().len(), 1);
        assert_eq!(inputs("[[1],[2],[3]]").unwrap().len(), 3);
        assert!(inputs("[]").is_err() && inputs(r#""""#).is_err());
    }
}
