//! Holds that nobody settles, and the turn of the month.

use tenantry_domain::{
    Amounts, Period, RequestId, Resource,
    metering::{Demand, Refusal},
    usage::Status,
};
use tenantry_store::{Admission, Reservation, SettleOutcome, UNKNOWN_MODEL};
use tenantry_tests::{
    platform::{Platform, Setup, Tenant},
    upstream::Upstream,
};

const MINUTE: i64 = 60_000;

fn demand(tokens: u64) -> Demand {
    let amounts = Amounts::NONE.with(Resource::Messages, 1).with(Resource::LlmTokens, tokens);
    Demand { amounts, credits: 0 }
}

async fn reserve(platform: &Platform, tenant: &Tenant, tokens: u64) -> Reservation {
    let request = RequestId::at(platform.store().now());
    match platform.store().reserve(&tenant.scope, &request, &demand(tokens), MINUTE).await.unwrap() {
        Admission::Admitted(reservation) => *reservation,
        Admission::Refused(refusal) => panic!("{refusal:?}"),
    }
}

fn left(meter: &tenantry_domain::metering::Meter) -> u64 {
    meter.left.get(Resource::LlmTokens).number().unwrap()
}

#[tokio::test]
async fn a_hold_whose_gateway_died_is_charged_as_held_once_it_expires() {
    let platform = Platform::start(Setup::default()).await;
    let tenant = platform.tenant("free").await;
    let reservation = reserve(&platform, &tenant, 700).await;
    platform.clock().advance(MINUTE - 1_000);
    platform.host().sweep().await;
    assert_eq!(platform.meter(&tenant).await.holds.len(), 1, "not expired yet");

    platform.clock().advance(3_000);
    platform.host().sweep().await;
    platform.host().sweep().await;
    let records = platform.books(&tenant).await;
    assert_eq!(records.len(), 1);
    assert_eq!((records[0].status, records[0].model.as_str()), (Status::Expired, UNKNOWN_MODEL));
    assert_eq!(records[0].charged.get(Resource::LlmTokens), 700);
    assert_eq!(left(&platform.meter(&tenant).await), 200_000 - 700);
    // The gateway was only slow: too late.
    let outcome = platform.store().settle(&reservation, &Amounts::NONE, 0).await.unwrap();
    assert_eq!(outcome, SettleOutcome::AlreadySettled);
    platform.books(&tenant).await;
}

#[tokio::test]
async fn an_expired_hold_with_a_record_is_settled_by_the_record() {
    let upstream = Upstream::start().await;
    let platform = Platform::start(Setup::default().upstream(&upstream)).await;
    let tenant = platform.tenant("free").await;
    let reservation = reserve(&platform, &tenant, 700).await;
    // The event got through, the settlement did not: take a real event and give it this hold's name.
    platform.chat(&tenant.api_key, "hello").await.expect(200);
    platform.quiesce().await;
    let mut event = platform.records(&tenant).await[0].clone();
    event.id = reservation.request().clone();
    event.charged = Amounts::NONE.with(Resource::Messages, 1).with(Resource::LlmTokens, 300);
    platform.host().queue().push(&serde_json::to_string(&event).unwrap()).unwrap();
    platform.quiesce().await;

    platform.clock().advance(2 * MINUTE);
    let before = left(&platform.meter(&tenant).await);
    // Lazily, by the next request of the tenant.
    platform.chat(&tenant.api_key, "hello").await.expect(200);
    platform.quiesce().await;
    let records = platform.books(&tenant).await;
    assert_eq!(records.len(), 3);
    assert!(records.iter().all(|record| record.status == Status::Ok));
    assert_eq!(left(&platform.meter(&tenant).await), before + 400 - records[0].tokens.total());
}

#[tokio::test]
async fn expired_holds_make_room_at_once() {
    let platform = Platform::start(Setup::default()).await;
    let tenant = platform.tenant("free").await;
    reserve(&platform, &tenant, 1).await;
    reserve(&platform, &tenant, 1).await;
    let third = platform.store().reserve(&tenant.scope, &RequestId::new(), &demand(1), MINUTE).await.unwrap();
    assert!(matches!(third, Admission::Refused(Refusal::TooManyInFlight { limit: 2 })), "{third:?}");
    platform.clock().advance(2 * MINUTE);
    let fourth = reserve(&platform, &tenant, 1).await;
    assert_eq!(platform.store().settle(&fourth, &demand(1).amounts, 0).await.unwrap(), SettleOutcome::Settled);
    assert_eq!(platform.records(&tenant).await.len(), 2, "the two that expired");
}

#[tokio::test]
async fn the_same_request_reserves_once() {
    let platform = Platform::start(Setup::default()).await;
    let tenant = platform.tenant("free").await;
    let request = RequestId::new();
    for _ in 0..3 {
        let admission = platform.store().reserve(&tenant.scope, &request, &demand(100), MINUTE).await.unwrap();
        assert!(matches!(admission, Admission::Admitted(_)));
    }
    let meter = platform.meter(&tenant).await;
    assert_eq!((meter.holds.len(), left(&meter)), (1, 200_000 - 100));
}

#[tokio::test]
async fn a_month_ends_once_and_its_late_settlements_stay_in_its_books() {
    let upstream = Upstream::start().await;
    let platform = Platform::start(Setup::default().upstream(&upstream)).await;
    let tenant = platform.tenant("free").await;
    let november: Period = "2026-11".parse().unwrap();
    platform.chat(&tenant.api_key, "hello").await.expect(200);
    platform.quiesce().await;
    let used = platform.records(&tenant).await[0].tokens.total();

    platform.clock().set(november.end() - 5_000);
    let reservation = reserve(&platform, &tenant, 1_000).await;
    platform.clock().set(november.end());
    // Many at once at the turn of the month.
    let calls = (0..2).map(|_| platform.chat(&tenant.api_key, "hello"));
    for reply in futures_util::future::join_all(calls).await {
        assert!([200, 429].contains(&reply.status.as_u16()), "{}", reply.text());
    }
    platform.quiesce().await;
    let meter = platform.meter(&tenant).await;
    assert_eq!(meter.period.to_string(), "2026-12");
    let december_used: u64 = platform.records(&tenant).await.iter().map(|record| record.tokens.total()).sum();
    assert_eq!(left(&meter), 200_000 - december_used, "the whole allowance, less what December used");
    let closed = platform.store().closed_meter(&tenant.scope, november).await.unwrap().unwrap();
    assert_eq!(left(&closed), 200_000 - used - 1_000);

    // The hold of November gives nothing back to December, but its difference to November.
    let charged = Amounts::NONE.with(Resource::Messages, 1).with(Resource::LlmTokens, 400);
    assert_eq!(platform.store().settle(&reservation, &charged, 0).await.unwrap(), SettleOutcome::Settled);
    assert_eq!(platform.store().settle(&reservation, &charged, 0).await.unwrap(), SettleOutcome::AlreadySettled);
    assert_eq!(left(&platform.meter(&tenant).await), left(&meter));
    let closed = platform.store().closed_meter(&tenant.scope, november).await.unwrap().unwrap();
    assert_eq!(left(&closed), 200_000 - used - 400);
    assert_eq!(closed.charged(Resource::LlmTokens), Some(used + 400));
}

#[tokio::test]
async fn a_hold_that_expires_after_its_month_is_booked_in_its_month() {
    let platform = Platform::start(Setup::default()).await;
    let tenant = platform.tenant("free").await;
    let november: Period = "2026-11".parse().unwrap();
    platform.clock().set(november.end() - 1_000);
    reserve(&platform, &tenant, 900).await;
    platform.clock().set(november.end() + 10 * MINUTE);
    platform.host().sweep().await;
    let page = platform.store().usage_records(&tenant.scope, november, 10, None).await.unwrap();
    assert_eq!(page.items.len(), 1);
    assert_eq!(page.items[0].charged.get(Resource::LlmTokens), 900);
    let roll_ups = platform.roll_ups(&tenant).await;
    assert_eq!(roll_ups[0].key.day, "2026-11-30");
    let closed = platform.store().closed_meter(&tenant.scope, november).await.unwrap().unwrap();
    assert_eq!(closed.charged(Resource::LlmTokens), Some(900));
    assert_eq!(left(&platform.meter(&tenant).await), 200_000);
    assert!(platform.meter(&tenant).await.holds.is_empty());
}
