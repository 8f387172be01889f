//! What must hold, and what must be possible: a model in which nothing happens would satisfy everything else.

use stateright::Property;

use crate::{
    calls::DEMAND,
    protocol::Protocol,
    state::{Aggregator, Call, Late, Planner, State, Sweeper},
    table::{CREDITS, PURCHASE, Period, Plan, Record, RollUp, Status, Units},
};

pub(crate) fn all() -> Vec<Property<Protocol>> {
    vec![
        Property::always("nothing goes below zero", nothing_below_zero),
        Property::always("allowance - left = charged, in each month at rest", books_balance),
        Property::always("roll-ups = records", roll_ups_are_records),
        Property::always("one record for each admitted request, at rest", one_record_each),
        Property::always("credits = ledger - charged, at rest", credits_are_the_ledger),
        Property::always("no vendor is called without a reservation", vendor_needs_a_hold),
        Property::always("one roll-over for a month", one_roll_over),
        Property::always("a change of plan stays", plan_stays),
        Property::always("rest is reached, and no hold is left", comes_to_rest),
        Property::sometimes("both are admitted", |_, s: &State| s.admitted.iter().count() == 2 && at_rest(s)),
        Property::sometimes("one is refused", |_, s: &State| s.calls.contains(&Call::Over) && s.admitted.is_empty()),
        Property::sometimes("both months are charged", |_, s: &State| Period::ALL.iter().all(|p| charged(s, *p) > 0) && at_rest(s)),
        Property::sometimes("a hold expires and is charged as held", |_, s: &State| {
            at_rest(s) && records(s, Period::First).any(|record| record.status == Status::Expired)
        }),
        Property::sometimes("a hold expires and is settled by its record", |_, s: &State| {
            at_rest(s) && s.calls.contains(&Call::Dead) && records(s, Period::First).all(|r| r.charged < DEMAND)
                && records(s, Period::First).count() == 1
        }),
        Property::sometimes("a hold is settled in a month that is over", |_, s: &State| {
            at_rest(s) && s.table.closing.is_some_and(|closing| closing.left == Plan::Large.allowance() - 1)
        }),
        Property::sometimes("a request that failed is given everything back", |_, s: &State| {
            at_rest(s) && matches!(s.calls[0], Call::Over) && s.late[0] == Late::None && s.admitted.is_empty()
        }),
    ]
}

/// Nothing runs and nothing waits, and no hold is left. A write that somebody gave up on may still be underway.
fn at_rest(state: &State) -> bool {
    is_quiet(state) && state.table.meter.holds == [None; 2]
}

fn is_quiet(state: &State) -> bool {
    state.calls.iter().all(|call| call.has_ended() || *call == Call::NEW)
        && state.queue.iter().flatten().all(|message| message.acknowledged)
        && state.aggregators == [Aggregator::Idle; 2]
        && state.sweeper == Sweeper::Idle
        && matches!(state.planner, Planner::Over | Planner::Reading)
}

fn records(state: &State, period: Period) -> impl Iterator<Item = Record> {
    state.table.records[period as usize].into_iter().flatten()
}

fn charged(state: &State, period: Period) -> Units {
    records(state, period).map(|record| record.charged).sum()
}

/// Invariant 1.
fn nothing_below_zero(_: &Protocol, state: &State) -> bool {
    let meter = &state.table.meter;
    meter.left >= 0 && meter.credits >= 0 && state.table.closing.is_none_or(|closing| closing.left >= 0)
}

/// Invariant 2.
fn books_balance(_: &Protocol, state: &State) -> bool {
    let meter = &state.table.meter;
    let charged_by_meter = |period| match &state.table.closing {
        _ if meter.period == period => meter.given - meter.left,
        Some(closing) if period < meter.period => closing.given - closing.left,
        _ => 0,
    };
    !at_rest(state) || Period::ALL.into_iter().all(|period| charged_by_meter(period) == charged(state, period))
}

/// Invariant 3, first part: not only at rest.
fn roll_ups_are_records(_: &Protocol, state: &State) -> bool {
    Period::ALL.into_iter().all(|period| {
        let requests = u8::try_from(records(state, period).count()).unwrap_or(u8::MAX);
        state.table.roll_ups[period as usize] == RollUp { requests, charged: charged(state, period) }
    })
}

/// Invariant 3, second part. A request that was not admitted has none, unless it held something that nobody gave back:
/// then that was charged when it expired.
fn one_record_each(_: &Protocol, state: &State) -> bool {
    !at_rest(state)
        || (0..2).all(|request| {
            let mut records = Period::ALL.into_iter().filter_map(|period| state.table.record(period, request));
            match (records.next(), records.next()) {
                (_, Some(_)) => false,
                (Some(record), None) => state.admitted.contains(request) || record.status == Status::Expired,
                (None, None) => !state.admitted.contains(request),
            }
        })
}

/// Invariant 4.
fn credits_are_the_ledger(_: &Protocol, state: &State) -> bool {
    let used: Units = Period::ALL.into_iter().map(|period| charged(state, period)).sum();
    let bought = if state.table.booked > 0 { PURCHASE } else { 0 };
    state.table.booked <= 1 && (!at_rest(state) || state.table.meter.credits == CREDITS + bought - used)
}

/// Invariant 5.
fn vendor_needs_a_hold(_: &Protocol, state: &State) -> bool {
    let holds = state.table.meter.holds;
    (0..2).all(|request| !matches!(state.calls[request], Call::AtVendor(_)) || holds[request].is_some())
}

/// Invariant 6.
fn one_roll_over(_: &Protocol, state: &State) -> bool {
    let table = &state.table;
    let turned = table.meter.period == Period::Second;
    table.rolled_over == u8::from(turned) && table.closing.is_some() == turned
}

fn plan_stays(protocol: &Protocol, state: &State) -> bool {
    let meter = &state.table.meter;
    !protocol.plan_changes || state.planner != Planner::Over || meter.plan == Plan::Small
}

/// From here, when nothing fails any more.
fn comes_to_rest(protocol: &Protocol, state: &State) -> bool {
    at_rest(state) || protocol.come_to_rest(state).is_some_and(|state| at_rest(&state))
}
