//! The ledger of credits: every change once, the balance its sum, and nothing below zero.

use futures_util::future::join_all;
use tenantry_domain::{Amounts, Period, RequestId, ledger::LedgerKind, metering::Demand};
use tenantry_store::{Admission, Booked, NewLedgerRow};
use tenantry_tests::{
    platform::{NOON, Platform, Setup, Tenant},
    upstream::Upstream,
    usage::event_of,
};

const DAY: i64 = 24 * 3_600_000;

/// A catalogue whose one model costs credits: 1 a prompt token, 2 a completion token.
pub(crate) const PRICED: &str = r#"
[[vendor]]
id = "openai"
name = "OpenAI"
base_url = "https://api.openai.com/v1"
base_url_env = "OPENAI_BASE_URL"
api_key_env = "OPENAI_API_KEY"
[[model]]
id = "gpt-4.1-mini"
vendor = "openai"
kind = "chat"
context_tokens = 1000
max_output_tokens = 1000
price_version = 7
price = { input = 1_000_000, output = 2_000_000 }
cost = { input = 400_000, output = 1_600_000 }
"#;

async fn stage() -> (Upstream, Platform, Tenant) {
    let upstream = Upstream::start().await;
    let platform = Platform::start(Setup::default().upstream(&upstream).variable("CATALOGUE_TOML", PRICED)).await;
    let tenant = platform.tenant("team").await;
    (upstream, platform, tenant)
}

const fn purchase<'a>(key: &'a str, amount: u64) -> NewLedgerRow<'a> {
    NewLedgerRow { kind: LedgerKind::Purchase, amount, key, reference: Some(key), expires_at: None }
}

const fn grant<'a>(key: &'a str, amount: u64, end: i64) -> NewLedgerRow<'a> {
    NewLedgerRow { kind: LedgerKind::Grant, amount, key, reference: Some(key), expires_at: Some(end) }
}

async fn credits(platform: &Platform, tenant: &Tenant) -> u64 {
    platform.quiesce().await;
    platform.books(tenant).await;
    platform.meter(tenant).await.credits
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_payment_told_of_many_times_at_once_is_booked_once() {
    let (_upstream, platform, tenant) = stage().await;
    let (store, new) = (platform.store(), purchase("ord_1", 500));
    let booked = join_all((0..20).map(|_| store.add_credits(&tenant.scope, &new))).await;
    let done = booked.iter().filter(|booked| matches!(booked.as_ref().unwrap(), Booked::Done(_))).count();
    assert_eq!((done, credits(&platform, &tenant).await), (1, 500));
    assert_eq!(platform.ledger(&tenant).await.len(), 1);
    let other = platform.tenant("team").await;
    store.add_credits(&other.scope, &new).await.unwrap();
    assert_eq!(credits(&platform, &other).await, 500, "keys are the tenant's own");
}

#[tokio::test]
async fn calls_take_what_they_cost_and_a_month_takes_nothing() {
    let (_upstream, platform, tenant) = stage().await;
    platform.store().add_credits(&tenant.scope, &purchase("ord_1", 100_000)).await.unwrap();
    platform.chat(&tenant.api_key, "hello").await.expect(200);
    let left = credits(&platform, &tenant).await;
    let record = &platform.records(&tenant).await[0];
    assert_eq!(100_000 - left, record.credits);
    assert!(record.credits > 0);
    platform.clock().set(Period::of(NOON).end() + 1);
    assert_eq!(platform.meter(&tenant).await.credits, left);
}

#[tokio::test]
async fn what_is_taken_back_is_what_there_is_and_the_rest_is_told() {
    let (_upstream, platform, tenant) = stage().await;
    let store = platform.store();
    store.add_credits(&tenant.scope, &purchase("ord_1", 100)).await.unwrap();
    let clawback = NewLedgerRow { kind: LedgerKind::Clawback, key: "dp_1", ..purchase("ord_1", 150) };
    let Booked::Done(row) = store.take_credits(&tenant.scope, &clawback).await.unwrap() else { panic!() };
    assert_eq!((row.amount, row.short, credits(&platform, &tenant).await), (-100, 50, 0));
    assert_eq!(store.take_credits(&tenant.scope, &clawback).await.unwrap(), Booked::Before);
    let again = NewLedgerRow { key: "dp_2", ..clawback };
    let Booked::Done(row) = store.take_credits(&tenant.scope, &again).await.unwrap() else { panic!() };
    assert_eq!((row.amount, row.short), (0, 150));
    assert_eq!(credits(&platform, &tenant).await, 0);
}

#[tokio::test]
async fn what_is_taken_back_of_a_purchase_is_none_of_another() {
    let (_upstream, platform, tenant) = stage().await;
    let (store, scope) = (platform.store(), &tenant.scope);
    let back = async |key: &str, of: &str, amount| {
        let new = NewLedgerRow { kind: LedgerKind::Refund, key, ..purchase(of, amount) };
        let Booked::Done(row) = store.take_credits_of(scope, &new, of).await.unwrap() else { panic!("{key}") };
        (row.amount, row.short)
    };
    store.add_credits(scope, &grant("soon", 5_000, NOON + DAY)).await.unwrap();
    store.add_credits(scope, &purchase("spent", 10)).await.unwrap();
    platform.chat(&tenant.api_key, "hello").await.expect(200);
    let spent = 5_010 - credits(&platform, &tenant).await;
    assert!((10..5_000).contains(&spent));
    store.add_credits(scope, &purchase("there", 1_000)).await.unwrap();
    // What expires first is used first, so the smaller purchase is whole.
    assert_eq!(back("re_1", "spent", 15).await, (-10, 5));
    assert_eq!(back("re_2", "spent", 10).await, (0, 10));
    let left = 5_000 - i64::try_from(spent).unwrap();
    assert_eq!(back("re_3", "soon", 5_000).await, (-left, spent));
    store.add_credits(scope, &grant("over", 700, NOON + DAY)).await.unwrap();
    platform.clock().advance(DAY);
    assert_eq!(store.expire_credits(scope).await.unwrap(), 700);
    assert_eq!(back("re_4", "over", 700).await, (0, 700), "it went when it expired");
    assert_eq!((back("re_5", "there", 400).await, credits(&platform, &tenant).await), ((-400, 0), 600));
    assert_eq!((back("re_6", "there", 1_000).await, credits(&platform, &tenant).await), ((-600, 400), 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn taking_back_amid_calls_and_purchases_leaves_the_books_right() {
    let (_upstream, platform, tenant) = stage().await;
    let store = platform.store();
    store.add_credits(&tenant.scope, &purchase("ord_0", 200_000)).await.unwrap();
    let keys: Vec<_> = (0..10).map(|n| (format!("ord_a{n}"), format!("re_{n}"))).collect();
    let calls = join_all((0..10).map(|_| platform.chat(&tenant.api_key, "hello")));
    let scope = &tenant.scope;
    let changes = join_all(keys.iter().map(|(order, refund)| async move {
        store.add_credits(scope, &purchase(order, 1_000)).await.unwrap();
        let back = NewLedgerRow { kind: LedgerKind::Refund, key: refund, ..purchase(order, 1_000) };
        let Booked::Done(row) = store.take_credits_of(scope, &back, order).await.unwrap() else { panic!("{refund}") };
        assert_eq!((row.amount, row.short), (-1_000, 0), "what was there before is used first");
    }));
    tokio::join!(calls, changes);
    let used: u64 = {
        platform.quiesce().await;
        platform.records(&tenant).await.iter().map(|record| record.credits).sum()
    };
    assert_eq!(credits(&platform, &tenant).await, 200_000 - used);
}

#[tokio::test]
async fn what_calls_in_flight_use_of_expiring_credits_is_not_taken_from_bought_ones() {
    let (_upstream, platform, tenant) = stage().await;
    let (store, scope) = (platform.store(), &tenant.scope);
    store.add_credits(scope, &purchase("ord_1", 10_000)).await.unwrap();
    store.add_credits(scope, &grant("soon", 5_000, NOON + DAY)).await.unwrap();
    store.add_credits(scope, &grant("late", 400, NOON + 2 * DAY)).await.unwrap();
    let hold = async |credits| {
        let demand = Demand { amounts: Amounts::NONE, credits };
        let admission = store.reserve(scope, &RequestId::at(store.now()), &demand, 3 * DAY).await.unwrap();
        let Admission::Admitted(reservation) = admission else { panic!("{admission:?}") };
        *reservation
    };
    let first = hold(3_000).await;
    platform.clock().advance(DAY);
    assert_eq!(store.expire_credits(scope).await.unwrap(), 2_000, "what nobody holds");
    let end = async |reservation, credits| {
        store.write_usage(scope, &[event_of(store, &reservation, Amounts::NONE, credits)]).await.unwrap();
        store.settle(&reservation, &Amounts::NONE, credits).await.unwrap();
    };
    end(first, 2_000).await;
    assert_eq!(credits(&platform, &tenant).await, 11_400, "what was bought, what is not over, and what came back");
    // What is held altogether is remembered for when it comes back.
    let second = hold(1_400).await;
    assert_eq!(platform.meter(&tenant).await.credits_expire_at, Some(NOON + 2 * DAY));
    platform.clock().advance(DAY);
    assert_eq!(store.expire_credits(scope).await.unwrap(), 0, "all of it is held");
    end(second, 1_400).await;
    assert_eq!(credits(&platform, &tenant).await, 10_000);
}

#[tokio::test]
async fn granted_credits_expire_bought_ones_do_not_and_what_expires_first_is_used_first() {
    let (_upstream, platform, tenant) = stage().await;
    let store = platform.store();
    store.add_credits(&tenant.scope, &purchase("ord_1", 10_000)).await.unwrap();
    store.add_credits(&tenant.scope, &grant("late", 7_000, NOON + 2 * DAY)).await.unwrap();
    store.add_credits(&tenant.scope, &grant("soon", 5_000, NOON + DAY)).await.unwrap();
    let body = serde_json::json!({
        "model": "gpt-4.1-mini", "messages": [{"role": "user", "content": "hello"}], "max_tokens": 100,
    });
    platform.post("/api/v1/chat/completions", &tenant.api_key, body).await.expect(200);
    let used = 22_000 - credits(&platform, &tenant).await;
    assert!((1..5_000).contains(&used));

    assert_eq!(store.expire_credits(&tenant.scope).await.unwrap(), 0, "not yet");
    platform.clock().advance(DAY);
    platform.host().sweep().await;
    assert_eq!(credits(&platform, &tenant).await, 17_000, "what was left of the first that expire");
    assert_eq!(platform.meter(&tenant).await.credits_expire_at, Some(NOON + 2 * DAY));
    assert_eq!(store.expire_credits(&tenant.scope).await.unwrap(), 0, "once");
    platform.clock().advance(DAY);
    platform.host().sweep().await;
    assert_eq!(credits(&platform, &tenant).await, 10_000);
    assert_eq!(platform.meter(&tenant).await.credits_expire_at, None);
    let kinds: Vec<_> = platform.ledger(&tenant).await.iter().map(|row| (row.kind.name(), row.amount)).collect();
    assert_eq!(kinds[..2], [("expiry", -7_000), ("expiry", -(5_000 - i64::try_from(used).unwrap()))]);
}
