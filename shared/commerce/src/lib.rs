//! What a payment does to a tenant: the one place where vendors and the store meet, used by the functions that take
//! orders, by those that hear from vendors and by those that check at night.
//!
//! Everything here can be done again: what vendors tell comes twice, late and in any order, and a function may die between
//! any two writes. So what was told is a hint to look at the vendor's object as it is now; a state is written over the
//! state that was there before the look; and whatever changes credits has a key of its own and is booked once.

mod changes;
mod checkout;
mod china;
mod config;
mod customers;
mod error;
mod events;
mod goods;
mod limits;
mod nightly;
mod notices;
mod parting;
mod prices;
mod reconcile;
mod refunds;
mod subscriptions;
mod take_back;
mod top_up;

use tenantry_domain::{Millis, OrderId, orders::Order};
use tenantry_payments::{Payment, Vendor, stripe::Stripe};
use tenantry_store::{Store, TenantScope};

pub use changes::{Change, NoChange, Previewed, Upgraded};
pub use checkout::CheckoutPages;
pub use china::{Buyer, ChinaOrder, Wanted};
pub use error::{CommerceError, Mismatch};
pub use events::{Handled, Notice};
pub use nightly::{CaughtUp, Compared};
pub use prices::Offer;
pub use reconcile::Swept;
pub use subscriptions::Planned;
pub use top_up::{CreditRules, TopUpRule};

/// How long a plan stays when a payment is late, unless the deployer says otherwise.
pub const DEFAULT_GRACE: Millis = 7 * 24 * 3_600_000;

/// How often a state is looked at again because somebody else wrote one meanwhile.
const TRIES: usize = 8;

/// Payments and what follows from them. Cheap to clone.
#[derive(Clone)]
pub struct Commerce {
    store: Store,
    stripe: Option<Stripe>,
    automatic_tax: bool,
    wechat: Option<Payment>,
    alipay: Option<Payment>,
    grace: Millis,
}

impl Commerce {
    /// Without any vendor.
    #[must_use]
    pub const fn new(store: Store) -> Self {
        Self { store, stripe: None, automatic_tax: false, wechat: None, alipay: None, grace: DEFAULT_GRACE }
    }

    /// With Stripe, which computes taxes or does not.
    #[must_use]
    pub fn with_stripe(self, stripe: Stripe, automatic_tax: bool) -> Self {
        Self { stripe: Some(stripe), automatic_tax, ..self }
    }

    /// With WeChat Pay or Alipay.
    #[must_use]
    pub fn with_payment(self, payment: Payment) -> Self {
        match payment.vendor() {
            Vendor::WeChat => Self { wechat: Some(payment), ..self },
            Vendor::Alipay => Self { alipay: Some(payment), ..self },
        }
    }

    /// With another grace than [`DEFAULT_GRACE`].
    #[must_use]
    pub fn with_grace(self, grace: Millis) -> Self {
        Self { grace, ..self }
    }

    /// The store.
    #[must_use]
    pub const fn store(&self) -> &Store {
        &self.store
    }

    /// Stripe.
    ///
    /// # Errors
    /// [`CommerceError::NotConfigured`].
    pub fn stripe(&self) -> Result<&Stripe, CommerceError> {
        self.stripe.as_ref().ok_or(CommerceError::NotConfigured("Stripe"))
    }

    /// WeChat Pay or Alipay.
    ///
    /// # Errors
    /// [`CommerceError::NotConfigured`].
    pub fn payment(&self, vendor: Vendor) -> Result<&Payment, CommerceError> {
        match vendor {
            Vendor::WeChat => self.wechat.as_ref().ok_or(CommerceError::NotConfigured("WeChat Pay")),
            Vendor::Alipay => self.alipay.as_ref().ok_or(CommerceError::NotConfigured("Alipay")),
        }
    }

    /// An order of the tenant.
    ///
    /// # Errors
    /// [`CommerceError::Unknown`] when it has no such order.
    pub async fn order(&self, scope: &TenantScope, order: &OrderId) -> Result<Order, CommerceError> {
        self.store.order(scope, order).await?.ok_or(CommerceError::Unknown("there is no such order"))
    }
}
