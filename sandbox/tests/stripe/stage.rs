//! A double, a client of it, and what most tests begin with.

use std::{sync::Arc, time::Duration};

use axum::body::Body;
use http::{Request, Response};
use http_body_util::BodyExt as _;
use tenantry_domain::{Clock, Millis};
use tenantry_payments::stripe::{
    BillingInterval, CheckoutPages, CheckoutSession, Customer, Delivery, Event, OperationKey, PriceChange, PriceSpec,
    Proration, Refusal, Stripe, StripeError, StripeSettings, Subscription, SubscriptionCheckout,
};
use tenantry_sandbox::{
    AheadClock,
    stripe::{Sandbox, Settings, StripeSandbox},
};
use tower::ServiceExt as _;

pub(crate) const DAY: Millis = 86_400_000;
/// 2026-11-20T12:00:00Z
pub(crate) const NOON: Millis = 1_795_176_000_000;
pub(crate) const ORG: &str = "org_1";

/// Stands still.
struct Noon;

impl Clock for Noon {
    fn now(&self) -> Millis {
        NOON
    }
}

pub(crate) struct Stage {
    pub(crate) sandbox: Sandbox,
    pub(crate) stripe: Stripe,
    pub(crate) clock: Arc<AheadClock>,
}

/// A key of its own for each word.
pub(crate) fn key(word: &str) -> OperationKey {
    OperationKey::new("test", &[word])
}

impl Stage {
    pub(crate) async fn new() -> Self {
        Self::with(Settings::default()).await
    }

    pub(crate) async fn with(settings: Settings) -> Self {
        let clock = Arc::new(AheadClock::new(Arc::new(Noon), 0));
        let sandbox = StripeSandbox::start(clock.clone(), settings).await.unwrap();
        let stripe = client(&sandbox, &sandbox.secret_key.clone());
        Self { sandbox, stripe, clock }
    }

    pub(crate) async fn customer(&self) -> Customer {
        self.stripe.find_or_create_customer(ORG, &key("customer")).await.unwrap()
    }

    /// A monthly price of a product of that name.
    pub(crate) async fn monthly(&self, name: &str, cents: i64) -> String {
        self.stripe.ensure_product(name, name).await.unwrap();
        let interval = Some(BillingInterval::Month);
        let spec = PriceSpec { lookup_key: name, product: name, currency: "usd", unit_amount: cents, interval };
        self.stripe.ensure_price(&spec).await.unwrap().id
    }

    pub(crate) async fn checkout(&self, customer: &str, price: &str, trial_days: Option<u32>) -> CheckoutSession {
        let pages = pages(customer);
        let promotion_codes = true;
        let checkout = SubscriptionCheckout { pages, price, trial_days, promotion_codes, automatic_tax: false };
        self.stripe.subscription_checkout(&checkout, &key(&format!("checkout-{price}"))).await.unwrap()
    }

    /// A customer who has paid for a month at 20 dollars.
    pub(crate) async fn subscribed(&self) -> Subscription {
        self.subscribed_after(None).await
    }

    pub(crate) async fn subscribed_after(&self, trial_days: Option<u32>) -> Subscription {
        let customer = self.customer().await.id;
        let price = self.monthly("basic", 2000).await;
        let session = self.checkout(&customer, &price, trial_days).await;
        self.sandbox.pay(&session.id).unwrap();
        let session = self.stripe.checkout(&session.id).await.unwrap();
        self.subscription(&session.subscription.unwrap()).await
    }

    pub(crate) async fn subscription(&self, id: &str) -> Subscription {
        self.stripe.subscription(id).await.unwrap()
    }

    /// Everything that was told since it was last asked for, verified and read by the client.
    pub(crate) fn told(&self) -> Vec<Event> {
        let now = self.clock.now();
        let taken = self.sandbox.take_events();
        let read = taken.iter().map(|delivery| {
            self.sandbox.acknowledge(delivery);
            let verified = self.stripe.webhooks().verify(delivery.body.as_bytes(), delivery.signature(), now);
            match verified.unwrap() {
                Delivery::Event(event) => *event,
                Delivery::Unreadable(unreadable) => panic!("{unreadable:?}\n{}", delivery.body),
            }
        });
        read.collect()
    }

    /// The types of what was told.
    pub(crate) fn kinds(&self) -> Vec<String> {
        self.told().into_iter().map(|event| event.kind).collect()
    }

    /// Clicks a button of a page that a person was sent to.
    pub(crate) async fn click(&self, url: &str, fields: &str) -> Page {
        let path = url.strip_prefix(&self.sandbox.base_url).expect("a page of the double");
        let request = Request::post(path).body(Body::from(fields.to_owned())).unwrap();
        Page::of(self.sandbox.router().oneshot(request).await.unwrap()).await
    }

    pub(crate) async fn look(&self, url: &str) -> Page {
        let path = url.strip_prefix(&self.sandbox.base_url).expect("a page of the double");
        let request = Request::get(path).body(Body::empty()).unwrap();
        Page::of(self.sandbox.router().oneshot(request).await.unwrap()).await
    }
}

/// What a browser gets.
pub(crate) struct Page {
    pub(crate) status: u16,
    /// Where it is sent on to.
    pub(crate) location: String,
    pub(crate) html: String,
}

impl Page {
    async fn of(response: Response<Body>) -> Self {
        let location = response.headers().get("location").map_or("", |url| url.to_str().unwrap()).to_owned();
        let status = response.status().as_u16();
        let bytes = response.into_body().collect().await.unwrap().to_bytes();
        Self { status, location, html: String::from_utf8(bytes.to_vec()).unwrap() }
    }
}

pub(crate) fn client(sandbox: &Sandbox, secret_key: &str) -> Stripe {
    let mut settings = StripeSettings::new(secret_key, vec![sandbox.webhook_secret.clone()]);
    settings.base_url.clone_from(&sandbox.base_url);
    settings.retry_pause = Duration::ZERO;
    Stripe::new(settings).unwrap()
}

pub(crate) fn pages(customer: &str) -> CheckoutPages<'_> {
    CheckoutPages {
        customer,
        org: ORG,
        metadata: &[("plan", "basic")],
        success_url: "https://app.example/done?session={CHECKOUT_SESSION_ID}",
        cancel_url: "https://app.example/back",
        expires_at: None,
    }
}

/// A change of the one item to `price`, paid for at once.
pub(crate) fn change<'a>(subscription: &'a Subscription, price: &'a str) -> PriceChange<'a> {
    PriceChange {
        subscription: &subscription.id,
        item: &subscription.items[0].id,
        price,
        proration: Proration::Now,
        proration_date: None,
        ends_trial: false,
        metadata: &[],
    }
}

pub(crate) fn refusal<T: std::fmt::Debug>(result: Result<T, StripeError>) -> Refusal {
    match result {
        Err(StripeError::Refused(refusal)) => *refusal,
        other => panic!("not refused: {other:?}"),
    }
}
