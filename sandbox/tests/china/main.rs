//! Our own clients of WeChat Pay and Alipay against the doubles, over loopback: whole lives of orders, and everything
//! that has to be refused.

#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test fails by panicking, also in its helpers"
)]

mod alipay;
mod both;
mod notifications;
mod pages;
mod raw;
mod refusals;
mod shop;
mod wechat;
