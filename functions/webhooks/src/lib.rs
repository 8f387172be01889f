//! What payment vendors tell.
//!
//! A message is verified before anything is read or written for it, so that whoever sends forged ones costs a hash. A
//! verified one is claimed by its id, worked on and marked as done ([`work`]); what it does to a tenant is
//! [`tenantry_commerce`]'s affair.
//!
//! | what happens | answer | what becomes of it |
//! |---|---|---|
//! | not the vendor's, altered or too old | 400 | nothing is read or written; `WebhooksForged` |
//! | done, now or before | 2xx, Alipay `success` | |
//! | somebody is at it | 409 | the vendor comes again |
//! | the database or the vendor does not answer | 503 | given back; the vendor comes again |
//! | anything else fails here | 500 | the same, and an error in the log |
//! | it does not fit what was ordered, or whose it says it is | 2xx | done for good: kept for people, `PaymentMismatches` |
//! | Stripe's, and cannot be read | 2xx | kept for people, `WebhooksUnreadable` |
//! | WeChat Pay's or Alipay's, and cannot be read | 500 | the same; and it comes again |
//! | of a vendor that is not configured | 404 | nothing |
//!
//! Errors are problems like everywhere else: Stripe and WeChat Pay go by the status, and Alipay by the one word.

mod china;
mod stripe;
mod work;

use std::sync::Arc;

use axum::Router;
use tenantry_commerce::Commerce;
use tenantry_web::{
    config::{self, ConfigError, Env},
    error::Problem,
    mail::{MailQueue, SqsMailQueue},
    router::{ErrorShape, finish},
};
use utoipa::IntoResponses;
use utoipa_axum::{router::OpenApiRouter, routes};

/// Largest body, in bytes. The largest events are those of invoices with many lines.
pub const BODY_LIMIT: usize = 1024 * 1024;

/// What the routes share.
#[derive(Clone)]
pub struct State {
    commerce: Commerce,
    mails: Arc<dyn MailQueue>,
}

impl State {
    /// From parts that were made elsewhere.
    #[must_use]
    pub fn new(commerce: Commerce, mails: Arc<dyn MailQueue>) -> Self {
        Self { commerce, mails }
    }

    /// From `TABLE_NAME`, `MAIL_QUEUE_URL` and the variables of the vendors.
    ///
    /// # Errors
    /// [`ConfigError`].
    pub fn from_env(env: &Env) -> Result<Self, ConfigError> {
        let commerce = Commerce::from_env(env, config::store(env)?)?;
        Ok(Self::new(commerce, Arc::new(SqsMailQueue::new(config::queue(env, "MAIL_QUEUE_URL")?))))
    }
}

/// What vendors are answered when something was not taken, for the API document.
#[derive(IntoResponses)]
#[allow(dead_code, reason = "only its shape is read, by the API document")]
pub(crate) enum Refusals {
    /// Not signed by the vendor, altered, or too old.
    #[response(status = 400, content_type = "application/problem+json")]
    Forged(Problem),
    /// The vendor is not configured.
    #[response(status = 404, content_type = "application/problem+json")]
    NotConfigured(Problem),
    /// It is being worked on; send it again.
    #[response(status = 409, content_type = "application/problem+json")]
    Busy(Problem),
    /// The body is too large.
    #[response(status = 413, content_type = "application/problem+json")]
    TooLarge(Problem),
    /// Something failed here; send it again.
    #[response(status = 500, content_type = "application/problem+json")]
    Failed(Problem),
    /// Busy; send it again after `Retry-After`.
    #[response(status = 503, content_type = "application/problem+json")]
    Unavailable(Problem),
}

/// The routes with their documentation.
#[must_use]
pub fn routes() -> OpenApiRouter<State> {
    OpenApiRouter::default()
        .routes(routes!(stripe::stripe))
        .routes(routes!(china::wechat))
        .routes(routes!(china::alipay))
}

/// The routes, ready to serve.
pub fn router(state: State) -> Router {
    finish(routes(), state, ErrorShape::Problem, BODY_LIMIT)
}
