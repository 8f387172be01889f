//! How a double is set up, and how the people and banks behind it behave.

use std::{fmt, sync::Arc};

use serde::{Deserialize, Serialize};
use tenantry_domain::{Clock, SystemClock};

/// The API version whose shapes the double answers with; async-stripe 1.0.0-rc.10 and stripe-python 16.0 pin it.
pub const API_VERSION: &str = "2026-09-30.endive";

/// What a double is made of.
#[derive(Clone)]
pub struct Settings {
    /// The secret key, `sk_test_…`. Other keys are refused.
    pub api_key: String,
    /// Where people reach the double, without a slash at the end: pages of checkout and portal are below it.
    pub public_url: String,
    /// Where events are sent.
    pub endpoints: Vec<Endpoint>,
    /// Whether every call must name [`API_VERSION`] in `Stripe-Version`.
    pub strict_version: bool,
    /// Where "now" comes from.
    pub clock: Arc<dyn Clock>,
    /// What is done when nobody pays.
    pub rules: Rules,
}

impl Settings {
    /// A double on the machine's clock that tells nobody.
    #[must_use]
    pub fn new(api_key: impl Into<String>, public_url: impl Into<String>) -> Self {
        Self {
            api_key: api_key.into(),
            public_url: public_url.into(),
            endpoints: vec![],
            strict_version: true,
            clock: Arc::new(SystemClock),
            rules: Rules::default(),
        }
    }
}

/// Keys and secrets stay out of logs.
impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Settings")
            .field("public_url", &self.public_url)
            .field("rules", &self.rules)
            .finish_non_exhaustive()
    }
}

/// Where events are sent, as one configures it in Stripe's dashboard.
#[derive(Clone)]
pub struct Endpoint {
    /// An `http://` address; the double speaks no TLS.
    pub url: String,
    /// What the deliveries are signed with, `whsec_…`.
    pub secret: String,
    /// Types of events, or `*` for all.
    pub events: Vec<String>,
}

/// What Stripe lets an account configure, and where ids begin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rules {
    /// Days from an attempt to collect an invoice to the next. <https://docs.stripe.com/billing/revenue-recovery/smart-retries>
    pub retry_days: Vec<i64>,
    /// What becomes of the subscription when the last attempt has failed.
    pub after_retries: AfterRetries,
    /// Stands in every id after its prefix. Whoever keeps what a double told him longer than the double lives gives each
    /// double another one, or their ids meet.
    pub id_space: String,
    /// [`Settings::public_url`], where objects carry links.
    pub(super) public_url: String,
}

impl Default for Rules {
    fn default() -> Self {
        Self {
            retry_days: vec![3, 5, 7],
            after_retries: AfterRetries::Cancel,
            id_space: String::new(),
            public_url: String::new(),
        }
    }
}

/// What becomes of a subscription that is not paid for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AfterRetries {
    /// It is canceled.
    Cancel,
    /// It becomes `unpaid`: invoices are drafted but not collected.
    Unpaid,
    /// It stays `past_due`.
    PastDue,
}

/// How a card behaves.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Card {
    /// It pays.
    #[default]
    Pays,
    /// The bank declines (`generic_decline`).
    Declines,
    /// There is no money (`insufficient_funds`).
    NoFunds,
    /// Its holder must confirm every payment (3-D Secure).
    Authenticates,
}

/// Who pays at a checkout, and how.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Payer {
    /// The card.
    pub card: Card,
    /// The address the payer types, when the session names none.
    pub email: Option<String>,
    /// The promotion code the payer types.
    pub promotion_code: Option<String>,
    /// Pays by a method that settles later, like a bank debit: [`Stripe::settle`](super::Stripe::settle) says how it ends.
    pub delayed: bool,
}

/// What a call suffers on its way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// 500, and nothing was done.
    Refused,
    /// It was done, but the answer is lost: 502. The same idempotency key gets the true answer.
    AnswerLost,
    /// 429, and nothing was done.
    RateLimited,
}
