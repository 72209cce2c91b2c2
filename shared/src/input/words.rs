//! The names that the judges know: which members hold no text, and which names mean the same to a careless parser. Pure.

use std::borrow::Cow;

/// Members of a body whose texts no model reads.
const UNREAD: [&str; 8] = [
    "model",
    "user",
    "safety_identifier",
    "prompt_cache_key",
    "previous_response_id",
    "service_tier",
    "encoding_format",
    "metadata",
];

/// Members of a body that may be lists of numbers and hold no prompt.
const NUMBERS: [&str; 4] = ["logit_bias", "stop_token_ids", "allowed_token_ids", "bad_words_ids"];

/// Members, however deep, that hold a prompt in a form that nobody can read here.
const OPAQUE: [&str; 5] =
    ["prompt_token_ids", "prompt_tokens_ids", "input_ids", "prompt_embeds", "inputs_embeds"];

/// Members whose texts a model reads one after the other, as one.
const SPOKEN: [&str; 8] =
    ["content", "text", "input", "prompt", "system", "instructions", "output", "arguments"];

/// Members whose own members have names of the client's choice, which a model may read.
const NAMED: [&str; 7] = [
    "properties",
    "patternProperties",
    "$defs",
    "definitions",
    "dependentSchemas",
    "dependentRequired",
    "dependencies",
];

/// As [`NAMED`], with all that is inside of them.
const FREE: [&str; 6] =
    ["documents", "chat_template_kwargs", "arguments", "parameters", "input_schema", "schema"];

const ROLES: [&str; 8] = ["system", "developer", "user", "assistant", "tool", "function", "model", "critic"];

const TYPES: [&str; 39] = [
    "text",
    "input_text",
    "output_text",
    "summary_text",
    "reasoning_text",
    "refusal",
    "message",
    "image",
    "image_url",
    "input_image",
    "input_audio",
    "audio",
    "audio_url",
    "video",
    "video_url",
    "file",
    "input_file",
    "document",
    "function",
    "function_call",
    "function_call_output",
    "tool_use",
    "tool_result",
    "reasoning",
    "thinking",
    "redacted_thinking",
    "json_object",
    "json_schema",
    "ephemeral",
    "base64",
    "url",
    "object",
    "array",
    "string",
    "number",
    "integer",
    "boolean",
    "null",
    "custom",
];

const DETAILS: [&str; 3] = ["low", "high", "auto"];

/// Bytes of an id at most.
const ID_MAX: usize = 128;
/// Bytes of a member's name at most that is none of a text's.
const NAME_MAX: usize = 64;

/// Whether the names of an object's members may be read by a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Names {
    /// They are the API's.
    Wire,
    /// They are the client's.
    Here,
    /// They are the client's, and those of all objects inside as well.
    Below,
}

impl Names {
    /// Of the object that the member `name` is, inside of an object that has these names. `top`: it is a member of the body itself, or a list that is.
    pub(super) fn of(self, name: &str, top: bool) -> Self {
        match name {
            _ if self == Self::Below => Self::Below,
            // A tool's arguments where a tool is used; a prompt at the top.
            "input" if !top => Self::Below,
            name if FREE.contains(&name) => Self::Below,
            // Of a schema that describes a member with the name of one of these.
            name if NAMED.contains(&name) && self == Self::Wire => Self::Here,
            _ => Self::Wire,
        }
    }

    /// Whether such a name is a text.
    pub(super) fn are_read(self, name: &str) -> bool {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.' | b'$');
        self != Self::Wire || name.len() > NAME_MAX || !name.bytes().all(plain)
    }
}

/// Whether no model reads the texts of this member of a body.
pub(super) fn is_unread(name: &str) -> bool {
    UNREAD.contains(&name)
}

/// Whether this member of a body may be a list of numbers.
pub(super) fn may_be_numbers(name: &str) -> bool {
    NUMBERS.contains(&name)
}

/// Whether this member holds a prompt that cannot be read.
pub(super) fn is_opaque(name: &str) -> bool {
    OPAQUE.contains(&name)
}

/// Whether a model reads this member's text as one with those before and after it.
pub(super) fn is_spoken(name: &str) -> bool {
    SPOKEN.contains(&name)
}

/// Whether a text is a word of the API or an id.
pub(super) fn is_label(name: &str, text: &str) -> bool {
    let id = || {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.' | b':');
        text.len() <= ID_MAX && text.bytes().all(plain)
    };
    match name {
        "role" => ROLES.contains(&text),
        "type" => TYPES.contains(&text),
        "detail" => DETAILS.contains(&text),
        "id" | "tool_call_id" | "call_id" | "tool_use_id" => id(),
        _ => false,
    }
}

/// The name as a parser sees it that does not care for upper and lower case.
pub(super) fn fold(name: &str) -> Cow<'_, str> {
    if name.bytes().all(|byte| byte.is_ascii() && !byte.is_ascii_uppercase()) {
        return Cow::Borrowed(name);
    }
    // By way of upper case: there are letters that differ only there, such as ſ and s.
    name.chars().flat_map(char::to_uppercase).flat_map(char::to_lowercase).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn case_is_folded_as_careless_parsers_fold_it() {
        assert_eq!(fold("max_tokens"), "max_tokens");
        for name in ["Messages", "MESSAGES", "meſſages", "meſſageS"] {
            assert_eq!(fold(name), "messages");
        }
        assert_eq!(fold("to\u{212a}ens"), "tokens", "the sign of Kelvin");
    }

    #[test]
    fn labels_are_words_of_the_api() {
        for (name, text) in [("role", "user"), ("type", "input_text"), ("id", "call_1-a"), ("detail", "low")]
        {
            assert!(is_label(name, text), "{name} {text}");
            assert!(!is_label(name, "write a poem"), "{name}");
            assert!(!is_label("content", text));
        }
        assert!(!is_label("id", &"x".repeat(129)));
    }

    #[test]
    fn names_are_read_where_clients_choose_them() {
        use Names::{Below, Here, Wire};
        assert_eq!(Wire.of("properties", false), Here);
        assert_eq!((Here.of("properties", false), Wire.of("x", false)), (Wire, Wire));
        assert_eq!((Wire.of("input", true), Wire.of("input", false)), (Wire, Below));
        assert_eq!((Wire.of("documents", true), Below.of("x", false)), (Below, Below));
        assert!(Here.are_read("x") && Wire.are_read("two words") && Wire.are_read("é"));
        assert!(!Wire.are_read("max_tokens") && Wire.are_read(&"x".repeat(65)));
    }
}
