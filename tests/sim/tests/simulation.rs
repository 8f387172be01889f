//! A bounded part of what `cargo xtask sim` does without bounds: seeds, deaths at every request, and broken protocols.

#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "tests")]

use tenantry_sim::{Sabotage, Scenario, run};

/// Runs some seeds; the first that breaks a promise is printed whole.
fn seeds(range: std::ops::Range<u64>) {
    for seed in range {
        let run = run(Scenario::seeded(seed), None);
        assert!(run.violations.is_empty(), "{run}");
    }
}

#[test]
fn no_seed_breaks_a_promise_1() {
    seeds(1..51);
}

#[test]
fn no_seed_breaks_a_promise_2() {
    seeds(51..101);
}

#[test]
fn no_seed_breaks_a_promise_3() {
    seeds(101..151);
}

#[test]
fn no_seed_breaks_a_promise_4() {
    seeds(151..201);
}

/// Everything goes wrong often, and still nothing is broken.
#[test]
fn no_rough_seed_breaks_a_promise() {
    for seed in 1..21 {
        let run = run(Scenario::rough(seed), None);
        assert!(run.violations.is_empty(), "{run}");
    }
}

/// What is held without anybody knowing, or knowing what is left, is given back or used, and charged to nobody.
#[test]
fn a_reservation_that_nobody_heard_of_is_given_back() {
    for seed in 1..41 {
        let run = run(Scenario::unheard(seed), None);
        assert!(run.violations.is_empty(), "{run}");
    }
}

#[test]
fn a_seed_plays_the_same_every_time() {
    let play = |seed| run(Scenario::seeded(seed), None).trace;
    for seed in [3, 17, 29] {
        let first = play(seed);
        assert!(first.len() > 100, "{}", first.len());
        // Others before it change nothing.
        let again = play(seed);
        let differs = first.iter().zip(&again).position(|(first, again)| first != again);
        assert_eq!(differs, None, "{:#?}", differs.map(|line| (&first[line], &again[line])));
        assert_eq!(first.len(), again.len());
    }
}

/// The gateway dies before and after every request to the database, the queue and the vendor that it makes for five calls.
#[test]
fn a_gateway_may_die_at_any_request() {
    let whole = run(Scenario::execution(u64::MAX, false), None);
    assert!(whole.violations.is_empty(), "{whole}");
    let mut deaths = 0;
    for request in 0.. {
        let mut died = false;
        for after in [false, true] {
            let run = run(Scenario::execution(request, after), None);
            assert!(run.violations.is_empty(), "{run}");
            died |= run.trace.iter().any(|line| line.contains(" dies "));
        }
        if !died {
            break;
        }
        deaths += 2;
    }
    assert!(deaths > 40, "{deaths} deaths");
}

/// Seeds until the judge notices. A mistake that takes more than these has become one that it hardly sees.
fn is_noticed(sabotage: Sabotage) {
    let mut made = 0;
    for seed in 1..=20 {
        for scenario in [Scenario::rough(seed), Scenario::seeded(seed)] {
            let run = run(scenario, Some(sabotage));
            made += run.sabotaged;
            if !run.violations.is_empty() {
                assert!(made > 0, "nothing was broken, and something is wrong: {run}");
                println!("{sabotage:?}, broken {made} times in {seed} seeds: {}", run.violations[0]);
                return;
            }
        }
    }
    panic!("{sabotage:?} was not noticed, though it was done {made} times");
}

macro_rules! noticed {
    ($($test:ident: $sabotage:ident,)*) => {
        $(#[test]
        fn $test() {
            is_noticed(Sabotage::$sabotage);
        })*

        #[test]
        fn every_way_of_breaking_it_has_a_test() {
            assert_eq!(Sabotage::ALL, [$(Sabotage::$sabotage),*]);
        }
    };
}

noticed! {
    a_settlement_that_does_not_ask_for_its_hold_is_noticed: SettleTwice,
    an_aggregator_that_knows_batches_alone_is_noticed: DedupByBatchHash,
    a_settlement_that_does_not_ask_for_its_month_is_noticed: RefundIntoTheWrongMonth,
    a_hold_that_does_not_expire_is_noticed: HoldWithoutExpiry,
    an_event_that_leaves_after_the_settlement_is_noticed: EventAfterSettle,
    a_check_before_the_increment_is_noticed: CheckThenIncrement,
    a_reservation_that_takes_again_is_noticed: ReserveTwice,
    a_month_that_begins_twice_is_noticed: RollOverTwice,
    roll_ups_apart_from_their_records_are_noticed: RollUpsApart,
    an_expiry_without_a_record_is_noticed: ExpireWithoutRecord,
    an_expiry_that_does_not_look_for_a_record_is_noticed: ExpireBlindly,
    a_gateway_that_fails_open_is_noticed: FailOpen,
    a_booking_that_does_not_ask_for_its_key_is_noticed: BookTwice,
    a_gateway_that_never_settles_is_noticed: NeverSettle,
    a_reservation_past_its_budgets_is_noticed: IgnoreBudgets,
    an_older_plan_that_wins_is_noticed: OlderPlanWins,
}
