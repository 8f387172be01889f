//! What a call costs in DynamoDB capacity: a tested number.

use std::sync::Arc;

use http::Method;
use serde_json::json;
use tenantry_host::dynamodb::Capacity;
use tenantry_tests::{
    http::text,
    platform::{Platform, Setup, chat_body, request},
    upstream::Upstream,
};

/// Write units before the last byte, and in all, of `calls` that are in flight together.
async fn cost(calls: usize) -> (f64, f64) {
    let (upstream, capacity) = (Upstream::start().await, Arc::new(Capacity::default()));
    let platform = Arc::new(Platform::start(Setup::default().upstream(&upstream).capacity(&capacity)).await);
    let tenant = platform.tenant("team").await;
    // The first call finds out what plan the tenant is on and that it is busy.
    for _ in 0..2 {
        platform.chat(&tenant.api_key, "hello").await.expect(200);
    }
    platform.quiesce().await;

    let (writes, reads) = (capacity.write_units(), capacity.read_units());
    let running: Vec<_> = (0..calls)
        .map(|n| {
            let (platform, key) = (platform.clone(), tenant.api_key.clone());
            let body = chat_body("/hold hello", n % 2 == 0);
            tokio::spawn(async move { platform.post("/api/v1/chat/completions", &key, body).await.expect(200) })
        })
        .collect();
    upstream.wait_holding(calls).await;
    assert_eq!(platform.meter(&tenant).await.holds.len(), calls);
    upstream.release();
    for call in running {
        call.await.unwrap();
    }
    let before_last_byte = capacity.write_units() - writes;
    platform.quiesce().await;
    let all = capacity.write_units() - writes;
    // The meter that this test reads itself is one consistent read of a kilobyte.
    assert!(
        capacity.read_units() - reads <= 1.5,
        "the key is cached, and each batch looks once whether its organization lives"
    );
    #[allow(clippy::cast_precision_loss, reason = "a handful")]
    let per_call = |units: f64| units / calls as f64;
    (per_call(before_last_byte), per_call(all))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn up_to_ten_calls_in_flight_cost_two_write_units_each_before_the_last_byte_and_five_in_all() {
    for calls in [5, 10] {
        let (before, all) = cost(calls).await;
        assert!(before <= 2.0, "{calls} in flight: {before} write units before the last byte");
        assert!(all <= 5.0, "{calls} in flight: {all} write units in all");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_alone_in_its_batch_pays_for_the_roll_up_alone() {
    // Record and roll-up are two items of a transaction, two units each; beside others the roll-up is shared.
    assert_eq!(cost(1).await, (2.0, 6.0));
}

#[tokio::test]
async fn an_unknown_tenant_costs_a_read_and_one_wrong_guess() {
    let (upstream, capacity) = (Upstream::start().await, Arc::new(Capacity::default()));
    let platform = Platform::start(Setup::default().upstream(&upstream).capacity(&capacity)).await;
    let tenant = platform.tenant("team").await;
    let (writes, reads) = (capacity.write_units(), capacity.read_units());
    platform.chat(&tenant.api_key, "hello").await.expect(200);
    assert!((capacity.read_units() - reads - 1.0).abs() < f64::EPSILON, "the key, and that its organization lives");
    assert!(capacity.write_units() - writes <= 3.0, "reserve, settle and one wrong guess");
}

#[tokio::test]
async fn a_budget_of_the_key_makes_transactions_of_two_writes() {
    let (upstream, capacity) = (Upstream::start().await, Arc::new(Capacity::default()));
    let platform = Platform::start(Setup::default().upstream(&upstream).capacity(&capacity)).await;
    let tenant = platform.tenant("team").await;
    let token = text(&platform.login(&tenant).await, "/access_token").to_owned();
    let body = json!({"name": "k", "budget": {"llm_tokens": 1_000_000}});
    let key = platform.post("/api/v1/api-keys", &token, body).await.expect(201).json();
    for _ in 0..2 {
        platform.chat(text(&key, "/secret"), "hello").await.expect(200);
    }
    platform.quiesce().await;
    let (writes, reads) = (capacity.write_units(), capacity.read_units());
    platform.chat(text(&key, "/secret"), "hello").await.expect(200);
    assert!((capacity.write_units() - writes - 8.0).abs() < f64::EPSILON, "two in, two out, two units each");
    assert!((capacity.read_units() - reads - 2.0).abs() < f64::EPSILON, "the budget before, the meter after");

    // A second budget, of the model, which is found with the organization's row.
    let path = format!("/api/v1/organizations/{}", tenant.org);
    let body = json!({"model_budgets": {"gpt-4.1-mini": {"messages": 1_000}}});
    platform.call(http::Method::PATCH, &path, &token, body).await.expect(200);
    platform.chat(text(&key, "/secret"), "hello").await.expect(200);
    platform.quiesce().await;
    let (writes, reads) = (capacity.write_units(), capacity.read_units());
    platform.chat(text(&key, "/secret"), "hello").await.expect(200);
    assert!((capacity.write_units() - writes - 12.0).abs() < f64::EPSILON, "three in, three out, two units each");
    assert!((capacity.read_units() - reads - 3.0).abs() < f64::EPSILON, "the budgets before, the meter after");
}

#[tokio::test]
async fn a_record_of_a_tenants_own_costs_five_write_units_and_seven_with_a_key() {
    let capacity = Arc::new(Capacity::default());
    let platform = Platform::start(Setup::default().capacity(&capacity)).await;
    let tenant = platform.tenant("team").await;
    let token = text(&platform.login(&tenant).await, "/access_token").to_owned();
    let cost = async |resource: &str, key: Option<&str>| {
        let body = json!({"resource": resource, "amount": 1});
        let mut request = request(Method::POST, "/api/v1/usage/record", &token, &body);
        if let Some(key) = key {
            request.headers_mut().insert("idempotency-key", key.parse().unwrap());
        }
        let (writes, reads) = (capacity.write_units(), capacity.read_units());
        platform.send(request).await.expect(201);
        (capacity.write_units() - writes, capacity.read_units() - reads)
    };
    // The rate, the record and its roll-up; the name of a resource that is new; the key.
    assert_eq!(cost("pages", None).await, (7.0, 0.5));
    assert_eq!(cost("pages", None).await, (5.0, 0.5));
    assert_eq!(cost("pages", Some("k")).await, (7.0, 0.5));
}
