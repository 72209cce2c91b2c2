//! Rules, and what they say of bodies.
//!
//! Poison stands for what a rule denies.

use super::*;

fn judged(rule: &str, body: &str) -> Result<(), (Option<String>, String)> {
    let rule: InputRule = toml::from_str(rule).expect("a rule");
    check(&[rule], "acme", "/v1/chat/completions", "llama-70b", body.as_bytes())
        .map(drop)
        .map_err(|refusal| (refusal.field, refusal.message))
}

fn refused(rule: &str, body: &str) -> (String, String) {
    let (field, message) = judged(&format!("name = 'house'\n{rule}"), body).expect_err("refused");
    assert!(message.starts_with("Rule 'house': "), "{message}");
    (field.unwrap_or_default(), message)
}

#[test]
fn a_rule_judges_its_own() {
    let body = r#"{"model":"llama-70b","messages":[{"role":"user","content":"hello"}]}"#;
    for others in ["projects = ['globex']", "endpoints = ['/v1/embeddings']"] {
        assert_eq!(judged(&format!("name = 'r'\nallow_models = []\n{others}"), body), Ok(()));
    }
    assert_eq!(refused("allow_models = ['gpt-*']", body).0, "body.model");
    assert_eq!(refused("projects = ['acme']\nallow_endpoints = ['/v1/embeddings']", body).0, "endpoint");
    for models in ["['gpt-4', 'llama-*']", "['llama-70b']", "['*']"] {
        assert_eq!(judged(&format!("name = 'r'\nallow_models = {models}"), body), Ok(()));
    }
}

#[test]
fn parameters_have_bounds() {
    let rule = "parameters = { temperature = { min = 0.0, max = 1.0 }, n = { max = 1 }, logprobs = { forbidden = true } }";
    assert_eq!(
        refused(rule, r#"{"temperature":1.5}"#).1,
        "Rule 'house': 'body.temperature' must be at most 1."
    );
    assert_eq!(refused(rule, r#"{"temperature":-1}"#).0, "body.temperature");
    assert_eq!(refused(rule, r#"{"n":"2"}"#).1, "Rule 'house': 'body.n' must be a number.");
    assert_eq!(refused(rule, r#"{"logprobs":null}"#).0, "body.logprobs");
    assert_eq!(judged(&format!("name = 'r'\n{rule}"), r#"{"temperature":0.5,"n":null}"#), Ok(()));
}

#[test]
fn output_is_bounded_by_the_request() {
    let rule = "output_tokens_max = 100";
    assert_eq!(refused(rule, "{}").0, "body.max_tokens");
    assert_eq!(refused(rule, r#"{"max_tokens":101}"#).0, "body.max_tokens");
    assert_eq!(
        refused(rule, r#"{"max_tokens":1,"max_completion_tokens":101}"#).0,
        "body.max_completion_tokens"
    );
    assert_eq!(refused(rule, r#"{"max_tokens":null}"#).0, "body.max_tokens");
    assert_eq!(
        refused(rule, r#"{"max_output_tokens":10}"#).0,
        "body.max_tokens",
        "a field of another endpoint"
    );
    for more in [
        r#""max_tokens":5e2"#,
        r#""n_predict":101"#,
        r#""max_tokens":-1"#,
        r#""max_tokens":"9""#,
        r#""max_tokens":0.5"#,
    ] {
        let body = format!(r#"{{"max_completion_tokens":1,{more}}}"#);
        assert!(judged(&format!("name = 'r'\n{rule}"), &body).is_err(), "{body}");
    }
    let elsewhere = r#"{"max_tokens":100,"max_output_tokens":101}"#;
    assert_eq!(judged("name = 'r'\noutput_tokens_max = 100", elsewhere), Ok(()));
    assert_eq!(judged("name = 'r'\noutput_tokens_max = 100", r#"{"max_tokens":100}"#), Ok(()));
}

#[test]
fn the_prompt_is_judged_and_not_told() {
    let body = r#"{"messages":[{"role":"system","content":"Mind."},
        {"role":"user","content":[{"type":"text","text":"My secret: é"}]}]}"#;
    assert_eq!(judged("name = 'r'\nprompt_chars_max = 17", body), Ok(()));
    let (field, message) = refused("prompt_chars_max = 16", body);
    assert_eq!((&*field, message.contains("at most 16 characters")), ("", true), "{message}");
    let (_, message) = refused("deny_patterns = ['^nothing$', '(?i)SECRET']", body);
    assert!(message.contains("pattern 2") && !message.contains("secret"), "{message}");
    assert_eq!(refused("deny_patterns = ['b+']", r#"{"input":["a","bb"]}"#).0, "");
}

#[test]
fn typing_errors_are_refused() {
    for wrong in ["deny_patterns = ['(']", "prompt_chars = 1", "parameters = { n = { most = 1 } }"] {
        assert!(toml::from_str::<InputRule>(&format!("name = 'r'\n{wrong}")).is_err(), "{wrong}");
    }
}

#[test]
fn a_bound_itself_is_allowed() {
    let rule = "parameters = { temperature = { min = 0.5, max = 1.0 } }";
    for temperature in ["0.5", "1.0", "null"] {
        let body = format!(r#"{{"temperature":{temperature}}}"#);
        assert_eq!(judged(&format!("name = 'r'\n{rule}"), &body), Ok(()));
    }
    assert_eq!(
        refused(rule, r#"{"temperature":0.4}"#).1,
        "Rule 'house': 'body.temperature' must be at least 0.5."
    );
    assert_eq!(judged("name = 'r'\noutput_tokens_max = 100", r#"{"max_tokens":7}"#), Ok(()));
}

#[test]
fn who_is_moderated_is_told_by_name() {
    let rule = |text: &str| toml::from_str::<InputRule>(text).expect("a rule");
    let moderation = "moderation = { upstream = 'guard' }";
    let rules = [
        rule("name = 'plain'"),
        rule(&format!("name = 'asks'\n{moderation}")),
        rule(&format!("name = 'others'\nprojects = ['globex']\n{moderation}")),
    ];
    let names = check(&rules, "acme", "/v1/embeddings", "m", b"{}");
    assert_eq!(names, Ok(vec!["asks".to_owned()]));
}

#[test]
fn rules_are_equal_if_their_patterns_are() {
    let rule = |pattern: &str| {
        let text = format!("name = 'r'\ndeny_patterns = ['{pattern}']");
        toml::from_str::<InputRule>(&text).expect("a rule")
    };
    assert_eq!(rule("a+"), rule("a+"));
    assert_ne!(rule("a+"), rule("b+"));
    let text = toml::to_string(&rule("a+")).expect("TOML");
    assert_eq!(toml::from_str::<InputRule>(&text).expect("a rule"), rule("a+"));
}

const RULE: &str = "name = 'r'\nparameters = { temperature = { max = 1.0 } }\ndeny_patterns = ['hemlock']";

/// What can be read in two ways, or not at all, is refused, and the place is named.
#[test]
fn what_is_ambiguous_is_refused() {
    for (body, field) in [
        (r#"{"model":"m","x":1e400}"#, "body.x"),
        (r#"{"x":["",{"y":-1e999}]}"#, "body.x[1].y"),
        (r#"{"x":1E+400}"#, "body.x"),
        (&format!(r#"{{"seed":{}}}"#, "9".repeat(400)), "body.seed"),
        (r#"{"model":"m","Model":"n"}"#, "body.Model"),
        (r#"{"Model":"n"}"#, "body.Model"),
        (r#"{"model":"m","\u006dodel":"n"}"#, "body.model"),
        (r#"{"model":"m","\u004dodel":"n"}"#, "body.Model"),
        (r#"{"messages":[],"messages":[]}"#, "body.messages"),
        (r#"{"messages":[],"meſſages":[]}"#, "body.meſſages"),
        (r#"{"Temperature":2}"#, "body.Temperature"),
        (r#"{"temperature":0,"TEMPERATURE":2}"#, "body.TEMPERATURE"),
        (r#"{"MAX_TOKENS":2}"#, "body.MAX_TOKENS"),
        (r#"{"messages":[{"role":"user","content":"a","content":"b"}]}"#, "body.messages[0].content"),
        (r#"{"messages":[{"content":[{"text":"a","Text":"b"}]}]}"#, "body.messages[0].content[0].Text"),
        (r#"{"metadata":{"a":"1","a":"2"}}"#, "body.metadata.a"),
        (r#"{"messages":[{"content":"a\ud800"}]}"#, "body.messages[0].content"),
    ] {
        let (at, message) = judged(RULE, body).expect_err(body);
        assert_eq!(at.as_deref(), Some(field), "{body}: {message}");
        assert!(message.starts_with("Input rules cannot judge this request: 'body"), "{message}");
    }
    for body in ["\u{feff}{}", "{} {}", "{\"a\":\"\u{1}\"}", &"[".repeat(200)] {
        assert!(judged(RULE, body).is_err(), "{body}");
    }
    let fine =
        r#"{"model":"m","seed":18446744073709551616,"x":1e308,"tools":[{"a":1},{"a":1,"A_b":2,"a_c":3}]}"#;
    assert_eq!(judged(RULE, fine), Ok(()));
    let many: Vec<String> = (0..40).map(|n| format!(r#""k{n}":{n}"#)).collect();
    assert_eq!(judged(RULE, &format!("{{{}}}", many.join(","))), Ok(()));
    assert!(judged(RULE, &format!(r#"{{{},"K39":1}}"#, many.join(","))).is_err());
}

/// Wherever a model may read it.
#[test]
fn every_text_is_judged() {
    for body in [
        r#"{"messages":[{"role":"user","content":"a hemlock"}]}"#,
        r#"{"messages":[{"role":"user","content":"a hem\u006cock"}]}"#,
        r#"{"messages":[{"role":"hemlock","content":""}]}"#,
        r#"{"messages":[{"role":"user","content":[{"type":"text","text":"hem"},{"type":"text","text":"lock"}]}]}"#,
        r#"{"messages":[{"content":[{"text":"hem","x":"y"},{"text":"lock"}]}]}"#,
        r#"{"messages":[{"content":"hem"},{"name":"ada","content":[{"type":"input_text","text":"lock"}]}]}"#,
        r#"{"messages":[{"content":["h","e","m","lock"]}]}"#,
        r#"{"messages":[{"tool_calls":[{"id":"call_1","function":{"name":"f","arguments":"{\"a\":\"hemlock\"}"}}]}]}"#,
        r#"{"messages":[{"content":[{"type":"tool_use","id":"1","input":{"hemlock":1}}]}]}"#,
        r#"{"tools":[{"type":"function","function":{"name":"f","description":"hemlock"}}]}"#,
        r#"{"tools":[{"type":"function","function":{"name":"hemlock"}}]}"#,
        r#"{"tools":[{"parameters":{"properties":{"a":{"description":"hemlock"}}}}]}"#,
        r#"{"tools":[{"parameters":{"properties":{"hemlock":{"type":"string"}}}}]}"#,
        r#"{"tools":[{"parameters":{"properties":{"a":{"enum":["hemlock"]}}}}]}"#,
        r#"{"functions":[{"description":"hemlock"}]}"#,
        r#"{"prompt":"hemlock"}"#,
        r#"{"prompt":["hem","lock"]}"#,
        r#"{"prompt":"a","suffix":"hemlock"}"#,
        r#"{"response_format":{"type":"json_schema","json_schema":{"description":"hemlock"}}}"#,
        r#"{"response_format":{"json_schema":{"schema":{"$defs":{"hemlock":{}}}}}}"#,
        r#"{"text":{"format":{"schema":{"title":"hemlock"}}}}"#,
        r#"{"documents":[{"title":"hemlock"}]}"#,
        r#"{"documents":[{"meta":{"hemlock":"x"}}]}"#,
        r#"{"chat_template":"hemlock"}"#,
        r#"{"chat_template_kwargs":{"a":{"hemlock":true}}}"#,
        r#"{"input":[{"role":"user","content":[{"type":"input_text","text":"hemlock"}]}]}"#,
        r#"{"system":[{"type":"text","text":"hem"},{"type":"text","text":"lock"}]}"#,
        r#"{"instructions":"hemlock"}"#,
        r#"{"query":"hemlock"}"#,
        r#"{"texts":["a","hemlock"]}"#,
        r#"{"guided_grammar":"hemlock"}"#,
        r#"{"reasoning_effort":"hemlock"}"#,
        r#"{"something_new":{"deep":[["hemlock"]]}}"#,
        r#"{"a hemlock":1}"#,
        r#"{"messages":[{"tool_call_id":"a hemlock"}]}"#,
    ] {
        let (field, message) = judged(RULE, body).expect_err(body);
        assert_eq!((field, message.contains("pattern 1")), (None, true), "{body}: {message}");
    }
    for body in [
        r#"{"model":"hemlock","user":"hemlock","metadata":{"a":"hemlock"},"previous_response_id":"hemlock"}"#,
        r#"{"messages":[{"role":"user","tool_call_id":"hemlock","hemlock":1}]}"#,
        r#"{"input":[{"role":"user","hemlock":null,"content":[{"type":"input_text","hemlock":0}]}]}"#,
    ] {
        assert_eq!(judged(RULE, body), Ok(()), "{body}");
    }
}

#[test]
fn tokens_are_refused_where_texts_are_judged() {
    for (body, field) in [
        (r#"{"prompt":[1,2]}"#, "body.prompt"),
        (r#"{"prompt":["a",2]}"#, "body.prompt"),
        (r#"{"prompt":[[1,2],[3]]}"#, "body.prompt"),
        (r#"{"input":[1.0]}"#, "body.input"),
        (r#"{"context":[1]}"#, "body.context"),
        (r#"{"prompt_token_ids":[]}"#, "body.prompt_token_ids"),
        (r#"{"x":{"Prompt_Embeds":"AAAA"}}"#, "body.x.Prompt_Embeds"),
    ] {
        let (at, message) = judged(RULE, body).expect_err(body);
        assert_eq!(at.as_deref(), Some(field), "{body}: {message}");
        assert_eq!(judged("name = 'r'\nallow_models = ['*']", body), Ok(()), "no text is judged");
    }
    let fine = r#"{"logit_bias":[[1,2]],"stop_token_ids":[1],"input":[{"logprobs":[{"bytes":[1]}]}],"x":{"enum":[1]}}"#;
    assert_eq!(judged(RULE, fine), Ok(()));
}

#[test]
fn bounds_are_reached_at_once() {
    let texts = |count: usize| format!(r#"{{"input":[{}]}}"#, vec![r#""""#; count].join(","));
    assert_eq!(judged(RULE, &texts(100_000)), Ok(()));
    let (field, message) = judged(RULE, &texts(100_001)).expect_err("too many");
    assert_eq!((field.as_deref(), message.contains("100000 texts")), (Some("body"), true), "{message}");
    // What comes behind the bound is not even parsed.
    assert!(refused("prompt_chars_max = 3", r#"{"prompt":"long","x":1e400}"#).1.contains("at most 3"));
}
