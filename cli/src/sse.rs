//! Server-sent events, as a client reads them. Pure: bytes in, frames out.

/// Longest frame that is read: an answer's largest size with room for its envelope.
const FRAME_BYTES_MAX: usize = 128 << 20;

/// One event.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Frame {
    /// Where to resume after it.
    pub(crate) id: Option<String>,
    /// Its data.
    pub(crate) data: String,
}

/// A frame beyond the limit.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct TooLong;

/// Cuts a stream into frames.
#[derive(Debug, Default)]
pub(crate) struct Frames {
    rest: Vec<u8>,
    frame: Frame,
}

impl Frames {
    /// The frames that `bytes` complete.
    pub(crate) fn push(&mut self, bytes: &[u8]) -> Result<Vec<Frame>, TooLong> {
        self.rest.extend_from_slice(bytes);
        let end = self.rest.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        let lines: Vec<u8> = self.rest.drain(..end).collect();
        let whole = String::from_utf8_lossy(&lines);
        let frames = whole.lines().filter_map(|line| self.line(line)).collect();
        let held = self.rest.len() + self.frame.data.len();
        if held > FRAME_BYTES_MAX { Err(TooLong) } else { Ok(frames) }
    }

    fn line(&mut self, line: &str) -> Option<Frame> {
        if line.is_empty() {
            let frame = std::mem::take(&mut self.frame);
            return (!frame.data.is_empty()).then_some(frame);
        }
        let (name, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match name {
            "id" => self.frame.id = Some(value.to_owned()),
            "data" if self.frame.data.is_empty() => value.clone_into(&mut self.frame.data),
            "data" => self.frame.data = format!("{}\n{value}", self.frame.data),
            // The data names its own type; comments and retry times are not for us.
            _ => {}
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_the_same_however_the_stream_is_cut() {
        let stream = "retry: 2000\nid: 0\nevent: a\ndata: {\"é\":1}\n\n: ka\nid: 1\r\ndata: x\r\ndata: y\r\n\r\nid: 2\n\ndata: cut";
        let frame = |id: &str, data: &str| Frame { id: Some(id.to_owned()), data: data.to_owned() };
        let wanted = [frame("0", "{\"é\":1}"), frame("1", "x\ny")];
        for size in 1..stream.len() {
            let mut frames = Frames::default();
            let pieces =
                stream.as_bytes().chunks(size).flat_map(|piece| frames.push(piece).expect("short frames"));
            assert_eq!(pieces.collect::<Vec<_>>(), wanted, "in pieces of {size}");
        }
    }
}
