//! Relays a streamed chat answer from a vendor to the client: a state machine without I/O.
//!
//! What goes out is what came in, payload by payload and byte for byte, but for three things: usage that we asked for
//! and the client did not is taken out, the model gets the name the client knows it by, and the end is put right. (And
//! what is no UTF-8 becomes U+FFFD and comments lose their text: only JSON goes out.) The end is one `[DONE]`, also when
//! the vendor forgot it, or one error event; there is no `[DONE]` after an error and never a `finish_reason` that the
//! vendor did not send.

use bytes::{BufMut, BytesMut};
use serde_json::Value;

use super::chunk::{self, Chunk, Edit, Observer};
use super::produced::{Kind, Produced};
use crate::error::ErrorBody;
use crate::key::VendorKey;
use crate::sse::{DEFAULT_MAX_EVENT_BYTES, SseError, SseEvent, SseItem, SseParser};
use crate::usage::Usage;

/// How to relay a stream.
#[derive(Debug, Clone)]
pub struct RelayOptions {
    /// The client set `stream_options.include_usage` itself, so it gets the usage.
    pub client_asked_usage: bool,
    /// The name the client gave the model, put in the place of the vendor's. Where a chunk has unusual fields, or none
    /// for the model, it is left as it is.
    pub client_model: Option<String>,
    /// The key to keep out of the vendor's error messages.
    pub key: VendorKey,
    /// The largest event in bytes.
    pub max_event_bytes: usize,
}

impl Default for RelayOptions {
    fn default() -> Self {
        Self {
            client_asked_usage: false,
            client_model: None,
            key: VendorKey::new(""),
            max_event_bytes: DEFAULT_MAX_EVENT_BYTES,
        }
    }
}

/// Whether more of the upstream's bytes are wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RelayState {
    /// Go on reading.
    Open,
    /// The answer has ended, well or badly: stop reading and call [`StreamRelay::finish`].
    Ended,
}

/// How a stream ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StreamEnd {
    /// The whole answer came.
    Done,
    /// The vendor reported an error, sent what is no JSON, or the caller reported that the connection broke.
    UpstreamError(ErrorBody),
    /// The stream was over before the answer was.
    Truncated,
    /// Nobody read the stream to its end: the client left.
    Abandoned,
}

/// What is known about a stream when it is over.
#[derive(Debug, Clone)]
pub struct RelayOutcome {
    /// The last usage the vendor reported. Vendors that report as they go have covered only a part when the stream did not
    /// end in [`StreamEnd::Done`]; the greater of this and the local count is nearer then.
    pub usage: Usage,
    /// The text that was produced, for counting it when `usage` cannot be used.
    pub produced: Produced,
    /// Something was produced, whatever it was: text, reasoning, a tool call, sound.
    pub saw_first_token: bool,
    /// How it ended.
    pub ended: StreamEnd,
}

/// The relay. Call [`push`](Self::push) with what comes, [`eof`](Self::eof) or [`fail`](Self::fail) when nothing more does,
/// and [`finish`](Self::finish) once it has ended.
#[derive(Debug)]
pub struct StreamRelay {
    parser: SseParser,
    core: Core,
}

#[derive(Debug)]
struct Core {
    client_asked_usage: bool,
    /// As JSON text.
    client_model: Option<String>,
    key: VendorKey,
    usage: Usage,
    /// A usage chunk without choices came: after it nothing is missing but `[DONE]`.
    usage_closed: bool,
    answer: Answer,
    ended: Option<StreamEnd>,
    terminated: bool,
    /// Memory for a chunk that is changed.
    scratch: String,
}

/// The answer so far.
#[derive(Debug, Default)]
struct Answer {
    /// One bit for each choice that appeared and for each that ended; the last bit stands for all from 127 on.
    seen: u128,
    finished: u128,
    produced: Produced,
}

impl Answer {
    fn is_finished(&self) -> bool {
        self.seen != 0 && self.seen == self.finished
    }
}

impl Observer for Answer {
    fn choice(&mut self, index: u64, finished: bool) {
        let bit = 1 << index.min(127);
        self.seen |= bit;
        if finished {
            self.finished |= bit;
        }
    }

    fn text(&mut self, index: u64, kind: Kind, text: &str) {
        self.produced.add(index, kind, text);
    }
}

impl StreamRelay {
    /// A relay at the start of a stream.
    pub fn new(options: RelayOptions) -> Self {
        Self {
            parser: SseParser::new(options.max_event_bytes),
            core: Core {
                client_asked_usage: options.client_asked_usage,
                client_model: options.client_model.map(|model| Value::from(model).to_string()),
                key: options.key,
                usage: Usage::Missing,
                usage_closed: false,
                answer: Answer::default(),
                ended: None,
                terminated: false,
                scratch: String::new(),
            },
        }
    }

    /// Takes the next bytes of the upstream and appends what the client gets for them, but for the terminal event.
    /// Everything after the end is ignored.
    pub fn push(&mut self, upstream_bytes: &[u8], out: &mut BytesMut) -> RelayState {
        let Self { parser, core } = self;
        if core.ended.is_none()
            && let Err(error) = parser.push(upstream_bytes, |item| core.item(item, out))
        {
            let SseError::TooLarge { .. } = error;
            core.end(StreamEnd::UpstreamError(broken("The model's provider sent an event that is too large.")));
        }
        self.state()
    }

    /// The upstream's stream is over. Appends a last event that lacked its end and decides how the answer ended.
    pub fn eof(&mut self, out: &mut BytesMut) {
        let Self { parser, core } = self;
        if core.ended.is_some() {
            return;
        }
        parser.finish(|item| match item {
            // What the stream was cut off in is not worth an error of its own.
            SseItem::Event(event) if event.data != b"[DONE]" && !is_json(event.data) => {}
            item => core.item(item, out),
        });
        let complete = core.usage_closed || core.answer.is_finished();
        core.end(if complete { StreamEnd::Done } else { StreamEnd::Truncated });
    }

    /// The connection broke, a deadline passed, or the caller must stop: the stream ends with this error, unless it had
    /// already ended.
    pub fn fail(&mut self, error: ErrorBody) {
        self.core.end(StreamEnd::UpstreamError(error));
    }

    /// Appends the terminal event, once: `[DONE]` or the error. A relay that has not ended is taken to be at
    /// [`eof`](Self::eof).
    pub fn finish(&mut self, out: &mut BytesMut) {
        self.eof(out);
        if std::mem::replace(&mut self.core.terminated, true) {
            return;
        }
        match &self.core.ended {
            Some(StreamEnd::UpstreamError(error)) => write_event(b"", &error.to_json(), out),
            Some(StreamEnd::Truncated) => {
                let error =
                    ErrorBody::upstream("upstream_truncated", "The model's provider ended its answer too early.");
                write_event(b"", &error.to_json(), out);
            }
            Some(StreamEnd::Done | StreamEnd::Abandoned) | None => write_event(b"", b"[DONE]", out),
        }
    }

    /// Whether more bytes are wanted.
    pub fn state(&self) -> RelayState {
        if self.core.ended.is_some() { RelayState::Ended } else { RelayState::Open }
    }

    /// The answer came to its proper end.
    pub fn is_done(&self) -> bool {
        self.core.ended == Some(StreamEnd::Done)
    }

    /// Every choice seen so far has ended; false before the first.
    pub fn has_finished_choices(&self) -> bool {
        self.core.answer.is_finished()
    }

    /// What is known about the stream, which counts as abandoned when it has not ended.
    pub fn into_outcome(self) -> RelayOutcome {
        let saw_first_token = !self.core.answer.produced.is_empty();
        RelayOutcome {
            usage: self.core.usage.given_produced(saw_first_token),
            saw_first_token,
            produced: self.core.answer.produced,
            ended: self.core.ended.unwrap_or(StreamEnd::Abandoned),
        }
    }
}

impl Core {
    fn end(&mut self, end: StreamEnd) {
        self.ended.get_or_insert(end);
    }

    fn item(&mut self, item: SseItem<'_>, out: &mut BytesMut) {
        if self.ended.is_some() {
            return;
        }
        match item {
            // It keeps the connection alive; what a vendor says in it is nobody's business here.
            SseItem::Comment => out.put_slice(b":\n\n"),
            SseItem::Event(event) => self.event(event, out),
        }
    }

    fn event(&mut self, SseEvent { event, data }: SseEvent<'_>, out: &mut BytesMut) {
        // The event-stream standard decodes with replacement, and some servers cut characters between two tokens.
        let data = &*String::from_utf8_lossy(data);
        if event == b"error" {
            let said = serde_json::from_str(data).unwrap_or(Value::Null);
            let error = said.get("error").filter(|error| !error.is_null()).unwrap_or(&said);
            self.upstream_error(error);
            return;
        }
        match data.trim_ascii() {
            "[DONE]" => self.end(StreamEnd::Done),
            // Some servers keep the connection alive with empty events.
            "" => {}
            _ => match Chunk::parse(data) {
                Some(chunk) => self.chunk(event, data, &chunk, out),
                None => self.odd_chunk(event, data, out),
            },
        }
    }

    fn upstream_error(&mut self, error: &Value) {
        let body = ErrorBody::from_vendor(error, &self.key)
            .unwrap_or_else(|| ErrorBody::upstream("upstream_error", "The model's provider reported an error."));
        self.end(StreamEnd::UpstreamError(body));
    }

    fn chunk(&mut self, event: &[u8], data: &str, chunk: &Chunk<'_>, out: &mut BytesMut) {
        if let Some(error) = chunk.error {
            self.upstream_error(&serde_json::from_str(error.get()).unwrap_or(Value::Null));
            return;
        }
        chunk.observe(&mut self.answer);
        if let Some(usage) = chunk.reported_usage() {
            self.usage = Usage::of_chat(usage);
            if !chunk.has_choices() {
                self.usage_closed = true;
                if !self.client_asked_usage {
                    return;
                }
            }
        }
        let cut = if self.client_asked_usage { None } else { chunk.without_usage(data) };
        if cut.is_none() && chunk.usage.is_some() && !self.client_asked_usage {
            // The member has an escaped name.
            self.odd_chunk_without_usage(event, data, out);
            return;
        }
        let renamed = self.client_model.as_ref().and_then(|model| chunk.with_model(data, model));
        if cut.is_none() && renamed.is_none() {
            write_event(event, data.as_bytes(), out);
            return;
        }
        let mut edits: Vec<Edit> = cut.into_iter().chain(renamed).collect();
        self.scratch.clear();
        chunk::apply(data, &mut edits, &mut self.scratch);
        write_event(event, self.scratch.as_bytes(), out);
    }

    /// A payload whose fields are not of the usual types: read as a tree, passed on if it is JSON.
    fn odd_chunk(&mut self, event: &[u8], data: &str, out: &mut BytesMut) {
        let Ok(value) = serde_json::from_str::<Value>(data) else {
            self.end(StreamEnd::UpstreamError(broken("The model's provider sent a broken event.")));
            return;
        };
        if let Some(error) = value.get("error").filter(|error| !error.is_null()) {
            self.upstream_error(error);
            return;
        }
        chunk::observe_value(&value, &mut self.answer);
        let Some(usage) = value.get("usage") else {
            write_event(event, data.as_bytes(), out);
            return;
        };
        if !usage.is_null() {
            self.usage = Usage::of_chat(&usage.to_string());
            if value.get("choices").and_then(Value::as_array).is_none_or(Vec::is_empty) {
                self.usage_closed = true;
                if !self.client_asked_usage {
                    return;
                }
            }
        }
        if self.client_asked_usage {
            write_event(event, data.as_bytes(), out);
        } else {
            self.odd_chunk_without_usage(event, data, out);
        }
    }

    fn odd_chunk_without_usage(&mut self, event: &[u8], data: &str, out: &mut BytesMut) {
        let mut value: Value = serde_json::from_str(data).unwrap_or_default();
        if let Some(chunk) = value.as_object_mut() {
            chunk.shift_remove("usage");
        }
        write_event(event, value.to_string().as_bytes(), out);
    }
}

fn broken(message: &str) -> ErrorBody {
    ErrorBody::upstream("upstream_protocol", message)
}

fn is_json(data: &[u8]) -> bool {
    serde_json::from_str::<serde::de::IgnoredAny>(&String::from_utf8_lossy(data)).is_ok()
}

/// One event; data of several lines becomes several `data` lines.
fn write_event(event: &[u8], data: &[u8], out: &mut BytesMut) {
    out.reserve(event.len() + data.len() + 32);
    if !event.is_empty() {
        out.put_slice(b"event: ");
        out.put_slice(event);
        out.put_u8(b'\n');
    }
    for line in data.split(|&byte| byte == b'\n') {
        out.put_slice(b"data: ");
        out.put_slice(line);
        out.put_u8(b'\n');
    }
    out.put_u8(b'\n');
}

#[cfg(test)]
#[path = "relay_tests.rs"]
mod tests;
