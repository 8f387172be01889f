//! A meter in shards promises what a meter in one piece does: nobody gets in past a limit, nobody is turned away while
//! another shard has something, and the books are right.

mod model;
mod price;
mod shifts;

use std::{collections::BTreeSet, sync::Arc};

use aws_sdk_dynamodb::types::AttributeValue;
use futures_util::future::join_all;
use lambda_runtime::{Context, LambdaEvent};
use serde_json::{Value, json};
use tenantry_domain::{
    Amounts, Period, RequestId, Resource,
    metering::{Demand, Meter, Refusal},
};
use tenantry_quota_reset::{Job, handle};
use tenantry_store::{Admission, Reservation, SettleOutcome, Store, TenantScope};
use tenantry_tests::{
    jobs::Jobs,
    platform::{Platform, Reply, Setup, Tenant, chat_body},
    upstream::Upstream,
};

const MINUTE: i64 = 60_000;

/// Plans on which nothing but the number of messages is in the way.
fn plain(messages: u64) -> Setup {
    Setup::default()
        .plan_change("messages = 1_000", &format!("messages = {messages}"))
        .plan_change("requests_per_minute = 10", "requests_per_minute = \"unlimited\"")
        .plan_change("in_flight = 2", "in_flight = 1_000")
}

/// A call of the vendor that is a part of the platform, so that hundreds at once need no sockets.
async fn call(platform: &Platform, tenant: &Tenant, stream: bool) -> Reply {
    let mut body = chat_body("hello", stream);
    body["model"] = json!("sandbox/echo");
    platform.post("/api/v1/chat/completions", &tenant.api_key, body).await
}

fn tokens(count: u64) -> Demand {
    Demand { amounts: Amounts::NONE.with(Resource::LlmTokens, count), credits: 0 }
}

async fn admitted(store: &Store, scope: &TenantScope, demand: &Demand) -> Reservation {
    match store.reserve(scope, &RequestId::at(store.now()), demand, MINUTE).await.unwrap() {
        Admission::Admitted(reservation) => *reservation,
        Admission::Refused(refusal) => panic!("{refusal:?}"),
    }
}

async fn refused(store: &Store, scope: &TenantScope, demand: &Demand) -> Refusal {
    match store.reserve(scope, &RequestId::at(store.now()), demand, MINUTE).await.unwrap() {
        Admission::Admitted(reservation) => panic!("{reservation:?}"),
        Admission::Refused(refusal) => refusal,
    }
}

/// Another process over the same table.
fn process(platform: &Platform) -> Store {
    let store = platform.store();
    Store::new(platform.host().database().clone(), tenantry_host::TABLE, store.plans().clone(), store.clock())
}

/// Every item of the tenant's meter, past the store.
fn items(platform: &Platform, tenant: &Tenant) -> Vec<Value> {
    let all = platform.host().all_items().unwrap();
    all.into_iter().filter(|row| row["sk"]["S"] == "METER" && row["org"]["S"] == tenant.org.as_str()).collect()
}

fn number(row: &Value, pointer: &str) -> u64 {
    row.pointer(pointer).unwrap_or_else(|| panic!("{pointer} of {row}"))["N"].as_str().unwrap().parse().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_300_parallel_calls_on_a_quota_for_137_in_four_shards_exactly_137_are_admitted() {
    let platform = Platform::start(plain(137)).await;
    let tenant = platform.tenant("free").await;
    assert_eq!(platform.store().set_meter_shards(&tenant.scope, 4).await.unwrap(), 4);
    let replies = join_all((0..300).map(|n| call(&platform, &tenant, n % 2 == 0))).await;
    platform.quiesce().await;
    assert_eq!(replies.iter().filter(|reply| reply.status == 200).count(), 137);
    for reply in replies.iter().filter(|reply| reply.status != 200) {
        assert_eq!((reply.status.as_u16(), reply.code().as_str()), (429, "quota_exceeded"), "{}", reply.text());
    }
    let records = platform.books(&tenant).await;
    assert_eq!(records.len(), 137);
    assert!((1..4).all(|shard| records.iter().any(|record| record.shard == shard)), "all of them took part");
    assert_eq!(platform.meter(&tenant).await.left.get(Resource::Messages).number(), Some(0));
}

#[tokio::test]
async fn one_shard_is_the_item_that_it_always_was() {
    let platform = Platform::start(plain(1_000)).await;
    let (tenant, other) = (platform.tenant("free").await, platform.tenant("free").await);
    assert_eq!(platform.store().set_meter_shards(&tenant.scope, 1).await.unwrap(), 1);
    let reservation = admitted(platform.store(), &tenant.scope, &tokens(1)).await;
    platform.store().settle(&reservation, &Amounts::NONE, 0).await.unwrap();
    let [item, of_other] = [&tenant, &other].map(|tenant| {
        let [item] = items(&platform, tenant).try_into().expect("one item");
        item.as_object().unwrap().keys().cloned().collect::<BTreeSet<_>>()
    });
    assert_eq!(item, of_other);
}

#[tokio::test]
async fn what_all_shards_have_together_is_there_for_one_request_and_the_refusal_says_all() {
    let platform = Platform::start(plain(1_000)).await;
    let (tenant, store) = (platform.tenant("free").await, platform.store());
    store.set_meter_shards(&tenant.scope, 4).await.unwrap();
    // Each of them is asked: ids, which name the shard, are the same in every run.
    fastrand::seed(1);
    for _ in 0..40 {
        admitted(store, &tenant.scope, &tokens(1_000)).await;
    }
    let shares: Vec<_> = items(&platform, &tenant).iter().map(|row| number(row, "/left/M/llm_tokens")).collect();
    assert_eq!((shares.len(), shares.iter().sum::<u64>()), (4, 160_000));
    assert!(shares.iter().all(|left| *left > 0), "{shares:?}");
    let refusal = refused(store, &tenant.scope, &tokens(160_001)).await;
    let Refusal::QuotaExceeded { resource: Resource::LlmTokens, limit: 200_000, left: 160_000, .. } = refusal else {
        panic!("{refusal:?}")
    };
    admitted(store, &tenant.scope, &tokens(160_000)).await;
    let refusal = refused(store, &tenant.scope, &tokens(1)).await;
    assert!(matches!(refusal, Refusal::QuotaExceeded { left: 0, .. }), "{refusal:?}");
}

#[tokio::test]
async fn a_cap_that_the_client_leaves_open_gets_what_all_shards_have_left() {
    let platform = Platform::start(plain(1_000).plan_change("llm_tokens = 200_000", "llm_tokens = 700")).await;
    let (tenant, store) = (platform.tenant("free").await, platform.store());
    store.set_meter_shards(&tenant.scope, 3).await.unwrap();
    fastrand::seed(1);
    for _ in 0..12 {
        let reservation = admitted(store, &tenant.scope, &tokens(10)).await;
        store.settle(&reservation, &Amounts::NONE, 0).await.unwrap();
    }
    let richest = items(&platform, &tenant).iter().map(|row| number(row, "/left/M/llm_tokens")).max();
    assert!(richest < Some(500), "{richest:?}");
    let body = json!({"model": "sandbox/echo", "messages": [{"role": "user", "content": "hello"}]});
    let reply = platform.post("/api/v1/chat/completions", &tenant.api_key, body).await.expect(200);
    assert_eq!(reply.header("x-ratelimit-limit-tokens"), "700");
    platform.quiesce().await;
    assert_eq!(platform.books(&tenant).await.len(), 1);
}

#[tokio::test]
async fn the_rate_and_the_places_of_all_shards_are_the_plans() {
    let upstream = Upstream::start().await;
    let setup = Setup::default().upstream(&upstream).plan_change("in_flight = 2", "in_flight = 6");
    let platform = Arc::new(Platform::start(setup).await);
    let tenant = platform.tenant("free").await;
    assert_eq!(platform.store().set_meter_shards(&tenant.scope, 4).await.unwrap(), 4);
    let reply = platform.chat(&tenant.api_key, "hello").await.expect(429);
    assert_eq!((reply.code().as_str(), reply.header("retry-after")), ("rate_limited", "24"), "nothing is saved up");
    platform.clock().advance(10 * MINUTE);
    let mut remaining = vec![];
    for _ in 0..10 {
        let reply = platform.chat(&tenant.api_key, "hello").await.expect(200);
        assert_eq!(reply.header("x-ratelimit-limit-requests"), "10");
        remaining.push(reply.header("x-ratelimit-remaining-requests").parse::<u64>().unwrap());
    }
    assert_eq!(remaining, (0..10).rev().collect::<Vec<_>>(), "this process has seen every shard");
    let reply = platform.chat(&tenant.api_key, "hello").await.expect(429);
    assert_eq!((reply.code().as_str(), reply.header("retry-after")), ("rate_limited", "24"), "each has a fourth");
    platform.clock().advance(24_000);
    for _ in 0..4 {
        platform.chat(&tenant.api_key, "hello").await.expect(200);
    }
    platform.chat(&tenant.api_key, "hello").await.expect(429);

    platform.clock().advance(10 * MINUTE);
    let held: Vec<_> = (0..6)
        .map(|_| {
            let (platform, key) = (platform.clone(), tenant.api_key.clone());
            tokio::spawn(async move { platform.chat(&key, "/hold-headers hello").await })
        })
        .collect();
    upstream.wait_holding(6).await;
    assert_eq!(platform.meter(&tenant).await.holds.len(), 6);
    assert_eq!(platform.chat(&tenant.api_key, "hello").await.expect(429).code(), "too_many_in_flight");
    upstream.release();
    for call in held {
        call.await.unwrap().expect(200);
    }
    platform.quiesce().await;
    platform.books(&tenant).await;
}

#[tokio::test]
async fn a_request_that_asks_again_finds_its_hold_also_from_a_process_that_knew_of_one_shard() {
    let platform = Platform::start(plain(1_000)).await;
    let (tenant, late) = (platform.tenant("free").await, process(&platform));
    admitted(&late, &tenant.scope, &tokens(1)).await;
    platform.store().set_meter_shards(&tenant.scope, 4).await.unwrap();
    for _ in 0..20 {
        let request = RequestId::new();
        for store in [&late, platform.store(), &process(&platform)] {
            let again = store.reserve(&tenant.scope, &request, &tokens(100), MINUTE).await.unwrap();
            assert!(matches!(again, Admission::Admitted(_)), "{again:?}");
        }
    }
    let meter = platform.meter(&tenant).await;
    assert_eq!((meter.holds.len(), meter.left.get(Resource::LlmTokens).or(0)), (21, 200_000 - 2_001));
}

/// A write that comes late, after its request has gone elsewhere, leaves a hold that nobody knows of.
#[tokio::test]
async fn what_is_held_twice_is_charged_once() {
    let platform = Platform::start(plain(1_000)).await;
    let (tenant, store) = (platform.tenant("free").await, platform.store());
    store.set_meter_shards(&tenant.scope, 2).await.unwrap();
    while items(&platform, &tenant).iter().any(|row| number(row, "/left/M/llm_tokens") < 1_000) {
        let reservation = admitted(store, &tenant.scope, &tokens(1)).await;
        store.settle(&reservation, &Amounts::NONE, 0).await.unwrap();
    }
    let reservation = admitted(store, &tenant.scope, &tokens(100)).await;
    let short = reservation.request().short();
    let has = |row: &Value| row["holds"]["M"].get(short).is_some();
    let (there, other): (Vec<_>, Vec<_>) = items(&platform, &tenant).into_iter().partition(has);
    let text = |value: &Value| AttributeValue::S(value.as_str().unwrap().to_owned());
    platform
        .host()
        .database()
        .update_item()
        .table_name(tenantry_host::TABLE)
        .key("pk", text(&other[0]["pk"]["S"]))
        .key("sk", AttributeValue::S("METER".into()))
        .update_expression("SET holds.#r = :hold, #left.llm_tokens = #left.llm_tokens - :n")
        .expression_attribute_names("#r", short)
        .expression_attribute_names("#left", "left")
        .expression_attribute_values(":hold", text(&there[0]["holds"]["M"][short]["S"]))
        .expression_attribute_values(":n", AttributeValue::N("100".into()))
        .send()
        .await
        .unwrap();
    platform.clock().advance(2 * MINUTE);
    platform.host().sweep().await;
    let records = platform.records(&tenant).await;
    let charged: Vec<_> = records.iter().map(|record| record.charged.get(Resource::LlmTokens)).collect();
    assert_eq!((charged, platform.meter(&tenant).await.charged(Resource::LlmTokens)), (vec![100], Some(100)));
}

#[tokio::test]
async fn an_operator_says_how_many_and_the_plan_how_many_at_most() {
    let platform = Platform::start(Setup::default()).await;
    let (tenant, jobs) = (platform.tenant("free").await, Jobs::new(platform.store()));
    let invoke = async |payload: Value| {
        let answer = handle(&jobs.state, LambdaEvent::new(payload, Context::default())).await;
        answer.map(|answer| serde_json::to_value(answer).unwrap()).map_err(|error| error.to_string())
    };
    for wrong in [
        json!({"tenant": tenant.org, "shards": 0}),
        json!({"tenant": tenant.org, "shards": 65}),
        json!({"tenant": tenantry_domain::OrgId::new(), "shards": 2}),
        json!({"shards": 2}),
        json!({"tenant": tenant.org, "shards": 2, "job": "reset"}),
    ] {
        assert!(invoke(wrong.clone()).await.is_err(), "{wrong}");
    }
    assert_eq!(items(&platform, &tenant).len(), 1);
    // Two requests may be in flight, so a third shard could never admit one.
    assert_eq!(invoke(json!({"tenant": tenant.org, "shards": 8})).await.unwrap(), json!({"shards": 2}));
    platform.store().put_on_plan(&tenant.scope, "team", 1, None).await.unwrap();
    platform.host().sweep().await;
    let meter = platform.meter(&tenant).await;
    assert_eq!((meter.shards.active, meter.shards.made, meter.max_holds, meter.rate.interval), (8, 8, 100, 200));
    platform.store().put_on_plan(&tenant.scope, "free", 2, None).await.unwrap();
    let meter = platform.meter(&tenant).await;
    assert_eq!((meter.shards.active, meter.shards.made, meter.max_holds, meter.rate.interval), (2, 8, 2, 6_000));
    assert_eq!(invoke(json!({"tenant": tenant.org, "shards": 1})).await.unwrap(), json!({"shards": 1}));
    platform.clock().advance(MINUTE);
    admitted(platform.store(), &tenant.scope, &tokens(200_000)).await;
}

fn left(meter: &Meter) -> u64 {
    meter.left.get(Resource::LlmTokens).or(u64::MAX)
}

#[tokio::test]
async fn erasure_leaves_no_shard_and_an_export_shows_one_meter() {
    let platform = Platform::start(plain(1_000)).await;
    let (tenant, store) = (platform.tenant("team").await, platform.store());
    store.set_meter_shards(&tenant.scope, 5).await.unwrap();
    platform.clock().advance(MINUTE);
    for _ in 0..20 {
        let reservation = admitted(store, &tenant.scope, &tokens(10)).await;
        store.settle(&reservation, &Amounts::NONE.with(Resource::LlmTokens, 4), 0).await.unwrap();
    }
    platform.clock().set(Period::of(store.now()).end());
    platform.host().run_job(Job::Reset).await;
    let exported = store.export(&tenant.scope, 1_000, None).await.unwrap().items;
    let meters = exported.iter().filter_map(|one| match one {
        tenantry_store::Exported::Meter(meter) | tenantry_store::Exported::Closing(meter) => Some(left(meter)),
        _ => None,
    });
    assert_eq!(meters.collect::<Vec<_>>(), [100_000_000 - 80, 100_000_000]);
    let of_tenant = |platform: &Platform| {
        let rows = platform.host().all_items().unwrap();
        rows.into_iter().filter(|row| row.to_string().contains(tenant.org.as_str())).collect::<Vec<_>>()
    };
    assert!(of_tenant(&platform).iter().filter(|row| row["pk"]["S"].as_str().unwrap().contains("#M")).count() >= 8);
    let token = platform.login(&tenant).await["access_token"].as_str().unwrap().to_owned();
    platform.delete(&format!("/api/v1/organizations/{}", tenant.org), &token).await.expect(202);
    platform.clock().advance(30 * 24 * 60 * MINUTE);
    platform.host().run_job(Job::Erase).await;
    assert_eq!(of_tenant(&platform), Vec::<Value>::new());
}

#[tokio::test]
async fn holds_expire_in_every_shard_and_make_room_for_a_request_at_any() {
    let platform = Platform::start(plain(1_000)).await;
    let (tenant, store) = (platform.tenant("free").await, platform.store());
    store.set_meter_shards(&tenant.scope, 3).await.unwrap();
    let mut reservations = vec![];
    for _ in 0..10 {
        reservations.push(admitted(store, &tenant.scope, &tokens(20_000)).await);
    }
    // One came back, and said what it used; its settlement did not arrive.
    refused(store, &tenant.scope, &tokens(1)).await;
    platform.clock().advance(2 * MINUTE);
    let refusal = refused(store, &tenant.scope, &tokens(1)).await;
    assert!(matches!(refusal, Refusal::QuotaExceeded { left: 0, .. }), "charged as held: {refusal:?}");
    platform.host().sweep().await;
    let records = platform.books(&tenant).await;
    assert_eq!(records.len(), 10);
    for reservation in &reservations {
        let outcome = store.settle(reservation, &Amounts::NONE, 0).await.unwrap();
        assert_eq!(outcome, SettleOutcome::AlreadySettled);
    }
    platform.books(&tenant).await;
}
