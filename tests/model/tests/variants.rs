//! Each way of doing it wrong is found out, and the README says after how many steps.

use stateright::{Checker as _, HasDiscoveries, Model as _};
use tenantry_model::{Action, Protocol, Variant};

/// The shortest way to a violation, and what it violates.
fn counterexample(protocol: Protocol) -> Option<(&'static str, Vec<Action>)> {
    let is_failure = |name| protocol.property(name).expectation.discovery_is_failure();
    let find = |longest: Option<usize>| {
        let checker = protocol.checker().finish_when(HasDiscoveries::AnyFailures);
        // Counted in states instead of steps, and without the last.
        let checker = match longest {
            Some(longest) => checker.target_max_depth(longest + 2),
            None => checker,
        };
        let found = checker.spawn_bfs().join().discoveries();
        let failures = found.into_iter().filter(|(name, _)| is_failure(name));
        failures.map(|(name, path)| (path.into_actions(), name)).min_by_key(|(actions, name)| (actions.len(), *name))
    };
    let (mut actions, mut name) = find(None)?;
    // The checker looks at a block of states before it stops, and remembers the last violation.
    while let Some(shorter) = find(Some(actions.len() - 1)) {
        (actions, name) = shorter;
    }
    Some((name, actions))
}

/// The README's row of a variant. Prints the counterexample.
fn is_found_out(model: &str, protocol: Protocol, variant: Variant) {
    let found = counterexample(protocol.broken(variant));
    let (violated, actions) = found.unwrap_or_default();
    println!("{variant:?}: {} steps to a state in which not: {violated}", actions.len());
    for (number, action) in actions.iter().enumerate() {
        println!("{:>3}. {action}", number + 1);
    }
    let row = format!("| `{variant:?}` | `{model}` | {} | {violated} |", actions.len());
    assert!(!actions.is_empty(), "{variant:?} has no counterexample");
    assert!(include_str!("../README.md").contains(&row), "the README does not say:\n{row}");
}

macro_rules! found_out {
    ($($name:ident: $model:ident, $variant:ident;)*) => {
        $(#[test]
        fn $name() {
            is_found_out(stringify!($model), Protocol::$model, Variant::$variant);
        })*
    };
}

found_out! {
    settle_twice: CORE, SettleTwice;
    refund_into_wrong_month: CORE, RefundIntoWrongMonth;
    check_then_increment: CORE, CheckThenIncrement;
    reserve_repeated: CORE, ReserveRepeated;
    hold_without_expiry: CORE, HoldWithoutExpiry;
    hold_ends_before_its_call: CORE, HoldEndsBeforeItsCall;
    event_after_settle: CORE, EventAfterSettle;
    expire_without_looking: CORE, ExpireWithoutLooking;
    expire_in_two_writes: CORE, ExpireInTwoWrites;
    dedup_by_batch_hash: CORE, DedupByBatchHash;
    roll_ups_apart: CORE, RollUpsApart;
    late_event_in_month_of_arrival: CORE, LateEventInMonthOfArrival;
    roll_over_without_left: CORE, RollOverWithoutLeft;
    roll_over_twice: CORE, RollOverTwice;
    roll_over_without_plan: PLAN, RollOverWithoutPlan;
    booked_without_key: CREDITS, BookedWithoutKey;
    repeated_write_arrives_late: CORE, RepeatedWriteArrivesLate;
}
