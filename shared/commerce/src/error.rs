//! How something about payments fails.

use tenantry_payments::stripe::StripeError;
use tenantry_store::StoreError;

/// Why something was not done.
#[derive(Debug, thiserror::Error)]
pub enum CommerceError {
    /// The store.
    #[error("{0}")]
    Store(#[from] StoreError),
    /// Stripe.
    #[error("{0}")]
    Stripe(#[from] StripeError),
    /// This vendor is not set up.
    #[error("{0} is not configured")]
    NotConfigured(&'static str),
    /// What the vendor has and what we have do not belong together. Nothing was done; somebody must look.
    #[error("{0}")]
    Mismatch(#[from] Mismatch),
    /// It cannot be done in the state that things are in; the text is for the caller.
    #[error("{0}")]
    Impossible(&'static str),
    /// Others wrote at the same time, again and again.
    #[error("too many changes at once")]
    Contention,
}

/// A vendor's object that is none of ours, or not the tenant's that it names.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{object}: {why}")]
pub struct Mismatch {
    /// The vendor's id of it.
    pub object: String,
    /// What does not agree.
    pub why: &'static str,
}

impl Mismatch {
    pub(crate) fn of(object: &str, why: &'static str) -> Self {
        Self { object: object.to_owned(), why }
    }
}
