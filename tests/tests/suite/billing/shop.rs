//! What the shop shows, and where it sends people.

use futures_util::future::join_all;
use serde_json::{Value, json};
use tenantry_payments::stripe::{BillingInterval, PriceSpec};
use tenantry_sandbox::stripe::Fault;
use tenantry_tests::{
    http::{problem, text},
    platform::{Platform, Setup},
};

use super::Stage;

#[tokio::test]
async fn anybody_sees_what_plans_cost() {
    let stage = Stage::set().await;
    let plans = stage.platform.get("/api/v1/subscriptions/plans", "").await.expect(200).json();
    let plans = plans["data"].as_array().unwrap();
    let ids: Vec<_> = plans.iter().map(|plan| text(plan, "/id")).collect();
    assert_eq!(ids, ["free", "pro", "team"]);
    assert_eq!(plans[0]["prices"], json!([]));
    assert_eq!(plans[1]["prices"][1]["price"], json!({"amount": 19_000, "currency": "usd"}));
    assert_eq!(plans[1]["prepaid_month"], json!({"amount": 19_900, "currency": "cny"}));
    assert_eq!((&plans[1]["limits"]["messages"], &plans[2]["limits"]["messages"]), (&json!(50_000), &Value::Null));
    let packages = stage.get("/billing/packages").await;
    assert_eq!(packages["data"][0]["prices"][1]["currency"], "cny");
}

#[tokio::test]
async fn a_platform_without_vendors_says_so_and_works() {
    // A key of Stripe's that leads nowhere: nobody listens there.
    let nowhere = Setup::default()
        .variable("STRIPE_SECRET_KEY", "sk_test_nowhere")
        .variable("STRIPE_BASE_URL", "http://127.0.0.1:9");
    let platform = Platform::start(nowhere).await;
    let tenant = platform.tenant("free").await;
    let owner = text(&platform.login(&tenant).await, "/access_token").to_owned();
    let plans = platform.get("/api/v1/subscriptions/plans", "").await.expect(200).json();
    assert_eq!(plans["data"][1]["prices"][0]["price_id"], Value::Null);
    let order = json!({"package_id": "small"});
    for vendor in ["wechat", "alipay"] {
        let reply = platform.post(&format!("/api/v1/payments/{vendor}/create"), &owner, order.clone()).await;
        problem(&reply, 409, "conflict");
    }
    platform.get("/api/v1/subscriptions/current", &owner).await.expect(200);
    let invoices = platform.get("/api/v1/billing/invoices", &owner).await.expect(200).json();
    assert_eq!(invoices["data"], json!([]));
}

#[tokio::test]
async fn while_stripe_is_away_one_visitor_asks_and_the_others_are_shown_what_was_known() {
    let stage = Stage::set().await;
    let shown = async || {
        let plans = stage.platform.get("/api/v1/subscriptions/plans", "").await.expect(200).json();
        plans["data"][1]["prices"][0]["price_id"].as_str().map(str::to_owned)
    };
    // As many as one call makes tries: whoever asked besides would hear the prices.
    let away = || (0..3).for_each(|_| stage.stripe().fail_next(Fault::Refused));
    away();
    assert_eq!(join_all((0..8).map(|_| shown())).await, vec![None; 8]);
    stage.stripe().advance(9_999);
    assert_eq!(shown().await, None, "it is left alone");
    stage.stripe().advance(1);
    let price = shown().await;
    assert!(price.is_some());
    // Known once, they are shown on.
    stage.stripe().advance(5 * 60_000);
    away();
    assert_eq!(join_all((0..8).map(|_| shown())).await, vec![price.clone(); 8]);
    // And the faults were those of one call.
    stage.stripe().advance(10_000);
    assert_eq!(shown().await, price);
    assert_eq!(stage.platform.host().commerce().offers().await.unwrap()[0].price.id, price.unwrap());
}

#[tokio::test]
async fn a_price_that_is_not_the_catalogues_is_not_sold() {
    let stage = Stage::set().await;
    let stripe = stage.platform.host().commerce().stripe().unwrap();
    let catalogues = stage.price("pro", "month").await;
    let spec = PriceSpec {
        lookup_key: "pro_usd_month",
        product: "tenantry_pro",
        currency: "usd",
        unit_amount: 1_900,
        interval: Some(BillingInterval::Month),
    };
    for other in [
        PriceSpec { unit_amount: 2_900, ..spec },
        PriceSpec { currency: "eur", ..spec },
        PriceSpec { interval: Some(BillingInterval::Year), ..spec },
    ] {
        let other = stripe.ensure_price(&other).await.unwrap();
        stage.stripe().advance(5 * 60_000);
        let plans = stage.platform.get("/api/v1/subscriptions/plans", "").await.expect(200).json();
        assert_eq!(plans["data"][1]["prices"][0]["price_id"], Value::Null, "{other:?}");
        assert!(plans["data"][1]["prices"][1]["price_id"].is_string(), "the year's is another matter");
        for price in [&other.id, &catalogues] {
            let reply = stage.post("/subscriptions/checkout", json!({"price_id": price})).await;
            let error = problem(&reply, 422, "invalid_value");
            assert_eq!(text(&error, "/errors/0/pointer"), "/price_id");
        }
    }
    stage.platform.host().commerce().put_up_for_sale().await.unwrap();
    stage.stripe().advance(5 * 60_000);
    stage.subscribe("pro").await;
    assert_eq!(
        stage.get("/billing/invoices").await["data"][0]["amount_paid"],
        json!({"amount": 1_900, "currency": "usd"})
    );
}

#[tokio::test]
async fn people_come_back_to_pages_of_the_product_alone() {
    let stage = Stage::set().await;
    let price = stage.price("pro", "month").await;
    for url in ["https://evil.example/", "javascript:alert(1)", "https://localhost:8787@evil.example/"] {
        for field in ["success_url", "cancel_url"] {
            let body = json!({"price_id": price, field: url});
            let error = problem(&stage.post("/subscriptions/checkout", body).await, 422, "invalid_value");
            assert_eq!(text(&error, "/errors/0/pointer"), format!("/{field}"));
        }
    }
    let body = json!({"price_id": price, "success_url": "http://localhost:5173/#/done?{CHECKOUT_SESSION_ID}"});
    stage.post("/subscriptions/checkout", body).await.expect(200);
}

#[tokio::test]
async fn an_order_is_for_a_package_or_for_months() {
    let stage = Stage::set().await;
    for body in [
        json!({}),
        json!({"package_id": "small", "plan": "pro", "months": 1}),
        json!({"plan": "pro"}),
        json!({"months": 3}),
    ] {
        problem(&stage.post("/payments/wechat/create", body).await, 422, "invalid_value");
    }
    problem(&stage.post("/billing/packages/none/checkout", json!({"provider": "stripe"})).await, 404, "not_found");
    problem(&stage.post("/billing/packages/small/checkout", json!({"provider": "cash"})).await, 422, "invalid_value");
}
