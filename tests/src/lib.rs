//! What the integration tests share: a platform in the process, a model vendor of their own, and for the release
//! binaries what surrounds a function on AWS.

#![allow(clippy::expect_used, clippy::panic, reason = "a test fails by panicking, also in its helpers")]

pub mod accounts;
pub mod alipay;
pub mod aws;
pub mod event;
pub mod function;
pub mod gate;
pub mod http;
pub mod jobs;
pub mod log;
pub mod network;
pub mod platform;
pub mod process;
pub mod queries;
pub mod runtime_api;
pub mod stripe;
pub mod upstream;
pub mod usage;
