//! What answers of many servers come to, in both relays: the inputs stand in `servers`, one file for each kind of server.

mod corpus;

use corpus::{Case, cases};
use harness::{App, Mode, ScriptedUpstream};
use serde_json::{Value, json};
use std::{collections::BTreeSet, sync::Arc};

use crate::tidy::text;

#[tokio::test(flavor = "multi_thread")]
async fn each_is_judged_by_what_it_is() -> anyhow::Result<()> {
    let cases = Arc::new(cases()?);
    let known = cases.clone();
    let model = ScriptedUpstream::choosing(move |request| {
        let request: Value = serde_json::from_slice(request).ok()?;
        let number: usize = request["user"].as_str()?.parse().ok()?;
        Some(known[number].scripted())
    })
    .await?;
    let app = App::with(Mode::Embedded)
        .upstream(&model.url)
        .file(&format!(
            "[[upstreams]]\nname = \"default\"\nurl = \"{}\"\nendpoints = {:?}",
            model.url,
            endpoints(&cases)
        ))
        .env("LONGHAUL_WORKER__BREAKER_FAILURES", "10000")
        .slots(256)
        .start()
        .await?;
    let mut submitted = Vec::new();
    for relay in ["deltas", "lifecycle"] {
        for (number, case) in cases.iter().enumerate() {
            let task = task(case, number, relay);
            let accepted = app.client().post_bytes("/v1/tasks", task).await?.expect(202)?;
            submitted.push((relay, case, accepted["id"].as_str().unwrap_or_default().to_owned()));
        }
    }
    let mut wrong = Vec::new();
    for (relay, case, id) in submitted {
        let ended = app.client().ended(&id).await?;
        let result = app.client().get(&format!("/v1/tasks/{id}/result")).await?;
        let complaint = complaint(case, relay, &ended, &result.body);
        wrong
            .extend(complaint.map(|why| format!("{}, {} ({relay}): {why}\n{ended}", case.server, case.what)));
    }
    assert!(wrong.is_empty(), "{} are wrong:\n{}", wrong.len(), wrong.join("\n\n"));
    Ok(())
}

/// Where all of them are asked for.
fn endpoints(cases: &[Case]) -> Vec<&str> {
    let all: BTreeSet<&str> = cases.iter().map(|case| case.endpoint.as_str()).collect();
    all.into_iter().collect()
}

/// The task whose answer is this case. Where the client asks for a stream itself, the lifecycle relay keeps one.
fn task(case: &Case, number: usize, relay: &str) -> String {
    let stream = if case.stream.is_some() && relay == "lifecycle" { r#","stream":true"# } else { "" };
    let more = case.request.as_deref().map_or(String::new(), |more| format!(",{more}"));
    let body = format!(r#"{{"model":"case-{number}","user":"{number}"{stream}{more}}}"#);
    let policy = json!({"events": relay, "max_attempts": 1});
    format!(r#"{{"endpoint":"{}","policy":{policy},"body":{body}}}"#, case.endpoint)
}

/// What is wrong with an end.
fn complaint(case: &Case, relay: &str, ended: &Value, result: &[u8]) -> Option<String> {
    let end = ended["error"]["code"].as_str().or(ended["status"].as_str());
    if end != Some(&case.ends) {
        return Some(format!("should end as {}", case.ends));
    }
    let folded = case.stream.is_some() && relay == "deltas";
    // Signs of life belong to what came.
    let kept = if case.beats() { result.starts_with(&case.body()) } else { result == case.body() };
    if case.ends == "completed" && !folded && !kept {
        return Some("should be kept byte for byte".to_owned());
    }
    let shown = match case.ends.as_str() {
        "completed" => String::from_utf8_lossy(result).into_owned(),
        _ => ended["error"].to_string(),
    };
    // What a stream folds to is seen where it is folded.
    let looked_at = folded || case.ends != "completed";
    let lacks = case.has.iter().find(|has| looked_at && !shown.contains(*has));
    let has = case.lacks.iter().find(|lacks| looked_at && shown.contains(*lacks));
    let (input, output) = (&ended["usage"]["input_tokens"], &ended["usage"]["output_tokens"]);
    let usage =
        case.usage.filter(|usage| *usage != [input.as_u64().unwrap_or(0), output.as_u64().unwrap_or(0)]);
    let lacks = lacks.map(|lacks| format!("should have {lacks}: {shown}"));
    let has = has.map(|has| format!("should not have {has}: {shown}"));
    lacks.or(has).or(usage.map(|usage| format!("should have usage {usage:?}")))
}

#[test]
fn all_are_listed() -> anyhow::Result<()> {
    let rows = cases()?.into_iter().map(|case| {
        let form = if case.stream.is_some() { "stream" } else { "body" };
        format!("| {} | {} | {form} | `{}` |", case.server, case.what, case.ends)
    });
    let rows: Vec<String> = rows.collect();
    assert!(rows.len() >= 120, "{} answers", rows.len());
    let page = text("docs/upstreams.md");
    let listed: Vec<&str> = page.lines().skip_while(|line| !line.starts_with("| server ")).skip(2).collect();
    let listed: Vec<&str> = listed.into_iter().take_while(|line| line.starts_with('|')).collect();
    assert_eq!(listed, rows, "docs/upstreams.md lists them all:\n{}", rows.join("\n"));
    Ok(())
}
