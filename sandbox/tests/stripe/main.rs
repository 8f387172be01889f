//! The platform's own client of Stripe against the double, over HTTP on this machine.

#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test fails by panicking, also in its helpers"
)]

mod checkout;
mod payments;
mod refusals;
mod stage;
mod subscriptions;
mod unpaid;
mod webhooks;
