//! Whatever pieces an unstreamed body is cut into, in the manner of any server, they fold back to the same body.

use super::Fold;
use fastrand::Rng;
use serde_json::{Map, Value, json};

/// How a server names the tool call that a piece belongs to.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Naming {
    /// `index` with each piece, `id` and name with the first: OpenAI, vLLM, llama.cpp.
    Index,
    /// `index` and `id` with each piece.
    Both,
    /// `index`, `id` and name with each piece.
    All,
    /// Neither, but with the first piece.
    First,
    /// Whole calls, all of index 0: Ollama.
    Zero,
    /// Whole calls without an index: Mistral.
    Whole,
}

const NAMINGS: [Naming; 6] =
    [Naming::Index, Naming::Both, Naming::All, Naming::First, Naming::Zero, Naming::Whole];

/// Members of a delta that come in pieces.
const TEXTS: [&str; 5] = ["content", "reasoning", "reasoning_content", "refusal", "text"];

fn chat_bodies() -> Vec<Value> {
    let call = |id: &str, name: &str, arguments: &str| json!({"id": id, "type": "function", "function": {"name": name, "arguments": arguments}});
    let body = |choices: Value| {
        json!({"id": "chatcmpl-1", "object": "chat.completion", "created": 1_764_000_000, "model": "m", "system_fingerprint": "fp",
            "choices": choices, "usage": {"prompt_tokens": 7, "completion_tokens": 9, "total_tokens": 16}})
    };
    let one = |message: Value, reason: &str| {
        body(json!([{"index": 0, "message": message, "finish_reason": reason}]))
    };
    vec![
        one(json!({"role": "assistant", "content": "Héllo \u{0} \u{1f600} \"world\"\\ \n and on"}), "stop"),
        one(json!({"role": "assistant", "content": ""}), "length"),
        one(json!({"role": "assistant", "content": "a", "refusal": null, "annotations": []}), "stop"),
        one(
            json!({"role": "assistant", "content": "four", "reasoning_content": "two and two", "reasoning": "2+2"}),
            "stop",
        ),
        one(json!({"role": "assistant", "content": null, "refusal": "I cannot do that."}), "content_filter"),
        one(
            json!({"role": "assistant", "content": null, "tool_calls": [call("a", "f", r#"{"x":{"y":[1,"}"]}}"#)]}),
            "tool_calls",
        ),
        one(
            json!({"role": "assistant", "content": null, "tool_calls": [
            call("a", "f", r#"{"x":1}"#), call("b", "f", r#"{"x":1}"#), call("c", "g", "{}")]}),
            "tool_calls",
        ),
        one(
            json!({"role": "assistant", "content": "I look it up.", "tool_calls": [call("a", "f", r#"{"q":"\\\"é"}"#), call("b", "g", r#"{ "n": 1.50 }"#)]}),
            "tool_calls",
        ),
        one(
            json!({"role": "assistant", "content": [
            {"type": "thinking", "thinking": [{"type": "text", "text": "Let me think."}]}, {"type": "text", "text": "It is four."}]}),
            "stop",
        ),
        one(
            json!({"role": "assistant", "content": "x", "reasoning_details": [
            {"type": "reasoning.text", "text": "Because it is so.", "format": "f", "index": 0},
            {"type": "reasoning.encrypted", "data": "AAAA", "id": "r", "index": 1}]}),
            "stop",
        ),
        body(json!([
            {"index": 0, "message": {"role": "assistant", "content": "zero"}, "logprobs": {"content": [
                {"token": "ze", "logprob": -0.5, "top_logprobs": []}, {"token": "ro", "logprob": -1e-9, "top_logprobs": []}], "refusal": null}, "finish_reason": "stop"},
            {"index": 1, "message": {"role": "assistant", "content": "one", "tool_calls": [call("a", "f", "{}")]}, "finish_reason": "tool_calls"},
            {"index": 2, "message": {"role": "assistant", "content": "two"}, "finish_reason": "length"}])),
    ]
}

/// Cuts a text into pieces, some of them empty.
fn pieces(text: &str, rng: &mut Rng) -> Vec<String> {
    let mut pieces = vec![String::new()];
    for char in text.chars() {
        if rng.u8(..4) == 0 {
            pieces.push(String::new());
        }
        pieces.last_mut().expect("one is there").push(char);
    }
    pieces
}

/// The deltas of one message, in order.
fn deltas(message: &Map<String, Value>, naming: Naming, rng: &mut Rng) -> Vec<Value> {
    let mut deltas = vec![json!({"role": message["role"]})];
    for (name, value) in message {
        match value {
            Value::String(text) if TEXTS.contains(&name.as_str()) => {
                deltas.extend(pieces(text, rng).into_iter().map(|piece| json!({name: piece})));
            }
            Value::Array(list) if name == "tool_calls" => deltas.extend(calls(list, naming, rng)),
            Value::Array(list) if name == "content" => deltas.extend(parts(list, rng)),
            Value::Array(list) if name == "reasoning_details" => {
                for detail in list {
                    let text = detail["text"].as_str().unwrap_or("");
                    for (at, piece) in pieces(text, rng).into_iter().enumerate() {
                        let mut told = detail.clone();
                        if at > 0 {
                            told = json!({"type": detail["type"], "index": detail["index"]});
                        }
                        if !text.is_empty() {
                            told["text"] = piece.into();
                        }
                        deltas.push(json!({name: [told]}));
                    }
                }
            }
            _ if name != "role" => deltas.push(json!({name: value})),
            _ => {}
        }
    }
    deltas
}

fn calls(list: &[Value], naming: Naming, rng: &mut Rng) -> Vec<Value> {
    let mut deltas = Vec::new();
    for (index, call) in list.iter().enumerate() {
        let mut cut = pieces(call["function"]["arguments"].as_str().unwrap(), rng);
        if matches!(naming, Naming::Zero | Naming::Whole) {
            cut = vec![cut.concat()];
        }
        for (at, piece) in cut.into_iter().enumerate() {
            let mut told = json!({"function": {"arguments": piece}});
            if at == 0 || naming == Naming::All {
                told["type"] = call["type"].clone();
                told["function"]["name"] = call["function"]["name"].clone();
            }
            if at == 0 || matches!(naming, Naming::Both | Naming::All) {
                told["id"] = call["id"].clone();
            }
            match naming {
                Naming::Index | Naming::Both | Naming::All => told["index"] = index.into(),
                Naming::Zero => told["index"] = 0.into(),
                Naming::First | Naming::Whole => {}
            }
            deltas.push(json!({"tool_calls": [told]}));
        }
    }
    deltas
}

/// Parts as Mistral streams them: thinking as lists, the last text as plain strings or as parts.
fn parts(list: &[Value], rng: &mut Rng) -> Vec<Value> {
    let as_strings = rng.bool();
    let mut deltas = Vec::new();
    for part in list {
        if let Some(text) = part["text"].as_str() {
            let told = |piece: String| match as_strings {
                true => json!({"content": piece}),
                false => json!({"content": [{"type": "text", "text": piece}]}),
            };
            deltas.extend(pieces(text, rng).into_iter().map(told));
        } else {
            let text = part["thinking"][0]["text"].as_str().unwrap();
            deltas.extend(pieces(text, rng).into_iter().map(|piece| {
                json!({"content": [{"type": "thinking", "thinking": [{"type": "text", "text": piece}]}]})
            }));
        }
    }
    deltas
}

/// The chunks of a whole body: deltas of the choices interleaved, signs of life and repetitions between them.
fn chunks(body: &Value, naming: Naming, rng: &mut Rng) -> Vec<Value> {
    let head = |choices: Value| {
        let mut chunk = body.clone();
        chunk["object"] = "chat.completion.chunk".into();
        chunk["choices"] = choices;
        chunk.as_object_mut().unwrap().remove("usage");
        chunk
    };
    let mut lanes: Vec<(u64, Vec<Value>)> = Vec::new();
    for choice in body["choices"].as_array().unwrap() {
        let index = choice["index"].as_u64().unwrap();
        let mut lane: Vec<Value> = deltas(choice["message"].as_object().unwrap(), naming, rng)
            .into_iter()
            .map(|delta| json!({"index": index, "delta": delta, "finish_reason": null}))
            .collect();
        for entry in choice["logprobs"]["content"].as_array().into_iter().flatten() {
            lane.push(
                json!({"index": index, "delta": {}, "logprobs": {"content": [entry], "refusal": null}}),
            );
        }
        lane.push(json!({"index": index, "delta": {}, "finish_reason": choice["finish_reason"]}));
        if rng.bool() {
            // Blank values that come late.
            lane.push(json!({"index": index, "delta": {"content": "", "role": ""}, "finish_reason": ""}));
        }
        lane.reverse();
        lanes.push((index, lane));
    }
    let mut chunks = Vec::new();
    while !lanes.is_empty() {
        let at = rng.usize(..lanes.len());
        match lanes[at].1.pop() {
            Some(choice) => chunks.push(head(json!([choice]))),
            None => drop(lanes.remove(at)),
        }
        if rng.u8(..8) == 0 {
            chunks.push(head(json!([])));
        }
    }
    let mut last = head(json!([]));
    last["usage"] = body["usage"].clone();
    chunks.push(last);
    if rng.bool() {
        let mut blank = head(json!([]));
        (blank["id"], blank["model"], blank["usage"]) = ("".into(), Value::Null, Value::Null);
        chunks.push(blank);
    }
    chunks
}

fn folded(endpoint: &str, choices: usize, chunks: &[Value]) -> Value {
    let mut fold = Fold::of(endpoint, choices).unwrap();
    chunks.iter().for_each(|chunk| drop(fold.push(&chunk.to_string()).unwrap()));
    assert!(fold.is_finished());
    serde_json::from_str(&fold.finish().unwrap()).unwrap()
}

#[test]
fn chat_completions_fold_back() {
    for seed in 0..40 {
        for (n, body) in chat_bodies().iter().enumerate() {
            for naming in NAMINGS {
                let chunks = chunks(body, naming, &mut Rng::with_seed(seed));
                let got = folded("/v1/chat/completions", body["choices"].as_array().unwrap().len(), &chunks);
                assert_eq!(&got, body, "body {n}, {naming:?}, seed {seed}: {chunks:#?}");
            }
        }
    }
}

#[test]
fn completions_fold_back() {
    let body = json!({"id": "c", "object": "text_completion", "created": 1, "model": "m", "choices": [
        {"index": 0, "text": "once upon\u{0}", "logprobs": {"tokens": ["once", " upon"], "token_logprobs": [null, -0.25], "text_offset": [0, 4]}, "finish_reason": "length"},
        {"index": 1, "text": "", "logprobs": null, "finish_reason": "stop"}]});
    for seed in 0..200 {
        let rng = &mut Rng::with_seed(seed);
        let mut chunks = Vec::new();
        for choice in body["choices"].as_array().unwrap() {
            let chunk = |choice: Value| json!({"id": "c", "object": "text_completion", "created": 1, "model": "m", "choices": [choice]});
            for piece in pieces(choice["text"].as_str().unwrap(), rng) {
                chunks.push(chunk(
                    json!({"index": choice["index"], "text": piece, "logprobs": null, "finish_reason": null}),
                ));
            }
            for at in 0..choice["logprobs"]["tokens"].as_array().map_or(0, Vec::len) {
                let one = |name: &str| json!([choice["logprobs"][name][at]]);
                let logprobs = json!({"tokens": one("tokens"), "token_logprobs": one("token_logprobs"), "text_offset": one("text_offset")});
                chunks.push(chunk(json!({"index": choice["index"], "text": "", "logprobs": logprobs})));
            }
            chunks.push(chunk(
                json!({"index": choice["index"], "text": "", "finish_reason": choice["finish_reason"]}),
            ));
        }
        assert_eq!(folded("/v1/completions", 2, &chunks), body, "seed {seed}");
    }
}

#[test]
fn messages_fold_back() {
    let body = json!({"id": "msg", "type": "message", "role": "assistant", "model": "m", "content": [
        {"type": "thinking", "thinking": "Hm, é \u{1f600}.", "signature": "c2ln"},
        {"type": "text", "text": "I look.\n", "citations": [{"type": "char_location", "cited_text": "x"}, {"type": "char_location", "cited_text": "y"}]},
        {"type": "redacted_thinking", "data": "AAAA"},
        {"type": "tool_use", "id": "t1", "name": "f", "input": {"city": "Zürich \u{1f600}", "n": [1, 2.50, {"a": null}]}},
        {"type": "tool_use", "id": "t2", "name": "g", "input": {}}],
        "stop_reason": "tool_use", "stop_sequence": null, "usage": {"input_tokens": 5, "cache_read_input_tokens": 2, "output_tokens": 9}});
    for seed in 0..200 {
        let rng = &mut Rng::with_seed(seed);
        let mut started = body.clone();
        (started["content"], started["stop_reason"], started["usage"]["output_tokens"]) =
            (json!([]), Value::Null, 1.into());
        let mut events = vec![json!({"type": "message_start", "message": started})];
        for (index, block) in body["content"].as_array().unwrap().iter().enumerate() {
            let mut start = block.clone();
            let delta = |kind: &str, name: &str, value: Value| json!({"type": "content_block_delta", "index": index, "delta": {"type": kind, name: value}});
            let mut deltas = Vec::new();
            for (kind, name) in
                [("text_delta", "text"), ("thinking_delta", "thinking"), ("signature_delta", "signature")]
            {
                if let Some(text) = block[name].as_str() {
                    start[name] = "".into();
                    let cut = if name == "signature" { vec![text.to_owned()] } else { pieces(text, rng) };
                    deltas.extend(cut.into_iter().map(|piece| delta(kind, name, piece.into())));
                }
            }
            for citation in block["citations"].as_array().into_iter().flatten() {
                start["citations"] = json!([]);
                deltas.push(delta("citations_delta", "citation", citation.clone()));
            }
            if block["type"] == "tool_use" {
                start["input"] = json!({});
                let cut = pieces(&block["input"].to_string(), rng);
                deltas.extend(
                    cut.into_iter().map(|piece| delta("input_json_delta", "partial_json", piece.into())),
                );
            }
            events.push(json!({"type": "content_block_start", "index": index, "content_block": start}));
            events.extend(deltas);
            events.push(json!({"type": "content_block_stop", "index": index}));
            events.push(json!({"type": "ping"}));
        }
        events.push(json!({"type": "message_delta", "delta": {"stop_reason": body["stop_reason"], "stop_sequence": null}, "usage": {"output_tokens": 9}}));
        if rng.bool() {
            events.push(json!({"type": "message_stop"}));
        }
        assert_eq!(folded("/v1/messages", 1, &events), body, "seed {seed}");
    }
}
