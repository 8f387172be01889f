//! A sharded meter while everything around it changes: months, plans, credits, and how many shards there are.

use futures_util::future::join_all;
use tenantry_domain::{Amounts, Period, Resource, ledger::LedgerKind, metering::Refusal, plans::Limit};
use tenantry_quota_reset::Job;
use tenantry_store::{Booked, Look, NewLedgerRow, Planned, SettleOutcome, Store};
use tenantry_tests::{
    gate::Gate,
    platform::{Platform, Setup},
    upstream::Upstream,
};

use super::{MINUTE, admitted, call, items, left, number, plain, refused, tokens};

#[tokio::test]
async fn a_month_turns_for_every_shard_and_late_settlements_stay_in_its_books() {
    let platform = Platform::start(plain(1_000)).await;
    let (tenant, store) = (platform.tenant("free").await, platform.store());
    let scope = &tenant.scope;
    store.set_meter_shards(scope, 4).await.unwrap();
    let november = Period::of(store.now());
    platform.clock().set(november.end() - 1_000);
    let mut flying = vec![];
    for _ in 0..16 {
        flying.push(admitted(store, scope, &tokens(1_000)).await);
    }
    platform.clock().set(november.end());
    // Some shards begin by themselves, the others lag behind.
    for _ in 0..2 {
        let reservation = admitted(store, scope, &tokens(500)).await;
        store.settle(&reservation, &Amounts::NONE.with(Resource::LlmTokens, 500), 0).await.unwrap();
    }
    let closed = store.closed_meter(scope, november).await.unwrap().unwrap();
    assert_eq!(left(&closed), 200_000 - 16_000);
    assert_eq!(left(&store.meter(scope).await.unwrap()), 200_000 - 1_000);
    for reservation in &flying {
        let charged = Amounts::NONE.with(Resource::LlmTokens, 400);
        assert_eq!(store.settle(reservation, &charged, 0).await.unwrap(), SettleOutcome::Settled);
        assert_eq!(store.settle(reservation, &charged, 0).await.unwrap(), SettleOutcome::AlreadySettled);
    }
    let closed = store.closed_meter(scope, november).await.unwrap().unwrap();
    assert_eq!(closed.charged(Resource::LlmTokens), Some(16 * 400));
    let meter = store.meter(scope).await.unwrap();
    assert_eq!((left(&meter), meter.holds.len()), (200_000 - 1_000, 0));
    // The whole of December is there for one request, and once.
    platform.host().run_job(Job::Reset).await;
    admitted(store, scope, &tokens(199_000)).await;
    refused(store, scope, &tokens(1)).await;
    // Two months later; nobody was there in between.
    platform.clock().set(november.next().next().next().start());
    platform.host().sweep().await;
    assert_eq!(left(&store.meter(scope).await.unwrap()), 200_000);
    let december = store.closed_meter(scope, november.next()).await.unwrap().unwrap();
    assert_eq!(december.charged(Resource::LlmTokens), Some(200_000));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_month_that_turns_amid_calls_gives_its_allowance_once() {
    let platform = Platform::start(plain(50)).await;
    let tenant = platform.tenant("free").await;
    platform.store().set_meter_shards(&tenant.scope, 4).await.unwrap();
    let november = Period::of(platform.store().now());
    let call = async |n: usize| {
        if n == 60 {
            platform.clock().set(november.end());
        }
        call(&platform, &tenant, n.is_multiple_of(2)).await
    };
    let mut replies = join_all((0..30).map(call)).await;
    replies.extend(join_all((30..160).map(call)).await);
    platform.quiesce().await;
    let admitted = replies.iter().filter(|reply| reply.status == 200).count();
    assert!((80..=100).contains(&admitted), "{admitted} of the allowances of two months");
    for reply in replies.iter().filter(|reply| reply.status != 200) {
        assert_eq!(reply.code(), "quota_exceeded", "{}", reply.text());
    }
    let records = platform.store().usage_records(&tenant.scope, november, 1_000, None).await.unwrap().items.len();
    let closed = platform.store().closed_meter(&tenant.scope, november).await.unwrap().unwrap();
    assert_eq!(closed.charged(Resource::Messages), Some(records as u64));
    let december = platform.records(&tenant).await.len();
    let meter = platform.meter(&tenant).await;
    assert_eq!((meter.charged(Resource::Messages), december + records), (Some(december as u64), admitted));
}

#[tokio::test]
async fn plans_change_for_all_shards_at_once() {
    let platform = Platform::start(Setup::default()).await;
    let (tenant, store) = (platform.tenant("pro").await, platform.store());
    let scope = &tenant.scope;
    store.set_meter_shards(scope, 4).await.unwrap();
    platform.clock().advance(10 * MINUTE);
    let mut flying = vec![];
    for _ in 0..8 {
        flying.push(admitted(store, scope, &tokens(100_000)).await);
    }
    // Up: what was used stays used.
    assert_eq!(store.put_on_plan(scope, "team", 1, None).await.unwrap(), Planned::From("pro".into()));
    let meter = store.meter(scope).await.unwrap();
    assert_eq!((left(&meter), meter.max_holds, meter.rate.interval), (100_000_000 - 800_000, 100, 200));
    assert_eq!(meter.left.get(Resource::Messages), Limit::Unlimited);
    assert!(items(&platform, &tenant).iter().all(|row| row["left"]["M"].get("messages").is_none()));
    // Down, to less than was used: all that is left goes, wherever it is.
    platform.clock().advance(MINUTE);
    for _ in 0..8 {
        flying.push(admitted(store, scope, &tokens(100_000)).await);
    }
    assert_eq!(store.put_on_plan(scope, "free", 2, None).await.unwrap(), Planned::From("team".into()));
    let meter = store.meter(scope).await.unwrap();
    assert_eq!((left(&meter), meter.given.get(Resource::LlmTokens)), (0, Limit::Of(1_600_000)));
    // Two shards admit, once what is in flight in the others is over: it takes all places that the plan has.
    assert_eq!((meter.left.get(Resource::Messages), meter.shards.active), (Limit::Of(1_000), 2));
    for reservation in &flying {
        let charged = Amounts::NONE.with(Resource::LlmTokens, 50_000);
        assert_eq!(store.settle(reservation, &charged, 0).await.unwrap(), SettleOutcome::Settled);
    }
    platform.host().sweep().await;
    let meter = store.meter(scope).await.unwrap();
    assert_eq!((meter.charged(Resource::LlmTokens), meter.max_holds), (Some(800_000), 2));
    // Down again, to something between: a part goes.
    assert_eq!(store.put_on_plan(scope, "free", 1, None).await.unwrap(), Planned::Superseded);
    assert_eq!(store.put_on_plan(scope, "team", 3, None).await.unwrap(), Planned::From("free".into()));
    assert_eq!(store.put_on_plan(scope, "pro", 4, None).await.unwrap(), Planned::From("team".into()));
    let meter = store.meter(scope).await.unwrap();
    assert_eq!((left(&meter), meter.given.get(Resource::LlmTokens)), (19_200_000, Limit::Of(20_000_000)));
    assert_eq!(meter.plan_version, 4);
}

pub(super) const fn row<'a>(kind: LedgerKind, key: &'a str, amount: u64) -> NewLedgerRow<'a> {
    NewLedgerRow { kind, amount, key, reference: Some(key), expires_at: None }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn credits_are_taken_back_from_all_shards_amid_calls() {
    let upstream = Upstream::start().await;
    let setup = Setup::default().upstream(&upstream).variable("CATALOGUE_TOML", crate::credits::PRICED);
    let platform = Platform::start(setup.plan_change("in_flight = 100", "in_flight = 1_000")).await;
    let (tenant, store) = (platform.tenant("team").await, platform.store());
    let scope = &tenant.scope;
    store.set_meter_shards(scope, 4).await.unwrap();
    platform.clock().advance(10 * MINUTE);
    store.add_credits(scope, &row(LedgerKind::Purchase, "ord_0", 10_000)).await.unwrap();
    let keys: Vec<_> = (0..8).map(|n| (format!("ord_a{n}"), format!("re_{n}"))).collect();
    let calls = join_all((0..40).map(|_| platform.chat(&tenant.api_key, "hello")));
    let changes = join_all(keys.iter().map(|(order, refund)| async move {
        store.add_credits(scope, &row(LedgerKind::Purchase, order, 500)).await.unwrap();
        store.take_credits_of(scope, &row(LedgerKind::Refund, refund, 400), order).await.unwrap();
    }));
    let (replies, _) = tokio::join!(calls, changes);
    for reply in &replies {
        assert!([200, 402].contains(&reply.status.as_u16()), "{}", reply.text());
    }
    platform.quiesce().await;
    platform.books(&tenant).await;
    // All that is left goes, and what is missing is told.
    let there = store.meter(scope).await.unwrap().credits;
    let spread = items(&platform, &tenant).iter().filter(|item| number(item, "/credits") > 0).count();
    assert!(there > 0 && spread > 1, "{there} in {spread} shards");
    let clawback = row(LedgerKind::Clawback, "dp_1", there + 50);
    let Booked::Done(booked) = store.take_credits(scope, &clawback).await.unwrap() else { panic!() };
    assert_eq!((booked.amount, booked.short), (-i64::try_from(there).unwrap(), 50));
    assert_eq!(store.take_credits(scope, &clawback).await.unwrap(), Booked::Before);
    platform.chat(&tenant.api_key, "hello").await.expect(402);
    platform.books(&tenant).await;
    // And what expires is found as well.
    let end = store.now() + MINUTE;
    let grant = NewLedgerRow { expires_at: Some(end), ..row(LedgerKind::Grant, "in_1", 9_000) };
    store.add_credits(scope, &grant).await.unwrap();
    for _ in 0..3 {
        platform.chat(&tenant.api_key, "hello").await.expect(200);
    }
    platform.quiesce().await;
    platform.clock().advance(2 * MINUTE);
    platform.host().sweep().await;
    assert_eq!(store.meter(scope).await.unwrap().credits, 0);
    platform.books(&tenant).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn shards_come_and_go_while_calls_are_in_flight() {
    let platform = Platform::start(plain(90)).await;
    let (tenant, store) = (platform.tenant("free").await, platform.store());
    let calls = async {
        let mut replies = vec![];
        for _ in 0..6 {
            replies.extend(join_all((0..20).map(|n| call(&platform, &tenant, n % 2 == 0))).await);
        }
        replies
    };
    let changes = async {
        for wanted in [4, 1, 5, 2, 16, 3] {
            store.set_meter_shards(&tenant.scope, wanted).await.unwrap();
            tokio::task::yield_now().await;
        }
    };
    let (replies, ()) = tokio::join!(calls, changes);
    platform.quiesce().await;
    let admitted = replies.iter().filter(|reply| reply.status == 200).count();
    for reply in replies.iter().filter(|reply| reply.status != 200) {
        assert_eq!(reply.code(), "quota_exceeded", "{}", reply.text());
    }
    assert_eq!((admitted, platform.books(&tenant).await.len()), (90, 90));
    // What was closed has nothing left after a sweep.
    store.set_meter_shards(&tenant.scope, 2).await.unwrap();
    platform.host().sweep().await;
    for item in items(&platform, &tenant).iter().filter(|item| item["max_holds"]["N"] == "0") {
        assert_eq!((number(item, "/credits"), number(item, "/left/M/llm_tokens")), (0, 0), "{item}");
    }
    let look = store.look(&tenant.scope, &|| false).await.unwrap();
    assert!(matches!(look, Look::Clean), "{look:?}");
}

#[tokio::test]
async fn what_is_in_flight_in_a_shard_that_closes_stays_counted() {
    let platform = Platform::start(plain(1_000).plan_change("in_flight = 1_000", "in_flight = 8")).await;
    let (tenant, store) = (platform.tenant("free").await, platform.store());
    let scope = &tenant.scope;
    store.set_meter_shards(scope, 4).await.unwrap();
    let mut flying = vec![];
    for _ in 0..8 {
        flying.push(admitted(store, scope, &tokens(1)).await);
    }
    store.set_meter_shards(scope, 1).await.unwrap();
    let refusal = refused(store, scope, &tokens(1)).await;
    assert!(matches!(refusal, Refusal::TooManyInFlight { .. }), "{refusal:?}");
    for reservation in &flying {
        store.settle(reservation, &Amounts::NONE, 0).await.unwrap();
    }
    platform.host().sweep().await;
    for _ in 0..8 {
        admitted(store, scope, &tokens(1)).await;
    }
    refused(store, scope, &tokens(1)).await;
    let main = items(&platform, &tenant).into_iter().find(|item| item.get("shard").is_none()).unwrap();
    assert_eq!((number(&main, "/max_holds"), number(&main, "/left/M/llm_tokens")), (8, 200_000 - 8));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_of_plan_that_shards_overtake_is_shared_out_as_well() {
    let platform = Platform::start(plain(1_000)).await;
    let (tenant, store) = (platform.tenant("free").await, platform.store());
    let (client, gate) = Gate::before_update(&platform);
    let slow = Store::new(client, tenantry_host::TABLE, store.plans().clone(), store.clock());
    let scope = tenant.scope.clone();
    let changing = tokio::spawn(async move { slow.put_on_plan(&scope, "pro", 1, None).await.unwrap() });
    gate.meanwhile(async {
        assert_eq!(store.set_meter_shards(&tenant.scope, 4).await.unwrap(), 4);
    })
    .await;
    assert_eq!(changing.await.unwrap(), Planned::From("free".to_owned()));
    let pro = store.plans().find("pro").unwrap();
    let (meter, shards) = (platform.meter(&tenant).await, items(&platform, &tenant));
    assert_eq!((shards.len(), meter.max_holds, meter.rate.limit()), (4, pro.limits.in_flight, pro.rate().limit()));
    assert!(shards.iter().all(|shard| shard["plan"]["S"] == "pro"), "{shards:#?}");
    // Another number of shards, and another plan, can still be had.
    assert_eq!(store.set_meter_shards(&tenant.scope, 2).await.unwrap(), 2);
    assert_eq!(store.put_on_plan(&tenant.scope, "free", 2, None).await.unwrap(), Planned::From("pro".to_owned()));
}
