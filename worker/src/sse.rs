//! Server-sent events, read piece by piece: only `data` matters here, every dialect repeats the event's name inside of it. Pure.
//!
//! A line ends with CR, LF or CRLF; a blank line ends an event; an event without its blank line at the end of the stream is
//! not delivered; several `data` lines are joined with a newline; comments and other fields are skipped.

/// The event is longer than the limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TooLong;

/// Reads one stream.
#[derive(Debug)]
pub(crate) struct Decoder {
    line: Vec<u8>,
    data: Vec<u8>,
    has_data: bool,
    // The last byte was a CR: an LF that follows belongs to it.
    after_cr: bool,
    first_line: bool,
    bytes_max: usize,
}

impl Decoder {
    /// Refuses events that are longer than `bytes_max`.
    pub(crate) fn new(bytes_max: usize) -> Self {
        Self {
            line: Vec::new(),
            data: Vec::new(),
            has_data: false,
            after_cr: false,
            first_line: true,
            bytes_max,
        }
    }

    /// Takes the next piece, cut anywhere; adds the data of the events that end in it to `events`.
    pub(crate) fn feed(&mut self, mut piece: &[u8], events: &mut Vec<Vec<u8>>) -> Result<(), TooLong> {
        if self.after_cr && !piece.is_empty() {
            self.after_cr = false;
            piece = piece.strip_prefix(b"\n").unwrap_or(piece);
        }
        while let Some(end) = piece.iter().position(|byte| matches!(byte, b'\n' | b'\r')) {
            self.take(&piece[..end])?;
            let rest = &piece[end + 1..];
            piece = if piece[end] == b'\r' {
                self.after_cr = rest.is_empty();
                rest.strip_prefix(b"\n").unwrap_or(rest)
            } else {
                rest
            };
            self.end_line(events);
        }
        self.take(piece)
    }

    fn take(&mut self, bytes: &[u8]) -> Result<(), TooLong> {
        if self.line.len() + self.data.len() + bytes.len() > self.bytes_max {
            return Err(TooLong);
        }
        self.line.extend_from_slice(bytes);
        Ok(())
    }

    fn end_line(&mut self, events: &mut Vec<Vec<u8>>) {
        let mut line = self.line.as_slice();
        if std::mem::take(&mut self.first_line) {
            line = line.strip_prefix(b"\xef\xbb\xbf").unwrap_or(line);
        }
        if line.is_empty() {
            if std::mem::take(&mut self.has_data) {
                events.push(std::mem::take(&mut self.data));
            }
        } else if let Some(value) = line.strip_prefix(b"data")
            && matches!(value.first(), None | Some(b':'))
        {
            let value = value.strip_prefix(b":").unwrap_or(value);
            if std::mem::replace(&mut self.has_data, true) {
                self.data.push(b'\n');
            }
            self.data.extend_from_slice(value.strip_prefix(b" ").unwrap_or(value));
        }
        self.line.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(pieces: &[&[u8]]) -> Vec<String> {
        let (mut decoder, mut events) = (Decoder::new(64), Vec::new());
        for piece in pieces {
            decoder.feed(piece, &mut events).unwrap();
        }
        events.into_iter().map(|event| String::from_utf8(event).unwrap()).collect()
    }

    #[test]
    fn pieces_may_be_cut_anywhere() {
        let stream = "\u{feff}: hi\r\nevent: x\rdata: {\"a\":\"é\"}\r\n\r\nid: 3\ndata:1\ndata\ndata: 2\n\ndata: [DONE]\n\nretry: 1\n\n";
        let whole = ["{\"a\":\"é\"}", "1\n\n2", "[DONE]"];
        assert_eq!(read(&[stream.as_bytes()]), whole);
        let bytes: Vec<&[u8]> = stream.as_bytes().chunks(1).collect();
        assert_eq!(read(&bytes), whole);
    }

    #[test]
    fn an_unended_event_is_none() {
        assert!(read(&[b"data: 1\n"]).is_empty());
        assert!(read(&[b"database: 1\n\n"]).is_empty());
    }

    #[test]
    fn events_are_bounded() {
        let mut decoder = Decoder::new(16);
        let mut events = Vec::new();
        assert!(decoder.feed(b"data: 0123456789\n\ndata: 1\n\n", &mut events).is_ok());
        assert_eq!(decoder.feed(b"data: 0123456789abcdef", &mut events), Err(TooLong));
    }
}
