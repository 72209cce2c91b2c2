//! What a body is, by its first bytes. Pure.

/// What the first bytes of a body are, whatever its label says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    /// JSON: an object or a list.
    Json,
    /// Server-sent events.
    Stream,
    /// HTML or XML.
    Markup,
    /// Anything else.
    Bytes,
    /// Nothing but white space so far.
    Blank,
}

/// The form of a body that begins like this.
pub(crate) fn form(beginning: &[u8]) -> Form {
    let text = beginning.strip_prefix(b"\xef\xbb\xbf").unwrap_or(beginning).trim_ascii_start();
    let is_stream =
        [&b"data:"[..], b"event:", b":", b"id:", b"retry:"].iter().any(|field| text.starts_with(field));
    match text.first() {
        None => Form::Blank,
        Some(b'{' | b'[') => Form::Json,
        Some(b'<') => Form::Markup,
        Some(_) if is_stream => Form::Stream,
        Some(_) => Form::Bytes,
    }
}
