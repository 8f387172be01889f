//! A double of Stripe's HTTP API with what this platform needs of it: customers, prices, checkout, portal, subscriptions,
//! invoices, intents, refunds, disputes, and signed webhooks. The official SDKs work against it. Nothing here moves money.
//!
//! [`Stripe::router`] has the API below `/v1`, and pages below `/_dev/stripe`: the ones that people are sent to, and one
//! that shows everything and turns the clock. Tests use the methods of [`Stripe`].
//!
//! It is as strict as Stripe where that catches mistakes (unknown parameters, keys of idempotency that are used twice,
//! ids that do not exist), and stricter in one place: every POST needs an `Idempotency-Key`. The same calls at the same
//! times make the same ids and events. It knows no taxes, no currencies' decimals, and no partial captures; what it does
//! not know it refuses, instead of pretending.

mod api;
mod calendar;
mod catalogue;
mod charges;
mod checkout;
mod checkout_payment;
mod control;
mod coupons;
mod customers;
mod deliverer;
mod dev;
mod disputes;
mod error;
mod events;
mod expansion;
mod form;
mod idempotency;
mod intents;
mod invoice_lines;
mod invoice_payments;
mod invoices;
mod lifecycle;
mod listing;
mod object;
mod pages;
mod params;
mod payment_methods;
mod pending;
mod portal;
mod preview;
mod proration;
mod refunds;
mod settings;
mod setup;
mod state;
mod subscription_update;
mod subscriptions;

use std::{
    ops::{Deref, DerefMut},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use axum::{Router, routing::any};
use tokio::sync::Notify;

pub use error::StripeError;
pub use events::Delivery;
pub use settings::{API_VERSION, AfterRetries, Card, Endpoint, Fault, Payer, Rules, Settings};

use state::State;

/// The double. Clones share everything.
#[derive(Clone)]
pub struct Stripe {
    inner: Arc<Inner>,
}

struct Inner {
    settings: Settings,
    state: Mutex<State>,
    /// Rung when there is something to deliver.
    bell: Notify,
}

impl Stripe {
    /// An account without anything.
    #[must_use]
    pub fn new(settings: Settings) -> Self {
        Self::with_state(settings, State::default())
    }

    fn with_state(settings: Settings, mut state: State) -> Self {
        state.rules = settings.rules.clone();
        state.rules.public_url.clone_from(&settings.public_url);
        Self { inner: Arc::new(Inner { settings, state: Mutex::new(state), bell: Notify::new() }) }
    }

    /// The API and the pages.
    pub fn router(&self) -> Router {
        let pages = pages::router().merge(dev::router());
        Router::new().route("/v1/{*call}", any(api::handle)).merge(pages).with_state(self.clone())
    }

    fn settings(&self) -> &Settings {
        &self.inner.settings
    }

    /// The state, with everything done that was due by now.
    fn lock(&self) -> Locked<'_> {
        let mut state = self.inner.state.lock().unwrap_or_else(PoisonError::into_inner);
        let now = self.settings().clock.now().div_euclid(1000) + state.ahead;
        lifecycle::run(&mut state, now);
        Locked { stripe: self, state }
    }
}

/// The state while it is locked. What happened meanwhile is addressed when it is let go.
struct Locked<'a> {
    stripe: &'a Stripe,
    state: MutexGuard<'a, State>,
}

impl Deref for Locked<'_> {
    type Target = State;
    fn deref(&self) -> &State {
        &self.state
    }
}

impl DerefMut for Locked<'_> {
    fn deref_mut(&mut self) -> &mut State {
        &mut self.state
    }
}

impl Drop for Locked<'_> {
    fn drop(&mut self) {
        self.state.address(&self.stripe.inner.settings.endpoints);
        if !self.state.queue.is_empty() {
            self.stripe.inner.bell.notify_one();
        }
    }
}
