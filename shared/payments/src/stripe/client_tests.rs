//! The client against a server that is written out by hand.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::time::{Duration, Instant};

use serde_json::json;

use super::{
    server::{KEY, Reply, answer, example, form, key, list, scripted},
    *,
};

#[tokio::test]
async fn a_write_is_sent_again_with_the_same_key_and_the_same_bytes() {
    let error = |code: &str| json!({"error": {"type": "invalid_request_error", "code": code}});
    for passing in [
        Reply::Break,
        answer(409, &error("idempotency_key_in_use")),
        answer(429, &error("rate_limit")),
        answer(429, &error("lock_timeout")),
        answer(400, &error("lock_timeout")),
        answer(424, &error("x")),
        answer(500, &json!({"error": {"type": "api_error"}})),
        Reply::Answer(502, "", "<html>bad gateway</html>".to_owned()),
        Reply::Answer(429, "retry-after: 0\r\n", String::new()),
        Reply::Answer(400, "stripe-should-retry: true\r\n", String::new()),
    ] {
        let (stripe, log) = scripted([passing, Reply::Break, answer(200, &example("refund"))]).await;
        let metadata = [("a", "1"), ("b", "2"), ("c", "3"), ("d", "4"), ("e", "5"), ("f", "6")];
        stripe.refund(PaymentRef::Intent("pi_1"), Some(1), None, &metadata, &key()).await.unwrap();
        let log = log.lock().await;
        assert_eq!(log.len(), 3);
        assert!(log.iter().all(|asked| asked == &log[0]) && log[0].header("idempotency-key") == Some("test:one"));
    }
}

#[tokio::test]
async fn three_times_and_no_more() {
    for (reply, times) in [
        (|| Reply::Break, 3),
        (|| Reply::Answer(503, "", String::new()), 3),
        (|| Reply::Answer(409, "", String::new()), 3),
        (|| Reply::Answer(503, "stripe-should-retry: false\r\n", String::new()), 1),
        // Longer than the call may take: waiting would be in vain.
        (|| Reply::Answer(429, "retry-after: 3600\r\n", String::new()), 1),
    ] as [(fn() -> Reply, usize); 5]
    {
        let (stripe, log) = scripted((0..5).map(|_| reply())).await;
        let error = stripe.cancel_at_period_end("sub_1", None, &key()).await.unwrap_err();
        assert!(matches!(error, StripeError::Unavailable(_)), "{error}");
        assert_eq!(log.lock().await.len(), times, "{error}");
    }
}

#[tokio::test]
async fn a_call_ends_in_time() {
    let (stripe, log) = scripted([Reply::Hang, Reply::Hang]).await;
    let stripe = Stripe { timeout: Duration::from_millis(50), ..stripe };
    let began = Instant::now();
    let error = stripe.cancel_at_period_end("sub_1", None, &key()).await.unwrap_err();
    assert!(matches!(&error, StripeError::Unavailable(why) if why == "no answer in time"), "{error}");
    assert!(began.elapsed() >= Duration::from_millis(50));
    assert!(log.lock().await.len() <= 1);
}

#[tokio::test]
async fn a_refusal_says_why_and_shows_nothing() {
    let declined = json!({"error": {
        "type": "card_error", "code": "card_declined", "decline_code": "insufficient_funds", "charge": "ch_1",
        "message": format!("Your card has insufficient funds, {KEY}."), "param": "payment_method",
        "payment_intent": {"id": "pi_1", "object": "payment_intent", "client_secret": "pi_1_secret_x"},
    }});
    let (stripe, log) = scripted([Reply::Answer(402, "request-id: req_1\r\n", declined.to_string())]).await;
    let error = stripe.cancel_at_period_end("sub_1", None, &key()).await.unwrap_err();
    let refusal = error.refusal().unwrap();
    let read = Refusal {
        status: 402,
        kind: Some("card_error".to_owned()),
        code: Some("card_declined".to_owned()),
        decline_code: Some("insufficient_funds".to_owned()),
        message: Some("Your card has insufficient funds, ….".to_owned()),
        param: Some("payment_method".to_owned()),
        payment_intent: Some("pi_1".to_owned()),
        request_id: Some("req_1".to_owned()),
    };
    assert_eq!(refusal, &read);
    assert_eq!(log.lock().await.len(), 1);
    assert_eq!(
        error.to_string(),
        "Stripe refused: 402 type=card_error code=card_declined decline_code=insufficient_funds param=payment_method \
         request_id=req_1"
    );
    assert!(!format!("{error:?}").contains("funds,"), "{error:?}");

    for (status, body) in [
        (400, json!({"error": {"type": "idempotency_error"}})),
        (401, json!({"error": {"type": "invalid_request_error", "message": "Invalid API Key"}})),
        (403, json!("nonsense")),
        (404, json!({"error": {"type": "invalid_request_error", "code": "resource_missing", "param": "id"}})),
        (402, json!({"error": {"type": "card_error", "payment_intent": 5}})),
    ] {
        let (stripe, log) = scripted([answer(status, &body)]).await;
        let error = stripe.subscription("sub_1").await.unwrap_err();
        assert_eq!(error.refusal().map(|refusal| refusal.status), Some(status), "{error}");
        assert_eq!(error.is_missing(), status == 404);
        assert_eq!(log.lock().await.len(), 1);
    }
}

#[tokio::test]
async fn an_answer_that_is_none_is_malformed() {
    let private = json!({"id": ["someone@example.com"]}).to_string();
    for (status, body) in [(200, private), (200, String::new()), (204, String::new()), (302, "{}".to_owned())] {
        let (stripe, log) = scripted([Reply::Answer(status, "location: http://127.0.0.1:1/\r\n", body)]).await;
        let error = stripe.subscription("sub_1").await.unwrap_err();
        assert!(matches!(error, StripeError::Malformed(_)), "{status}: {error}");
        assert!(!format!("{error:?}").contains("example"), "{error:?}");
        assert_eq!(log.lock().await.len(), 1);
    }
}

#[tokio::test]
async fn an_organization_has_one_customer() {
    let customer = |id: &str, org: &str, created: i64| {
        let mut customer = example("customer");
        customer["id"] = json!(id);
        customer["created"] = json!(created);
        customer["metadata"] = json!({"org": org});
        customer
    };
    let found = json!({"object": "search_result", "url": "/", "has_more": false, "data": [
        customer("cus_3", "org_1", 3), customer("cus_0", "org_2", 0), customer("cus_2", "org_1", 2),
        customer("cus_1", "org_1", 2),
    ]});
    let (stripe, log) = scripted([answer(200, &found)]).await;
    assert_eq!(stripe.find_or_create_customer("org_1", &key()).await.unwrap().id, "cus_1");
    let line = form(&log.lock().await[0].line).join("&");
    assert_eq!(line, r#"GET /v1/customers/search?limit=100&query=metadata["org"]:"org_1""#);

    let none = json!({"object": "search_result", "url": "/", "has_more": false, "data": []});
    let (stripe, log) = scripted([answer(200, &none), answer(200, &customer("cus_9", "org_1", 9))]).await;
    assert_eq!(stripe.find_or_create_customer("org_1", &key()).await.unwrap().id, "cus_9");
    let log = log.lock().await;
    assert_eq!(
        (log[1].line.as_str(), form(&log[1].body)),
        ("POST /v1/customers", vec!["metadata[org]=org_1".to_owned()])
    );
    assert_eq!(log[1].header("idempotency-key"), Some("test:one"));
}

#[tokio::test]
async fn to_end_what_has_ended_is_done() {
    let missing = json!({"error": {"type": "invalid_request_error", "code": "resource_missing"}});
    let mut ended = example("subscription");
    ended["status"] = json!("canceled");
    let (stripe, _) = scripted([Reply::Break, answer(404, &missing), answer(200, &ended)]).await;
    assert!(stripe.cancel_now("sub_1", &key()).await.unwrap().status.is_terminal());
    // One that lives and cannot be ended is refused, and so is one that never was.
    let (stripe, _) = scripted([answer(400, &missing), answer(200, &example("subscription"))]).await;
    assert!(stripe.cancel_now("sub_1", &key()).await.unwrap_err().is_missing());
    let (stripe, _) = scripted([answer(404, &missing), answer(404, &missing)]).await;
    assert!(stripe.cancel_now("sub_1", &key()).await.unwrap_err().is_missing());
}

#[tokio::test]
async fn all_subscriptions_of_a_customer() {
    let page = |more: bool, ids: &[&str]| {
        let of = |id: &&str| {
            let mut subscription = example("subscription");
            subscription["id"] = json!(id);
            subscription
        };
        answer(
            200,
            &json!({"data": ids.iter().map(of).collect::<Vec<_>>(), "has_more": more, "object": "list", "url": "/"}),
        )
    };
    let (stripe, log) = scripted([page(true, &["sub_3", "sub_2"]), page(false, &["sub_1"])]).await;
    let all = stripe.subscriptions_of("cus_1").await.unwrap();
    assert_eq!(all.iter().map(|found| found.id.as_str()).collect::<Vec<_>>(), ["sub_3", "sub_2", "sub_1"]);
    let log = log.lock().await;
    assert_eq!(log[0].line, "GET /v1/subscriptions?customer=cus_1&limit=100&status=all");
    assert_eq!(log[1].line, "GET /v1/subscriptions?customer=cus_1&limit=100&starting_after=sub_2&status=all");

    let (stripe, _) = scripted([page(true, &[])]).await;
    assert!(matches!(stripe.subscriptions_of("cus_1").await, Err(StripeError::Malformed(_))));
    let (stripe, log) = scripted((0..11).map(|_| page(true, &["sub_1"]))).await;
    assert!(matches!(stripe.subscriptions_of("cus_1").await, Err(StripeError::Malformed(_))));
    assert_eq!(log.lock().await.len(), 10);
}

#[tokio::test]
async fn plans_get_their_products_and_prices_once() {
    let missing = json!({"error": {"type": "invalid_request_error", "code": "resource_missing"}});
    let mut product = example("product");
    product["name"] = json!("Pro");
    let (stripe, log) = scripted([answer(404, &missing), answer(200, &product)]).await;
    stripe.ensure_product("tenantry_pro", "Pro").await.unwrap();
    assert_eq!(log.lock().await[1].line, "POST /v1/products");
    assert_eq!(form(&log.lock().await[1].body), ["id=tenantry_pro", "name=Pro"]);
    let (stripe, log) = scripted([answer(200, &product)]).await;
    stripe.ensure_product("tenantry_pro", "Pro").await.unwrap();
    assert_eq!(log.lock().await.len(), 1);
    let (stripe, log) = scripted([answer(200, &product), answer(200, &product)]).await;
    stripe.ensure_product("tenantry_pro", "Professional").await.unwrap();
    assert_eq!(form(&log.lock().await[1].body), ["active=true", "name=Professional"]);

    let spec = PriceSpec {
        lookup_key: "pro_usd_month",
        product: "prod_QXg1hqf4jFNsqG",
        currency: "usd",
        unit_amount: 2_000,
        interval: Some(BillingInterval::Month),
    };
    let (stripe, log) = scripted([answer(200, &list("price"))]).await;
    assert_eq!(stripe.ensure_price(&spec).await.unwrap().id, example("price")["id"]);
    assert_eq!(log.lock().await.len(), 1);
    let (mut none, mut keys) = (list("price"), Vec::new());
    none["data"] = json!([]);
    for (found, spec) in [
        (&none, spec),
        (&list("price"), PriceSpec { unit_amount: 2_100, ..spec }),
        (&list("price"), PriceSpec { interval: Some(BillingInterval::Year), ..spec }),
        (&list("price"), PriceSpec { interval: None, ..spec }),
        (&list("price"), PriceSpec { currency: "eur", ..spec }),
    ] {
        let (stripe, log) = scripted([answer(200, found), answer(200, &example("price"))]).await;
        stripe.ensure_price(&spec).await.unwrap();
        let log = log.lock().await;
        let body = form(&log[1].body);
        assert_eq!(log[1].line, "POST /v1/prices");
        assert!(body.contains(&format!("unit_amount={}", spec.unit_amount)), "{body:?}");
        assert!(body.contains(&"transfer_lookup_key=true".to_owned()), "{body:?}");
        let key = log[1].header("idempotency-key").unwrap().to_owned();
        assert!(!keys.contains(&key), "{key}");
        keys.push(key);
    }
}
