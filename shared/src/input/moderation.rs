//! What a moderation model is asked: every text of a body, and what they say when read as one. Pure.

use super::{
    Refusal,
    read::{self, Fault, Reader, Scalar, Text},
    refusal,
};

/// Texts that are asked about one by one. Of more, those that are read as one are asked about so, and the others likewise.
const SINGLE_MAX: usize = 256;
/// Bytes of a piece of what is read as one, and how many of the one before each piece begins with.
const PIECE: usize = 16 << 10;
const OVERLAP: usize = 1 << 10;

/// A question for a moderation model.
#[derive(Debug, PartialEq, Eq)]
pub struct Question {
    /// The request.
    pub body: Vec<u8>,
    /// Texts that it asks about.
    pub texts: usize,
}

/// The question about the prompt of a request body, in OpenAI's form.
///
/// # Errors
/// The body cannot be judged.
pub fn question(model: Option<&str>, body: &[u8]) -> Result<Question, Refusal> {
    let mut texts = Texts::default();
    read::read(body, &mut texts).map_err(|(field, what)| refusal(None, field, &what))?;
    let Texts { mut single, mut spoken, mut rest, .. } = texts;
    // One text alone is there already.
    if spoken.texts > 1 {
        single.extend(spoken.finish());
    }
    single.extend(rest.finish());
    let mut body = b"{".to_vec();
    if let Some(model) = model {
        body.extend_from_slice(b"\"model\":");
        write(&mut body, model);
        body.push(b',');
    }
    body.extend_from_slice(b"\"input\":[");
    body.append(&mut single.json);
    body.extend_from_slice(b"]}");
    Ok(Question { body, texts: single.count })
}

fn write(json: &mut Vec<u8>, text: &str) {
    serde_json::to_writer(json, text).expect("a text is JSON");
}

/// Texts as JSON, with commas between.
#[derive(Default)]
struct List {
    json: Vec<u8>,
    count: usize,
}

impl List {
    fn push(&mut self, text: &str) {
        if self.count > 0 {
            self.json.push(b',');
        }
        write(&mut self.json, text);
        self.count += 1;
    }

    fn extend(&mut self, mut more: Self) {
        if self.count > 0 && more.count > 0 {
            self.json.push(b',');
        }
        self.json.append(&mut more.json);
        self.count += more.count;
    }
}

/// Texts read as one, in pieces.
#[derive(Default)]
struct Joined {
    pieces: List,
    open: String,
    /// Whether the open piece has more than the end of the one before it.
    fresh: bool,
    texts: usize,
}

impl Joined {
    fn push(&mut self, mut text: &str) {
        self.texts += 1;
        while !text.is_empty() {
            // A whole character at least.
            let end = text.ceil_char_boundary(PIECE.saturating_sub(self.open.len()).clamp(1, text.len()));
            let (now, later) = text.split_at(end);
            self.open.push_str(now);
            (self.fresh, text) = (true, later);
            if self.open.len() >= PIECE {
                self.pieces.push(&self.open);
                let keep = self.open.ceil_char_boundary(self.open.len() - OVERLAP);
                self.open.drain(..keep);
                self.fresh = false;
            }
        }
    }

    fn finish(&mut self) -> List {
        if self.fresh {
            self.pieces.push(&self.open);
        }
        std::mem::take(&mut self.pieces)
    }
}

#[derive(Default)]
struct Texts {
    single: List,
    spoken: Joined,
    rest: Joined,
}

impl Reader for Texts {
    fn text(&mut self, Text { text, spoken }: Text<'_>) -> Result<(), Fault> {
        let alone = self.single.count < SINGLE_MAX;
        if alone {
            self.single.push(text);
        }
        match spoken {
            true => self.spoken.push(text),
            false if !alone => self.rest.push(text),
            false => {}
        }
        Ok(())
    }

    fn member(&mut self, _: &str, _: Scalar) -> Result<(), Fault> {
        Ok(())
    }

    fn spelling(&self, _: &str, _: &str) -> Option<&str> {
        None
    }

    fn needs_text(&self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(body: &str) -> Vec<String> {
        let question = question(Some("m"), body.as_bytes()).expect("a question");
        let body: serde_json::Value = serde_json::from_slice(&question.body).expect("JSON");
        assert_eq!(body["model"], "m");
        let texts: Vec<String> = serde_json::from_value(body["input"].clone()).expect("a list of texts");
        assert_eq!(texts.len(), question.texts);
        texts
    }

    #[test]
    fn every_text_is_asked_about_and_what_they_say_together() {
        assert_eq!(asked(r#"{"model":"x","prompt":"only"}"#), ["only"]);
        let parts = r#"{"messages":[{"role":"user","content":[{"type":"text","text":"a"},{"type":"text","text":"b"}]}],"tools":[{"name":"c"}]}"#;
        assert_eq!(asked(parts), ["a", "b", "c", "ab"]);
        assert_eq!(asked(r#"{"model":"x"}"#), [""; 0]);
    }

    #[test]
    fn a_question_grows_no_faster_than_the_body() {
        let parts = vec![r#"{"text":"é","x":"y"}"#; 1_000].join(",");
        let texts = asked(&format!(r#"{{"input":[{parts}]}}"#));
        assert_eq!(texts.len(), SINGLE_MAX + 2);
        assert_eq!((texts[256].len(), texts[257].len()), (2_000, 1_000 - 128));
        let long = "0123456789é".repeat(10_000);
        let texts = asked(&format!(r#"{{"input":["{long}","b"]}}"#));
        let pieces = &texts[2..];
        assert!(pieces.iter().all(|piece| piece.len() <= PIECE + 2), "{}", pieces.len());
        assert!(pieces[1].starts_with(&pieces[0][pieces[0].ceil_char_boundary(pieces[0].len() - OVERLAP)..]));
        assert!(pieces.last().is_some_and(|last| last.ends_with("9éb")));
    }

    #[test]
    fn what_cannot_be_read_is_not_asked_about() {
        for (body, field) in [
            (r#"{"input":[1,2]}"#, "body.input"),
            (r#"{"x":1e400}"#, "body.x"),
            (r#"{"messages":[{"content":"a","Content":"b"}]}"#, "body.messages[0].Content"),
        ] {
            let refusal = question(None, body.as_bytes()).expect_err(body);
            assert_eq!(refusal.field.as_deref(), Some(field), "{}", refusal.message);
        }
    }
}
