//! What the gateway asks of a vendor and what it gets.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_core::Stream;
use futures_util::StreamExt;
use serde_json::{Map, Value};
use tokio::time::Instant;

pub use futures_util::future::BoxFuture;

use crate::error::{TimeoutPhase, UpstreamError};
pub use crate::openai::request::CapField;
use crate::openai::{Produced, RelayOptions, RelayOutcome, RelayState, StreamRelay};
use crate::usage::Usage;

/// A model vendor. Implementations never retry: the gateway chooses the next key or channel.
pub trait Provider: Send + Sync + 'static {
    /// Asks for a chat completion. Dropping the future or the reply ends the call with the vendor at once.
    fn chat(&self, call: ChatCall) -> BoxFuture<'_, Result<ChatReply, UpstreamError>>;

    /// Asks for embeddings.
    fn embeddings(&self, call: EmbeddingsCall) -> BoxFuture<'_, Result<CompleteReply, UpstreamError>>;
}

/// A chat completion to ask for. Cheap to clone, so that another channel can be tried with it.
#[derive(Debug, Clone)]
pub struct ChatCall {
    /// The client's JSON object as it came; members unknown to us reach the vendor.
    pub request: Arc<Map<String, Value>>,
    /// The name the client gave the model; streamed chunks come back with it.
    pub client_model: String,
    /// The name the vendor knows.
    pub upstream_model: String,
    /// The completion cap (tokens per choice) that is forced upon the vendor: what was reserved.
    pub max_completion_tokens: u64,
    /// Where the cap goes when the client used neither field.
    pub cap_field: CapField,
    /// Stream the answer.
    pub stream: bool,
    /// How long to wait for what.
    pub timing: Timing,
}

/// Embeddings to ask for.
#[derive(Debug, Clone)]
pub struct EmbeddingsCall {
    /// The client's JSON object as it came.
    pub request: Arc<Map<String, Value>>,
    /// The name the client gave the model.
    pub client_model: String,
    /// The name the vendor knows.
    pub upstream_model: String,
    /// How long to wait; only the deadline counts.
    pub timing: Timing,
}

/// How long to wait for what.
#[derive(Debug, Clone, Copy)]
pub struct Timing {
    /// For the head of a streamed response. A whole answer has only the deadline, as its head comes when it is ready.
    pub first_byte: Duration,
    /// Between two pieces of a stream.
    pub idle: Duration,
    /// For the whole call.
    pub deadline: Instant,
}

/// The answer to a [`ChatCall`].
#[derive(Debug)]
pub enum ChatReply {
    /// All of it.
    Complete(CompleteReply),
    /// As it comes.
    Stream(ChatStream),
}

/// A whole answer.
#[derive(Debug, Clone)]
pub struct CompleteReply {
    /// The JSON body for the client.
    pub body: Bytes,
    /// What the vendor says it used.
    pub usage: Usage,
    /// What was produced, for counting it when `usage` cannot be used; empty for embeddings.
    pub produced: Produced,
}

/// A part of a streamed answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StreamPart {
    /// Events, to be sent on at once.
    More(Bytes),
    /// The terminal event and nothing else: `[DONE]` or an error. Settle the call, then send it.
    Last(Bytes),
}

/// After `[DONE]` reads what is left of the body, the end of the chunked encoding at most: only a connection that was
/// read to its end goes back to the pool. Vendors that leave it open are not waited for.
async fn drain(source: Source) {
    let mut rest = source.take(DRAINED_PIECES);
    let _ = tokio::time::timeout(DRAIN_TIME, async { while let Some(Ok(_)) = rest.next().await {} }).await;
}

const DRAINED_PIECES: usize = 8;
const DRAIN_TIME: Duration = Duration::from_secs(1);

type Source = Pin<Box<dyn Stream<Item = Result<Bytes, UpstreamError>> + Send>>;

/// A streamed answer: server-sent events in OpenAI's format. Dropping it closes the vendor's connection.
pub struct ChatStream {
    /// None once the answer has ended: the connection is given back or closed as soon as nothing more is wanted.
    source: Option<Source>,
    relay: Box<StreamRelay>,
    out: BytesMut,
    idle: Duration,
    deadline: Instant,
    last_heard: Instant,
    finished: bool,
}

impl fmt::Debug for ChatStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ChatStream").field("finished", &self.finished).finish_non_exhaustive()
    }
}

impl ChatStream {
    /// Relays a vendor's event stream.
    pub fn new(
        source: impl Stream<Item = Result<Bytes, UpstreamError>> + Send + 'static,
        options: RelayOptions,
        timing: Timing,
    ) -> Self {
        Self {
            source: Some(Box::pin(source)),
            relay: Box::new(StreamRelay::new(options)),
            out: BytesMut::new(),
            idle: timing.idle,
            deadline: timing.deadline,
            last_heard: Instant::now(),
            finished: false,
        }
    }

    /// The next part, as soon as there is one; None after the last. Nothing is lost when the future is dropped, so it may
    /// stand in a `select!` or under a timeout for keep-alives.
    pub async fn next(&mut self) -> Option<StreamPart> {
        while let Some(source) = self.source.as_mut() {
            let silence = self.last_heard + self.idle;
            let limit = silence.min(self.deadline);
            let heard = tokio::time::timeout_at(limit, source.next()).await;
            // A timeout lets what is ready pass, so that a vendor that never pauses would outrun the deadline.
            let in_time = if Instant::now() < self.deadline { heard.ok() } else { None };
            match in_time {
                Some(Some(Ok(bytes))) => {
                    self.last_heard = Instant::now();
                    self.relay.push(&bytes, &mut self.out);
                }
                Some(Some(Err(error))) => self.relay.fail(error.body()),
                Some(None) => self.relay.eof(&mut self.out),
                None => {
                    let phase = if self.deadline <= silence { TimeoutPhase::Deadline } else { TimeoutPhase::Idle };
                    self.relay.fail(UpstreamError::Timeout(phase).body());
                }
            }
            if self.relay.state() == RelayState::Ended
                && let Some(source) = self.source.take()
                && self.relay.is_done()
            {
                tokio::spawn(drain(source));
            }
            if !self.out.is_empty() {
                return Some(StreamPart::More(self.out.split().freeze()));
            }
        }
        if std::mem::replace(&mut self.finished, true) {
            return None;
        }
        self.relay.finish(&mut self.out);
        Some(StreamPart::Last(self.out.split().freeze()))
    }

    /// Every choice seen so far has ended: what may still come is the usage and `[DONE]`. False before the first chunk
    /// with a choice, and for a moment perhaps true when several choices come one after the other.
    pub fn has_finished_choices(&self) -> bool {
        self.relay.has_finished_choices()
    }

    /// What is known about the call, at any time: a stream that was not read to its end counts as abandoned. The vendor's
    /// connection is closed.
    pub fn into_outcome(self) -> RelayOutcome {
        self.relay.into_outcome()
    }
}
