//! What must pass a moderation model before its own model is called: the rules that a task was accepted under say which one. A model
//! that does not answer, or not clearly, lets nothing pass.

use crate::{
    breaker,
    classify::{Failure, Kind},
    context::Context,
    upstream::{self, Reply, client::Server},
};
use bytes::Bytes;
use serde::Deserialize;
use shared::{
    input::{self, Moderation, Question},
    store::Claimed,
    task::ErrorCode,
};
use tokio::{task::spawn_blocking, time::Instant};

/// Where moderation models are, on every upstream that has them.
const ENDPOINT: &str = "/v1/moderations";
/// Bytes up to which a body is read at once.
const AT_ONCE_MAX: usize = 16 << 10;

#[derive(Deserialize)]
struct Said {
    results: Vec<Judged>,
}

#[derive(Deserialize)]
struct Judged {
    flagged: bool,
}

/// Asks one model after the other, until one flags the prompt. `trial`: a paused upstream that this task tries.
///
/// # Errors
/// One flagged it, or could not be asked.
///
/// # Cancel safety
/// Dropping the future closes the connection.
pub(crate) async fn pass(
    ctx: &Context,
    claimed: &Claimed,
    trial: Option<&str>,
    body: &Bytes,
) -> Result<(), Failure> {
    if claimed.moderation.is_empty() {
        return Ok(());
    }
    for name in &claimed.moderation {
        let rule = ctx.config.input_rules.iter().find(|rule| rule.name == *name);
        let moderation = rule.and_then(|rule| rule.moderation.as_ref());
        let found =
            moderation.and_then(|moderation| Some((moderation, ctx.servers.get(&moderation.upstream)?)));
        let (moderation, server) = found.ok_or_else(|| {
            let message = format!("this worker does not know rule '{name}', or its moderation upstream");
            Failure::new(Kind::Transient, ErrorCode::NoUpstream, message)
        })?;
        let model = moderation.model.as_deref().unwrap_or_default();
        if trial != Some(&*server.name) && !ctx.backends.pauses.may_call(&server.name, model) {
            let left = ctx.backends.pauses.left([&*server.name].into_iter(), model);
            let kind = Kind::Throttled(Some(left).filter(|wait| !wait.is_zero()));
            return Err(Failure::new(kind, ErrorCode::NoUpstream, "the moderation upstream is paused"));
        }
        if ask(ctx, claimed, (server, moderation), body).await? {
            let message = format!("Rule '{name}': the moderation model flagged the prompt.");
            return Err(Failure::new(Kind::Permanent, ErrorCode::InputRefused, message));
        }
    }
    Ok(())
}

/// Whether the model flags one of the texts.
async fn ask(
    ctx: &Context,
    claimed: &Claimed,
    (server, moderation): (&Server, &Moderation),
    body: &Bytes,
) -> Result<bool, Failure> {
    let model = moderation.model.as_deref().unwrap_or_default();
    let Question { body, texts } = question(moderation, body).await?;
    if texts == 0 {
        return Ok(false);
    }
    let (task, backoff, begun) = (claimed.task, claimed.backoff, Instant::now());
    let mut outcome = upstream::post(server, &ctx.config.worker, ENDPOINT, body.into()).await;
    breaker::note(ctx, server, breaker::Called { task, model, begun, backoff }, &mut outcome).await;
    read(&outcome.map_err(of_moderation)?, texts)
}

/// The question, which for a long body is made on a thread of its own.
async fn question(moderation: &Moderation, body: &Bytes) -> Result<Question, Failure> {
    let (model, asked) = (moderation.model.clone(), body.clone());
    let ask = move || input::question(model.as_deref(), &asked);
    let question = match body.len() <= AT_ONCE_MAX {
        true => ask(),
        false => spawn_blocking(ask).await.map_err(|error| {
            Failure::new(Kind::Transient, ErrorCode::WorkerPanicked, format!("moderation: {error}"))
        })?,
    };
    question.map_err(|refusal| Failure::new(Kind::Permanent, ErrorCode::InputRefused, refusal.message))
}

/// The same failure, told of the right model. What the moderation model answered is nobody's result.
fn of_moderation(failure: Failure) -> Failure {
    Failure { message: format!("moderation: {}", failure.message), reply: None, said: None, ..failure }
}

fn read(reply: &Reply, texts: usize) -> Result<bool, Failure> {
    match serde_json::from_slice::<Said>(&reply.body) {
        Ok(said) if said.results.len() == texts => Ok(said.results.iter().any(|judged| judged.flagged)),
        _ => {
            let message = "moderation: the answer does not judge every text";
            Err(Failure::new(Kind::Transient, ErrorCode::UpstreamMalformed, message))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(body: &str) -> Result<bool, ErrorCode> {
        let body = Bytes::copy_from_slice(body.as_bytes());
        let reply = Reply { status: 200, content_type: "application/json".into(), request_id: None, body };
        read(&reply, 2).map_err(|failure| failure.code)
    }

    #[test]
    fn one_flag_is_enough_and_doubt_is_no_pass() {
        assert_eq!(said(r#"{"results":[{"flagged":false,"categories":{}},{"flagged":false}]}"#), Ok(false));
        assert_eq!(said(r#"{"results":[{"flagged":false},{"flagged":true}]}"#), Ok(true));
        let unclear =
            [r#"{"results":[]}"#, r#"{"results":[{"flagged":false}]}"#, "{}", "no", r#"{"results":[{},{}]}"#];
        for unclear in unclear {
            assert_eq!(said(unclear), Err(ErrorCode::UpstreamMalformed), "{unclear}");
        }
    }
}
