//! Model vendors: one folder per wire format, and what they share.
//!
//! - [`Provider`] is what the gateway calls; [`openai::OpenAiUpstream`] speaks the OpenAI wire format to any base URL,
//!   [`sandbox::SandboxProvider`] answers offline.
//! - [`sse`] and [`openai::relay`] are state machines without I/O; sockets are touched only in [`http`] and by the
//!   streams that [`provider`] hands out.
//! - [`tokens`] counts locally, for the reservation and when a vendor reports no [`usage`].
//!
//! Nothing here retries, prices or meters, and no error text ever holds a vendor key.

pub mod error;
pub mod http;
pub mod key;
pub mod openai;
pub mod provider;
pub mod sandbox;
pub mod sse;
pub mod tokens;
pub mod usage;

pub use error::{ErrorBody, StatusError, TimeoutPhase, UpstreamError};
pub use key::VendorKey;
pub use provider::{
    BoxFuture, CapField, ChatCall, ChatReply, ChatStream, CompleteReply, EmbeddingsCall, Provider, StreamPart, Timing,
};
pub use usage::{TokenUsage, Usage};
