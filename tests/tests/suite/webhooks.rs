//! What vendors tell: believed when they signed it, acted on once, and never at the cost of another tenant. Vendors are the
//! doubles of `sandbox`, which share no code with the clients.

mod china;
mod notices;
mod stripe;

use std::{collections::BTreeMap, sync::Arc};

use axum::{
    Router,
    body::{Body, Bytes},
};
use http::{HeaderMap, Request};
use http_body_util::BodyExt as _;
use serde_json::Value;
use tenantry_commerce::Commerce;
use tenantry_domain::one_time::{OneTimeToken, Purpose};
use tenantry_host::dynamodb::Capacity;
use tenantry_sandbox::stripe::{Sandbox, SignedDelivery};
use tenantry_store::Origin;
use tenantry_tests::{
    http::text,
    platform::{Platform, Reply, Setup, Tenant},
};
use tenantry_web::config::Env;
use tower::ServiceExt as _;

const STRIPE: &str = "/webhooks/stripe";
const MINUTE: i64 = 60_000;
const DAY: i64 = 24 * 60 * MINUTE;
/// What the package `small` brings.
const CREDITS: u64 = 10_000_000;

async fn post(router: Router, path: &str, headers: &HeaderMap, body: impl Into<Bytes>) -> Reply {
    let mut request = Request::post(path).body(Body::from(body.into())).unwrap();
    *request.headers_mut() = headers.clone();
    let (head, body) = router.oneshot(request).await.unwrap().into_parts();
    Reply { status: head.status, headers: head.headers, bytes: body.collect().await.unwrap().to_bytes().to_vec() }
}

/// All that is stored, by its key.
fn rows(platform: &Platform) -> BTreeMap<String, Value> {
    let rows = platform.host().all_items().unwrap();
    rows.into_iter().map(|row| (format!("{} {}", text(&row, "/pk/S"), text(&row, "/sk/S")), row)).collect()
}

/// The rows that are not about messages of vendors.
fn tenants_rows(platform: &Platform) -> BTreeMap<String, Value> {
    let mut rows = rows(platform);
    rows.retain(|key, _| !key.starts_with("EVENT#"));
    rows
}

/// What was kept for people: the rows of this kind.
fn kept(platform: &Platform, kind: &str) -> Vec<Value> {
    rows(platform).into_iter().filter(|(key, _)| key.ends_with(kind)).map(|(_, row)| row).collect()
}

/// Does `send`, and fails when that read or wrote anything at all.
async fn without_a_trace(platform: &Platform, capacity: &Capacity, send: impl Future<Output = ()>) {
    let (before, writes, reads) = (rows(platform), capacity.write_units(), capacity.read_units());
    send.await;
    assert_eq!((capacity.write_units() - writes, capacity.read_units() - reads), (0.0, 0.0));
    assert_eq!(rows(platform), before);
}

/// The owner's address is theirs.
pub(crate) async fn confirm_address(platform: &Platform, tenant: &Tenant) {
    let token = OneTimeToken::for_user(Purpose::VerifyEmail, &tenant.user).unwrap();
    platform.store().put_one_time(&tenant.user, &token, DAY).await.unwrap();
    assert!(platform.store().confirm_address(&tenant.user, &token, &Origin::default()).await.unwrap());
}

/// A platform with Stripe's double.
struct Stage {
    platform: Platform,
    capacity: Arc<Capacity>,
    tenant: Tenant,
}

impl Stage {
    async fn set() -> Self {
        let capacity = Arc::new(Capacity::default());
        let platform = Platform::start(Setup::default().capacity(&capacity)).await;
        let tenant = platform.tenant("free").await;
        platform.host().commerce().put_up_for_sale().await.unwrap();
        let stage = Self { platform, capacity, tenant };
        let _ = stage.stripe().take_events();
        stage
    }

    fn stripe(&self) -> &Sandbox {
        self.platform.host().stripe_sandbox().unwrap()
    }

    /// The routes of a deployment over the same table, with other webhook secrets.
    fn with_secrets(&self, secrets: &str) -> Router {
        let variables = [
            ("STRIPE_SECRET_KEY", &*self.stripe().secret_key),
            ("STRIPE_BASE_URL", &*self.stripe().base_url),
            ("STRIPE_WEBHOOK_SECRETS", secrets),
        ];
        let env: Env = variables.map(|(name, value)| (name.to_owned(), value.to_owned())).into_iter().collect();
        self.hearing(Commerce::from_env(&env, self.platform.store().clone()).unwrap())
    }

    /// The routes of a deployment with these vendors.
    fn hearing(&self, commerce: Commerce) -> Router {
        let mails = Arc::new(self.platform.host().mail_queue().clone());
        tenantry_webhooks::router(tenantry_webhooks::State::new(commerce, mails))
    }

    async fn customer_of(&self, tenant: &Tenant) -> String {
        self.platform.host().commerce().customer(&tenant.scope, &tenant.email, "Acme").await.unwrap()
    }

    async fn tell(&self, delivery: &SignedDelivery) -> Reply {
        post(self.platform.router(), STRIPE, &delivery.headers, delivery.body.clone()).await
    }

    /// Delivers all that waits; returns it.
    async fn tell_all(&self) -> Vec<SignedDelivery> {
        let told = self.stripe().take_events();
        for delivery in &told {
            self.tell(delivery).await.expect(204);
            self.stripe().acknowledge(delivery);
        }
        told
    }

    /// One event of this type of those that wait; the others are lost.
    fn only(&self, kind: &str) -> SignedDelivery {
        let told = self.stripe().take_events();
        let kinds: Vec<_> = told.iter().map(|delivery| delivery.kind.clone()).collect();
        told.into_iter().find(|delivery| delivery.kind == kind).unwrap_or_else(|| panic!("only {kinds:?}"))
    }
}
