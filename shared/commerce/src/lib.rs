//! What a payment does to a tenant: the one place where vendors and the store meet, used by the functions that take
//! orders, by those that hear from vendors and by those that check at night.
//!
//! Everything here can be done again: what vendors tell comes twice, late and in any order, and a function may die between
//! any two writes. So what was told is a hint to look at the vendor's object as it is now; a state is written over the
//! state that was there before the look; and whatever changes credits has a key of its own and is booked once.

mod checkout;
mod customers;
mod error;
mod events;
mod subscriptions;

use tenantry_domain::Millis;
use tenantry_payments::stripe::Stripe;
use tenantry_store::Store;

pub use checkout::CheckoutPages;
pub use error::{CommerceError, Mismatch};
pub use events::{Handled, Notice};
pub use subscriptions::{Change, Planned};

/// How long a plan stays when a payment is late, unless the deployer says otherwise.
pub const DEFAULT_GRACE: Millis = 7 * 24 * 3_600_000;

/// How often a state is looked at again because somebody else wrote one meanwhile.
const TRIES: usize = 8;

/// Payments and what follows from them. Cheap to clone.
#[derive(Clone)]
pub struct Commerce {
    store: Store,
    stripe: Option<Stripe>,
    grace: Millis,
}

impl Commerce {
    /// With the vendors that are configured.
    #[must_use]
    pub const fn new(store: Store, stripe: Option<Stripe>, grace: Millis) -> Self {
        Self { store, stripe, grace }
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
}
