//! The platform as its callers see it, and the documents beside it. One program, because each would link everything
//! again; `cargo nextest` still runs every test in a process of its own. `lambda.rs` and `sdk.rs` stand beside it: they
//! need the release binaries and the OpenAI SDKs.

#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test fails by panicking, also in its helpers"
)]

mod access_tokens;
mod adversity;
mod api_keys;
mod audit;
mod auth;
mod billing;
mod billing_jobs;
mod budgets;
mod conventions;
mod costs;
mod credits;
mod document;
mod erasure;
mod expiry;
mod features;
mod gateway_input;
mod isolation;
mod key_budgets;
mod limit_warnings;
mod mailer;
mod members;
mod metering;
mod orders;
mod own_usage;
mod passwords;
mod payment_doubles;
mod payment_order;
mod plan_changes;
mod quota_and_credits;
mod quota_reset;
mod rate_limits;
mod reconcile;
mod reconcile_now;
#[cfg(unix)]
mod restart;
mod sale;
mod sessions;
mod sharded_meter;
mod startup;
mod streaming;
mod stripe_double;
mod stripe_orders;
mod template;
mod tenant_login;
mod tenant_users;
mod tenants;
mod throttling;
mod usage_api;
mod usage_reads;
mod webhooks;
