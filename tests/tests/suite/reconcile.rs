//! Books that do not agree are found, and only those; roll-ups are repaired, also while they are written to.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use aws_sdk_dynamodb::types::AttributeValue;
use tenantry_domain::{
    Amounts, Clock, Period, RequestId, Resource,
    ledger::LedgerKind,
    metering::Demand,
    usage::{Tokens, UsageEvent},
};
use tenantry_quota_reset::{Job, Message, Tally, run};
use tenantry_store::{Admission, Difference, Look, NewLedgerRow, Reservation, Store, Suspicion, TenantScope};
use tenantry_tests::{
    gate::Gate,
    jobs::{Jobs, Row, tenants},
    platform::{NOON, Platform, Setup},
    usage::event_of,
};

const MINUTE: i64 = 60_000;
const DAY: i64 = 24 * 60 * MINUTE;

fn amounts(tokens: u64) -> Amounts {
    Amounts::NONE.with(Resource::Messages, 1).with(Resource::LlmTokens, tokens).with(Resource::ApiCalls, 1)
}

async fn admit(store: &Store, scope: &TenantScope, tokens: u64) -> (Reservation, UsageEvent) {
    let demand = Demand { amounts: amounts(tokens + 50), credits: 0 };
    let admission = store.reserve(scope, &RequestId::new(), &demand, 10 * MINUTE).await.unwrap();
    let Admission::Admitted(reservation) = admission else { panic!("{admission:?}") };
    let event = UsageEvent {
        model: ["gpt-4.1-mini", "deepseek-chat"][usize::from(tokens.is_multiple_of(2))].into(),
        tokens: Tokens { prompt: 1, cached: 0, completion: tokens - 1, reasoning: 0 },
        cost: 7 * tokens,
        ..event_of(store, &reservation, amounts(tokens), 0)
    };
    (*reservation, event)
}

/// A call from admission to roll-up.
async fn call(store: &Store, scope: &TenantScope, tokens: u64) -> UsageEvent {
    let (reservation, event) = admit(store, scope, tokens).await;
    store.settle(&reservation, &event.charged, 0).await.unwrap();
    store.write_usage(scope, std::slice::from_ref(&event)).await.unwrap();
    event
}

/// A tenant with calls on three days of November, and the clock on the fourth.
async fn stage() -> (Platform, TenantScope) {
    let platform = Platform::start(Setup::default()).await;
    let scope = tenants(platform.store(), "pro", 1).await.remove(0);
    for day in 0..3 {
        platform.clock().set(NOON + day * DAY);
        for tokens in 10..16 {
            call(platform.store(), &scope, tokens).await;
        }
    }
    platform.clock().set(NOON + 3 * DAY);
    (platform, scope)
}

async fn suspicion(platform: &Platform, scope: &TenantScope) -> Option<Suspicion> {
    match platform.store().look(scope, &|| false).await.unwrap() {
        Look::Clean => None,
        Look::Suspicious(suspicion) => Some(suspicion),
        Look::Unfinished => panic!("there is time"),
    }
}

/// Both looks, ten minutes apart.
async fn reconcile(platform: &Platform, scope: &TenantScope) -> Vec<Difference> {
    let Some(suspicion) = suspicion(platform, scope).await else { return vec![] };
    platform.clock().advance(10 * MINUTE);
    platform.store().look_again(scope, &suspicion, &|| false).await.unwrap().unwrap()
}

/// What the roll-ups say, without the mark that a repair leaves.
async fn roll_ups(platform: &Platform, scope: &TenantScope) -> Vec<Row> {
    let zero = AttributeValue::N("0".into());
    let mut rows = platform.rows(scope, "ROLL#").await;
    for row in &mut rows {
        row.retain(|name, value| name != "repairs" && *value != zero);
    }
    rows
}

fn number(row: &mut Row, name: &str, value: u64) {
    row.insert(name.into(), AttributeValue::N(value.to_string()));
}

fn is_roll_up(difference: &Difference) -> bool {
    matches!(difference, Difference::RollUp(_))
}

#[tokio::test]
async fn books_in_use_agree() {
    let (platform, scope) = stage().await;
    let store = platform.store();
    assert!(suspicion(&platform, &scope).await.is_none());
    // In flight; written but not settled; settled and written a moment ago.
    let (_in_flight, _) = admit(store, &scope, 20).await;
    let (_unsettled, event) = admit(store, &scope, 30).await;
    store.write_usage(&scope, &[event]).await.unwrap();
    call(store, &scope, 40).await;
    assert!(suspicion(&platform, &scope).await.is_none());
    platform.clock().advance(5 * MINUTE);
    assert!(suspicion(&platform, &scope).await.is_none());
    // Expired and charged as held.
    platform.clock().advance(10 * MINUTE);
    platform.host().sweep().await;
    platform.clock().advance(5 * MINUTE);
    assert!(suspicion(&platform, &scope).await.is_none());
}

#[tokio::test]
async fn usage_on_its_way_is_a_suspicion_and_no_difference() {
    let (platform, scope) = stage().await;
    let store = platform.store();
    let (reservation, event) = admit(store, &scope, 20).await;
    store.settle(&reservation, &event.charged, 0).await.unwrap();
    platform.clock().advance(2 * MINUTE);
    let suspicion = suspicion(&platform, &scope).await.expect("the event is not written yet");
    // The tenant goes on, and the event arrives.
    call(store, &scope, 30).await;
    store.write_usage(&scope, &[event]).await.unwrap();
    platform.clock().advance(10 * MINUTE);
    call(store, &scope, 32).await;
    assert_eq!(store.look_again(&scope, &suspicion, &|| false).await.unwrap(), Some(vec![]));

    // One that never arrives is a difference, and stays one: the meter is not repaired.
    let (reservation, lost) = admit(store, &scope, 20).await;
    store.settle(&reservation, &lost.charged, 0).await.unwrap();
    platform.clock().advance(2 * MINUTE);
    let meter = platform.rows(&scope, "METER").await;
    for _ in 0..2 {
        let differences = reconcile(&platform, &scope).await;
        assert_eq!(differences.len(), 3, "messages, tokens, calls: {differences:?}");
        let tokens = differences.iter().find_map(|difference| match difference {
            Difference::Meter { resource: Resource::LlmTokens, charged, recorded, .. } => Some((*charged, *recorded)),
            _ => None,
        });
        assert_eq!(tokens, Some((3 * 75 + 102, 3 * 75 + 82)));
    }
    assert_eq!(platform.rows(&scope, "METER").await, meter);
}

#[tokio::test]
async fn wrong_roll_ups_are_found_and_repaired_exactly() {
    let (platform, scope) = stage().await;
    let right = roll_ups(&platform, &scope).await;
    assert_eq!(right.len(), 6, "three days, two models");
    let mut wrong = right.clone();
    number(&mut wrong[0], "requests", 99);
    number(&mut wrong[1], "llm_tokens", 1);
    wrong[1].remove("cost");
    number(&mut wrong[2], "errors", 5);
    for row in &wrong[..3] {
        platform.put_row(row.clone()).await;
    }
    platform.delete_row(&right[3]).await;
    let mut made_up = right[4].clone();
    made_up.insert("sk".into(), AttributeValue::S("ROLL#2026-11-22#no-such-model#-#-#chat".into()));
    made_up.insert("model".into(), AttributeValue::S("no-such-model".into()));
    platform.put_row(made_up).await;

    let differences = reconcile(&platform, &scope).await;
    assert_eq!(differences.len(), 5);
    assert!(differences.iter().all(is_roll_up), "{differences:?}");
    let after = roll_ups(&platform, &scope).await;
    let (bogus, rest): (Vec<_>, Vec<_>) =
        after.into_iter().partition(|row| row["model"] == AttributeValue::S("no-such-model".into()));
    assert_eq!(rest, right);
    assert!(!bogus[0].contains_key("requests") && !bogus[0].contains_key("llm_tokens"), "emptied: {bogus:?}");
    assert!(suspicion(&platform, &scope).await.is_none());
    // A repaired row goes on counting.
    platform.clock().set(NOON + 2 * DAY + MINUTE);
    call(platform.store(), &scope, 10).await;
    platform.clock().set(NOON + 3 * DAY);
    assert!(suspicion(&platform, &scope).await.is_none());
}

#[tokio::test]
async fn a_record_that_vanished_shows_on_the_meter_and_leaves_the_roll_ups_the_sum_of_the_rest() {
    let (platform, scope) = stage().await;
    let records = platform.rows(&scope, "REC#").await;
    platform.delete_row(&records[4]).await;
    let differences = reconcile(&platform, &scope).await;
    assert_eq!(differences.iter().filter(|difference| is_roll_up(difference)).count(), 1);
    assert_eq!(differences.len(), 4, "{differences:?}");
    let again = reconcile(&platform, &scope).await;
    assert_eq!(again.len(), 3, "the roll-up is repaired, the meter is not");
    assert!(!again.iter().any(is_roll_up));
}

#[tokio::test]
async fn a_meter_that_gave_back_too_much_is_found() {
    let (platform, scope) = stage().await;
    let mut meter = platform.rows(&scope, "METER").await.remove(0);
    let AttributeValue::M(left) = meter.get_mut("left").unwrap() else { panic!() };
    left.insert("images".into(), AttributeValue::N("1001".into()));
    platform.put_row(meter).await;
    let differences = reconcile(&platform, &scope).await;
    let period = "2026-11".parse().unwrap();
    assert_eq!(differences, [Difference::Meter { period, resource: Resource::Images, charged: -1, recorded: 0 }]);
}

#[tokio::test]
async fn the_last_month_is_checked_with_what_is_still_in_flight_of_it() {
    let (platform, scope) = stage().await;
    let store = platform.store();
    let november: Period = "2026-11".parse().unwrap();
    platform.clock().set(november.end() - 1_000);
    let (open, event) = admit(store, &scope, 20).await;
    call(store, &scope, 22).await;
    platform.clock().set(november.end() + 2 * MINUTE);
    call(store, &scope, 24).await;
    platform.clock().advance(2 * MINUTE);
    assert!(suspicion(&platform, &scope).await.is_none());
    store.settle(&open, &event.charged, 0).await.unwrap();
    store.write_usage(&scope, &[event]).await.unwrap();
    assert!(suspicion(&platform, &scope).await.is_none());

    let mut closing = platform.rows(&scope, "CLOSE#").await.remove(0);
    let AttributeValue::M(left) = closing.get_mut("left").unwrap() else { panic!() };
    left.insert("images".into(), AttributeValue::N("900".into()));
    platform.put_row(closing).await;
    let mut row = platform.rows(&scope, "ROLL#2026-11-20").await.remove(0);
    number(&mut row, "requests", 1_000);
    platform.put_row(row).await;
    let differences = reconcile(&platform, &scope).await;
    assert_eq!(differences.len(), 2);
    assert_eq!(
        differences[0],
        Difference::Meter { period: november, resource: Resource::Images, charged: 100, recorded: 0 }
    );
    assert!(is_roll_up(&differences[1]));
}

/// What the ledger says less what is left and held is what the records of all months say, whatever is in flight.
#[tokio::test]
async fn credits_that_went_without_a_record_are_found() {
    let (platform, scope) = stage().await;
    let store = platform.store();
    let row = |key| NewLedgerRow { kind: LedgerKind::Purchase, amount: 1_000, key, reference: None, expires_at: None };
    store.add_credits(&scope, &row("ord_1")).await.unwrap();
    let hold = async |credits| {
        let demand = Demand { amounts: amounts(1), credits };
        let admission = store.reserve(&scope, &RequestId::at(store.now()), &demand, 90 * DAY).await.unwrap();
        let Admission::Admitted(reservation) = admission else { panic!("{admission:?}") };
        *reservation
    };
    let end = async |reservation: Reservation, credits| {
        store.write_usage(&scope, &[event_of(store, &reservation, amounts(1), credits)]).await.unwrap();
        store.settle(&reservation, &amounts(1), credits).await.unwrap();
    };
    end(hold(300).await, 200).await;
    let flying = hold(150).await;
    platform.clock().advance(10 * MINUTE);
    assert_eq!(reconcile(&platform, &scope).await, []);
    // Three months later its records are in none of those that are read.
    platform.clock().set(NOON + 90 * DAY);
    end(hold(100).await, 10).await;
    platform.clock().advance(10 * MINUTE);
    assert_eq!(reconcile(&platform, &scope).await, []);
    end(flying, 150).await;
    platform.clock().advance(10 * MINUTE);
    assert_eq!(reconcile(&platform, &scope).await, []);

    let mut meter = platform.rows(&scope, "METER").await.remove(0);
    number(&mut meter, "credits", 1_000 - 200 - 10 - 150 - 7);
    platform.put_row(meter.clone()).await;
    assert_eq!(reconcile(&platform, &scope).await, [Difference::Credits { charged: 367, recorded: 360 }]);
    number(&mut meter, "credits", 1_000);
    platform.put_row(meter.clone()).await;
    assert_eq!(reconcile(&platform, &scope).await, [Difference::Credits { charged: 0, recorded: 360 }]);
    number(&mut meter, "credits", 1_000 - 360);
    platform.put_row(meter).await;
}

#[tokio::test]
async fn a_row_that_was_written_to_between_the_looks_waits_for_the_next_night() {
    let (platform, scope) = stage().await;
    let store = platform.store();
    call(store, &scope, 10).await;
    let mut today = platform.rows(&scope, "ROLL#2026-11-23").await.remove(0);
    number(&mut today, "llm_tokens", 5);
    platform.put_row(today).await;
    let first = suspicion(&platform, &scope).await.expect("a wrong row");
    call(store, &scope, 10).await;
    platform.clock().advance(10 * MINUTE);
    assert_eq!(store.look_again(&scope, &first, &|| false).await.unwrap(), Some(vec![]), "not judged");
    assert_eq!(reconcile(&platform, &scope).await.len(), 1);
    assert_eq!(reconcile(&platform, &scope).await.len(), 0);
    // An old suspicion of a row that was repaired since does nothing.
    assert_eq!(store.look_again(&scope, &first, &|| false).await.unwrap(), Some(vec![]));
}

struct Standing(i64);

impl Clock for Standing {
    fn now(&self) -> i64 {
        self.0
    }
}

/// Today's row says two calls where there was one. Its repair has been decided upon and is about to be sent when
/// something else happens. Returns what the repairer believes to have done.
async fn overtaken(meanwhile: impl AsyncFnOnce(&Platform, &TenantScope)) -> (Platform, TenantScope, usize) {
    let (platform, scope) = stage().await;
    call(platform.store(), &scope, 10).await;
    let mut row = platform.rows(&scope, "ROLL#2026-11-23").await.remove(0);
    for name in ["requests", "prompt_tokens", "completion_tokens", "messages", "llm_tokens", "api_calls", "cost"] {
        let doubled = 2 * row[name].as_n().unwrap().parse::<u64>().unwrap();
        number(&mut row, name, doubled);
    }
    platform.put_row(row).await;
    let suspicion = suspicion(&platform, &scope).await.unwrap();

    let (client, gate) = Gate::before_update(&platform);
    let (plans, clock) = (platform.store().plans().clone(), Arc::new(Standing(platform.store().now())));
    let slow = Store::new(client, tenantry_host::TABLE, plans, clock);
    let repairer = tokio::spawn({
        let scope = scope.clone();
        async move { slow.look_again(&scope, &suspicion, &|| false).await.unwrap().unwrap() }
    });
    gate.meanwhile(meanwhile(&platform, &scope)).await;
    let repaired = repairer.await.unwrap().len();
    (platform, scope, repaired)
}

async fn requests_today(platform: &Platform, scope: &TenantScope) -> String {
    platform.rows(scope, "ROLL#2026-11-23").await[0]["requests"].as_n().unwrap().clone()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_repair_that_nothing_overtakes_is_done() {
    let (platform, scope, repaired) = overtaken(async |_, _| {}).await;
    assert_eq!((requests_today(&platform, &scope).await.as_str(), repaired), ("1", 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_repair_that_the_aggregator_overtakes_is_not_done() {
    let (platform, scope, repaired) =
        overtaken(async |platform, scope| drop(call(platform.store(), scope, 10).await)).await;
    assert_eq!((requests_today(&platform, &scope).await.as_str(), repaired), ("3", 0));
    assert_eq!(reconcile(&platform, &scope).await.len(), 1);
    assert_eq!(requests_today(&platform, &scope).await, "2");
}

/// Another reconciler is faster, and then the aggregator brings the row back to the very numbers that the slow one
/// read: equal numbers, which are right this time.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn equal_numbers_after_another_repair_are_not_mistaken_for_no_change() {
    let (platform, scope, repaired) = overtaken(async |platform, scope| {
        assert_eq!(reconcile(platform, scope).await.len(), 1);
        platform.clock().set(NOON + 3 * DAY);
        call(platform.store(), scope, 10).await;
    })
    .await;
    assert_eq!((requests_today(&platform, &scope).await.as_str(), repaired), ("2", 0));
    assert!(suspicion(&platform, &scope).await.is_none());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn repairs_and_the_aggregator_do_not_disturb_each_other() {
    let (platform, scope) = stage().await;
    let platform = Arc::new(platform);
    let stop = Arc::new(AtomicBool::new(false));
    // Reconcilers that look twice without waiting, all the time.
    let reconcilers: Vec<_> = (0..2)
        .map(|_| {
            let (store, scope, stop) = (platform.store().clone(), scope.clone(), stop.clone());
            tokio::spawn(async move {
                let mut repaired = 0;
                while !stop.load(Ordering::Relaxed) {
                    if let Look::Suspicious(suspicion) = store.look(&scope, &|| false).await.unwrap() {
                        let found = store.look_again(&scope, &suspicion, &|| false).await.unwrap().unwrap();
                        repaired += found.iter().filter(|difference| is_roll_up(difference)).count();
                    }
                }
                repaired
            })
        })
        .collect();
    let writers: Vec<_> = (0..3)
        .map(|_| {
            let (store, scope) = (platform.store().clone(), scope.clone());
            tokio::spawn(async move {
                let template = admit(&store, &scope, 10).await.1;
                for _ in 0..60 {
                    let batch: Vec<_> =
                        (0..3).map(|_| UsageEvent { id: RequestId::new(), ..template.clone() }).collect();
                    store.write_usage(&scope, &batch).await.unwrap();
                }
            })
        })
        .collect();
    for writer in writers {
        writer.await.unwrap();
    }
    stop.store(true, Ordering::Relaxed);
    let mut repaired = 0;
    for reconciler in reconcilers {
        repaired += reconciler.await.unwrap();
    }
    assert_eq!(repaired, 0, "nothing was wrong, so nothing may have been repaired");
    let sum = |rows: Vec<Row>, name: &str| -> u64 {
        rows.iter().filter_map(|row| row.get(name)?.as_n().ok()?.parse::<u64>().ok()).sum()
    };
    let records = platform.rows(&scope, "REC#").await;
    assert_eq!(records.len(), 18 + 3 * 60 * 3);
    assert_eq!(sum(roll_ups(&platform, &scope).await, "requests"), records.len() as u64);
    assert_eq!(sum(roll_ups(&platform, &scope).await, "llm_tokens"), sum(records, "llm_tokens"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_wrong_row_that_is_written_to_all_the_time_ends_right() {
    let (platform, scope) = stage().await;
    let store = platform.store().clone();
    call(&store, &scope, 10).await;
    let mut today = platform.rows(&scope, "ROLL#2026-11-23").await.remove(0);
    number(&mut today, "llm_tokens", 4_711);
    number(&mut today, "requests", 4_711);
    platform.put_row(today).await;
    let writer = tokio::spawn({
        let (store, scope) = (store.clone(), scope.clone());
        async move {
            let template = admit(&store, &scope, 10).await.1;
            for _ in 0..50 {
                store.write_usage(&scope, &[UsageEvent { id: RequestId::new(), ..template.clone() }]).await.unwrap();
                tokio::task::yield_now().await;
            }
        }
    });
    let mut repaired = 0;
    while !writer.is_finished() || repaired == 0 {
        if let Look::Suspicious(suspicion) = store.look(&scope, &|| false).await.unwrap() {
            let found = store.look_again(&scope, &suspicion, &|| false).await.unwrap().unwrap();
            repaired += found.iter().filter(|difference| is_roll_up(difference)).count();
        }
    }
    writer.await.unwrap();
    assert_eq!(repaired, 1, "once is enough");
    let row = platform.rows(&scope, "ROLL#2026-11-23").await.remove(0);
    assert_eq!(row["requests"], AttributeValue::N("51".into()));
    assert_eq!(row["llm_tokens"], AttributeValue::N("510".into()));
}

fn sum(tallies: &[Tally]) -> Tally {
    let mut sum = Tally::default();
    for tally in tallies {
        sum.visited += tally.visited;
        sum.reconciled |= tally.reconciled;
        sum.differences += tally.differences;
        sum.unchecked += tally.unchecked;
    }
    sum
}

#[tokio::test]
async fn the_nightly_job_visits_all_and_looks_at_the_suspicious_again() {
    let (platform, scope) = stage().await;
    let store = platform.store();
    tenants(store, "free", 60).await;
    let jobs = Jobs::new(store);
    let clean = sum(&jobs.all(Job::Reconcile, false).await);
    assert_eq!((clean.visited, clean.differences, clean.unchecked, clean.reconciled), (61, 0, 0, true));

    let right = roll_ups(&platform, &scope).await;
    let mut wrong = right[2].clone();
    number(&mut wrong, "requests", 42);
    platform.put_row(wrong).await;
    let (mut again, mut differences) = (0, 0);
    tenantry_quota_reset::fan_out(&jobs.state, Job::Reconcile).await.unwrap();
    while let Some((message, delay)) = jobs.next() {
        if let Message::Tenant { tenant, suspicion, .. } = &message {
            assert_eq!((tenant, suspicion.is_some()), (scope.org(), true));
            assert_eq!(delay, Duration::from_secs(600));
            again += 1;
        }
        differences += run(&jobs.state, &message, &|| false).await.unwrap().differences;
    }
    assert_eq!((again, differences), (1, 1));
    assert_eq!(roll_ups(&platform, &scope).await, right);

    // In `host` the second look comes when its time has come.
    let mut wrong = right[1].clone();
    number(&mut wrong, "requests", 42);
    platform.put_row(wrong).await;
    platform.host().run_job(Job::Reconcile).await;
    assert_ne!(roll_ups(&platform, &scope).await, right);
    platform.clock().advance(10 * MINUTE);
    platform.host().run_job(Job::Sweep).await;
    assert_eq!(roll_ups(&platform, &scope).await, right);
}

#[tokio::test]
async fn a_tenant_too_large_for_one_run_gets_a_run_of_its_own_and_is_then_reported() {
    let (platform, scope) = stage().await;
    let store = platform.store();
    // More than a page of the records.
    let template = admit(store, &scope, 10).await.1;
    let many: Vec<_> = (0..1_100).map(|_| UsageEvent { id: RequestId::new(), ..template.clone() }).collect();
    store.write_usage(&scope, &many).await.unwrap();
    tenants(store, "free", 20).await;
    let jobs = Jobs::new(store);
    tenantry_quota_reset::fan_out(&jobs.state, Job::Reconcile).await.unwrap();
    let mut unchecked = 0;
    while let Some((message, _)) = jobs.next() {
        let tally = run(&jobs.state, &message, &|| true).await.unwrap();
        if let Message::Tenant { tenant, .. } = &message {
            assert_eq!(tenant, scope.org());
            unchecked += tally.unchecked;
        }
    }
    assert_eq!(unchecked, 1, "and the walk has an end");
    // With more time it is a suspicion: these records were charged by no meter.
    assert!(suspicion(&platform, &scope).await.is_none(), "they are too fresh to say");
    platform.clock().advance(2 * MINUTE);
    assert!(suspicion(&platform, &scope).await.is_some());
}
