//! The OpenAI wire format, which most vendors speak.

mod chunk;
pub mod client;
pub mod error;
pub mod produced;
pub mod relay;
pub mod request;
pub mod response;
mod said;

pub use client::{BaseUrlError, OpenAiUpstream};
pub use produced::Produced;
pub use relay::{RelayOptions, RelayOutcome, RelayState, StreamEnd, StreamRelay};
