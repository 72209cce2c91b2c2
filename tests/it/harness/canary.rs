//! What must not get out is found in every form, and an app that says it fails its test.

use base64::{Engine, prelude::BASE64_STANDARD, prelude::BASE64_URL_SAFE_NO_PAD};
use harness::{App, Canaries, Mode};
use std::panic::{AssertUnwindSafe, catch_unwind};

#[test]
fn a_word_is_found_in_every_form() {
    let mut canaries = Canaries::default();
    let word = canaries.plant("password");
    let (net, bytes) = (canaries.net(), word.as_bytes());
    let hexadecimal: String = word.bytes().map(|byte| format!("{byte:02X}")).collect();
    let mut texts = vec![
        format!("Bearer {word}, and more"),
        format!("{bytes:?}"),
        serde_json::to_string(bytes).expect("JSON"),
        format!("\\x{}", hexadecimal.to_lowercase()),
        hexadecimal,
    ];
    for before in ["", "a", "ab", "abc"] {
        texts.push(BASE64_STANDARD.encode(format!("{before}{word}")));
        texts.push(BASE64_URL_SAFE_NO_PAD.encode(format!("{before}{word}:?ÿ")));
    }
    for text in texts {
        let text = format!("first\nsecond {text}\nthird");
        assert_eq!(net.found_in("a.log", text.as_bytes()), ["a.log:2: password"], "{text}");
    }
    assert!(net.found_in("a.log", &bytes[1..]).is_empty());
    assert!(canaries.but(&["password"]).net().found_in("a.log", bytes).is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_app_that_says_its_secrets_fails() -> anyhow::Result<()> {
    let app = App::start(Mode::Embedded).await?;
    // It says so when it starts.
    app.secret("not to be said", "the API listens");
    let dropped = catch_unwind(AssertUnwindSafe(|| drop(app)));
    let said = dropped.expect_err("it was said");
    let said = said.downcast_ref::<String>().map_or("", String::as_str);
    assert!(said.contains("serve.log:") && said.contains("not to be said"), "{said}");
    assert!(!said.contains("the API listens"), "it is not said again: {said}");
    Ok(())
}
