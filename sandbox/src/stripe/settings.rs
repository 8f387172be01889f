//! How a double is set up, and how the people and banks behind it behave.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The API version whose shapes the double answers with; async-stripe 1.0.0-rc.10 and stripe-python 16.0 pin it.
pub const API_VERSION: &str = "2026-09-30.endive";

/// What a double is made of. The default tells nobody, and names pages by where it is [served](super::StripeSandbox::serve).
#[derive(Clone)]
pub struct Settings {
    /// The secret key. Other keys are refused.
    pub secret_key: String,
    /// What deliveries are signed with.
    pub webhook_secret: String,
    /// Where events are sent, an `http://` address: the double speaks no TLS. Without one they wait to be
    /// [taken](super::StripeSandbox::take_events).
    pub webhook_url: Option<String>,
    /// Where people reach the double's pages, without a slash at the end.
    pub public_url: String,
    /// Stands in every id after its prefix. Ids are counted from one, so whoever remembers what an account told that is
    /// lost gives the next another space, or their ids meet.
    pub id_space: String,
    /// Days from an attempt to collect an invoice to the next. <https://docs.stripe.com/billing/revenue-recovery/smart-retries>
    pub retry_days: Vec<i64>,
    /// What becomes of the subscription when the last attempt has failed.
    pub after_retries: AfterRetries,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            secret_key: "sk_test_sandbox".to_owned(),
            webhook_secret: "whsec_sandbox".to_owned(),
            webhook_url: None,
            public_url: String::new(),
            id_space: String::new(),
            retry_days: vec![3, 5, 7],
            after_retries: AfterRetries::Cancel,
        }
    }
}

/// Keys and secrets stay out of logs.
impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Settings")
            .field("public_url", &self.public_url)
            .field("webhook_url", &self.webhook_url)
            .finish_non_exhaustive()
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
    /// Pays by a method that settles later, like a bank debit: [`settle`](super::StripeSandbox::settle) says how it ends.
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
