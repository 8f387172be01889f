//! A double of Stripe's HTTP API with what this platform needs of it: customers, prices, checkout, portal, subscriptions,
//! invoices, intents, refunds, disputes, and signed webhooks. The official SDKs work against it. Nothing here moves money.
//!
//! # In a test
//!
//! ```
//! # use std::sync::Arc;
//! # use tenantry_sandbox::{AheadClock, stripe::{Settings, StripeSandbox}};
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> std::io::Result<()> {
//! let clock = Arc::new(AheadClock::default());
//! let sandbox = StripeSandbox::start(clock, Settings::default()).await?;
//! // A client of Stripe is given these three; it makes a session.
//! let _ = (&sandbox.base_url, &sandbox.secret_key, &sandbox.webhook_secret);
//! # let session = "cs_test_1";
//! // A person pays, a month passes, and the webhooks are delivered in whatever order, however often the test likes.
//! let _ = sandbox.pay(session);
//! sandbox.advance_months(1);
//! for delivery in sandbox.take_events().iter().rev() {
//!     let _ = (&delivery.headers, &delivery.body);
//!     sandbox.acknowledge(delivery);
//! }
//! # Ok(())
//! # }
//! ```
//!
//! The double and the platform share one [`AheadClock`]: [`advance`](StripeSandbox::advance) turns it for both, as turning
//! the clock behind it does, and what is due at the double happens at the next look at it, each thing at its second. The same calls at the same times make the same
//! ids and events, so a test can be repeated to the letter.
//!
//! # By hand
//!
//! [`router`](StripeSandbox::router) has the API below `/v1` and once more below `/_dev/stripe/v1`, where SDKs are pointed
//! with the base URL `…/_dev/stripe`; the pages that people are sent to (checkout, portal, invoices); and `/_dev/stripe`,
//! which shows everything, turns the clock, fails and heals cards, opens disputes, and holds back, repeats and reorders
//! webhooks. [`run`](StripeSandbox::run) delivers those over HTTP, with retries.
//!
//! # How true it is
//!
//! Objects have the shapes of API version [`API_VERSION`] and begin as Stripe's own examples. The double is as strict as
//! Stripe where that catches mistakes (unknown parameters, idempotency keys that are used twice, ids that do not exist),
//! and stricter in two places: every POST needs an `Idempotency-Key`, and every call the right `Stripe-Version`. It knows
//! no taxes, no currencies without two decimals, and no partial captures; what it does not know it refuses, instead of
//! pretending.

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
mod purchase;
mod refunds;
mod serve;
mod settings;
mod setup;
mod state;
mod subscription_update;
mod subscriptions;

use std::{
    ops::{Deref, DerefMut},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use axum::{Router, middleware::from_fn, routing::any};
use tenantry_domain::Clock as _;
use tokio::sync::Notify;

pub use error::StripeError;
pub use events::SignedDelivery;
pub use serve::Sandbox;
pub use settings::{API_VERSION, AfterRetries, Card, Fault, Payer, Settings};

use crate::{AheadClock, guard};
use state::State;

/// Where the pages are, and the API once more.
const PATH: &str = "/_dev/stripe";

/// The double. Clones share everything.
#[derive(Clone)]
pub struct StripeSandbox {
    inner: Arc<Inner>,
}

struct Inner {
    clock: Arc<AheadClock>,
    state: Mutex<State>,
    /// Rung when there is something to deliver.
    bell: Notify,
    changes: AtomicU64,
}

impl StripeSandbox {
    /// An account without anything.
    #[must_use]
    pub fn new(clock: Arc<AheadClock>, settings: Settings) -> Self {
        Self::with_state(clock, settings, State::default())
    }

    fn with_state(clock: Arc<AheadClock>, settings: Settings, mut state: State) -> Self {
        state.settings = settings;
        let state = Mutex::new(state);
        Self { inner: Arc::new(Inner { clock, state, bell: Notify::new(), changes: AtomicU64::new(0) }) }
    }

    /// The API and the pages.
    pub fn router(&self) -> Router {
        Router::new().route("/v1/{*call}", any(api::handle)).with_state(self.clone()).merge(self.mounted())
    }

    /// The same without the API at the top, for a process that has other routes there.
    pub fn mounted(&self) -> Router {
        let api = Router::new().route("/v1/{*call}", any(api::handle));
        let pages = pages::router().merge(dev::router()).layer(from_fn(guard::local_only));
        pages.nest(PATH, api).with_state(self.clone())
    }

    fn clock(&self) -> &AheadClock {
        &self.inner.clock
    }

    /// The state, with everything done that was due by now.
    fn lock(&self) -> Locked<'_> {
        let mut state = self.inner.state.lock().unwrap_or_else(PoisonError::into_inner);
        let before = state.given_out();
        lifecycle::run(&mut state, self.clock().now().div_euclid(1000));
        let changed = state.given_out() != before;
        Locked { inner: &self.inner, state, changed }
    }
}

/// The state while it is locked. When it is let go, whoever delivers hears of it.
struct Locked<'a> {
    inner: &'a Inner,
    state: MutexGuard<'a, State>,
    changed: bool,
}

impl Deref for Locked<'_> {
    type Target = State;
    fn deref(&self) -> &State {
        &self.state
    }
}

impl DerefMut for Locked<'_> {
    fn deref_mut(&mut self) -> &mut State {
        self.changed = true;
        &mut self.state
    }
}

impl Drop for Locked<'_> {
    fn drop(&mut self) {
        if self.changed {
            self.inner.changes.fetch_add(1, Ordering::SeqCst);
            self.inner.bell.notify_one();
        }
    }
}
