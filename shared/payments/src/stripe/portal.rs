//! The portal: Stripe's page where a customer looks after payment methods and invoices.

use std::fmt;

use serde::Deserialize;
use stripe_billing::billing_portal_session::CreateBillingPortalSession;

use super::{OperationKey, Stripe, StripeError, wire};

/// An open portal (<https://docs.stripe.com/api/customer_portal/sessions/object>).
#[derive(Clone, PartialEq, Eq, Deserialize)]
pub struct PortalSession {
    /// `bps_…`
    pub id: String,
    /// Whose it is.
    #[serde(deserialize_with = "wire::id")]
    pub customer: String,
    /// The page. Whoever has it is the customer: it is given to nobody else, and never logged.
    pub url: String,
}

impl fmt::Debug for PortalSession {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PortalSession").field("id", &self.id).field("customer", &self.customer).finish_non_exhaustive()
    }
}

impl Stripe {
    /// Opens the portal. Its page is short-lived, so the key must be of this visit: a replayed one is a dead page.
    ///
    /// # Errors
    /// [`StripeError`].
    pub async fn portal(
        &self,
        customer: &str,
        return_url: &str,
        key: &OperationKey,
    ) -> Result<PortalSession, StripeError> {
        self.change(CreateBillingPortalSession::new().customer(customer).return_url(return_url), key).await
    }
}
