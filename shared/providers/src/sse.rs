//! An incremental parser of server-sent events, byte by byte and without I/O.
//!
//! It follows the event-stream grammar of the WHATWG HTML standard (section 9.2.6) with three deliberate differences:
//! data stays bytes (decoding is the reader's business, so invalid UTF-8 is not an error here), `id` and `retry` are not
//! read (they are for reconnecting, which no chat stream allows), and [`SseParser::finish`] dispatches a last event that
//! lacks its blank line, because OpenAI-compatible servers forget it.

use thiserror::Error;

/// The largest event accepted unless told otherwise: 16 MiB, room for a base64 image in one line.
pub const DEFAULT_MAX_EVENT_BYTES: usize = 16 << 20;

/// Why a stream cannot be parsed any further.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum SseError {
    /// An event or a single line grew beyond the parser's limit; nothing after it is read.
    #[error("an event of the stream is larger than {limit} bytes")]
    TooLarge {
        /// The limit in bytes.
        limit: usize,
    },
}

/// What the parser finds in a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SseItem<'a> {
    /// A dispatched event.
    Event(SseEvent<'a>),
    /// A comment line: what servers send to keep a connection alive.
    Comment,
}

/// One event of a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SseEvent<'a> {
    /// The `event` field; empty when absent, which means "message".
    pub event: &'a [u8],
    /// The `data` lines joined by LF.
    pub data: &'a [u8],
}

/// The parser. Feed it with [`push`](Self::push) and end it with [`finish`](Self::finish).
///
/// Every byte is scanned once however the stream is cut, and an event that lies wholly in one chunk with one `data`
/// line is handed out without a copy.
#[derive(Debug)]
pub struct SseParser {
    max_event_bytes: usize,
    /// The start of a line whose end has not come yet.
    line: Vec<u8>,
    /// Field bytes of the event so far: what the limit is compared with.
    event_bytes: usize,
    data: Vec<u8>,
    has_data: bool,
    event: Vec<u8>,
    /// The last byte was a CR, so an LF that comes next belongs to it.
    after_cr: bool,
    /// No line has been completed: a byte order mark may still lead it.
    at_start: bool,
    failed: Option<SseError>,
}

/// The data of the current event while it may still be borrowed from the chunk in hand.
type Borrowed<'c> = Option<&'c [u8]>;

impl SseParser {
    /// A parser that refuses events (and lines) of more than `max_event_bytes` bytes.
    pub fn new(max_event_bytes: usize) -> Self {
        Self {
            max_event_bytes,
            line: Vec::new(),
            event_bytes: 0,
            data: Vec::new(),
            has_data: false,
            event: Vec::new(),
            after_cr: false,
            at_start: true,
            failed: None,
        }
    }

    /// Reads the next bytes of the stream and calls `on_item` for whatever they complete.
    ///
    /// # Errors
    /// [`SseError::TooLarge`] when an event outgrows the limit; it repeats on every later call.
    pub fn push(&mut self, chunk: &[u8], mut on_item: impl FnMut(SseItem<'_>)) -> Result<(), SseError> {
        if let Some(error) = self.failed {
            return Err(error);
        }
        let result = self.push_lines(chunk, &mut on_item);
        self.failed = result.err();
        result
    }

    fn push_lines(&mut self, chunk: &[u8], on_item: &mut impl FnMut(SseItem<'_>)) -> Result<(), SseError> {
        let mut rest = chunk;
        let mut borrowed: Borrowed<'_> = None;
        while !rest.is_empty() {
            if std::mem::take(&mut self.after_cr) && rest[0] == b'\n' {
                rest = &rest[1..];
                continue;
            }
            let Some(end) = rest.iter().position(|&byte| byte == b'\n' || byte == b'\r') else {
                self.check_size(self.line.len() + rest.len())?;
                self.line.extend_from_slice(rest);
                break;
            };
            self.check_size(self.line.len() + end)?;
            self.after_cr = rest[end] == b'\r';
            if self.line.is_empty() {
                self.line_ended(&rest[..end], &mut borrowed, on_item);
            } else {
                let mut line = std::mem::take(&mut self.line);
                line.extend_from_slice(&rest[..end]);
                self.owned_line_ended(&line, &mut borrowed, on_item);
                line.clear();
                // One huge line must not hold its memory for the rest of the stream.
                if line.capacity() <= 64 * 1024 {
                    self.line = line;
                }
            }
            rest = &rest[end + 1..];
        }
        if let Some(data) = borrowed {
            self.data.extend_from_slice(data);
        }
        Ok(())
    }

    /// Ends the stream: a last line without an end and a last event without its blank line still count.
    pub fn finish(&mut self, mut on_item: impl FnMut(SseItem<'_>)) {
        if self.failed.is_some() {
            return;
        }
        let mut borrowed = None;
        if !self.line.is_empty() {
            let line = std::mem::take(&mut self.line);
            self.owned_line_ended(&line, &mut borrowed, &mut on_item);
        }
        self.dispatch(&mut borrowed, &mut on_item);
    }

    fn check_size(&self, line: usize) -> Result<(), SseError> {
        if self.event_bytes + line > self.max_event_bytes {
            return Err(SseError::TooLarge { limit: self.max_event_bytes });
        }
        Ok(())
    }

    /// A line that was put together from several chunks cannot lend its data to `borrowed`, which outlives it.
    fn owned_line_ended<'c>(
        &mut self,
        line: &[u8],
        borrowed: &mut Borrowed<'c>,
        on_item: &mut impl FnMut(SseItem<'_>),
    ) {
        self.spill(borrowed);
        let mut own = None;
        self.line_ended(line, &mut own, on_item);
        self.spill(&mut own);
    }

    /// Moves borrowed data into the parser's own buffer.
    fn spill(&mut self, borrowed: &mut Borrowed<'_>) {
        if let Some(data) = borrowed.take() {
            self.data.extend_from_slice(data);
        }
    }

    fn line_ended<'c>(
        &mut self,
        mut line: &'c [u8],
        borrowed: &mut Borrowed<'c>,
        on_item: &mut impl FnMut(SseItem<'_>),
    ) {
        if std::mem::take(&mut self.at_start) {
            line = line.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(line);
        }
        if line.is_empty() {
            self.dispatch(borrowed, on_item);
            return;
        }
        let (name, value) = match line.iter().position(|&byte| byte == b':') {
            Some(0) => {
                on_item(SseItem::Comment);
                return;
            }
            Some(colon) => {
                let value = &line[colon + 1..];
                (&line[..colon], value.strip_prefix(b" ").unwrap_or(value))
            }
            None => (line, &[][..]),
        };
        self.event_bytes += line.len();
        match name {
            b"data" if !self.has_data => {
                self.has_data = true;
                *borrowed = Some(value);
            }
            b"data" => {
                self.spill(borrowed);
                self.data.push(b'\n');
                self.data.extend_from_slice(value);
            }
            b"event" => {
                self.event.clear();
                self.event.extend_from_slice(value);
            }
            _ => {}
        }
    }

    fn dispatch(&mut self, borrowed: &mut Borrowed<'_>, on_item: &mut impl FnMut(SseItem<'_>)) {
        if std::mem::take(&mut self.has_data) {
            let data = borrowed.take().unwrap_or(&self.data);
            on_item(SseItem::Event(SseEvent { event: &self.event, data }));
        }
        self.data.clear();
        if self.data.capacity() > 64 * 1024 {
            self.data = Vec::new();
        }
        self.event.clear();
        self.event_bytes = 0;
    }
}

impl Default for SseParser {
    fn default() -> Self {
        Self::new(DEFAULT_MAX_EVENT_BYTES)
    }
}

#[cfg(test)]
#[path = "sse_tests.rs"]
mod tests;
