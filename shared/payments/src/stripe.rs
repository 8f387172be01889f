//! Stripe: customers, checkout, the portal, subscriptions, invoices, refunds, and signed events.
//!
//! Requests are made by async-stripe's builders, which are generated from Stripe's own description of one version of the
//! API: a parameter that does not exist does not compile. Its client is not used, because it loses what decides about
//! money (the status of an answer without a readable error, `Stripe-Should-Retry`, one idempotency key over retries), nor
//! are its answer types: they demand every one of some hundred members of an object, so that one surprise in a member
//! which nobody reads would leave a customer who paid without a plan, and they weigh 1.5 MB in a function's zip. What is
//! read here is what billing needs, and that is demanded. None of async-stripe's types leave this module.
//!
//! Money is in minor units of a currency (`usd`, lower case), moments in milliseconds, ids are Stripe's texts. Every
//! write takes an [`OperationKey`] of the caller's making; [`StripeError`] says when to come back with the same.

use std::{fmt, time::Duration};

use http::{HeaderMap, HeaderValue, Uri, header, uri::Scheme};

use crate::http::{HttpClient, USER_AGENT};

mod call;
mod checkout;
mod customers;
mod error;
mod events;

mod invoices;
mod key;
mod payments;
mod portal;
mod preview;
mod prices;
mod signature;
mod subscriptions;
mod wire;

#[cfg(test)]
mod client_tests;
#[cfg(test)]
mod fixture_tests;
#[cfg(test)]
mod request_tests;
#[cfg(test)]
mod server;

pub use checkout::{
    CheckoutMode, CheckoutPages, CheckoutSession, CheckoutStatus, Goods, PaymentCheckout, PaymentStatus, SetupCheckout,
    SubscriptionCheckout,
};
pub use customers::{Card, Customer, PaymentMethod, SetupIntent};
pub use error::{Refusal, StripeError};
pub use events::{Delivery, Event, EventObject, Unreadable};
pub use invoices::{Invoice, InvoiceLine, InvoicePayment, InvoicePaymentStatus, InvoiceStatus};
pub use key::OperationKey;
pub use payments::{
    Charge, ChargeStatus, Dispute, DisputeStatus, PaymentFailure, PaymentIntent, PaymentIntentStatus, PaymentRef,
    Refund, RefundReason, RefundStatus, SavedMethodCharge,
};
pub use portal::PortalSession;
pub use preview::Preview;
pub use prices::{BillingInterval, Interval, Price, PriceSpec, Product, Recurring};
pub use signature::{SignatureError, TOLERANCE, WebhookSecrets, sign};
pub use subscriptions::{PaymentBehavior, PendingUpdate, PriceChange, Proration, Subscription, SubscriptionItem};
pub use wire::{Metadata, Page};

/// The version of Stripe's API that is asked for and understood. The webhook endpoint must be created with the same.
pub const API_VERSION: &str = "2026-09-30.endive";

/// Our word in an object's metadata that says whose it is.
pub const METADATA_ORG: &str = "org";

/// Where Stripe is, when it is not a sandbox.
pub const BASE_URL: &str = "https://api.stripe.com";

/// How to reach Stripe. `Debug` shows no secrets.
#[derive(Clone)]
pub struct StripeSettings {
    /// `sk_live_…`, `rk_test_…`.
    pub secret_key: String,
    /// [`BASE_URL`], or a sandbox's. A key that is not a test key goes over TLS alone.
    pub base_url: String,
    /// The webhook endpoint's secrets: the current one and, while it is rotated, the one before. None where no webhooks
    /// are received.
    pub webhook_secrets: Vec<String>,
    /// How long a call may take, retries and all.
    pub timeout: Duration,
    /// How long to wait before the first retry; the next waits twice as long.
    pub retry_pause: Duration,
}

impl StripeSettings {
    /// Stripe itself, ten seconds for a call, a fifth of a second before the first retry.
    #[must_use]
    pub fn new(secret_key: impl Into<String>, webhook_secrets: Vec<String>) -> Self {
        Self {
            secret_key: secret_key.into(),
            base_url: BASE_URL.to_owned(),
            webhook_secrets,
            timeout: Duration::from_secs(10),
            retry_pause: Duration::from_millis(200),
        }
    }
}

impl fmt::Debug for StripeSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StripeSettings")
            .field("base_url", &self.base_url)
            .field("webhook_secrets", &self.webhook_secrets.len())
            .field("timeout", &self.timeout)
            .field("retry_pause", &self.retry_pause)
            .finish_non_exhaustive()
    }
}

/// Settings that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SettingsError {
    /// No secret key, or one that no header can hold.
    #[error("the Stripe secret key is empty or has characters that no key has")]
    SecretKey,
    /// Anybody could sign with an empty secret.
    #[error("a Stripe webhook secret is empty or has white space at an end")]
    WebhookSecret,
    /// Not an address.
    #[error("the Stripe base URL must be like https://api.stripe.com, without a path")]
    BaseUrl,
    /// A live key would be readable on the way.
    #[error("a Stripe key that is not a test key needs a base URL with https")]
    PlainText,
}

/// A client of Stripe. Build one and clone it.
#[derive(Clone)]
pub struct Stripe {
    http: HttpClient,
    base: String,
    headers: HeaderMap,
    conceal: String,
    live: bool,
    timeout: Duration,
    retry_pause: Duration,
    webhooks: WebhookSecrets,
}

impl Stripe {
    /// A client with these settings. Connects when it is first used.
    ///
    /// # Errors
    /// [`SettingsError`], which says what is wrong with them.
    pub fn new(settings: StripeSettings) -> Result<Self, SettingsError> {
        let key = settings.secret_key;
        if key.is_empty() || !key.bytes().all(|b| b.is_ascii_graphic()) {
            return Err(SettingsError::SecretKey);
        }
        let base: Uri = settings.base_url.parse().map_err(|_| SettingsError::BaseUrl)?;
        let secure = base.scheme() == Some(&Scheme::HTTPS);
        let plain = base.scheme() == Some(&Scheme::HTTP);
        let bare = base.path() == "/" && base.query().is_none();
        let (true, true, Some(authority)) = (secure || plain, bare, base.authority()) else {
            return Err(SettingsError::BaseUrl);
        };
        if plain && !["sk_test_", "rk_test_"].iter().any(|prefix| key.starts_with(prefix)) {
            return Err(SettingsError::PlainText);
        }
        let mut bearer = HeaderValue::try_from(format!("Bearer {key}")).map_err(|_| SettingsError::SecretKey)?;
        bearer.set_sensitive(true);
        let mut headers = HeaderMap::new();
        headers.insert(header::AUTHORIZATION, bearer);
        headers.insert(header::USER_AGENT, USER_AGENT);
        headers.insert("stripe-version", HeaderValue::from_static(API_VERSION));
        Ok(Self {
            http: HttpClient::new(),
            base: format!("{}://{authority}/v1", if secure { "https" } else { "http" }),
            headers,
            live: ["sk_live_", "rk_live_"].iter().any(|prefix| key.starts_with(prefix)),
            conceal: key,
            timeout: settings.timeout,
            retry_pause: settings.retry_pause,
            webhooks: WebhookSecrets::new(settings.webhook_secrets)?,
        })
    }

    /// Whether the key moves real money. An event whose [`Event::livemode`] differs is none of ours.
    #[must_use]
    pub const fn is_live(&self) -> bool {
        self.live
    }

    /// What verifies a webhook.
    #[must_use]
    pub const fn webhooks(&self) -> &WebhookSecrets {
        &self.webhooks
    }
}

impl fmt::Debug for Stripe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stripe").field("base", &self.base).field("live", &self.live).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(key: &str, base_url: &str, secrets: &[&str]) -> StripeSettings {
        let secrets = secrets.iter().map(|&secret| secret.to_owned()).collect();
        StripeSettings { base_url: base_url.to_owned(), ..StripeSettings::new(key, secrets) }
    }

    #[test]
    fn the_version_is_the_one_that_the_builders_were_made_from() {
        assert_eq!(API_VERSION, stripe_client_core::VERSION.as_str());
    }

    #[test]
    fn settings_that_would_be_unsafe_are_refused() {
        for (key, base, secrets, error) in [
            ("", BASE_URL, &[][..], SettingsError::SecretKey),
            ("sk_test_1 ", BASE_URL, &[], SettingsError::SecretKey),
            ("sk_test_1\n", BASE_URL, &[], SettingsError::SecretKey),
            ("sk_test_1", BASE_URL, &[""], SettingsError::WebhookSecret),
            ("sk_test_1", BASE_URL, &["whsec_1", ""], SettingsError::WebhookSecret),
            ("sk_test_1", BASE_URL, &["whsec_1\n"], SettingsError::WebhookSecret),
            ("sk_test_1", "api.stripe.com", &[], SettingsError::BaseUrl),
            ("sk_test_1", "ftp://api.stripe.com", &[], SettingsError::BaseUrl),
            ("sk_test_1", "https://api.stripe.com/v1", &[], SettingsError::BaseUrl),
            ("sk_test_1", "", &[], SettingsError::BaseUrl),
            ("sk_live_1", "http://127.0.0.1:1", &[], SettingsError::PlainText),
            ("key_of_a_new_kind", "http://127.0.0.1:1", &[], SettingsError::PlainText),
        ] {
            assert_eq!(Stripe::new(settings(key, base, secrets)).unwrap_err(), error, "{key} {base} {secrets:?}");
        }
        assert!(!Stripe::new(settings("rk_test_1", "http://127.0.0.1:1/", &["whsec_1", "whsec_2"])).unwrap().is_live());
        assert!(Stripe::new(settings("sk_live_1", BASE_URL, &[])).unwrap().is_live());
    }

    #[test]
    fn nothing_secret_is_shown() {
        let settings = settings("sk_test_SECRET", BASE_URL, &["whsec_SECRET"]);
        let stripe = Stripe::new(settings.clone()).unwrap();
        let shown = format!("{settings:?} {stripe:?} {:?}", stripe.webhooks());
        assert!(!shown.contains("SECRET"), "{shown}");
        assert!(shown.contains("api.stripe.com"), "{shown}");
    }
}
