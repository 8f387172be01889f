//! What is sold, over HTTP, from the page of prices to the end: against the double of Stripe, which tells what happened as
//! Stripe does.

mod changes;
mod life;
mod no_return;
mod shop;

use axum::body::Body;
use http::{Method, Request};
use serde_json::{Value, json};
use tenantry_domain::one_time::{OneTimeToken, Purpose};
use tenantry_sandbox::stripe::{Card, Sandbox};
use tenantry_store::Origin;
use tenantry_tests::{
    http::text,
    platform::{Platform, Reply, Setup, Tenant},
};

const DAY: i64 = 24 * 3_600_000;

/// A tenant on the smallest plan, and the shop.
struct Stage {
    platform: Platform,
    tenant: Tenant,
}

impl Stage {
    async fn set() -> Self {
        Self::with(Setup::default()).await
    }

    async fn with(setup: Setup) -> Self {
        let platform = Platform::start(setup).await;
        platform.host().commerce().put_up_for_sale().await.unwrap();
        let tenant = platform.tenant("free").await;
        // Only an address that is the owner's gets mail about money.
        let token = OneTimeToken::for_user(Purpose::VerifyEmail, &tenant.user).unwrap();
        platform.store().put_one_time(&tenant.user, &token, DAY).await.unwrap();
        assert!(platform.store().confirm_address(&tenant.user, &token, &Origin::default()).await.unwrap());
        let stage = Self { platform, tenant };
        let _ = stage.stripe().take_events();
        stage
    }

    fn stripe(&self) -> &Sandbox {
        self.platform.host().stripe_sandbox().unwrap()
    }

    /// An access token of the owner's. Months pass between calls, so each signs in.
    async fn owner(&self) -> String {
        text(&self.platform.login(&self.tenant).await, "/access_token").to_owned()
    }

    async fn get(&self, path: &str) -> Value {
        self.platform.get(&format!("/api/v1{path}"), &self.owner().await).await.expect(200).json()
    }

    async fn post(&self, path: &str, body: Value) -> Reply {
        self.platform.post(&format!("/api/v1{path}"), &self.owner().await, body).await
    }

    async fn put(&self, path: &str, body: Value) -> Reply {
        self.platform.call(Method::PUT, &format!("/api/v1{path}"), &self.owner().await, body).await
    }

    /// The id of a plan's price.
    async fn price(&self, plan: &str, interval: &str) -> String {
        let plans = self.platform.get("/api/v1/subscriptions/plans", "").await.expect(200).json();
        let plan = plans["data"].as_array().unwrap().iter().find(|offer| offer["id"] == plan).unwrap().clone();
        let price =
            plan["prices"].as_array().unwrap().iter().find(|price| price["interval"] == interval).unwrap().clone();
        text(&price, "/price_id").to_owned()
    }

    /// Stripe tells everything that waits, and is believed.
    async fn hear(&self) {
        loop {
            let told = self.stripe().take_events();
            if told.is_empty() {
                return;
            }
            for delivery in told {
                let mut request = Request::post("/webhooks/stripe").body(Body::from(delivery.body.clone())).unwrap();
                *request.headers_mut() = delivery.headers.clone();
                self.platform.send(request).await.expect(204);
                self.stripe().acknowledge(&delivery);
            }
        }
    }

    /// Time passes, here and at Stripe, which tells what came of it as it goes.
    async fn days(&self, days: i64) {
        for _ in 0..days {
            self.stripe().advance(DAY);
            self.hear().await;
        }
    }

    async fn current(&self) -> Value {
        self.get("/subscriptions/current").await
    }

    /// The plan, and the subscription's status.
    async fn standing(&self) -> (String, String) {
        let current = self.current().await;
        let status = current["subscription"]["status"].as_str().unwrap_or("none");
        (text(&current, "/plan/id").to_owned(), status.to_owned())
    }

    /// Subscribes by the month and pays.
    async fn subscribe(&self, plan: &str) {
        self.subscribe_by(plan, "month").await;
    }

    /// Subscribes and pays.
    async fn subscribe_by(&self, plan: &str, interval: &str) {
        let price = self.price(plan, interval).await;
        let checkout = self.post("/subscriptions/checkout", json!({"price_id": price})).await.expect(200).json();
        self.stripe().pay(text(&checkout, "/session_id")).unwrap();
        self.hear().await;
    }

    /// From now on the tenant's cards behave like this.
    async fn cards(&self, card: Card) {
        let customer = self.platform.store().account(&self.tenant.scope).await.unwrap().customer.unwrap();
        self.stripe().set_cards(&customer, card).unwrap();
    }

    /// Subjects of the letters to the owner.
    async fn letters(&self) -> Vec<String> {
        let letters = self.platform.letters_to(&self.tenant.email).await;
        letters.into_iter().map(|letter| letter.subject).collect()
    }

    /// What is left of a resource.
    async fn left(&self, resource: &str) -> Option<u64> {
        let current = self.current().await;
        let quota = current["quotas"].as_array().unwrap().iter().find(|quota| quota["resource"] == resource).cloned();
        quota.unwrap()["left"].as_u64()
    }
}
