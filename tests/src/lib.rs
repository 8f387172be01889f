//! What the integration tests share: a platform in the process, and a model vendor of their own.

#![allow(clippy::expect_used, clippy::panic, reason = "a test fails by panicking, also in its helpers")]

pub mod accounts;
pub mod http;
pub mod jobs;
pub mod platform;
pub mod process;
pub mod upstream;
