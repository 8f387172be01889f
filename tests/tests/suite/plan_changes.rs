//! A change of plan in the middle of a month, with calls in flight and others changing it too.

use futures_util::future::join_all;
use tenantry_domain::{
    Amounts, Period, RequestId, Resource,
    metering::{Demand, Meter},
    plans::Limit,
};
use tenantry_store::{Admission, Look, Planned, Reservation, SettleOutcome};
use tenantry_tests::{
    platform::{NOON, Platform, Setup, Tenant},
    upstream::Upstream,
};

async fn stage() -> (Upstream, Platform, Tenant) {
    let upstream = Upstream::start().await;
    let platform = Platform::start(Setup::default().upstream(&upstream)).await;
    let tenant = platform.tenant("free").await;
    (upstream, platform, tenant)
}

async fn hold(platform: &Platform, tenant: &Tenant, tokens: u64) -> Reservation {
    let amounts = Amounts::NONE.with(Resource::Messages, 1).with(Resource::LlmTokens, tokens);
    let (request, demand) = (RequestId::at(platform.store().now()), Demand { amounts, credits: 0 });
    match platform.store().reserve(&tenant.scope, &request, &demand, 60_000).await.unwrap() {
        Admission::Admitted(reservation) => *reservation,
        Admission::Refused(refusal) => panic!("{refusal:?}"),
    }
}

fn tokens(meter: &Meter) -> (Limit, Limit) {
    (meter.given.get(Resource::LlmTokens), meter.left.get(Resource::LlmTokens))
}

#[tokio::test]
async fn a_larger_plan_adds_the_difference_once_and_forgets_nothing() {
    let (_upstream, platform, tenant) = stage().await;
    platform.chat(&tenant.api_key, "hello").await.expect(200);
    platform.quiesce().await;
    let used = platform.books(&tenant).await[0].tokens.total();
    let store = platform.store();
    for put in [Planned::From("free".into()), Planned::Same, Planned::Same] {
        assert_eq!(store.put_on_plan(&tenant.scope, "pro", 1, None).await.unwrap(), put);
        let meter = platform.meter(&tenant).await;
        assert_eq!(tokens(&meter), (Limit::Of(20_000_000), Limit::Of(20_000_000 - used)));
        assert_eq!((meter.max_holds, meter.rate.interval), (20, 1_000));
    }
    // An older state of the entitlement comes late.
    assert_eq!(store.put_on_plan(&tenant.scope, "free", 0, None).await.unwrap(), Planned::Superseded);
    platform.chat(&tenant.api_key, "hello").await.expect(200);
    platform.quiesce().await;
    platform.books(&tenant).await;
}

#[tokio::test]
async fn a_smaller_plan_takes_what_is_left_and_never_more() {
    let (_upstream, platform, tenant) = stage().await;
    let store = platform.store();
    store.put_on_plan(&tenant.scope, "pro", 1, None).await.unwrap();
    let flying = hold(&platform, &tenant, 300_000).await;
    store.put_on_plan(&tenant.scope, "free", 2, None).await.unwrap();
    // More than the smaller plan gives is in use: all of it was given, and nothing is left.
    assert_eq!(tokens(&platform.meter(&tenant).await), (Limit::Of(300_000), Limit::Of(0)));
    assert_eq!(platform.meter(&tenant).await.left.get(Resource::Messages), Limit::Of(999));
    store.settle(&flying, &Amounts::NONE, 0).await.unwrap();
    assert_eq!(tokens(&platform.meter(&tenant).await), (Limit::Of(300_000), Limit::Of(300_000)));
    platform.books(&tenant).await;
    // The next month knows the plan alone.
    platform.clock().set(Period::of(NOON).end());
    assert_eq!(tokens(&platform.meter(&tenant).await), (Limit::Of(200_000), Limit::Of(200_000)));
}

#[tokio::test]
async fn what_was_unlimited_for_a_while_is_counted_from_then_on() {
    let (_upstream, platform, tenant) = stage().await;
    let store = platform.store();
    store.put_on_plan(&tenant.scope, "team", 1, None).await.unwrap();
    let flying = hold(&platform, &tenant, 10).await;
    platform.chat(&tenant.api_key, "hello").await.expect(200);
    store.put_on_plan(&tenant.scope, "pro", 2, None).await.unwrap();
    // Held while nobody counted: nothing comes back.
    store.settle(&flying, &Amounts::NONE, 0).await.unwrap();
    let meter = platform.meter(&tenant).await;
    assert_eq!(meter.left.get(Resource::Messages), Limit::Of(50_000));
    assert_eq!(meter.charged(Resource::Messages), None, "nobody knows");
    platform.chat(&tenant.api_key, "hello").await.expect(200);
    platform.quiesce().await;
    assert_eq!(platform.meter(&tenant).await.left.get(Resource::Messages), Limit::Of(49_999));
    platform.books(&tenant).await;
    let look = store.look(&tenant.scope, &|| false).await.unwrap();
    assert!(matches!(look, Look::Clean), "the meter is not blamed for what it could not know");
}

#[tokio::test]
async fn what_became_unlimited_is_not_given_back_to_the_month_that_ended_so() {
    let (_upstream, platform, tenant) = stage().await;
    let (store, november) = (platform.store(), Period::of(NOON));
    platform.clock().set(november.end() - 1_000);
    let flying = hold(&platform, &tenant, 1_000).await;
    store.put_on_plan(&tenant.scope, "team", 1, None).await.unwrap();
    platform.clock().set(november.end());
    assert_eq!(platform.meter(&tenant).await.period, november.next());
    let charged = Amounts::NONE.with(Resource::LlmTokens, 400);
    assert_eq!(store.settle(&flying, &charged, 0).await.unwrap(), SettleOutcome::Settled);
    let closed = store.closed_meter(&tenant.scope, november).await.unwrap().unwrap();
    assert_eq!(closed.charged(Resource::LlmTokens), Some(400));
    assert_eq!(closed.left.get(Resource::Messages), Limit::Unlimited);
    assert!(platform.meter(&tenant).await.holds.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn changes_amid_calls_leave_the_books_right() {
    let (_upstream, platform, tenant) = stage().await;
    let store = platform.store();
    store.put_on_plan(&tenant.scope, "pro", 1, None).await.unwrap();
    let calls = join_all((0..30).map(|_| platform.chat(&tenant.api_key, "hello")));
    let changes = async {
        for version in 2..12 {
            let plan = if version % 2 == 0 { "free" } else { "pro" };
            store.put_on_plan(&tenant.scope, plan, version, None).await.unwrap();
        }
    };
    let (replies, ()) = tokio::join!(calls, changes);
    platform.quiesce().await;
    let admitted = replies.iter().filter(|reply| reply.status == 200).count();
    assert!(admitted > 0);
    assert_eq!(platform.books(&tenant).await.len(), admitted);
    assert_eq!(platform.meter(&tenant).await.plan, "pro");
}
