//! What every HTTP function shares: errors, extractors, callers, request ids, logs and `serve()`.
//!
//! - A handler returns `Result<_, ApiError>`; [`router::finish`] writes errors in the shape its routes use.
//! - A handler takes a [`Caller`] and asks it for a scope, naming the permission it needs.
//! - A handler whose route is part of a plan takes [`Included`] instead, which names permission and feature in its type.
//! - [`extract`] has the body, path and query extractors whose errors name the field.
//! - [`limit`] says which limit a metered call would not keep.
//! - [`etag`] has the versions of resources: `ETag` on answers, `If-Match` on changes.
//! - [`idempotency`] carries a POST out once, however often it is sent.
//! - [`config::Env`] is the only place that reads the environment; [`secrets`] lays secrets over it.
//! - [`queue`] and [`mail`] are what functions send to each other.

pub mod auth;
pub mod config;
pub mod csv;
pub mod cursor;
pub mod error;
pub mod etag;
pub mod extract;
pub mod front;
pub mod idempotency;
pub mod json;
pub mod limit;
pub mod mail;
pub mod origin;
pub mod plan;
pub mod queue;
pub mod router;
pub mod secrets;
pub mod serve;
pub mod telemetry;

pub use auth::{Authenticator, Caller};
pub use error::{ApiError, Code};
pub use etag::{IfMatch, Tagged};
pub use extract::{Json, Path, Query};
pub use plan::{Gate, Included};
