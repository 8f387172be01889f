//! How something about payments fails.

use std::borrow::Cow;

use tenantry_domain::orders::NoRefund;
use tenantry_payments::{PaymentError, stripe::StripeError};
use tenantry_store::StoreError;
use tenantry_web::queue::QueueError;

use crate::NoChange;

/// Why something was not done.
#[derive(Debug, thiserror::Error)]
pub enum CommerceError {
    /// The store.
    #[error("{0}")]
    Store(#[from] StoreError),
    /// Stripe.
    #[error("{0}")]
    Stripe(#[from] StripeError),
    /// WeChat Pay or Alipay.
    #[error("{0}")]
    Payment(#[from] PaymentError),
    /// This vendor is not set up.
    #[error("{0} is not configured")]
    NotConfigured(&'static str),
    /// What the vendor has and what we have do not belong together. Nothing was done; somebody must look.
    #[error("{0}")]
    Mismatch(#[from] Mismatch),
    /// There is no such order, plan, package or price; the text is for the caller.
    #[error("{0}")]
    Unknown(&'static str),
    /// It cannot be done in the state that things are in; the text is for the caller.
    #[error("{0}")]
    Impossible(&'static str),
    /// The vendor said no to the refund itself: nothing went back, and nothing will. What it said.
    #[error("{0}")]
    RefundRefused(String),
    /// A refund is not begun.
    #[error("{0}")]
    NoRefund(#[from] NoRefund),
    /// A change of a subscription is not made.
    #[error("{0}")]
    NoChange(#[from] NoChange),
    /// Mails could not be ordered.
    #[error("{0}")]
    Mail(#[from] QueueError),
    /// Others wrote at the same time, again and again.
    #[error("too many changes at once")]
    Contention,
}

impl CommerceError {
    /// Whether the same call may go well later. What vendors tell is refused with such an error, so that they come again.
    #[must_use]
    pub const fn is_transient(&self) -> bool {
        match self {
            Self::Store(error) => matches!(error, StoreError::Unavailable(_) | StoreError::Contention),
            Self::Stripe(error) => error.is_transient(),
            Self::Payment(error) => error.is_transient(),
            Self::Mail(_) | Self::Contention => true,
            Self::NotConfigured(_)
            | Self::Mismatch(_)
            | Self::Unknown(_)
            | Self::Impossible(_)
            | Self::RefundRefused(_)
            | Self::NoRefund(_)
            | Self::NoChange(_) => false,
        }
    }
}

/// A vendor's object that is none of ours, or not the tenant's that it names.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{object}: {why}")]
pub struct Mismatch {
    /// The vendor's id of it.
    pub object: String,
    /// What does not agree.
    pub why: Cow<'static, str>,
}

impl Mismatch {
    pub(crate) fn of(object: &str, why: impl Into<Cow<'static, str>>) -> Self {
        Self { object: object.to_owned(), why: why.into() }
    }
}
