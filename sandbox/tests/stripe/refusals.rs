//! What the double does not take: what Stripe would refuse, and what would be a mistake of ours.

use axum::body::Body;
use http::Request;
use http_body_util::BodyExt as _;
use serde_json::Value;
use tenantry_payments::stripe::{Goods, PaymentCheckout, PriceSpec, StripeError, SubscriptionCheckout};
use tenantry_sandbox::stripe::{API_VERSION, Fault};
use tower::ServiceExt as _;

use crate::stage::{NOON, Stage, change, client, key, pages, refusal};

impl Stage {
    /// A call that the client has no method for.
    pub(crate) async fn post(&self, path: &str, form: &str) -> (u16, Value) {
        let bearer = format!("Bearer {}", self.sandbox.secret_key);
        let unique = format!("{path}?{form}");
        let headers =
            [("authorization", bearer.as_str()), ("stripe-version", API_VERSION), ("idempotency-key", &unique)];
        self.raw("POST", path, &headers, form).await
    }

    async fn raw(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> (u16, Value) {
        let mut request = Request::builder().method(method).uri(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Body::from(body.to_owned())).unwrap();
        let response = self.sandbox.router().oneshot(request).await.unwrap();
        let status = response.status().as_u16();
        assert!(response.headers().contains_key("request-id"), "every answer has one");
        let bytes = response.into_body().collect().await.unwrap().to_bytes();
        (status, serde_json::from_slice(&bytes).unwrap())
    }
}

#[tokio::test]
async fn nobody_without_the_key_is_let_in() {
    let stage = Stage::new().await;
    let version = ("stripe-version", API_VERSION);
    for headers in
        [&[version][..], &[version, ("authorization", "Bearer sk_test_other")], &[version, ("authorization", "x")]]
    {
        let (status, answer) = stage.raw("GET", "/v1/customers", headers, "").await;
        assert_eq!((status, answer["error"]["type"].as_str()), (401, Some("invalid_request_error")));
    }
    // As the user name of Basic it is good, as Stripe's curl examples send it.
    let basic = format!("Basic {}", data_encoding::BASE64.encode(format!("{}:", stage.sandbox.secret_key).as_bytes()));
    assert_eq!(stage.raw("GET", "/v1/customers", &[version, ("authorization", &basic)], "").await.0, 200);
    let other = client(&stage.sandbox, "sk_test_other");
    assert_eq!(refusal(other.customer("cus_1").await).status, 401);
    // A key of live mode has no business here, and is told so.
    let live = [version, ("authorization", concat!("Bearer sk_", "live_1"))];
    let (status, answer) = stage.raw("GET", "/v1/customers", &live, "").await;
    assert_eq!(status, 401);
    assert!(answer["error"]["message"].as_str().unwrap().contains("live mode"), "{answer}");
}

#[tokio::test]
async fn calls_name_the_version_and_writes_have_a_key() {
    let stage = Stage::new().await;
    let bearer = format!("Bearer {}", stage.sandbox.secret_key);
    let (auth, version, write) =
        (("authorization", bearer.as_str()), ("stripe-version", API_VERSION), ("idempotency-key", "k"));
    for (headers, says) in [
        (&[auth, write][..], "Stripe-Version is missing"),
        (&[auth, write, ("stripe-version", "2024-06-20")], "2024-06-20"),
        (&[auth, version], "Idempotency-Key"),
        (&[auth, version, ("idempotency-key", "")], "Idempotency-Key"),
        (&[auth, version, ("idempotency-key", &"k".repeat(256))], "Idempotency-Key"),
    ] {
        let (status, answer) = stage.raw("POST", "/v1/customers", headers, "name=Ada").await;
        assert_eq!(status, 400);
        assert!(answer["error"]["message"].as_str().unwrap().contains(says), "{answer}");
    }
    assert_eq!(stage.raw("POST", "/v1/customers", &[auth, version, write], "name=Ada").await.0, 200);
    assert_eq!(stage.sandbox.events().len(), 1, "the others made nothing");
}

#[tokio::test]
async fn a_key_is_for_one_request() {
    let stage = Stage::new().await;
    let spec = |unit_amount| PriceSpec { lookup_key: "x", product: "p", currency: "usd", unit_amount, interval: None };
    stage.stripe.ensure_product("p", "P").await.unwrap();
    stage.stripe.ensure_price(&spec(100)).await.unwrap();
    let customer = stage.customer().await.id;
    let named = stage.stripe.update_customer(&customer, "a@b.example", "Ada", &key("name")).await.unwrap();
    assert_eq!(stage.stripe.update_customer(&customer, "a@b.example", "Ada", &key("name")).await.unwrap(), named);
    let other = refusal(stage.stripe.update_customer(&customer, "a@b.example", "Bob", &key("name")).await);
    assert_eq!((other.status, other.kind.as_deref()), (400, Some("idempotency_error")));
    let elsewhere = refusal(stage.stripe.portal(&customer, "https://app.example", &key("name")).await);
    assert_eq!(elsewhere.kind.as_deref(), Some("idempotency_error"));
    assert_eq!(stage.stripe.customer(&customer).await.unwrap().name.as_deref(), Some("Ada"));
    // After a day it is forgotten.
    stage.sandbox.advance(24 * 3_600_000);
    let later = stage.stripe.update_customer(&customer, "a@b.example", "Bob", &key("name")).await.unwrap();
    assert_eq!(later.name.as_deref(), Some("Bob"));
}

#[tokio::test]
async fn what_does_not_exist_is_missing() {
    let stage = Stage::new().await;
    let customer = stage.customer().await.id;
    assert!(stage.stripe.subscription("sub_none").await.unwrap_err().is_missing());
    assert!(stage.stripe.invoice("in_none").await.unwrap_err().is_missing());
    let mut checkout = SubscriptionCheckout {
        pages: pages(&customer),
        price: "price_none",
        trial_days: None,
        promotion_codes: false,
        automatic_tax: false,
    };
    let refused = refusal(stage.stripe.subscription_checkout(&checkout, &key("one")).await);
    assert_eq!((refused.status, refused.code.as_deref()), (400, Some("resource_missing")));
    assert_eq!(refused.param.as_deref(), Some("line_items[0][price]"));
    let price = stage.monthly("basic", 2000).await;
    (checkout.price, checkout.pages.customer) = (&price, "cus_none");
    let refused = refusal(stage.stripe.subscription_checkout(&checkout, &key("two")).await);
    assert_eq!((refused.code.as_deref(), refused.param.as_deref()), (Some("resource_missing"), Some("customer")));
    let subscription = stage.subscribed().await;
    let upgrade = change(&subscription, "price_none");
    assert!(stage.stripe.preview_change(&upgrade).await.unwrap_err().is_missing());
}

#[tokio::test]
async fn a_mode_takes_the_prices_that_go_with_it() {
    let stage = Stage::new().await;
    let customer = stage.customer().await.id;
    let monthly = stage.monthly("basic", 2000).await;
    let spec = PriceSpec { lookup_key: "once", product: "basic", currency: "usd", unit_amount: 500, interval: None };
    let once = stage.stripe.ensure_price(&spec).await.unwrap().id;
    let purchase = PaymentCheckout {
        pages: pages(&customer),
        goods: Goods::Price { price: &monthly, quantity: 1 },
        save_payment_method: false,
        promotion_codes: false,
        automatic_tax: false,
        invoice: false,
    };
    let refused = refusal(stage.stripe.payment_checkout(&purchase, &key("one")).await);
    assert_eq!((refused.status, refused.param.as_deref()), (400, Some("line_items")));
    let subscription = SubscriptionCheckout {
        pages: pages(&customer),
        price: &once,
        trial_days: None,
        promotion_codes: false,
        automatic_tax: false,
    };
    let refused = refusal(stage.stripe.subscription_checkout(&subscription, &key("two")).await);
    assert_eq!((refused.status, refused.param.as_deref()), (400, Some("line_items")));
    let mut short = subscription;
    (short.price, short.pages.expires_at) = (&monthly, Some(NOON + 60_000));
    let refused = refusal(stage.stripe.subscription_checkout(&short, &key("three")).await);
    assert_eq!(refused.param.as_deref(), Some("expires_at"));
}

#[tokio::test]
async fn what_the_double_does_not_know_it_refuses() {
    let stage = Stage::new().await;
    for (path, form, param) in [
        ("/v1/customers", "nmae=Ada", "nmae"),
        ("/v1/customers", "metadata[a][b]=c", "metadata[a]"),
        ("/v1/products", "name=a&name[b]=c", "name[b]"),
        ("/v1/prices", "currency=usd&unit_amount=1&product=x&transform_quantity[divide_by]=2", "product"),
        ("/v1/prices", "currency=us&unit_amount=1", "currency"),
        ("/v1/prices", "currency=usd&unit_amount=-1", "unit_amount"),
        ("/v1/prices", "currency=usd&unit_amount=100000000", "unit_amount"),
        ("/v1/payment_intents", "amount=49&currency=usd", "amount"),
        ("/v1/customers?name=%zz", "name=%zz", ""),
    ] {
        let (status, answer) = stage.post(path, form).await;
        assert_eq!(status, 400, "{path} {form}");
        assert_eq!(answer["error"]["param"].as_str().unwrap_or_default(), param, "{answer}");
    }
    assert_eq!(stage.post("/v1/tax_rates", "").await.0, 404);
    assert!(stage.sandbox.events().is_empty());
}

#[tokio::test]
async fn an_answer_that_is_lost_is_given_again() {
    let stage = Stage::new().await;
    // The client tries again, with the same key: one customer.
    stage.sandbox.fail_next(Fault::AnswerLost);
    let made = stage.stripe.find_or_create_customer("org_9", &key("nine")).await;
    // The first fault met the search.
    let made = made.unwrap();
    stage.sandbox.fail_next(Fault::AnswerLost);
    stage.stripe.update_customer(&made.id, "a@b.example", "Ada", &key("name")).await.unwrap();
    let updates = stage.sandbox.events().iter().filter(|event| event["type"] == "customer.updated").count();
    assert_eq!(updates, 1);
    for fault in [Fault::RateLimited, Fault::Refused, Fault::RateLimited] {
        stage.sandbox.fail_next(fault);
    }
    let failed = stage.stripe.update_customer(&made.id, "a@b.example", "Bob", &key("bob")).await;
    assert!(matches!(failed, Err(StripeError::Unavailable(_))), "{failed:?}");
    assert_eq!(stage.stripe.customer(&made.id).await.unwrap().name.as_deref(), Some("Ada"));
    stage.stripe.update_customer(&made.id, "a@b.example", "Bob", &key("bob")).await.unwrap();
}
