//! A request to a model that comes without the task around it: what clients send who take this for a model server. Pure.

use crate::error::ApiError;
use serde::Deserialize;

/// What to say to a client who sends what is meant for the model without the task around it.
pub(crate) fn told(json: &[u8]) -> Option<ApiError> {
    #[derive(Deserialize)]
    struct Bare {
        body: Option<serde::de::IgnoredAny>,
        model: Option<serde::de::IgnoredAny>,
        messages: Option<serde::de::IgnoredAny>,
        prompt: Option<serde::de::IgnoredAny>,
        input: Option<serde::de::IgnoredAny>,
    }
    let Bare { body: None, model, messages, prompt, input } = serde_json::from_slice(json).ok()? else {
        return None;
    };
    let (endpoint, field) = match (messages, prompt, input) {
        (Some(_), ..) => ("/v1/chat/completions", "messages"),
        (_, Some(_), _) => ("/v1/completions", "prompt"),
        (.., Some(_)) => ("/v1/responses", "input"),
        _ => ("/v1/chat/completions", "messages"),
    };
    model.map(|_| ApiError::Invalid {
        message: format!(
            "Missing required parameter: 'body'. Put the request to the model inside it: {{\"endpoint\": \"{endpoint}\", \"body\": \
             {{\"model\": …, \"{field}\": …}}}}."
        ),
        code: "missing_required_parameter",
        param: Some("body".to_owned()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(json: &str) -> Option<(String, Option<String>)> {
        match super::told(json.as_bytes())? {
            ApiError::Invalid { message, param, .. } => Some((message, param)),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_request_without_a_task_around_it_is_told_where_it_belongs() {
        for (json, endpoint) in [
            (r#"{"model":"m","messages":[]}"#, "/v1/chat/completions"),
            (r#"{"messages":[],"model":"m","temperature":0.5,"stream":true}"#, "/v1/chat/completions"),
            (r#"{"endpoint":"/v1/chat/completions","model":"m","messages":[]}"#, "/v1/chat/completions"),
            (r#"{"model":"m","prompt":"p"}"#, "/v1/completions"),
            (r#"{"model":"m","input":"p"}"#, "/v1/responses"),
            (r#"{"model":"m"}"#, "/v1/chat/completions"),
        ] {
            let (message, param) = told(json).expect(json);
            assert!(param.as_deref() == Some("body") && message.contains(endpoint), "{json}: {message}");
        }
        // With a body, what stands beside it is the mistake.
        assert_eq!(told(r#"{"endpoint":"/v1/x","body":{"model":"m"},"model":"m"}"#), None);
        assert_eq!(told(r#"{"endpoint":"/v1/x"}"#), None);
    }
}
