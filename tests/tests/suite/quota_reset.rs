//! Scheduled work for every tenant: each once, however often, late, cut off or at the same time it is done.

use std::sync::Arc;

use lambda_runtime::{Context, LambdaEvent};
use serde_json::{Value, json};
use tenantry_domain::{Amounts, Period, RequestId, Resource, metering::Demand};
use tenantry_host::dynamodb::Capacity;
use tenantry_quota_reset::{Answer, Job, JobError, Message, fan_out, handle, run};
use tenantry_store::{Admission, Store, TenantScope};
use tenantry_tests::{
    jobs::{Jobs, Row, tenants},
    platform::{Platform, Setup},
};

const DECEMBER: &str = "2026-12";

fn period(text: &str) -> Period {
    text.parse().unwrap()
}

async fn use_something(store: &Store, scope: &TenantScope) {
    let amounts = Amounts::NONE.with(Resource::Messages, 1).with(Resource::LlmTokens, 100);
    let demand = Demand { amounts, credits: 0 };
    let admission = store.reserve(scope, &RequestId::new(), &demand, 60_000).await.unwrap();
    let Admission::Admitted(reservation) = admission else { panic!("{admission:?}") };
    store.settle(&reservation, &amounts, 0).await.unwrap();
}

async fn closings(platform: &Platform, scope: &TenantScope) -> Vec<Row> {
    platform.rows(scope, "CLOSE#").await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_month_begins_once_for_each_of_two_hundred_tenants() {
    let platform = Arc::new(Platform::start(Setup::default()).await);
    let store = platform.store();
    let scopes = tenants(store, "free", 200).await;
    for scope in scopes.iter().step_by(3) {
        use_something(store, scope).await;
    }
    platform.clock().set(period(DECEMBER).start());
    // Some are early: their first request of the month did it.
    for scope in scopes.iter().step_by(7) {
        use_something(store, scope).await;
    }
    // Two schedules at once, each over two walkers.
    let both: Vec<_> = (0..2)
        .map(|_| {
            let jobs = Jobs::new(store);
            tokio::spawn(async move { jobs.all(Job::Reset, false).await })
        })
        .collect();
    for tallies in both {
        let tallies = tallies.await.unwrap();
        assert_eq!(tallies.len(), usize::from(Store::shards()), "one message a shard");
        assert_eq!(tallies.iter().map(|tally| tally.visited).sum::<u64>(), 200);
    }
    let mut before = vec![];
    for (index, scope) in scopes.iter().enumerate() {
        let meter = store.meter(scope).await.unwrap();
        assert_eq!(meter.period, period(DECEMBER));
        let used = if index % 7 == 0 { 100 } else { 0 };
        assert_eq!(meter.left.get(Resource::LlmTokens).number(), Some(200_000 - used));
        let closed = closings(&platform, scope).await;
        assert_eq!(closed.len(), 1, "one closing row");
        let november = store.closed_meter(scope, period("2026-11")).await.unwrap().unwrap();
        assert_eq!(november.charged(Resource::LlmTokens), Some(if index % 3 == 0 { 100 } else { 0 }));
        before.push(closed);
    }
    // Late, and again.
    platform.clock().advance(86_400_000);
    let tallies = Jobs::new(store).all(Job::Reset, false).await;
    assert_eq!(
        tallies.iter().map(|tally| (tally.visited, tally.changed)).fold((0, 0), |a, b| (a.0 + b.0, a.1 + b.1)),
        (200, 0)
    );
    for (scope, before) in scopes.iter().zip(before) {
        assert_eq!(closings(&platform, scope).await, before, "untouched");
    }
}

#[tokio::test]
async fn a_walk_that_runs_out_of_time_goes_on_where_it_stopped() {
    let platform = Platform::start(Setup::default()).await;
    let store = platform.store();
    let scopes = tenants(store, "free", 200).await;
    platform.clock().set(period(DECEMBER).start());
    let jobs = Jobs::new(store);
    let tallies = jobs.all(Job::Reset, true).await;
    assert!(tallies.len() > 2 * usize::from(Store::shards()) - 6, "{} messages", tallies.len());
    assert!(tallies.iter().all(|tally| tally.visited <= 8), "a page each");
    assert_eq!(tallies.iter().map(|tally| tally.changed).sum::<u64>(), 200, "each of them once");
    for scope in &scopes {
        assert_eq!(closings(&platform, scope).await.len(), 1);
    }
    // A message that is delivered again, from the middle, does nothing again.
    let middle = Message::Shard { job: Job::Reset, shard: 5, cursor: Some(scopes[100].org().clone()) };
    assert_eq!(run(&jobs.state, &middle, &|| false).await.unwrap().changed, 0);
}

#[tokio::test]
async fn december_ends_in_january_of_the_next_year() {
    let platform = Platform::start(Setup::default()).await;
    platform.clock().set(period(DECEMBER).end() - 1);
    let store = platform.store();
    let scopes = tenants(store, "pro", 3).await;
    use_something(store, &scopes[0]).await;
    let jobs = Jobs::new(store);
    assert_eq!(jobs.all(Job::Reset, false).await.iter().map(|tally| tally.changed).sum::<u64>(), 0);
    platform.clock().advance(1);
    assert_eq!(jobs.all(Job::Reset, false).await.iter().map(|tally| tally.changed).sum::<u64>(), 3);
    for (index, scope) in scopes.iter().enumerate() {
        assert_eq!(store.meter(scope).await.unwrap().period, period("2027-01"));
        let closed = store.closed_meter(scope, period(DECEMBER)).await.unwrap().unwrap();
        assert_eq!(closed.charged(Resource::Messages), Some(u64::from(index == 0)));
    }
}

#[tokio::test]
async fn a_tenant_that_has_nothing_to_do_costs_half_a_read_unit() {
    let capacity = Arc::new(Capacity::default());
    let platform = Platform::start(Setup::default().capacity(&capacity)).await;
    tenants(platform.store(), "free", 32).await;
    let jobs = Jobs::new(platform.store());
    for job in [Job::Reset, Job::Sweep] {
        let (reads, writes) = (capacity.read_units(), capacity.write_units());
        jobs.all(job, false).await;
        let spent = capacity.read_units() - reads;
        // The register itself: at least half a unit a shard.
        assert!(spent <= 32.0 * 0.5 + 16.0, "{job:?}: {spent} read units for 32 tenants");
        assert!((capacity.write_units() - writes).abs() < f64::EPSILON);
    }
}

#[tokio::test]
async fn a_tenant_that_fails_is_tried_alone_and_holds_up_nobody() {
    let platform = Platform::start(Setup::default()).await;
    let store = platform.store();
    let scopes = tenants(store, "free", 40).await;
    let meter = platform.rows(&scopes[7], "METER").await.remove(0);
    platform.delete_row(&meter).await;
    platform.clock().set(period(DECEMBER).start());
    let jobs = Jobs::new(store);
    fan_out(&jobs.state, Job::Reset).await.unwrap();
    let mut alone = vec![];
    while let Some((message, _)) = jobs.next() {
        match message {
            Message::Shard { .. } => drop(run(&jobs.state, &message, &|| false).await.unwrap()),
            Message::Tenant { .. } => alone.push(message),
            Message::Events { .. } => panic!("{message:?}"),
        }
    }
    let message = Message::Tenant { job: Job::Reset, tenant: scopes[7].org().clone(), suspicion: None };
    assert_eq!(alone, std::slice::from_ref(&message));
    for (index, scope) in scopes.iter().enumerate().filter(|(index, _)| *index != 7) {
        assert_eq!(closings(&platform, scope).await.len(), 1, "{index}");
    }
    // Delivered five times it fails five times, alone in its batch, and would be a dead letter.
    let good = json!({"job": "reset", "shard": 1}).to_string();
    let bad = serde_json::to_string(&message).unwrap();
    let answer = handle(&jobs.state, batch(&[("a", &good), ("b", &bad), ("c", "nonsense")], 60_000)).await.unwrap();
    assert_eq!(failed(&answer), ["b", "c"]);
    // Once the tenant is mended, its message succeeds.
    platform.put_row(meter).await;
    let answer = handle(&jobs.state, batch(&[("b", &bad)], 60_000)).await.unwrap();
    assert!(failed(&answer).is_empty());
    assert_eq!(closings(&platform, &scopes[7]).await.len(), 1);
}

/// A batch of the job queue, in a run of the function that ends `millis` after the test's noon.
fn batch(messages: &[(&str, &str)], millis: i64) -> LambdaEvent<Value> {
    let record = |(id, body): &(&str, &str)| json!({"messageId": id, "body": body, "eventSource": "aws:sqs"});
    let records: Vec<_> = messages.iter().map(record).collect();
    let mut context = Context::default();
    context.deadline = u64::try_from(period(DECEMBER).start() + millis).unwrap();
    LambdaEvent::new(json!({"Records": records}), context)
}

fn failed(answer: &Answer) -> Vec<String> {
    let answer = serde_json::to_value(answer).unwrap();
    let failures = answer["batchItemFailures"].as_array().unwrap_or_else(|| panic!("{answer}"));
    failures.iter().map(|failure| failure["itemIdentifier"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn the_schedules_event_is_fanned_out_and_a_batch_is_worked_through() {
    let platform = Platform::start(Setup::default()).await;
    let store = platform.store();
    tenants(store, "free", 100).await;
    platform.clock().set(period(DECEMBER).start());
    let jobs = Jobs::new(store);
    let scheduled = |payload: Value| LambdaEvent::new(payload, Context::default());
    let answer = handle(&jobs.state, scheduled(json!({"job": "reset"}))).await.unwrap();
    assert_eq!(serde_json::to_value(&answer).unwrap(), json!({"messages": 16}));
    assert_eq!(jobs.waiting(), 16);
    // The time limit is the function's own. What is not begun is left to another delivery.
    let mut messages = vec![];
    while let Some((message, _)) = jobs.next() {
        messages.push(serde_json::to_string(&message).unwrap());
    }
    let ids: Vec<_> = (0..16).map(|n| n.to_string()).collect();
    let named: Vec<_> = ids.iter().map(String::as_str).zip(messages.iter().map(String::as_str)).collect();
    let answer = handle(&jobs.state, batch(&named, 9_000)).await.unwrap();
    assert_eq!(failed(&answer).len(), 15);
    let answer = handle(&jobs.state, batch(&named, 60_000)).await.unwrap();
    assert!(failed(&answer).is_empty());

    for payload in [json!({}), json!({"job": "dance"}), json!({"Records": 1}), json!(null)] {
        let error = handle(&jobs.state, scheduled(payload)).await.unwrap_err();
        assert!(matches!(error, JobError::Unknown(_)), "{error}");
    }
}

#[tokio::test]
async fn expired_holds_are_swept_once() {
    let platform = Platform::start(Setup::default()).await;
    let store = platform.store();
    let scopes = tenants(store, "free", 30).await;
    let amounts = Amounts::NONE.with(Resource::Messages, 1).with(Resource::LlmTokens, 700);
    for scope in scopes.iter().step_by(10) {
        store.reserve(scope, &RequestId::new(), &Demand { amounts, credits: 0 }, 60_000).await.unwrap();
    }
    let jobs = Jobs::new(store);
    let changed = async || jobs.all(Job::Sweep, false).await.iter().map(|tally| tally.changed).sum::<u64>();
    assert_eq!(changed().await, 0, "not expired yet");
    platform.clock().advance(120_000);
    assert_eq!(changed().await, 3);
    assert_eq!(changed().await, 0);
    for scope in scopes.iter().step_by(10) {
        let meter = store.meter(scope).await.unwrap();
        assert!(meter.holds.is_empty());
        assert_eq!(meter.charged(Resource::LlmTokens), Some(700));
    }
}
